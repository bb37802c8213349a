"""Training of the diffusion of latents."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..options.ldm import DiffusionOptions
from ..pictures.slices import slices_picture
from .autoencoder_model import channels_of
from .data import LatentBatch
from .diffusion_model import (
    Condition,
    LatentDenoiser,
    LatentStatistics,
    Process,
    guided,
    starting_noise,
)
from .hearts_on_grid import Grid
from .option_checks import fitting_sampler

log = logging.getLogger(__name__)

FIXED_TIMES = 8  # times at which every validation case is looked at
PREVIEW_STEPS = 20
FULLY_KNOWN_AT_MOST = 0.9  # completion sees up to this share of the classes


class DiffusionTask:
    """What the engine needs to train a LatentDenoiser on cached latents.

    coder : the trained autoencoder, for previews (see cardiform.ldm.coder); it is not trained.
    """

    updates = ("model",)

    def __init__(self, options: DiffusionOptions, statistics: LatentStatistics, grid: Grid, coder):
        self.options, self.statistics, self.grid, self.coder = options, statistics, grid, coder
        self.process = Process(options)
        self.classes = grid.classes
        factor = grid.size // statistics.shape[1]
        self.network = LatentDenoiser(
            options, statistics.shape[0], self.classes, factor, statistics.moved
        )
        self.module: nn.Module = self.network

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def loss(self, batch: LatentBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error at a random time of every sample."""
        latents = batch["mu"] + batch["sigma"] * torch.randn_like(batch["mu"])
        latents = self.statistics.normalised(latents)
        times = self.process.draw_times(latents)
        error = self._error(latents, times, self.training_condition(batch))
        return (self.process.weights(times) * error).mean(), {}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[LatentBatch]) -> dict[str, float]:
        """The error at fixed times with fixed noise: ``loss`` without any condition.

        ``completion_loss`` is given all classes but a random one, ``mean_loss`` is the error of
        predicting the mean target, 0: a network above it has learned nothing.
        """
        sums = dict.fromkeys(("loss", "mean_loss", "completion_loss"), 0.0)
        count = 0
        for batch in batches:
            latents = self.statistics.normalised(batch["mu"])
            size = len(latents)
            count += size * FIXED_TIMES
            nothing = self._nothing(size, latents.device)
            for time in self.process.fixed_times(FIXED_TIMES):
                times = time.to(latents.device).expand(size)
                noise = torch.randn_like(latents)
                target = self.process.target(latents, noise, times)
                sums["loss"] += float(self._error(latents, times, nothing, noise).sum())
                sums["mean_loss"] += float(target.square().flatten(1).mean(1).sum())
                if self.network.completes:
                    one_out = self._one_out(batch)
                    error = self._error(latents, times, one_out, noise)
                    sums["completion_loss"] += float(error.sum())
        if not self.network.completes:
            del sums["completion_loss"]
        return {name: value / max(count, 1) for name, value in sums.items()}

    @torch.no_grad()
    def preview(self, batches: Iterable[LatentBatch], folder: Path, step: int) -> None:
        """A PNG of samples; the deviation of their latents, a little above 1 for real hearts, goes
        to the log."""
        number = self.options.num_samples_to_generate
        device = next(self.network.parameters()).device
        noise = starting_noise(self.statistics.shape, self.options.seed, range(number)).to(device)
        predict = guided(self.network, self._nothing(number, device), 1.0)
        sampler, steps = fitting_sampler(self.options, PREVIEW_STEPS)
        latents = self.process.sample(predict, noise, range(number), sampler, steps)
        log.info("samples after step %d: deviation of the latents %.3f", step, float(latents.std()))
        hearts = channels_of(self.coder.decode(self.statistics.denormalised(latents).cpu()))
        colors = [c.color for c in self.grid.table]
        title = f"step {step}, {steps} steps of {sampler}"
        slices_picture(folder / f"{step:07d}.png", {"samples": hearts.numpy()}, colors, title)

    def _error(self, latents, times, condition: Condition, noise: Tensor | None = None) -> Tensor:
        """(B,) mean squared error of the prediction."""
        noise = torch.randn_like(latents) if noise is None else noise
        predicted = self.network(self.process.noisy(latents, noise, times), times, condition)
        target = self.process.target(latents, noise, times)
        return (predicted.float() - target).square().flatten(1).mean(dim=1)

    def training_condition(self, batch: LatentBatch) -> Condition:
        """Random conditions: which samples see classes, and which; the same for volumes. All
        know how they were moved."""
        size, device = len(batch["mu"]), batch["mu"].device
        moves = self.statistics.move_scores(batch["moves"]) if self.network.follows_moves else None
        if not self.classes:
            return replace(self._nothing(size, device), moves=moves)
        present = batch["volumes"] > 0
        shares = torch.rand(size, 1, device=device) * FULLY_KNOWN_AT_MOST
        seeing = torch.rand(size, 1, device=device) < self.options.known_share
        # every second of them lacks one class alone, as label maps mostly do
        draws = torch.rand(size, self.classes, device=device)
        one_out = draws > draws.min(dim=1, keepdim=True).values
        single = torch.rand(size, 1, device=device) < 0.5
        known = one_out & (single | (draws > 1 - shares)) & seeing & present
        given = torch.rand(size, self.classes, device=device) < torch.rand(size, 1, device=device)
        given &= torch.rand(size, 1, device=device) < self.options.volumes_share
        scores = self.statistics.volume_scores(batch["volumes"])
        # what the scan shows of a cut class is no volume of it
        given &= batch.get("whole", present)
        return Condition(self._target(batch), known, scores, given & present, moves)

    def _one_out(self, batch: LatentBatch) -> Condition:
        present = batch["volumes"] > 0
        draws = torch.rand(present.shape, device=present.device)
        known = present & (draws > draws.min(dim=1, keepdim=True).values)
        off = torch.zeros_like(known)
        return Condition(self._target(batch), known, torch.zeros_like(batch["volumes"]), off)

    def _target(self, batch: LatentBatch) -> Tensor:
        """What the known classes are seen in; without completion nothing is."""
        if "target" in batch:
            return batch["target"]
        return batch["mu"].new_zeros((len(batch["mu"]), 0, 0, 0), dtype=torch.uint8)

    def _nothing(self, batch: int, device) -> Condition:
        return Condition.nothing(batch, self.classes, self.grid.size, device)
