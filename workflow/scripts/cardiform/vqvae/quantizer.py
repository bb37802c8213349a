"""Vector quantisation of latents: a learned codebook, or finite scalar levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.precision import in_full_precision

ROWS_AT_A_TIME = 2048  # bounds the (rows, codes) table of distances
RECENT_DECAY = 0.99
SEEN_OF_LATE = 0.3  # once within 120 steps
LEAST_COUNT = 1e-6  # of a code whose latents have a mean: less of them are rounding
KMEANS_CHANGE = 1e-4  # relative gain of the distortion below which k-means has converged


@dataclass(frozen=True)
class Quantized:
    """Latents after quantisation.

    values : (N, D); the gradient passes straight through to the latents.
    indices : (N,) int64 codes.
    vq : 0-d, the mean squared distance that moves the codes.
    commitment : 0-d, the same distance, moving the latents.
    """

    values: Tensor
    indices: Tensor
    vq: Tensor
    commitment: Tensor


class Quantizer(nn.Module):
    """What all quantisers share: their size and how much each code was used of late.

    recent : (K,) moving count of the latents of each code, decaying by 1 % a step.
    """

    recent: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.register_buffer("recent", torch.zeros(size))

    def encode_indices(self, latents: Tensor) -> Tensor:
        """(N,) int64 codes of (N, D) latents."""
        raise NotImplementedError

    def decode_indices(self, indices: Tensor) -> Tensor:
        """(N, D) float32 codes of (N,) indices; the inverse of :meth:`encode_indices`."""
        raise NotImplementedError

    @torch.no_grad()
    def observe(self, counts: Tensor) -> None:
        """Take in the (K,) counts of a step."""
        self.recent.mul_(RECENT_DECAY).add_(counts.to(self.recent))

    def recent_figures(self, counts: Tensor) -> dict[str, Tensor]:
        """usage and perplexity, 0-d, over the last hundred steps or so and the (K,) counts of
        a micro-batch of the step that is not complete yet."""
        recent = self.recent + counts
        return _figures(recent, recent > SEEN_OF_LATE)


class CodebookQuantizer(Quantizer):
    """The nearest of K codes (van den Oord et al., "Neural discrete representation learning").

    learned_by : ``ema`` (the codes follow the mean of their latents, :meth:`follow`; no
        gradient reaches them) or ``gradient`` (of ``vq``).

    Always fp32. ``counts`` and ``sums`` are the moving statistics behind the codes.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, learned_by: str = "ema", decay: float = 0.99):
        super().__init__(size)
        self.learned_by, self.decay = learned_by, decay
        self.codebook = nn.Parameter(torch.randn(size, dim))
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", self.codebook.detach().clone())

    def forward(self, latents: Tensor) -> Quantized:
        """(N, D) latents to their codes."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            indices = nearest(latents.detach(), self.codebook.detach())
            codes = self.decode_indices(indices)
            if self.learned_by == "ema":
                codes = codes.detach()
            return Quantized(
                values=latents + (codes - latents).detach(),
                indices=indices,
                vq=_mean_square(codes - latents.detach()),
                commitment=_mean_square(codes.detach() - latents),
            )

    def encode_indices(self, latents: Tensor) -> Tensor:
        return nearest(latents.float(), self.codebook.detach())

    def decode_indices(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook)

    @torch.no_grad()
    def start(self, codes: Tensor, counts: Tensor) -> None:
        """Set the (K, D) codes, and the statistics to (K,) latents of each."""
        # as much weight as one typical step brings, so that the mean follows at once
        share = counts.float() / counts.float().mean().clamp(min=1e-9)
        self.codebook.copy_(codes)
        self.counts.copy_(share.clamp(min=1e-3))
        self.sums.copy_(codes * self.counts[:, None])

    @torch.no_grad()
    def follow(self, counts: Tensor, sums: Tensor, candidates: Tensor, revive_below: float) -> int:
        """Move the codes to the moving mean of their latents, and revive dead ones.

        Parameters
        ----------
        counts, sums : (K,) and (K, D)
            How many latents of this step each code has, and their sum (:func:`statistics`).
        candidates : (M, D)
            Latents of this step, of which dead codes take a random one each.
        revive_below : float
            A code is dead where its moving share of the latents lies below this part of 1/K.

        Returns
        -------
        Codes that were revived.
        """
        scale = self.size / counts.sum().clamp(min=1)  # 1 is the share of an even use
        self.counts.lerp_((counts * scale).to(self.counts), 1 - self.decay)
        self.sums.lerp_((sums * scale).to(self.sums), 1 - self.decay)
        mean = self.sums / self.counts.clamp(min=LEAST_COUNT)[:, None]
        # a code without latents, that is not revived, stays where it was
        self.codebook.copy_(torch.where(self.counts[:, None] > LEAST_COUNT, mean, self.codebook))
        dead = (self.counts < revive_below).nonzero().squeeze(1)
        dead = dead[: len(candidates)]
        if len(dead):
            chosen = torch.randperm(len(candidates), device=candidates.device)[: len(dead)]
            fresh = candidates[chosen].float()
            self.codebook[dead] = fresh
            self.counts[dead] = 1.0
            self.sums[dead] = fresh
        return len(dead)


class FiniteScalarQuantizer(Quantizer):
    """Every latent in a few dimensions, each rounded to levels (Mentzer et al. 2023).

    There is no codebook to collapse; the projections into and out of the grid are learned.
    """

    levels: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int], dim: int):
        super().__init__(math.prod(levels))
        self.inward = nn.Linear(dim, len(levels))
        self.outward = nn.Linear(len(levels), dim)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        strides = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def forward(self, latents: Tensor) -> Quantized:
        """(N, D) latents to their codes; both losses are zero."""
        with torch.autocast(latents.device.type, enabled=False):
            place = self._places(latents.float())
            rounded = place + (place.round() - place).detach()
            none = latents.new_zeros(())
            return Quantized(self.outward(self._centred(rounded)), self._numbers(place), none, none)

    def encode_indices(self, latents: Tensor) -> Tensor:
        return self._numbers(self._places(latents.float()))

    def decode_indices(self, indices: Tensor) -> Tensor:
        place = indices[:, None] // self.strides % self.levels
        return self.outward(self._centred(place.float()))

    def _places(self, latents: Tensor) -> Tensor:
        """(N, L) positions within 0 to levels - 1."""
        return torch.sigmoid(2 * self.inward(latents)) * (self.levels - 1)

    def _centred(self, place: Tensor) -> Tensor:
        return 2 * place / (self.levels - 1) - 1

    def _numbers(self, place: Tensor) -> Tensor:
        return (place.detach().round().long() * self.strides).sum(dim=1)


def nearest(latents: Tensor, codes: Tensor) -> Tensor:
    """(N,) int64 row of the (K, D) code nearest to each of (N, D) latents."""
    offset = codes.square().sum(dim=1)
    with in_full_precision():
        parts = [
            torch.addmm(offset, rows, codes.T, alpha=-2).argmin(dim=1)
            for rows in latents.split(ROWS_AT_A_TIME)
        ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long, device=latents.device)


def statistics(latents: Tensor, indices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many latents each code has (K,), and their sum (K, D); the same bits every time."""
    order = indices.argsort(stable=True)
    counts = torch.bincount(indices, minlength=size)
    sums = torch.segment_reduce(
        latents.float()[order], "sum", lengths=counts, axis=0, unsafe=True, initial=0
    )
    return counts, sums


@torch.no_grad()
def kmeans(
    latents: Tensor, size: int, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """k-means from random latents: (K, D) codes and (K,) latents of each.

    k-means++ was tried as the start (docs/vqvae.md).

    Raises
    ------
    ValueError
        There are fewer latents than codes.
    """
    if len(latents) < size:
        raise ValueError(f"{len(latents)} latents for {size} codes")
    chosen = torch.randperm(len(latents), generator=generator)[:size].to(latents.device)
    return lloyd(latents.float(), latents[chosen].float(), iterations)


@torch.no_grad()
def lloyd(latents: Tensor, codes: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm on (N, D) latents from (K, D) codes: the codes, and (K,) latents of each.

    A code without latents takes one of the latents that lie farthest from their code.
    """
    size, before = len(codes), math.inf
    for _ in range(iterations):
        indices = nearest(latents, codes)
        counts, sums = statistics(latents, indices, size)
        error = (latents - codes[indices]).square().sum(dim=1)
        codes = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], codes)
        empty = (counts == 0).nonzero().squeeze(1)
        if len(empty):
            codes[empty] = latents[error.topk(len(empty)).indices]
        after = float(error.double().mean())
        if not len(empty) and after >= (1 - KMEANS_CHANGE) * before:
            break
        before = after
    return codes, torch.bincount(nearest(latents, codes), minlength=size)


def usage_figures(counts: Tensor) -> dict[str, float]:
    """Of (K,) counts over a whole split: ``usage``, the share of codes that occur, and
    ``perplexity``, the exponential of the entropy."""
    return {name: float(value) for name, value in _figures(counts, counts > 0).items()}


def _figures(counts: Tensor, used: Tensor) -> dict[str, Tensor]:
    share = counts.double() / counts.sum().clamp(min=1e-9)
    entropy = -torch.special.xlogy(share, share).sum()
    return {"usage": used.double().mean(), "perplexity": entropy.exp()}


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean() if len(difference) else difference.sum()
