"""A trained latent diffusion: hearts from noise, with or without conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..artefact.model import MODEL, Model, case_hash, load_model
from ..errors import InputError, problem
from ..options.ldm import DiffusionOptions
from .coder import ShapeCoder
from .data import complete_only
from .diffusion_model import (
    AUTOENCODER_PREFIX,
    DIFFUSION,
    Condition,
    LatentDenoiser,
    LatentStatistics,
    Process,
    guided,
    sample_seed,
    starting_noise,
)
from .hearts_on_grid import Grid

VOLUME_BONUS = "volume_bonus"  # in a model.pt, see keeping


@dataclass(frozen=True)
class ShapeGenerator:
    """Everything that the model.pt of train_diffusion holds.

    bonus : (classes + 1,) added to the logits of hearts that are drawn without known classes; empty
        for files of an earlier version.
    """

    options: DiffusionOptions
    statistics: LatentStatistics
    coder: ShapeCoder
    network: LatentDenoiser
    bonus: Sequence[float] = ()

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> ShapeGenerator:
        """Raises InputError where the file is no model of train_diffusion."""
        stored = load_model(path, DIFFUSION)
        options = stored.section("diffusion", DiffusionOptions)
        statistics = LatentStatistics.from_dict(stored.extra["statistics"])
        coder = ShapeCoder.load(path).to(device)
        grid = coder.grid
        factor = grid.size // statistics.shape[1]
        network = LatentDenoiser(
            options, statistics.shape[0], grid.classes, factor, statistics.moved
        )
        own = {n: v for n, v in stored.weights.items() if not n.startswith(AUTOENCODER_PREFIX)}
        stored.fill(network, own)
        network.to(device).eval().requires_grad_(False)
        return cls(options, statistics, coder, network, bonus_of(stored, grid))

    @property
    def grid(self) -> Grid:
        return self.coder.grid

    def learned_from(self, case_ids: Sequence[str]) -> list[str]:
        """Those of the training cases that it was trained on."""
        if not (self.options.complete_cases and self.grid.has_classes):
            return list(case_ids)
        left_out = set(self.statistics.incomplete)  # ids; their hashes in the model of a bundle
        hashed = {name for name in case_ids if case_hash(name) in left_out}
        return complete_only(case_ids, left_out | hashed)

    def unconditional(self, number: int) -> Condition:
        """``number`` samples without a condition."""
        return Condition.nothing(number, self.network.classes, self.grid.size)

    def latents(
        self,
        numbers: Sequence[int],
        condition: Condition,
        *,
        seed: int,
        sampler: str,
        steps: int,
        guidance: float = 1.0,
        batch_size: int = 8,
    ) -> Tensor:
        """Normalised latents (N, L, s, s, s), on the CPU.

        numbers : of the samples: with the seed each decides its noise alone, so that a sample
            is the same whatever the batch size and the other samples (up to rounding).
        condition : of N samples, in the order of ``numbers``.
        """
        process, device = Process(self.options), self.coder.device
        result = []
        for start in range(0, len(numbers), batch_size):
            part = list(numbers[start : start + batch_size])
            rows = slice(start, start + len(part))
            given = condition.rows(rows, device)
            noise = starting_noise(self.statistics.shape, seed, part).to(device)
            seeds = [sample_seed(seed, number) for number in part]
            predict = guided(self.network, given, guidance)
            result.append(process.sample(predict, noise, seeds, sampler, steps).cpu())
        return torch.cat(result)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents to logits (N, C, S, S, S), on the CPU."""
        return self.coder.decode(self.statistics.denormalised(latents))

    def decode_drawn(self, latents: Tensor) -> Tensor:
        """The same of hearts that are drawn, not completed: with the mean volumes of the
        training's."""
        logits = self.decode(latents)
        return logits + logits.new_tensor(self.bonus)[:, None, None, None] if self.bonus else logits


def bonus_of(stored: Model, grid: Grid) -> tuple[float, ...]:
    """The volume bonus of a model.pt; empty where it has none.

    Raises
    ------
    InputError
        It is not a finite number for the background and each class.
    """
    found = stored.extra.get(VOLUME_BONUS, ())
    numbers = isinstance(found, list | tuple) and all(
        isinstance(x, int | float) and math.isfinite(x) for x in found
    )
    if not numbers or len(found) not in (0, grid.classes + 1):
        fact = f"has {VOLUME_BONUS} {str(found)[:24]!r}, not a number for each class"
        raise InputError(problem(stored.path, fact, MODEL.remedy))
    return tuple(map(float, found))
