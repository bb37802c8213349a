"""The trainings of thin-structure refinement: cells with a head, and the NeAR auto-decoder."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..options.coronary import CoronaryOptions, NearOptions
from ..sparse.tensor import SparseTensor, Structure
from .data import NearBatch, PatchBatch
from .model import (
    NearAutoDecoder,
    build_cell_field,
    interpolated,
    structure_of,
)

LOSS_SCALE = 4.0  # squared truncations are small numbers
FOCAL_ALPHA = 0.25


class DenoiserTask:
    """What the engine needs to train :class:`CellField`."""

    updates = ("model",)

    def __init__(self, options: CoronaryOptions):
        self.options = options
        self.module = build_cell_field(options)

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.module.parameters()

    def loss(self, batch: PatchBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the truncated distances, and the Dice of the query points."""
        found = self._field(batch)
        squares = (found.float() - batch["values"]).square()
        # no point lies in an empty patch, and all of one may lie behind a cut
        error = LOSS_SCALE * (squares.mean() if len(squares) else squares.sum())
        points = dice(found < 0, batch["values"] < 0)
        return error, {"dice_points": points.detach()}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[PatchBatch]) -> dict[str, float]:
        """Against the repaired label on held-out cases, corrupted again in the same way each time.

        ``dice_start`` is that of the repair which the network adds to.
        """
        total, weight, hits = 0.0, 0, torch.zeros(4, dtype=torch.float64)
        for batch in batches:
            found = self._field(batch).float()
            wanted = batch["values"]
            total += float((found - wanted).square().sum())
            weight += len(wanted)
            structure = structure_of(batch)
            start = _start(batch, structure)
            hits += counts(found < 0, wanted < 0, start < 0)
        both, sizes, start_both, start_sizes = hits.tolist()
        return {
            "loss": LOSS_SCALE * total / max(weight, 1),
            "dice_points": 2 * both / max(sizes, 1),
            "dice_start": 2 * start_both / max(start_sizes, 1),
        }

    def _field(self, batch: PatchBatch) -> Tensor:
        structure = structure_of(batch)
        latent = self.module.encode(SparseTensor(batch["inputs"], structure))
        return self.module.field(latent, batch["points"])


class NearAutoDecoderTask:
    """What the engine needs to train the shape-only NeAR auto-decoder.

    cases : number of training cases; each has a vector.
    """

    updates = ("model",)

    def __init__(self, options: NearOptions, cases: int):
        self.options = options
        self.module = NearAutoDecoder(options.latent_dim, cases)

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.module.parameters()

    def loss(self, batch: NearBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Soft Dice, focal loss and the mean squared latent; the Dice of the query points."""
        latent = self.module.latents(batch["index"])
        logits = self.module.decoder.field(self.module.decoder.grids(latent), batch["points"])
        total = near_loss(logits.float(), batch["occupied"], self.options)
        total = total + self.options.weight_latent * latent.square().mean()
        points = dice(logits > 0, batch["occupied"] > 0)
        return total, {"dice_points": points.detach()}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[NearBatch]) -> dict[str, float]:
        """As documented: the training cases themselves, on uniform points, against the label.

        That is a figure of compression, not of repair.
        """
        hits, losses, number = torch.zeros(4, dtype=torch.float64), 0.0, 0
        for batch in batches:
            latent = self.module.latents(batch["index"])
            logits = self.module.decoder.field(self.module.decoder.grids(latent), batch["points"])
            wanted = batch["occupied"] > 0
            losses += float(near_loss(logits.float(), batch["occupied"], self.options))
            number += 1
            hits += counts(logits > 0, wanted, wanted)
        return {
            "loss": losses / max(number, 1),
            "dice_label": 2 * float(hits[0]) / max(float(hits[1]), 1),
        }


def near_loss(logits: Tensor, occupied: Tensor, options: NearOptions) -> Tensor:
    """0.7 soft Dice + 0.3 focal by default, over all points of the batch."""
    chance = torch.sigmoid(logits)
    overlap = 2 * (chance * occupied).sum() / (chance.sum() + occupied.sum() + 1e-6)
    entropy = F.binary_cross_entropy_with_logits(logits, occupied, reduction="none")
    right = torch.where(occupied > 0, chance, 1 - chance)
    focal = FOCAL_ALPHA * (1 - right).pow(options.focal_gamma) * entropy
    return options.weight_dice * (1 - overlap) + options.weight_focal * focal.mean()


def dice(found: Tensor, wanted: Tensor) -> Tensor:
    """Of two sets of points; 1 where both are empty."""
    sizes = found.sum() + wanted.sum()
    return torch.where(sizes > 0, 2 * (found & wanted).sum() / sizes.clamp(min=1), 1.0)


def counts(found: Tensor, wanted: Tensor, start: Tensor) -> Tensor:
    """(4,) float64: hits and sizes of two guesses at the same truth."""
    rows = [(guess & wanted).sum() for guess in (found, start)]
    sizes = [guess.sum() + wanted.sum() for guess in (found, start)]
    return torch.stack([rows[0], sizes[0], rows[1], sizes[1]]).double().cpu()


def _start(batch: PatchBatch, structure: Structure) -> Tensor:
    """(P,) what the network adds to, at the query points."""
    cells = SparseTensor(batch["inputs"][:, -1:] - 1, structure)
    return interpolated(cells, batch["points"])[:, 0] + 1
