"""The network that takes noise away from the latents of a heart: a transformer over its slots."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..artefact.model import Kind
from ..ldm.diffusion_model import Process
from ..options.ldm import DiffusionOptions
from ..options.set_diffusion import SetDiffusionOptions
from ..vecset.attention import Attention, FeedForward, PointEmbedding
from .latents import FRAME
from .slots import Slots
from .statistics import Asked, Statistics

SET_DIFFUSION = Kind("set_diffusion", "a set-latent diffusion", "train_set_diffusion")
# model.pt has the weights of the VecSet too, the slots and the statistics: under these prefixes.
VECSET_PREFIX, SLOTS_PREFIX, STATISTICS_PREFIX = "vecset.", "slots.", "statistics."
OCTAVES = 4  # of the places of the slots
TIME_WAVES = 32


def process_of(options: SetDiffusionOptions) -> Process:
    """Rectified flow, as of a voxel grid's latents."""
    return Process(DiffusionOptions(objective="flow", time_sampling=options.time_sampling))


def settled(times: Tensor, middle: Tensor, noisy: Tensor) -> Tensor:
    """The velocity where hearts and what they begin as have one normal distribution.

    Of x_t = (1 - t) x_0 + t x_1 with x_0 and x_1 independent, of one covariance about ``middle``,
    the mean of x_0 - x_1 given x_t, whatever that covariance is. What they begin as is unchanged at
    the end; the network adds what is different.

    times : (B,) in [0, 1].    middle, noisy : (B, P).
    """
    t = times[:, None]
    return (1 - 2 * t) / ((1 - t).square() + t.square()) * (noisy - middle)


class Modulated(nn.Module):
    """Self-attention and feed-forward, scaled and shifted by the time and what is asked for
    (adaLN-Zero; Peebles and Xie, "Scalable Diffusion Models with Transformers", ICCV 2023)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = Attention(dim, heads)
        self.forward_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.feed_forward = FeedForward(dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, T, dim) tokens and (B, dim)."""
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)
        scale, shift, gate, scale_2, shift_2, gate_2 = parts
        x = x + gate * self.attention(self.attention_norm(x) * (1 + scale) + shift)
        return x + gate_2 * self.feed_forward(self.forward_norm(x) * (1 + scale_2) + shift_2)


class SetDenoiser(nn.Module):
    """A transformer over the slots of a heart and its frame.

    Each slot's token knows which slot it is, by its place in the mean heart and its class; so the
    order of the tokens means nothing to the network, and their number is free. Latents of known
    classes come in beside the noisy ones; the time and what is asked for act on every block.

    places : (M, 3).    channels : (M,) of each slot, among ``classes``.
    width : channels of a latent, place and code.    asked : how much can be asked for.
    """

    places: Tensor
    channels: Tensor

    def __init__(
        self,
        options: SetDiffusionOptions,
        places: Tensor,
        channels: Tensor,
        classes: int,
        width: int,
        asked: int,
    ):
        super().__init__()
        dim = options.dim
        self.register_buffer("places", places.float(), persistent=False)
        self.register_buffer("channels", channels.long(), persistent=False)
        self.width = width
        self.token = nn.Linear(2 * width + 1, dim)
        self.slot = PointEmbedding(dim, OCTAVES)
        self.kind = nn.Embedding(classes, dim)
        self.frame = nn.Linear(FRAME, dim)
        self.time = nn.Sequential(nn.Linear(2 * TIME_WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.asked = nn.Linear(2 * asked, dim)
        self.blocks = nn.ModuleList(Modulated(dim, options.heads) for _ in range(options.depth))
        self.norm = nn.LayerNorm(dim)
        self.token_out = nn.Linear(dim, width)
        self.frame_out = nn.Linear(dim, FRAME)
        for layer in (self.token_out, self.frame_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, noisy: Tensor, times: Tensor, asked: Asked, heart: Tensor, known: Tensor
    ) -> Tensor:
        """(B, P) what the velocity has beside :func:`settled`.

        noisy, heart : (B, P) rows; of ``heart`` the classes ``known`` (B, C) bool are seen.
        times : (B,) in [0, 1].
        """
        seen = known[:, self.channels, None].to(noisy.dtype)  # (B, M, 1)
        tokens, clean = (x[:, :-FRAME].unflatten(1, (-1, self.width)) for x in (noisy, heart))
        x = self.token(torch.cat([tokens, clean * seen, seen], dim=-1))
        x = x + self.slot(self.places) + self.kind(self.channels)
        x = torch.cat([x, self.frame(noisy[:, None, -FRAME:])], dim=1)
        condition = self.time(_waves(times)) + self.asked(
            torch.cat([asked.seen, asked.given.to(noisy.dtype)], dim=1)
        )
        for block in self.blocks:
            x = block(x, condition)
        x = self.norm(x)
        return torch.cat([self.token_out(x[:, :-1]).flatten(1), self.frame_out(x[:, -1])], dim=1)


def _waves(times: Tensor) -> Tensor:
    """(B,) times in [0, 1] to (B, 2 TIME_WAVES) sines and cosines."""
    rates = torch.exp(torch.linspace(0, math.log(1000.0), TIME_WAVES, device=times.device))
    angles = times[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def frozen_weights(
    vecset: Mapping[str, Tensor], slots: Slots, statistics: Statistics
) -> dict[str, Tensor]:
    """What model.pt holds beside the network; ``vecset``: its weights."""
    parts = {
        VECSET_PREFIX: vecset,
        SLOTS_PREFIX: {
            "places": torch.from_numpy(slots.places),
            "channels": torch.from_numpy(slots.channels),
        },
        STATISTICS_PREFIX: statistics.tensors(),
    }
    return {f"{p}{name}": value for p, found in parts.items() for name, value in found.items()}


def parts_of(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The inverse: prefix -> its tensors, the network's own under the empty one."""
    prefixes = (VECSET_PREFIX, SLOTS_PREFIX, STATISTICS_PREFIX)
    result: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in (*prefixes, "")}
    for name, value in weights.items():
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        result[prefix][name.removeprefix(prefix)] = value
    return result
