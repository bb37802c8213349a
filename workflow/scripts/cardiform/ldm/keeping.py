"""Reconstructions and drawn hearts with the mean volumes that their classes should have."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..options.ldm import AutoencoderOptions, SamplingOptions
from ..training.distributed import choose_device
from .bonus import bonuses
from .coder import ShapeCoder
from .data import load_shape
from .generator import ShapeGenerator
from .hearts_on_grid import Grid
from .option_checks import fitting_sampler

log = logging.getLogger(__name__)

HEARTS = 64  # that are looked at, at most
MOST_VOXELS = 1 << 21  # of them all that could change their class: beyond it a random share
DECIMALS = 2  # of what is added: the same on every device
LIMIT = 1.0  # of what is added to a logit
APART = 1 << 62  # numbers of the hearts that are drawn for their volumes: no sample has them
AT_A_TIME = 8  # of these, at most


def keeping_volumes(
    weights: dict[str, Tensor], options: AutoencoderOptions, grid: Grid, hearts: Sequence[Path]
) -> dict[str, Tensor]:
    """``weights`` with other biases of the last convolution: over the hearts together each class
    has the volume that it should have.

    Soft Dice makes thin classes thicker, and a generator makes what the decoder makes. A field
    without classes stays as it is.

    hearts : label maps on the grid, of training cases.
    """
    if not grid.has_classes or not hearts:
        return weights
    coder = ShapeCoder(options, grid, weights).to(choose_device(options.device))
    sample = _Sample(grid.classes + 1)
    for path in hearts[:: -(-len(hearts) // HEARTS)]:
        target = load_shape(path, grid)
        mu, _ = coder.encode(target[None])
        sample.add(coder.decode(mu)[0].flatten(1).T.numpy(), target.flatten().numpy())
    bonus = bonuses(*sample.taken(), LIMIT).round(DECIMALS)
    log.info(
        "so that reconstructions keep the volumes, added to the logits: %s", _listed(bonus, grid)
    )
    coder.model.last_bias.add_(torch.from_numpy(bonus).to(coder.model.last_bias))
    return {name: value.to(weights[name]) for name, value in coder.model.state_dict().items()}


def drawn_bonus(generator: ShapeGenerator, volumes: np.ndarray, hearts: int) -> list[float]:
    """What to add to the logits of drawn hearts, so that over many each class has the mean volume
    of the training's, as far as :data:`LIMIT` lets it: (classes + 1,).

    The correction is found on unconditional hearts, so it is used for these alone: neither for
    completed hearts nor for those with requested volumes.

    volumes : (classes,) ml, means of the training hearts as they are.
    hearts : that are drawn for this; none of them is a sample of the same seed.
    """
    grid, usual = generator.grid, SamplingOptions().num_inference_steps
    sampler, steps = fitting_sampler(generator.options, usual)
    sample, batch = _Sample(grid.classes + 1), min(AT_A_TIME, generator.options.batch_size)
    for start in range(0, hearts, batch):
        numbers = range(APART + start, APART + min(start + batch, hearts))
        latents = generator.latents(
            numbers,
            generator.unconditional(len(numbers)),
            seed=generator.options.seed,
            sampler=sampler,
            steps=steps,
            batch_size=batch,
        )
        for heart in latents:
            sample.add(generator.decode(heart[None])[0].flatten(1).T.numpy())
    sample.lacking[1:] += hearts * volumes / (grid.spacing**3 / 1000)
    bonus = bonuses(*sample.taken(), LIMIT).round(DECIMALS)
    log.info("added to the logits, so that drawn hearts keep the volumes: %s", _listed(bonus, grid))
    if np.abs(bonus).max() >= LIMIT:
        log.warning(
            "%g is the most that is added: drawn hearts have other volumes; train longer", LIMIT
        )
    return bonus.tolist()


def _listed(bonus: np.ndarray, grid: Grid) -> str:
    return ", ".join(f"{n} {b:+.2f}" for n, b in zip(grid.table.names, bonus[1:]))


class _Sample:
    """Voxels of several hearts that could change their class by :data:`LIMIT`."""

    def __init__(self, channels: int):
        self.rng, self.share = np.random.default_rng(0), 1.0
        self.kept = [(np.empty((0, channels), np.float32), np.empty(0, np.int64), np.empty(0))]
        self.lacking = np.zeros(channels)  # voxels of each class, beside those that could change

    def add(self, logits: np.ndarray, target: np.ndarray | None = None) -> None:
        """logits : (N, C) float32.    target : (N,) channels; None: not known voxel by voxel."""
        best, won = np.partition(logits, -2, axis=1)[:, -2:], logits.argmax(axis=1)
        is_open = best[:, 1] - best[:, 0] < 2 * LIMIT  # others keep their class whatever is added
        for channels, sign in ((target, 1), (won, -1)):
            if channels is not None:
                self.lacking += sign * np.bincount(channels[~is_open], minlength=len(self.lacking))
        known = target[is_open] if target is not None else np.empty(0, np.int64)
        drawn = self.rng.random(int(is_open.sum()))
        self.kept.append((logits[is_open], known, drawn))
        while sum(len(row[0]) for row in self.kept) > MOST_VOXELS:
            self.share /= 2
            self.kept = [self._thinned(*row) for row in self.kept]
        self.kept[-1] = self._thinned(*self.kept[-1])

    def taken(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) logits, and the voxels that each class should have of these, (C,)."""
        logits, target = (np.concatenate([row[k] for row in self.kept]) for k in (0, 1))
        own = np.bincount(target, minlength=len(self.lacking))
        return logits, own + self.share * self.lacking

    def _thinned(self, logits, target, drawn):
        keep = drawn < self.share
        return logits[keep], target[keep] if len(target) else target, drawn[keep]
