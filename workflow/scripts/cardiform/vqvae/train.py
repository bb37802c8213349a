"""What the three stages of the sparse VQ-VAE share: data, weights, model.pt; and stage 1's fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..cohort import splits
from ..errors import InputError, problem
from ..files import sha256_file, sha256_json, sha256_sources, write_json
from ..options.vqvae import VqvaeCodebookOptions, VqvaeOptions, VqvaeStageOptions
from ..pictures.curves import plot_curves, plot_usage
from ..training.checkpoint import load_model, restored, save_model
from ..training.distributed import World, is_main
from ..training.engine import Outcome, parameter_counts, train
from ..training.sampling import validation_batches
from .data import VoxelDataset, collate, find_instances
from .model import SparseVQVAE
from .quantizer import CodebookQuantizer, kmeans, statistics, usage_figures
from .task import VqvaeTask, band_of

log = logging.getLogger(__name__)

EMA_STREAM = 1  # keeps the draws of the moving means apart from those of k-means


@dataclass(frozen=True)
class Sets:
    """The training and validation samples of a route."""

    train: VoxelDataset
    validation: VoxelDataset

    @classmethod
    def load(cls, args, options: VqvaeOptions, seed: int) -> Sets:
        """From the files of the command line; InputError where nothing can be trained on."""
        found = {
            part: find_instances(args.manifest, [c for c, _ in splits.read_split(path)])
            for part, path in (("train", args.train), ("validation", args.validation))
        }
        if not found["train"]:
            fact = "has no case with sparse voxels"
            remedy = "look at the manifests for the reasons, or lower the split's shares"
            raise InputError(problem(args.train, fact, remedy))
        log.info(
            "%d training samples with %s voxels, %d validation samples",
            len(found["train"]),
            f"{sum(i.voxels for i in found['train']):,}",
            len(found["validation"]),
        )
        return cls(
            VoxelDataset(found["train"], options.max_voxels, augment=options.augment, seed=seed),
            VoxelDataset(found["validation"], options.max_voxels, augment=False),
        )

    def identity(self) -> dict[str, str]:
        """Hashes of both: a change starts a training afresh."""
        return {
            name: sha256_json([[i.case_id, i.name, i.sha256] for i in part.instances])
            for name, part in (("training data", self.train), ("validation data", self.validation))
        }


def load_weights(model: SparseVQVAE, path: Path) -> None:
    """Give encoder and decoder the weights of a model.pt; its quantiser stays out of it.

    Raises
    ------
    InputError
        A weight is missing, superfluous or of another shape; all differences are named.
    """
    weights = load_model(path)["weights"]
    given = {n: w for n, w in weights.items() if not n.startswith("quantizer.")}
    wanted = {n: w for n, w in model.state_dict().items() if not n.startswith("quantizer.")}
    differing = [f"{n} is missing" for n in wanted if n not in given]
    differing += [f"{n} is unknown" for n in given if n not in wanted]
    differing += [
        f"{n} is {tuple(given[n].shape)}, the model has {tuple(w.shape)}"
        for n, w in wanted.items()
        if n in given and given[n].shape != w.shape
    ]
    if differing:
        fact = f"does not fit the model: {'; '.join(differing)}"
        raise InputError(
            problem(path, fact, "set vqvae.channels, .blocks and .latent_dim as there")
        )
    model.load_state_dict(given, strict=False)


def load_quantized(path: Path, options: VqvaeOptions) -> tuple[SparseVQVAE, VqvaeCodebookOptions]:
    """The model of stage 1 or 2 and how its quantiser was made.

    Raises
    ------
    InputError
        The file holds no quantiser, or does not fit ``options``.
    """
    stored = load_model(path)
    if "codebook" not in stored["options"]:
        raise InputError(problem(path, "has no quantiser", "name the model.pt of stage 1 or 2"))
    codebook = restored(VqvaeCodebookOptions, stored["options"]["codebook"])
    model = SparseVQVAE.from_options(options, codebook)
    load_weights(model, path)
    model.load_state_dict(stored["weights"])
    return model, codebook


def load_network(path: Path) -> SparseVQVAE:
    """The network of any stage's model.pt, for use: eval mode, the torch backend."""
    stored = load_model(path)["options"]
    if "vqvae" not in stored:
        raise InputError(problem(path, "is no sparse VQ-VAE", "name the model.pt of a stage"))
    options = replace(restored(VqvaeOptions, stored["vqvae"]), backend="torch")
    if "codebook" in stored:
        return load_quantized(path, options)[0].eval()
    model = SparseVQVAE.from_options(options)
    load_weights(model, path)
    return model.eval()


def run_stage(
    task: VqvaeTask, sets: Sets, stage: VqvaeStageOptions, out: Path, weights: Path | None
) -> tuple[Outcome, dict]:
    """Train a stage through the engine: the outcome and its figures for metrics.json.

    weights : the model.pt that it starts from.
    """
    start = {} if weights is None else {"weights": sha256_file(weights)}
    outcome = train(
        task,
        sets.train,
        sets.validation,
        options=stage,
        out=out,
        identity={"vqvae": _shaping(task.options), **sets.identity(), **start},
        collate=collate,
    )
    if is_main():
        plot_curves(outcome.out / "metrics.jsonl", outcome.out / "curves.png")
    return outcome, {
        "validation": outcome.best or outcome.last,
        "before": outcome.baseline,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "source_sha256": outcome.source,
    }


def write_model(
    out: Path,
    weights: Mapping[str, Tensor],
    options: VqvaeOptions,
    codebook: VqvaeCodebookOptions | None,
    sets: Sets,
    figures: Mapping,
) -> None:
    """model.pt and metrics.json of a stage."""
    stored: dict = {"vqvae": vars(options)}
    if codebook is not None:
        stored["codebook"] = vars(codebook)
    record = {
        **figures,
        "samples": {"train": len(sets.train), "validation": len(sets.validation)},
    }
    save_model(out / "model.pt", weights, options=stored, labels=[], figures=record)
    write_json(out / "metrics.json", record)
    log.info("model.pt and metrics.json are in %s", out)


@torch.no_grad()
def fit_codebook(
    task: VqvaeTask, latents: Tensor, sets: Sets, stage: VqvaeCodebookOptions, device: torch.device
) -> dict:
    """Stage 1 without gradients: k-means on all training latents, then moving means.

    With the encoder frozen, the mean squared distance between latents and codes is all that
    moves a codebook, and k-means minimises just that; gradient steps from random codes end
    with a few of them in use.

    latents : (N, D) of all training samples, on the CPU (:func:`cached_latents`).

    Returns
    -------
    Figures before and after, as of a training.
    """
    model = task.model.to(device).eval()
    quantizer = model.quantizer
    assert isinstance(quantizer, CodebookQuantizer)
    counts = parameter_counts(model)
    log.info("parameters: %s", ", ".join(f"{n:,} {name}" for name, n in counts.items()))
    world = World(0, 1, device)
    before = task.evaluate(validation_batches(sets.validation, stage, world, collate))
    log.info("%s training latents for %s codes", f"{len(latents):,}", f"{quantizer.size:,}")
    if len(latents) < quantizer.size:
        fact = f"gives {len(latents):,} latents for {quantizer.size:,} codes"
        remedy = "lower vqvae_codebook.codebook_size to a twentieth of the latents"
        raise InputError(problem("the training split", fact, remedy))
    generator = torch.Generator().manual_seed(stage.seed)
    seen = latents
    if len(latents) > stage.kmeans_latents:
        rows = torch.randperm(len(latents), generator=generator)[: stage.kmeans_latents]
        seen = latents[rows]
    codes, members = kmeans(seen.to(device), quantizer.size, stage.kmeans_iterations, generator)
    quantizer.start(codes, members)
    if stage.method == "kmeans_ema":
        follow_latents(quantizer, latents, stage, device)
    figures = task.evaluate(validation_batches(sets.validation, stage, world, collate))
    return {"validation": figures, "before": before, "source_sha256": sha256_sources()}


@torch.no_grad()
def cached_latents(
    model: SparseVQVAE, dataset: VoxelDataset, stage: VqvaeStageOptions, device: torch.device
) -> Tensor:
    """(N, D) float32 latents of every sample, on the CPU; without augmentation."""
    model.to(device).eval()
    plain = VoxelDataset(dataset.instances, dataset.budget, augment=False)
    parts = [
        model.encode(band_of(batch)).feats.float().cpu()
        for batch in validation_batches(plain, stage, World(0, 1, device), collate)
    ]
    return torch.cat(parts)


@torch.no_grad()
def training_usage(model: SparseVQVAE, latents: Tensor, out: Path) -> dict[str, float]:
    """usage and perplexity over all (N, D) training latents; usage.png in ``out``."""
    quantizer = model.quantizer
    assert quantizer is not None
    device = next(model.parameters()).device
    indices = [quantizer.encode_indices(rows.to(device)).cpu() for rows in latents.split(1 << 18)]
    counts = torch.bincount(torch.cat(indices), minlength=quantizer.size)
    plot_usage(counts.tolist(), out / "usage.png")
    return {**usage_figures(counts), "latents": len(latents)}


def follow_latents(
    quantizer: CodebookQuantizer, latents: Tensor, stage: VqvaeCodebookOptions, device
) -> None:
    """Moving means over the cached latents in random order; codes that die are revived."""
    torch.manual_seed(stage.seed + EMA_STREAM)
    for epoch in range(stage.ema_epochs):
        revived = 0
        for rows in torch.randperm(len(latents)).split(stage.ema_batch):
            batch = latents[rows].to(device)
            counts, sums = statistics(batch, quantizer.encode_indices(batch), quantizer.size)
            revived += quantizer.follow(counts, sums, batch, stage.revive_below)
        log.info("moving means, pass %d of %d: %d revived", epoch + 1, stage.ema_epochs, revived)


def check_usage(usage: float, least: float, where: str | Path) -> None:
    """InputError where the codebook has collapsed."""
    if usage < least:
        fact = f"the training latents use {usage:.1%} of the codes, less than {least:.0%}"
        remedy = "set vqvae_codebook.method to kmeans_ema, lower its size, or train stage 0 longer"
        raise InputError(problem(where, fact, remedy))


def _shaping(options: VqvaeOptions) -> dict:
    """The options that decide the result; the weights that ``pretrained`` names are hashed."""
    return {n: v for n, v in vars(options).items() if n not in ("pretrained", "checkpointing")}
