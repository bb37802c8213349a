"""What a diffusion knows of the training hearts: their mean, and a distribution to begin at.

A heart is one row of numbers: the latents of all slots, one after another, and its frame. Each is
given with the mean heart taken away, in deviations: of all places together, of each channel of the
codes, of each number of the frame.

A few hearts span a few directions among thousands of numbers. White noise lies in all of them, and
a network has to learn first where hearts lie at all. So hearts begin as draws of a normal
distribution that is fitted to the training hearts: what linear statistics can say holds from the
first step on (that alone is a statistical shape model; Cootes et al. 1995), and the network learns
the rest.
Where class volumes or columns are given, the distribution is the one under that condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..options.set_diffusion import MOST_MODES
from .latents import FRAME, PLACE, SetLatents

LEAST_STD = 1e-6
LEAST_SPARE = 0.05  # of the variance of what is asked for, that no mode tells


@dataclass(frozen=True)
class Asked:
    """What a batch of hearts is asked for.

    values : (B, K) float32, deviations from the mean of the training hearts.
    given : (B, K) bool, which of them are asked for.
    """

    values: Tensor
    given: Tensor

    @classmethod
    def nothing(cls, batch: int, number: int, device=None) -> Asked:
        off = torch.zeros(batch, number, device=device)
        return cls(off, off.bool())

    @property
    def seen(self) -> Tensor:
        """(B, K) the values, 0 where none is given."""
        return torch.where(self.given, self.values, 0)


@dataclass(frozen=True)
class Statistics:
    """Of the training hearts.

    mean : (M, W) and frame_mean (4), std : (W,) and frame_std (4), of latents and frames.
    asked_mean, asked_std : (K,), of the logarithms of class volumes in ml, and of the columns.
    modes : (D, M * W + 4), the directions of the fitted distribution, each as long as its
        deviation.    links : (K, D), how what can be asked for follows from them, in deviations.
    asked_count : (K,), of how many training hearts each is known.
    """

    mean: Tensor
    std: Tensor
    frame_mean: Tensor
    frame_std: Tensor
    asked_mean: Tensor
    asked_std: Tensor
    modes: Tensor
    links: Tensor
    asked_count: Tensor

    @classmethod
    def of(cls, hearts: Sequence[SetLatents], most: int) -> Statistics:
        """most : modes at most; 0: as many as there are, ``MOST_MODES`` at most."""
        x = torch.from_numpy(np.stack([h.latents for h in hearts]))
        frames = torch.from_numpy(np.stack([h.frame for h in hearts]))
        asked = torch.from_numpy(np.stack([asked_of(h) for h in hearts]))
        mean, apart = x.mean(dim=0), x - x.mean(dim=0)
        std = apart.square().mean(dim=(0, 1)).sqrt().clamp(min=LEAST_STD)
        std[:PLACE] = std[:PLACE].square().mean().sqrt()
        known = asked.isfinite()
        count = known.sum(dim=0).clamp(min=1)
        middle = torch.where(known, asked, 0).sum(dim=0) / count
        scores = torch.where(known, asked - middle, 0)
        spread = (scores.square().sum(dim=0) / count).sqrt()
        spread = torch.where(spread > LEAST_STD, spread, 1)
        found = cls(
            mean,
            std,
            frames.mean(dim=0).float(),
            frames.std(dim=0, correction=0).clamp(min=LEAST_STD).float(),
            middle.float(),
            spread.float(),
            torch.zeros(0),
            torch.zeros(0),
            known.sum(dim=0),
        )
        modes, weights = _modes(found.rows(x, frames.float()), most)
        links = (scores / spread).T @ weights / (count[:, None] + weights.shape[1])
        return cls(**(vars(found) | {"modes": modes, "links": links.float()}))

    @property
    def shape(self) -> tuple[int, int]:
        """(M, W)"""
        return self.mean.shape[0], self.mean.shape[1]

    def rows(self, latents: Tensor, frames: Tensor) -> Tensor:
        """(B, M, W) latents and (B, 4) frames to (B, M * W + 4) rows, in deviations."""
        parts = (latents - self.mean) / self.std, (frames - self.frame_mean) / self.frame_std
        return torch.cat([parts[0].flatten(1), parts[1].to(latents.dtype)], dim=1)

    def hearts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`rows`."""
        latents = rows[:, :-FRAME].unflatten(1, self.shape) * self.std + self.mean
        return latents, rows[:, -FRAME:] * self.frame_std + self.frame_mean

    def scores(self, asked: Tensor) -> Asked:
        """(B, K) of :func:`asked_of`, NaN where nothing is asked for.

        What no training heart has a number of counts as not asked for."""
        values = (asked - self.asked_mean) / self.asked_std
        given = values.isfinite() & (self.asked_count > 0)
        return Asked(torch.where(given, values, 0), given)

    def conditioned(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """The fitted distribution under a condition: middle (B, D) of the modes' weights, and
        (B, D, D), which makes draws about it of white noise."""
        links = self.links.to(asked.values)
        spare = (1 - links.square().sum(dim=1)).clamp(min=LEAST_SPARE)
        weight = asked.given / spare  # (B, K)
        precision = torch.einsum("bk,kd,ke->bde", weight, links, links)
        precision = precision + torch.eye(links.shape[1]).to(links)
        middle = torch.linalg.solve(precision, (weight * asked.seen) @ links)
        lower = torch.linalg.cholesky(precision)
        eye = torch.eye(links.shape[1]).to(links).expand_as(lower)
        return middle, torch.linalg.solve_triangular(lower.mT, eye, upper=True)

    def starts(self, noise: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:
        """Draws of the fitted distribution, and the middle of each, (B, M * W + 4) both.

        noise : (B, D), white.
        """
        middle, shape = self.conditioned(asked)
        modes = self.modes.to(noise)
        weights = middle + torch.einsum("bde,be->bd", shape, noise)
        return weights @ modes, middle @ modes

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, as model files have them."""
        return dict(vars(self))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Statistics:
        # A file without counts is taken to know everything that it has a name for.
        counts = {"asked_count": torch.ones_like(tensors["asked_mean"])}
        return cls(**counts | dict(tensors))

    def to(self, device: torch.device) -> Statistics:
        return Statistics(**{name: value.to(device) for name, value in vars(self).items()})


def asked_of(heart: SetLatents) -> np.ndarray:
    """(C + columns,) float64 of what can be asked for: logarithms of the volumes, and the columns;
    NaN where not known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(heart.volumes)
    return np.where(np.isfinite(logs := np.r_[logs, heart.columns]), logs, np.nan)


def _modes(rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Directions (D, P) of (N, P) rows, and the weight of each in each row, (N, D) float64."""
    square = rows.double() @ rows.double().T
    values, vectors = torch.linalg.eigh(square)
    kept = (values > values.max().clamp(min=1e-12) * 1e-6).nonzero()[:, 0].flip(0)
    kept = kept[: most or MOST_MODES]
    number = max(len(rows) - 1, 1)
    weights = vectors[:, kept] * number**0.5
    modes = (weights.T @ rows.double() / number).float()
    return modes, weights
