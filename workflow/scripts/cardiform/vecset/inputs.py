"""Labelled points of a heart, and what a VecSet's encoder is given of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .similarity import Similarity


@dataclass(frozen=True)
class Labelled:
    """Positions (N, 3) float32 and a kind (N,) uint8 for each.

    The kind is the channel of the surface that a point lies on or near; for volume points
    the channel that they lie within, C outside of all.

    normals : (N, 3) float32, outward; of surfaces whose normals are encoded.
    """

    points: np.ndarray
    channels: np.ndarray
    rows: tuple[np.ndarray, ...]  # per class that is there: its rows
    shares: np.ndarray  # per class that is there: its share of a balanced draw
    normals: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        points: np.ndarray,
        channels: np.ndarray,
        weights: np.ndarray | None = None,
        normals: np.ndarray | None = None,
    ) -> Labelled:
        """weights : per channel, of balanced draws; all the same without."""
        present = np.unique(channels)
        rows = tuple(np.flatnonzero(channels == c) for c in present)
        shares = np.ones(len(present)) if weights is None else weights[present]
        return cls(points, channels, rows, shares / shares.sum(), normals)

    def part(self, kept: np.ndarray) -> Labelled:
        """Some of the points, (N,) bool; the classes keep their shares."""
        weights = np.zeros(int(self.channels.max()) + 1)
        for rows, share in zip(self.rows, self.shares):
            weights[self.channels[rows[0]]] = share
        normals = None if self.normals is None else self.normals[kept]
        return Labelled.of(self.points[kept], self.channels[kept], weights, normals)

    def draw(self, count: int, balanced: float, rng: np.random.Generator) -> np.ndarray:
        """``count`` rows with replacement, a share of them balanced over the classes."""
        even = round(count * balanced)
        rows = rng.integers(len(self.points), size=count)
        bounds = np.cumsum(self.shares)[:-1]
        kinds = np.searchsorted(bounds, rng.random(even), side="right")
        places = rng.random(even)
        for kind, members in enumerate(self.rows):
            chosen = np.flatnonzero(kinds == kind)
            rows[chosen] = members[(places[chosen] * len(members)).astype(np.int64)]
        return rows


def labelled_points(points: np.ndarray, channels: np.ndarray, classes: int) -> np.ndarray:
    """(N, 3) positions and (N,) channels to the network's (N, 3 + C) float32 input."""
    one_hot = np.eye(classes, dtype=np.float32)[channels]
    return np.concatenate([points.astype(np.float32), one_hot], axis=1)


def encoded_rows(surface: Labelled, rows: np.ndarray, classes: int) -> np.ndarray:
    """The network's input for some rows of a surface: (N, 3 + C) float32, with normals 3 more."""
    points = labelled_points(surface.points[rows], surface.channels[rows], classes)
    if surface.normals is None:
        return points
    return np.concatenate([points, surface.normals[rows].astype(np.float32)], axis=1)


def moved(points: np.ndarray, move: Similarity, classes: int) -> np.ndarray:
    """The network's input of a heart that is turned, scaled and shifted: normals only turn."""
    parts = [move.apply(points[:, :3]), points[:, 3 : 3 + classes]]
    if points.shape[1] > 3 + classes:
        parts.append((points[:, 3 + classes :] @ move.rotation.T).astype(np.float32))
    return np.concatenate(parts, axis=1)


def farthest_points(
    points: np.ndarray, count: int, channels: np.ndarray | None = None
) -> np.ndarray:
    """Rows (count,) int64 of farthest-point samples, class by class.

    Each class gets its share of the input, so thin structures keep latents of their own;
    within a class the rule is Eldar et al. 1997, from its first point on. Deterministic.

    points : (N, 3 + C) float32, positions and one-hot labels (C may be 0: one class).
    channels : (N,) what the one-hot labels say, where it is known.

    Raises
    ------
    InputError
        fewer points than ``count``, or fpsample is not installed. There is no fallback:
        random points would be another model.
    """
    try:
        import fpsample
    except ImportError:
        raise InputError("fpsample is not installed; run: pip install fpsample") from None
    if not 0 < count <= len(points):
        raise InputError(
            f"{len(points)} input points are too few for {count} latents; raise input_points"
        )
    if channels is None:
        channels = points[:, 3:].argmax(1) if points.shape[1] > 3 else np.zeros(len(points), int)
    sizes = np.bincount(channels)
    chosen = []
    for kind, quota in enumerate(_quotas(sizes, count)):
        if quota:
            rows = np.flatnonzero(channels == kind)
            place = np.ascontiguousarray(points[rows, :3], np.float32)
            chosen.append(rows[fpsample.fps_sampling(place, int(quota), start_idx=0)])
    return np.concatenate(chosen).astype(np.int64)


def draw_input(
    surface: Labelled,
    classes: int,
    *,
    input_points: int,
    latents: int,
    balanced: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's input: points (N, 3 + C) float32 and fps (M,) int64.

    With the normals of the surface, where it has them, points are (N, 3 + C + 3).

    latents : M, those that start at points; 0: none does, and fps is empty.
    """
    rows = surface.draw(input_points, balanced, rng)
    points = encoded_rows(surface, rows, classes)
    return points, starts_of(points, latents, surface.channels[rows])


def starts_of(points: np.ndarray, latents: int, channels: np.ndarray) -> np.ndarray:
    """:func:`farthest_points` where latents start at points; empty where none does."""
    return farthest_points(points, latents, channels) if latents else np.empty(0, np.int64)


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """``count`` dealt out in proportion to ``sizes``, by largest remainder."""
    exact = sizes * count / sizes.sum()
    quotas = np.floor(exact).astype(np.int64)
    rest = np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]
    quotas[rest] += 1
    return quotas
