"""The trainings of the sparse VQ-VAE: continuous, codebook alone, all together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..geometry.closed_band import Solid
from ..geometry.frame import Frame
from ..options.vqvae import VqvaeCodebookOptions, VqvaeJointOptions, VqvaeOptions, VqvaeStageOptions
from ..pictures.slices import section_picture
from ..sparse.tensor import SparseTensor, Structure
from .data import VoxelBatch
from .model import LEVELS, Decoded, SparseVQVAE
from .quantizer import CodebookQuantizer, Quantized, Quantizer, statistics, usage_figures
from .windows import SampleWindows, WindowFigures

UNIT = Frame(np.zeros(3), 1.0)
PREVIEW_MARGIN = 1.2
CROSSED_VOXELS = 1.5  # where the sign counts: the voxels that the surface can cross


class VqvaeTask:
    """What the engine needs; the stages differ in what is trained and in their weights.

    model : without a quantiser in stage 0.
    trained : ``all``, or ``quantizer`` (stage 1: encoder and decoder stay as they are).
    unfreeze_steps : steps until the next finer level is trained too; 0: all are from the start.
    lambda_vq, lambda_commitment : weights of the distances between latents and codes. Only
        stage 2 (:meth:`joint`) weighs them against other terms, so only it has options for them.
    """

    updates = ("model",)
    memory_options = (VqvaeOptions,)

    def __init__(
        self,
        model: SparseVQVAE,
        options: VqvaeOptions,
        stage: VqvaeStageOptions,
        codebook: VqvaeCodebookOptions | None = None,
        trained: str = "all",
        lambda_vq: float = VqvaeJointOptions.lambda_vq,
        lambda_commitment: float = VqvaeJointOptions.lambda_commitment,
        unfreeze_steps: int = 0,
    ):
        self.model, self.options, self.stage, self.codebook = model, options, stage, codebook
        self.module: nn.Module = model
        self.quantizer = model.quantizer
        self.lambda_vq, self.lambda_commitment = lambda_vq, lambda_commitment
        if unfreeze_steps:  # the engine asks every task that has it
            self.held = partial(self._held, unfreeze_steps)
        # of the step so far: counts and sums of the codes, latents of the last micro-batch
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        for parameter in model.autoencoder_parameters():
            parameter.requires_grad_(trained == "all")

    @classmethod
    def joint(
        cls,
        model: SparseVQVAE,
        options: VqvaeOptions,
        stage: VqvaeJointOptions,
        codebook: VqvaeCodebookOptions,
    ) -> VqvaeTask:
        """Stage 2: everything is trained, with the weights of its options."""
        return cls(
            model,
            options,
            stage,
            codebook,
            lambda_vq=stage.lambda_vq,
            lambda_commitment=stage.lambda_commitment,
            unfreeze_steps=stage.unfreeze_steps,
        )

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        follows = isinstance(self.quantizer, CodebookQuantizer) and (
            self.quantizer.learned_by == "ema"
        )
        kept = [p for p in self.model.autoencoder_parameters() if p.requires_grad]
        moved = [] if self.quantizer is None or follows else list(self.quantizer.parameters())
        return [*kept, *moved]

    def _held(self, unfreeze_steps: int, update: str, step: int) -> list[nn.Parameter]:
        """What step ``step`` leaves as it is: the levels whose turn has not come."""
        return self.model.finer_parameters(max(LEVELS - step // unfreeze_steps, 0))

    def loss(self, batch: VoxelBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the terms (0-d) and each term, detached."""
        decoded, latents, codes = self.model(band_of(batch), SampleWindows.of_batch(batch))
        terms = self._terms(batch, decoded, codes)
        total = self._weighted(terms)
        figures = {"loss": total, **terms}
        if codes is not None and self.quantizer is not None:
            counts = self._observe(self.quantizer, latents.feats.detach(), codes.indices)
            figures |= self.quantizer.recent_figures(counts)
        return total, {name: value.detach() for name, value in figures.items()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the codes follow their latents, with the statistics of all ranks."""
        if self._seen is None or self.quantizer is None:
            return
        counts, sums, latents = self._seen
        self._seen = None
        if dist.is_initialized():
            for total in (counts, sums):
                dist.all_reduce(total)
            latents = _of_last_rank(latents)
        self.quantizer.observe(counts)
        if isinstance(self.quantizer, CodebookQuantizer) and self.quantizer.learned_by == "ema":
            assert self.codebook is not None
            self.quantizer.follow(counts, sums, latents, self.codebook.revive_below)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[VoxelBatch]) -> dict[str, float]:
        """Means over all voxels, structure figures per halving, and the codes' use.

        The decoder is given the true structure here; what it does without is measured by
        reconstruct_vqvae. ``iou`` is that of the inside, among voxels within 1.5 of the surface.
        With several windows the error, ``iou`` and the codes' use are those of each, too.
        """
        sums: dict[str, float] = {}
        hits = torch.zeros(LEVELS, 3, dtype=torch.float64)
        counts = None
        by_window = WindowFigures(self.model.windows)
        for batch in batches:
            samples = SampleWindows.of_batch(batch)
            decoded, latents, codes = self.model(band_of(batch), samples)
            terms = self._terms(batch, decoded, codes)
            predicted, truth, coords = decoded.field.feats.float(), batch["sdf"], batch["coords"]
            if "known" in batch:
                predicted, truth, coords = (x[batch["known"]] for x in (predicted, truth, coords))
            if not len(truth):
                continue
            near = truth.abs() * batch["band_voxels"] < CROSSED_VOXELS
            inside, wanted = (predicted < 0) & near, (truth < 0) & near
            voxels = len(truth)
            error = (predicted - truth).abs()
            found = {
                "voxels": voxels,
                "both": (inside & wanted).sum(),
                "either": (inside | wanted).sum(),
                "l1_voxels": voxels * batch["band_voxels"] * error.mean(),
                "loss": voxels * self._weighted(terms),
                **{name: voxels * value for name, value in terms.items()},
            }
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            hits += _structure_hits(decoded, self._occupied(batch))
            if codes is not None and self.quantizer is not None:
                used = torch.bincount(codes.indices, minlength=self.quantizer.size).cpu()
                counts = used if counts is None else counts + used
            if samples is not None:
                by_window.add(
                    samples.of_rows(coords),
                    voxels=torch.ones_like(error[:, 0]),
                    error=batch["band_voxels"] * error[:, 0],
                    both=(inside & wanted)[:, 0],
                    either=(inside | wanted)[:, 0],
                )
                if codes is not None and self.quantizer is not None:
                    of_latents = samples.of_rows(latents.structure.coords)
                    by_window.add_codes(of_latents, codes.indices, self.quantizer.size)
        return _validation_figures(sums, hits, counts) | by_window.figures()

    @torch.no_grad()
    def preview(self, batches: Iterable[VoxelBatch], folder: Path, step: int) -> None:
        """A PNG of the first validation sample: sections through its middle of what is decoded
        without its structure, and the voxels nearest to the true surface."""
        batch = next(iter(batches))
        rows = batch["coords"][:, 0] == 0
        coords, sdf = batch["coords"][rows][:, 1:], batch["sdf"][rows]
        resolution = batch["resolution"]
        samples = SampleWindows.of_batch(batch)
        band = SparseTensor(sdf, Structure.of_samples([coords], resolution))
        latents = self.model.encode(band, samples)
        if self.quantizer is not None:
            latents = latents.replace(self.quantizer(latents.feats).values)
        field = self.model.decode(latents, samples=samples).field
        solid = Solid.of_band(
            field.structure.coords[:, 1:].cpu().numpy(),
            field.feats[:, 0].float().cpu().numpy(),
            resolution,
            UNIT,
        )

        far = sdf[:, 0].abs() * batch["band_voxels"]
        surface = coords[far <= far.min().clamp(min=0.5)].cpu().numpy()
        low, high = surface.min(axis=0), surface.max(axis=0)
        middle, reach = (low + high) / 2, PREVIEW_MARGIN * max((high - low).max(), 1) / 2

        def distances(points: np.ndarray) -> np.ndarray:
            return solid.lookup(np.rint(middle + points * reach), resolution, UNIT)[:, None]

        section_picture(
            folder / f"{step:07d}.png",
            distances,
            (surface - middle) / reach,
            np.zeros(len(surface), np.int64),
            ["#b5654a"],
            title=f"{batch['case_id'][0]}, step {step}",
        )

    def _terms(
        self, batch: VoxelBatch, decoded: Decoded, codes: Quantized | None
    ) -> dict[str, Tensor]:
        error = decoded.field.feats.float() - batch["sdf"]
        if "known" in batch:  # caps are no surface: what is made there counts for nothing
            error = _counting(error, batch["known"][:, None])
        l1, l2 = error.abs().mean(), error.square().mean()
        terms = {
            "recon": self.stage.weight_l1 * l1 + self.stage.weight_l2 * l2,
            "structure": sum(
                (
                    binary_cross_entropy_with_logits(
                        _counting(logits.float(), counts), _counting(occupied.float(), counts)
                    )
                    for logits, occupied, counts in zip(
                        decoded.logits, self._occupied(batch), self._known_children(batch)
                    )
                ),
                start=l1.new_zeros(()),
            ),
        }
        if codes is not None:
            terms |= {"vq": codes.vq, "commitment": codes.commitment}
        return terms

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        total = terms["recon"] + self.options.weight_structure * terms["structure"]
        if "vq" in terms:
            total = total + self.lambda_vq * terms["vq"]
            total = total + self.lambda_commitment * terms["commitment"]
        return total

    def _occupied(self, batch: VoxelBatch) -> list[Tensor]:
        """(M, 8) bool per halving, coarse to fine: which children are there."""
        structure = band_of(batch).structure
        found: list[Tensor] = []
        for _ in range(LEVELS):
            found.insert(0, structure.halved.occupied)
            structure = structure.halved.coarse
        return found

    def _known_children(self, batch: VoxelBatch) -> list[Tensor | None]:
        """(M, 8) bool per halving, coarse to fine: of which children is known whether they are
        there; None where no scan cuts anything.

        One that is there has a known voxel in it. One that is not may be where what is cut off
        would be, unless all voxels of its parent are known.
        """
        if "known" not in batch:
            return [None] * LEVELS
        structure = band_of(batch).structure
        some = every = batch["known"]
        found: list[Tensor | None] = []
        for _ in range(LEVELS):
            halving = structure.halved
            rows = halving.children.long()
            some = torch.cat([some, some.new_zeros(1)])[rows]
            every = torch.cat([every, every.new_ones(1)])[rows].all(dim=1)
            found.insert(0, torch.where(halving.occupied, some, every[:, None]))
            some, structure = some.any(dim=1), halving.coarse
        return found

    def _observe(self, quantizer: Quantizer, latents: Tensor, indices: Tensor) -> Tensor:
        """Add a micro-batch to the statistics of the step; how many latents each code has in it."""
        counts, sums = statistics(latents, indices, quantizer.size)
        if self._seen is None:
            self._seen = counts, sums, latents
        else:
            self._seen = self._seen[0] + counts, self._seen[1] + sums, latents
        return counts


def _counting(values: Tensor, counts: Tensor | None) -> Tensor:
    """(K,) the values that count, or a single 0 where none does; all as they are without counts."""
    if counts is None:
        return values
    return values[counts] if bool(counts.any()) else 0 * values.flatten()[:1]


def band_of(batch: VoxelBatch) -> SparseTensor:
    """The (N, 1) distances of a batch on their structure, made once per batch."""
    if "structure" not in batch:
        batch["structure"] = Structure(batch["coords"], batch["resolution"], batch["samples"])
    return SparseTensor(batch["sdf"], batch["structure"])


def _structure_hits(decoded: Decoded, occupied: list[Tensor]) -> Tensor:
    """(levels, 3): children predicted and there, there, predicted."""
    rows = []
    for logits, truth in zip(decoded.logits, occupied):
        said = logits > 0
        rows.append(torch.stack([(said & truth).sum(), truth.sum(), said.sum()]))
    return torch.stack(rows).double().cpu()


def _validation_figures(
    sums: Mapping[str, float], hits: Tensor, counts: Tensor | None
) -> dict[str, float]:
    if not sums:
        return {}
    voxels = sums["voxels"]
    figures = {n: v / voxels for n, v in sums.items() if n not in ("voxels", "both", "either")}
    figures["iou"] = sums["both"] / max(sums["either"], 1.0)
    for level, (both, there, said) in enumerate(hits.tolist()):
        resolution = 2 ** (LEVELS - 1 - level)
        figures[f"recall_{resolution}"] = both / max(there, 1.0)
        figures[f"precision_{resolution}"] = both / max(said, 1.0)
    return figures | ({} if counts is None else usage_figures(counts))


def _of_last_rank(latents: Tensor) -> Tensor:
    """The (M, D) latents of the last rank, which has the last micro-batch of the step.

    The same as one process that accumulates is left with; and as nothing is drawn here, all
    ranks go on with the same random numbers.
    """
    last = dist.get_world_size() - 1
    count = torch.tensor(len(latents), device=latents.device)
    dist.broadcast(count, src=last)
    if dist.get_rank() != last:
        latents = latents.new_empty(int(count), latents.shape[1])
    latents = latents.contiguous()
    dist.broadcast(latents, src=last)
    return latents
