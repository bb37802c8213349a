"""Diffusion of latents: the noise process, its samplers and the network that takes noise away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler
from torch import Tensor, nn

from ..artefact.model import Kind
from ..formats import Format
from ..options.ldm import DiffusionOptions
from ..options.vessels import VesselOptions
from .data import MOVE
from .folding import folded, unfolded

DIFFUSION = Kind("ldm_diffusion", "a latent diffusion", "train_diffusion")
# The weights of the autoencoder lie in the model.pt of the diffusion too, under this prefix.
AUTOENCODER_PREFIX = "autoencoder."
STATISTICS = Format(
    "latent-statistics",
    {
        "shape": "integer (4)",
        "mean": "number (L)",
        "std": "number (L)",
        "volume_mean": "number (C)",
        "volume_std": "number (C)",
        "centroids": "object",
        "centroids.*": "number (3)",
        "incomplete": "text (I)",
        "autoencoder_sha256": "text",
        "largest_move?": "number (M)",
        "of_all?": "object",
    },
    marked=False,
)
KNOWN_WIDTH = 16  # channels into which the known classes are gathered at the latents' resolution
Predict = Callable[[Tensor, Tensor], Tensor]  # noisy latents, times (B,) -> prediction


@dataclass(frozen=True)
class LatentStatistics:
    """What the sampling side needs to know of the latents; it travels in the model file.

    shape : (L, s, s, s).
    mean, std : of each channel, over the training cases.
    volume_mean, volume_std : ml of each class, over the training cases that have it.
    centroids : class name -> mean middle, mm from the middle of the cube.
    incomplete : cases that lack a class; they are left out of all of it.
    largest_move : (9,) what each number of a variant's move is at most (see
        :func:`cardiform.ldm.data.random_move`); empty: there are no variants, or they are of an
        earlier version.
    of_all : the fields that differ where incomplete cases are trained on, too; empty: none.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    volume_mean: tuple[float, ...]
    volume_std: tuple[float, ...]
    centroids: dict[str, list[float]]
    incomplete: tuple[str, ...]
    autoencoder_sha256: str
    largest_move: tuple[float, ...] = ()
    of_all: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Plain builtins; what is empty in files of an earlier version is left out where empty."""
        found = asdict(self)
        return {n: v for n, v in found.items() if v or n not in ("largest_move", "of_all")}

    @property
    def moved(self) -> bool:
        """Whether the training hearts are moved by what is known."""
        return any(self.largest_move)

    @classmethod
    def load(cls, path: str | Path) -> LatentStatistics:
        """From the statistics.json of encode_latents; InputError where it is none."""
        return cls.from_dict(STATISTICS.load(path))

    @classmethod
    def from_dict(cls, content: Mapping) -> LatentStatistics:
        return cls(**_tuples(content))

    def used(self, options: DiffusionOptions) -> LatentStatistics:
        """Those of a training: over the cases that it has, or with a scale given by hand."""
        found = self
        if not options.complete_cases:
            found = replace(self, **_tuples(self.of_all))
        found = replace(found, of_all={})
        if options.scale_factor:
            count = len(self.mean)
            by_hand = (1 / options.scale_factor,) * count
            found = replace(found, mean=(0.0,) * count, std=by_hand)
        return found

    def normalised(self, latents: Tensor) -> Tensor:
        """Each channel with mean 0 and deviation 1 over the training cases."""
        mean, std = self._columns(latents)
        return (latents - mean) / std

    def denormalised(self, latents: Tensor) -> Tensor:
        """The inverse."""
        mean, std = self._columns(latents)
        return latents * std + mean

    def volume_scores(self, volumes: Tensor) -> Tensor:
        """(B, classes) ml as deviations from the mean heart."""
        return (volumes - volumes.new_tensor(self.volume_mean)) / volumes.new_tensor(
            self.volume_std
        )

    def move_scores(self, moves: Tensor) -> Tensor:
        """(B, 9) moves as parts of the largest ones, within [-1, 1]; zero where none is made."""
        largest = moves.new_tensor(self.largest_move)
        return torch.where(largest > 0, moves / largest.clamp(min=1e-12), 0)

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (like.new_tensor(v).view(-1, 1, 1, 1) for v in (self.mean, self.std))
        return mean, std


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


class Process:
    """How noise is added in training and taken away in sampling, on MONAI's schedulers.

    Rectified flow (Liu et al., ICLR 2023): x_t = (1 - t) x_0 + t noise, the network predicts
    x_0 - noise. DDPM (Ho et al., NeurIPS 2020) predicts the noise or v (Salimans & Ho, ICLR 2022)
    with min-SNR weights (Hang et al., ICCV 2023). Predicted x_0 are never clipped: latents of
    unit variance lie outside of [-1, 1] a third of the time.
    """

    def __init__(self, options: DiffusionOptions):
        self.options = options
        self.times = options.num_train_timesteps
        if options.objective == "flow":
            self.scheduler: RFlowScheduler | DDPMScheduler = RFlowScheduler(
                num_train_timesteps=self.times,
                use_discrete_timesteps=False,
                sample_method=options.time_sampling,
            )
        else:
            self.scheduler = DDPMScheduler(**self._schedule())

    def draw_times(self, latents: Tensor) -> Tensor:
        """(B,) random times of training."""
        if isinstance(self.scheduler, RFlowScheduler):
            return self.scheduler.sample_timesteps(latents)
        return torch.randint(self.times, (len(latents),), device=latents.device)

    def fixed_times(self, number: int) -> Tensor:
        """(number,) times spread evenly over the process, for validation."""
        times = (torch.arange(number) + 0.5) * self.times / number
        return times if self.options.objective == "flow" else times.long()

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return self.scheduler.add_noise(latents, noise, times)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network is to predict."""
        if isinstance(self.scheduler, RFlowScheduler):
            return latents - noise
        if self.options.prediction == "epsilon":
            return noise
        return self.scheduler.get_velocity(latents, noise, times)

    def weights(self, times: Tensor) -> Tensor:
        """(B,) weights of the squared errors."""
        gamma = self.options.snr_gamma
        if isinstance(self.scheduler, RFlowScheduler) or not gamma:
            return torch.ones(len(times), device=times.device)
        kept = self.scheduler.alphas_cumprod.to(times.device)[times]
        ratio = kept / (1 - kept)
        shift = 0 if self.options.prediction == "epsilon" else 1
        return ratio.clamp(max=gamma) / (ratio + shift)

    @torch.no_grad()
    def sample(
        self, predict: Predict, noise: Tensor, seeds: Sequence[int], sampler: str, steps: int
    ) -> Tensor:
        """Latents from noise, (B, ...) each.

        predict : the network with its conditions.
        seeds : of the noise that ddpm adds on the way, one per sample: a sample does not depend
            on those beside it.
        sampler, steps : as :func:`cardiform.ldm.option_checks.chosen_sampler` allows.
        """
        scheduler = self._sampler(sampler)
        scheduler.set_timesteps(steps)
        generators = [torch.Generator(noise.device).manual_seed(seed) for seed in seeds]
        x = noise
        for number in range(steps):
            # flow: not scheduler.timesteps, which has gone through float16
            time = self.times * (1 - number / steps)
            if sampler != "flow":
                time = int(scheduler.timesteps[number])
            predicted = predict(x, torch.full((len(x),), time, device=x.device))
            if sampler == "ddpm":
                rows = zip(predicted, x, generators)
                x = torch.cat([scheduler.step(p[None], time, r[None], g)[0] for p, r, g in rows])
            else:
                x = scheduler.step(predicted, time, x)[0]
        return x

    def _sampler(self, sampler: str):
        if sampler == "flow":
            return RFlowScheduler(num_train_timesteps=self.times, use_discrete_timesteps=False)
        build = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[sampler]
        return build(**self._schedule())

    def _schedule(self) -> dict:
        return {
            "num_train_timesteps": self.times,
            "schedule": "scaled_linear_beta",
            "beta_start": self.options.beta_start,
            "beta_end": self.options.beta_end,
            "clip_sample": False,
            "prediction_type": self.options.prediction,
        }


@dataclass(frozen=True)
class Condition:
    """What a batch of samples knows of its hearts beforehand.

    target : (B, S, S, S) uint8 channels, of which the known classes are seen.
    known : (B, classes) bool.
    volumes : (B, classes) scores of :meth:`LatentStatistics.volume_scores`.
    given : (B, classes) bool: classes whose volume is given.
    moves : (B, 9) scores of :meth:`LatentStatistics.move_scores`; None: hearts as they are.
    """

    target: Tensor
    known: Tensor
    volumes: Tensor
    given: Tensor
    moves: Tensor | None = None

    @classmethod
    def nothing(cls, batch: int, classes: int, size: int, device=None) -> Condition:
        """Samples without any condition."""
        target = torch.zeros((batch, size, size, size), dtype=torch.uint8, device=device)
        off = torch.zeros((batch, classes), dtype=torch.bool, device=device)
        return cls(target, off, torch.zeros((batch, classes), device=device), off)

    def without_volumes(self) -> Condition:
        off = torch.zeros_like(self.given)
        return replace(self, given=off)

    def rows(self, rows, device: torch.device) -> Condition:
        """Some of the samples, on a device."""
        parts: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            parts[part.name] = value if value is None else value[rows].to(device)
        return Condition(**parts)


def unet_of(
    options: DiffusionOptions | VesselOptions, in_channels: int, out_channels: int
) -> nn.Module:
    """The network of a diffusion, in three dimensions."""
    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        num_res_blocks=options.num_res_blocks,
        channels=options.channels,
        attention_levels=options.attention_levels,
        norm_num_groups=options.norm_num_groups,
        num_head_channels=options.num_head_channels,
        use_flash_attention=True,
    )


class LatentDenoiser(nn.Module):
    """A UNet over the (folded) latents, conditioned on known classes and volumes if it is trained
    for that, and on the moves of augmented hearts.

    Known classes come in as one-hot voxels, gathered by a convolution over the cell of each
    latent, beside a map per class that says whether it is known; volumes and moves as constant
    maps. Without a move (zero) the network makes hearts as they are: augmentation does not leak
    into what it generates (Karras et al., "Elucidating the Design Space of Diffusion-Based
    Generative Models", NeurIPS 2022).

    Parameters
    ----------
    latent_channels, classes : int
        Channels of a latent; classes of the grid (0: a field, no conditions).
    factor : int
        Voxels along the edge of a latent's cell.
    follows_moves : bool
        Whether its training hearts are moved, and it is told by how much.
    """

    def __init__(
        self,
        options: DiffusionOptions,
        latent_channels: int,
        classes: int,
        factor: int,
        follows_moves: bool = False,
    ):
        super().__init__()
        self.follows_moves = follows_moves
        self.classes = classes
        self.completes = bool(classes and options.known_share)
        self.follows_volumes = bool(classes and options.volumes_share)
        self.fold = options.fold
        own = width = latent_channels * self.fold**3
        if self.completes:
            cell = factor * self.fold
            self.gather = nn.Sequential(
                nn.Conv3d(classes, KNOWN_WIDTH, kernel_size=cell, stride=cell),
                nn.SiLU(),
                nn.Conv3d(KNOWN_WIDTH, KNOWN_WIDTH, kernel_size=3, padding=1),
            )
            width += KNOWN_WIDTH + classes
        if self.follows_volumes:
            width += 2 * classes
        if follows_moves:
            width += MOVE
        self.unet = unet_of(options, width, own)

    def forward(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """(B, L, s, s, s) prediction of the process's target."""
        noisy = folded(noisy, self.fold)
        parts = [noisy]
        if self.completes:
            parts += [self._seen(condition, noisy), self._spread(condition.known, noisy)]
        if self.follows_volumes:
            given = condition.given.to(noisy.dtype)
            parts += [self._spread(condition.volumes * given, noisy), self._spread(given, noisy)]
        if self.follows_moves:
            moves = condition.moves
            moves = noisy.new_zeros(len(noisy), MOVE) if moves is None else moves
            parts.append(self._spread(moves, noisy))
        return unfolded(self.unet(torch.cat(parts, dim=1), timesteps=times), self.fold)

    def _seen(self, condition: Condition, like: Tensor) -> Tensor:
        """What the known classes look like; samples without any share the answer to nothing."""
        rows = condition.known.any(dim=1)
        size = condition.target.shape[-1]
        nothing = self.gather(like.new_zeros(1, self.classes, size, size, size))
        result = nothing.repeat(len(rows), 1, 1, 1, 1)
        if rows.any():
            numbers = torch.arange(1, self.classes + 1, device=like.device).view(1, -1, 1, 1, 1)
            seen = (condition.target[rows, None] == numbers) & _maps(condition.known[rows])
            result[rows] = self.gather(seen.to(like.dtype))
        return result

    def _spread(self, values: Tensor, like: Tensor) -> Tensor:
        return _maps(values).to(like.dtype).expand(-1, -1, *like.shape[2:])


def guided(network: LatentDenoiser, condition: Condition, strength: float) -> Predict:
    """The network with its condition; volumes by classifier-free guidance (Ho & Salimans, 2022)."""

    def predict(noisy: Tensor, times: Tensor) -> Tensor:
        with_volumes = network(noisy, times, condition)
        if strength == 1 or not bool(condition.given.any()):
            return with_volumes
        without = network(noisy, times, condition.without_volumes())
        return without + strength * (with_volumes - without)

    return predict


def starting_noise(shape: Sequence[int], seed: int, numbers: Sequence[int]) -> Tensor:
    """(len(numbers), *shape) noise; that of a sample follows from ``seed`` and its number alone."""
    rows = []
    for number in numbers:
        generator = torch.Generator().manual_seed(_word(seed, number, 0))
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows)


def sample_seed(seed: int, number: int) -> int:
    """Seed of what ddpm draws on the way to a sample; not that of its starting noise."""
    return _word(seed, number, 1)


def _word(*words: int) -> int:
    # torch's generator on the CPU looks at 32 bits of a seed alone
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def _maps(values: Tensor) -> Tensor:
    return values[:, :, None, None, None]
