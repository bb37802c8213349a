"""Training of the VecSet autoencoder: truncated distances, surface, eikonal, KL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..labels import LabelTable
from ..options.vecset import VecsetOptions
from ..pictures.slices import section_picture
from .data import PointBatch
from .model import VecSet

# Corners of a tetrahedron: four values give the gradient (Quilez, "normals for an SDF").
TETRAHEDRON = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))
# Larger steps average away the ripple that the eikonal term is there to remove.
TETRAHEDRON_STEP = 1e-3


class VecsetTask:
    """What the engine needs to train a :class:`~cardiform.vecset.model.VecSet`."""

    updates = ("model",)

    def __init__(self, options: VecsetOptions, labels: LabelTable):
        self.options, self.labels = options, labels
        self.model = VecSet.from_options(options, len(labels))
        self.module: nn.Module = self.model

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.model.parameters()

    def loss(self, batch: PointBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the terms (0-d) and each term, detached."""
        terms, tokens, _ = self._terms(batch)
        options = self.options
        if options.weight_eikonal and step >= options.eikonal_start:
            points, channels, counts = self.eikonal_points(batch)
            gradient = {"autograd": exact_gradient, "tetra": tetrahedral_gradient}[options.eikonal]
            slope = gradient(self.model, tokens, points, channels).norm(dim=-1)
            terms["eikonal"] = _mean(bounded_square(slope - 1), counts)
        total = self._weighted(terms)
        return total, {"loss": total.detach()} | {k: v.detach() for k, v in terms.items()}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[PointBatch]) -> dict[str, float]:
        """Mean terms over the cases, and Dice per class over all volume and near queries.

        ``loss`` leaves out the eikonal term. ``constant_loss`` is the loss of predicting
        "outside" everywhere: a network above it has learned nothing.
        """
        sums: dict[str, float] = {}
        both = torch.zeros(len(self.labels), dtype=torch.float64)
        either = torch.zeros_like(both)
        cases = 0
        for batch in batches:
            terms, _, predicted = self._terms(batch)
            terms["loss"] = self._weighted(terms)
            terms["constant_loss"] = self._weighted(self._constant_terms(batch))
            size = len(batch["points"])
            cases += size
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + size * float(value)
            target, known = self._target(batch)
            inside, truth = predicted[:, : target.shape[1]] < 0, target < 0
            both += (inside & truth & known).sum((0, 1)).double().cpu()
            either += ((inside & known).sum((0, 1)) + (truth & known).sum((0, 1))).double().cpu()
        figures = {name: value / max(cases, 1) for name, value in sums.items()}
        dice = {
            f"dice_{name}": float(2 * b / e)
            for name, b, e in zip(self.labels.names, both, either)
            if e > 0
        }
        mean = {"dice": sum(dice.values()) / len(dice)} if dice else {}
        return figures | mean | dice

    @torch.no_grad()
    def preview(self, batches: Iterable[PointBatch], folder: Path, step: int) -> None:
        """A PNG of the first validation case: the field's sections and the encoded points."""
        batch = next(iter(batches))
        points = batch["points"][:1]
        tokens = self.model.expand(self.model.encode(points, batch["fps"][:1]))

        def distances(positions: np.ndarray) -> np.ndarray:
            queries = torch.from_numpy(positions)[None].to(points.device)
            return self.model.query(tokens, queries)[0].float().cpu().numpy()

        shown = points[0].float().cpu().numpy()
        section_picture(
            folder / f"{step:07d}.png",
            distances,
            shown[:, :3],
            shown[:, 3 : 3 + len(self.labels)].argmax(axis=1),
            [label.color for label in self.labels],
            title=f"{batch['case_id'][0]}, step {step}",
        )

    def _terms(self, batch: PointBatch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Terms that need no gradient of the field; tokens; distances (B, V + Q + S, C)."""
        queries = torch.cat([batch["volume"], batch["near"], batch["surface"]], dim=1)
        predicted, tokens, penalty = self.module(batch["points"], batch["fps"], queries)
        terms = self.data_terms(batch, predicted)
        if self.options.bottleneck == "kl":
            terms["kl"] = penalty
        return terms, tokens, predicted

    def data_terms(self, batch: PointBatch, predicted: Tensor) -> dict[str, Tensor]:
        """The terms of distances (B, V + Q + S, C) at the queries of a batch, 0-d each."""
        target, known = self._target(batch)
        error = truncated_error(predicted[:, : target.shape[1]], target, self.options.truncation)
        volume = batch["volume"].shape[1]
        own = predicted[:, target.shape[1] :].gather(2, batch["surface_channel"][..., None])
        if "hidden" not in batch:
            return {
                "volume": _mean(error[:, :volume], known[:, :volume]),
                "near": _mean(error[:, volume:], known[:, volume:]),
                "surface": own.abs().mean(),
            }
        counts = counting(batch, known)
        seen = ~batch["hidden"].gather(1, batch["surface_channel"])
        return {
            "volume": (error * counts)[:, :volume].sum() / counts[:, :volume].sum().clamp(min=1),
            "near": (error * counts)[:, volume:].sum() / counts[:, volume:].sum().clamp(min=1),
            "surface": _mean(own.squeeze(2).abs(), seen),
        }

    def _constant_terms(self, batch: PointBatch) -> dict[str, Tensor]:
        points = sum(batch[name].shape[1] for name in ("volume", "near", "surface"))
        shape = (len(batch["points"]), points, len(self.labels))
        return self.data_terms(
            batch, torch.full(shape, self.options.truncation, device=batch["points"].device)
        )

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(getattr(self.options, f"weight_{name}") * v for name, v in terms.items())

    def _target(self, batch: PointBatch) -> tuple[Tensor, Tensor]:
        """Truncated distances (B, V + Q, C) without NaN, and which of them are known."""
        target = torch.cat([batch["volume_sdf"], batch["near_sdf"]], dim=1)
        known = target.isfinite() & batch["annotated"][:, None]
        limit = self.options.truncation
        return torch.where(known, target, 0.0).clamp(-limit, limit), known

    def eikonal_points(self, batch: PointBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Random positions (B, E, 3), a class for each (B, E), whether it counts (B, E).

        A class counts where its target is not truncated: the field is flat elsewhere.
        """
        target, known = self._target(batch)
        positions = torch.cat([batch["volume"], batch["near"]], dim=1)
        rows = torch.randperm(positions.shape[1], device=positions.device)
        rows = rows[: self.options.eikonal_queries]
        if "hidden" in batch:  # where several shapes may be the slope is less than 1
            known = known & ~batch["hidden"][:, None]
        sloped = known[:, rows] & (target[:, rows].abs() < self.options.truncation)
        channels = (torch.rand_like(sloped, dtype=torch.float32) * sloped).argmax(dim=-1)
        counts = sloped.gather(2, channels[..., None]).squeeze(-1)
        return positions[:, rows], channels, counts


def counting(batch: PointBatch, known: Tensor) -> Tensor:
    """(B, V + Q, C) float32: how much each distance counts where classes are hidden.

    Of hidden classes near queries count only where they were drawn at what is seen (see
    :meth:`cardiform.vecset.parts.PartDataset.counted`).
    """
    apart = batch["hidden"][:, None] & batch["near_hidden"][..., None]
    volume = torch.ones_like(known[:, : known.shape[1] - apart.shape[1]])
    return (known & torch.cat([volume, ~apart], dim=1)).float()


def bounded_square(x: Tensor) -> Tensor:
    """x^2 up to 1 and 2 |x| - 1 beyond (Huber): one steep point does not make the whole step."""
    return 2 * nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none")


def truncated_error(predicted: Tensor, target: Tensor, limit: float) -> Tensor:
    """|predicted - target|; where the target stands at the limit, a prediction beyond it is right.

    The network may then go on growing away from a surface, as distances do, where a clipped
    target would ask for a plateau. That takes most of the errors deep inside of chambers.
    """
    error = (predicted - target).abs()
    error = torch.where(target >= limit, (limit - predicted).clamp(min=0), error)
    return torch.where(target <= -limit, (predicted + limit).clamp(min=0), error)


def exact_gradient(model: VecSet, tokens: Tensor, points: Tensor, channels: Tensor) -> Tensor:
    """Gradient (B, E, 3) of one class distance per point, itself differentiable.

    Only the decoder is differentiated twice, in fp32 on the math kernel (the fused ones
    have no second derivative); trunk and encoder get first-order gradients through tokens.
    """
    points = points.detach().requires_grad_()
    with (
        torch.enable_grad(),
        torch.autocast(points.device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),
    ):
        distances = model.query(tokens.float(), points)
        chosen = distances.gather(2, channels[..., None]).sum()
        return torch.autograd.grad(chosen, points, create_graph=True)[0]


def tetrahedral_gradient(model: VecSet, tokens: Tensor, points: Tensor, channels: Tensor) -> Tensor:
    """The same by four evaluations at +-0.001 in fp32: no second derivative is needed."""
    corners = points.new_tensor(TETRAHEDRON)  # (4, 3)
    batch, count, _ = points.shape
    moved = (points[:, :, None] + TETRAHEDRON_STEP * corners).flatten(1, 2)  # (B, 4 E, 3)
    with torch.autocast(points.device.type, enabled=False):
        distances = model.query(tokens.float(), moved).view(batch, count, 4, -1)
    index = channels[..., None, None].expand(-1, -1, 4, 1)
    values = distances.gather(3, index).squeeze(-1)  # (B, E, 4)
    return values @ corners / (4 * TETRAHEDRON_STEP)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of the values that count; 0 where none does."""
    return torch.where(counts, values, 0.0).sum() / counts.sum().clamp(min=1)
