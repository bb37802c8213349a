"""Training of the diffusion of a VecSet's latents."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..options.set_diffusion import SetDiffusionOptions
from .data import SetBatch
from .latents import FRAME, PLACE
from .model import SetDenoiser, process_of, settled
from .slots import Slots
from .statistics import Asked, Statistics

FIXED_TIMES = 8  # at which every validation heart is looked at


class SetDiffusionTask:
    """What the engine needs to train a SetDenoiser.

    classes : of the label table.
    """

    updates = ("model",)

    def __init__(
        self, options: SetDiffusionOptions, slots: Slots, statistics: Statistics, classes: int
    ):
        self.options, self.statistics, self.classes = options, statistics, classes
        self.process = process_of(options)
        self.network = network_of(options, slots, statistics, classes)
        self.module: nn.Module = self.network

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def loss(self, batch: SetBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the velocity at a random time of every sample."""
        heart = batch["heart"]
        size, device = len(heart), heart.device
        asked = self.statistics_on(device).scores(batch["asked"])
        given = torch.rand(asked.given.shape, device=device) < torch.rand(size, 1, device=device)
        given &= torch.rand(size, 1, device=device) < self.options.asked_share
        known = torch.rand(size, self.classes, device=device) < torch.rand(size, 1, device=device)
        known &= torch.rand(size, 1, device=device) < self.options.known_share
        times = self.process.draw_times(_deep(heart)) / self.process.times
        noise = torch.randn(noise_shape(self.options, self.statistics, size), device=device)
        error, _ = self._errors(
            heart, times, noise, Asked(asked.values, given & asked.given), known
        )
        return error.mean(), {}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[SetBatch]) -> dict[str, float]:
        """The error at fixed times with fixed noise, nothing given.

        ``fitted_loss`` is that without the network: of the fitted distribution alone. A network
        whose ``loss`` is not below it has learned nothing that holds for other hearts.
        ``asked_loss`` is given all volumes and columns that are known.
        """
        sums = dict.fromkeys(("loss", "fitted_loss", "asked_loss"), 0.0)
        count = 0
        for batch in batches:
            heart = batch["heart"]
            size, device = len(heart), heart.device
            nothing = Asked.nothing(size, batch["asked"].shape[1], device)
            asked = self.statistics_on(device).scores(batch["asked"])
            known = torch.zeros(size, self.classes, dtype=torch.bool, device=device)
            count += size * FIXED_TIMES
            for time in self.process.fixed_times(FIXED_TIMES).tolist():
                times = heart.new_full((size,), time / self.process.times)
                noise = torch.randn(noise_shape(self.options, self.statistics, size), device=device)
                error, alone = self._errors(heart, times, noise, nothing, known)
                sums["loss"] += float(error.sum())
                sums["fitted_loss"] += float(alone.sum())
                sums["asked_loss"] += float(
                    self._errors(heart, times, noise, asked, known)[0].sum()
                )
        return {name: value / max(count, 1) for name, value in sums.items()}

    def statistics_on(self, device: torch.device) -> Statistics:
        """The statistics, on the device of a batch."""
        if self.statistics.mean.device != device:
            self.statistics = self.statistics.to(device)
        return self.statistics

    @torch.no_grad()
    def strength(self, batches: Iterable[SetBatch]) -> float:
        """The share of what the network adds, in [0, 1], that has the least error on these hearts.

        A network that has seen few hearts adds what holds for these alone; then it is small.
        """
        both = own = 0.0
        for batch in batches:
            heart = batch["heart"]
            size, device = len(heart), heart.device
            nothing = Asked.nothing(size, batch["asked"].shape[1], device)
            known = torch.zeros(size, self.classes, dtype=torch.bool, device=device)
            for time in self.process.fixed_times(FIXED_TIMES).tolist():
                times = heart.new_full((size,), time / self.process.times)
                noise = torch.randn(noise_shape(self.options, self.statistics, size), device=device)
                lacking, added = self._added(heart, times, noise, nothing, known)
                both += float(self._parts(lacking * added).sum())
                own += float(self._parts(added.square()).sum())
        return min(max(both / own, 0.0), 1.0) if own else 1.0

    def _errors(
        self, heart: Tensor, times: Tensor, noise: Tensor, asked: Asked, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B,) mean squared errors of the velocity, with the network and without."""
        lacking, added = self._added(heart, times, noise, asked, known)
        return self._parts((lacking - added).square()), self._parts(lacking.square())

    def _added(
        self, heart: Tensor, times: Tensor, noise: Tensor, asked: Asked, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the velocity has beside :func:`settled`, and what the network says of it, (B, P)."""
        begun, middle = starts_of(self.options, self.statistics_on(heart.device), noise, asked)
        noisy = self.process.noisy(_deep(heart), _deep(begun), times * self.process.times)
        noisy = noisy.flatten(1)
        lacking = heart - begun - settled(times, middle, noisy)
        return lacking, self.network(noisy, times, asked, heart, known).float()

    def _parts(self, values: Tensor) -> Tensor:
        """(B,) means over places, codes and the frame of (B, P) values, which count the same."""
        tokens = values[:, :-FRAME].unflatten(1, self.statistics.shape)
        parts = tokens[..., :PLACE], tokens[..., PLACE:], values[:, -FRAME:]
        return torch.stack([part.flatten(1).mean(dim=1) for part in parts]).mean(dim=0)


def network_of(
    options: SetDiffusionOptions, slots: Slots, statistics: Statistics, classes: int
) -> SetDenoiser:
    """The network that ``options`` describe, with fresh weights."""
    return SetDenoiser(
        options,
        torch.from_numpy(slots.places),
        torch.from_numpy(slots.channels),
        classes,
        statistics.shape[1],
        len(statistics.asked_mean),
    )


def noise_shape(options: SetDiffusionOptions, statistics: Statistics, size: int) -> tuple[int, int]:
    """Of the white noise of a batch: one number for each mode, or each of a heart's numbers."""
    modes, numbers = statistics.modes.shape
    return size, modes if options.noise == "fitted" else numbers


def starts_of(
    options: SetDiffusionOptions, statistics: Statistics, noise: Tensor, asked: Asked
) -> tuple[Tensor, Tensor]:
    """What hearts begin as, and the middle of its distribution, (B, P) both."""
    if options.noise == "fitted":
        return statistics.starts(noise, asked)
    return noise, torch.zeros_like(noise)


def _deep(rows: Tensor) -> Tensor:
    """(B, P) as MONAI's scheduler takes samples: (B, P, 1, 1, 1)."""
    return rows[..., None, None, None]
