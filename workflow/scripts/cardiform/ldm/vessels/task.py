"""Training of the diffusion of vessel trees."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...options.vessels import VesselOptions
from ..diffusion_task import FIXED_TIMES
from .data import VesselBatch
from .field import SIGNAL
from .model import VesselDenoiser, process_of

NEAR = 0.0  # so close on the scale of the field is next to a vessel


class VesselTask:
    """What the engine needs to train a VesselDenoiser."""

    updates = ("model",)

    def __init__(self, options: VesselOptions, classes: int):
        self.process = process_of(options)
        self.network = VesselDenoiser(options, classes)
        self.module: nn.Module = self.network

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def loss(self, batch: VesselBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error at a random time of every sample."""
        times = self.process.draw_times(batch["field"])
        error, _ = self._errors(batch, times)
        return error.mean(), {}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[VesselBatch]) -> dict[str, float]:
        """The error at fixed times with fixed noise.

        ``vessel_loss`` is that of the voxels next to a vessel alone. ``dice`` is of these voxels
        and those that the network sees there, from all but noise: what the heart alone tells.
        """
        sums = dict.fromkeys(("loss", "vessel_loss"), 0.0)
        both = either = 0.0
        count = 0
        for batch in batches:
            count += len(batch["field"]) * FIXED_TIMES
            near = batch["field"][:, 0] > NEAR * SIGNAL
            for number, time in enumerate(reversed(self.process.fixed_times(FIXED_TIMES).tolist())):
                times = batch["field"].new_full((len(batch["field"]),), time)
                error, guess = self._errors(batch, times)
                sums["loss"] += float(error.flatten(1).mean(1).sum())
                there = near[:, None].expand_as(error)
                sums["vessel_loss"] += float(
                    ((error * there).flatten(1).sum(1) / there.flatten(1).sum(1).clamp(min=1)).sum()
                )
                if number == 0:  # the latest time, of the most noise
                    found = guess[:, 0] > NEAR * SIGNAL
                    both += float((found & near).sum())
                    either += float(found.sum() + near.sum())
        means = {name: value / max(count, 1) for name, value in sums.items()}
        return {**means, "dice": 2 * both / max(either, 1.0)}

    def _errors(self, batch: VesselBatch, times: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of every voxel and channel, and the field that the network takes it for."""
        field = batch["field"]
        noise = torch.randn_like(field)
        noisy = self.process.noisy(field, noise, times)
        predicted = self.network(noisy, times, batch["heart"]).float()
        error = (predicted - self.process.target(field, noise, times)).square()
        part = (times / self.process.times).view(-1, 1, 1, 1, 1)
        return error, noisy + part * predicted
