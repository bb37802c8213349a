"""Slots: the latents of all hearts in one order, each at the same place of the anatomy.

A VecSet starts its latents at surface points, chosen anew in every heart: the tenth latent of one
heart and the tenth of another have nothing to do with each other, and a network that is to make
hearts has to learn first that their order means nothing. Here the points are chosen so that it
means something: a mean heart has a number of slots on each class, and optimal transport says which
place of a heart belongs to each of them. So hearts differ by smooth deviations from a mean one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from ..errors import InputError, again, problem
from ..files import save_npz, sha256_file
from ..formats import Format

SLOTS = Format(
    "slots",
    {
        "places": "f32 (M, 3)",
        "channels": "u8 (M)",
        "columns": "text (K)",
        "vecset_sha256": "text",
        "format_version": "i64",
    },
    again("encode_set_latents"),
)
BLUR = 0.25  # of the transport, in squared distances between slots
SINKHORN_STEPS = 60
MOST_EXPONENT = 300.0  # of the kernel: far from what float64 holds
Surface = tuple[np.ndarray, np.ndarray]  # (N, 3) points, unit frame, and (N,) channels


@dataclass(frozen=True)
class Slots:
    """The mean heart.

    places : (M, 3) float32, unit frame.    channels : (M,) uint8, the class of each.
    """

    places: np.ndarray
    channels: np.ndarray

    def rows(self, points: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """(M,) int64: which of (N, 3) surface points of channels (N,) each slot takes.

        A class that the heart lacks gives its slots no points: they take the nearest of any.
        """
        result = np.empty(len(self.places), np.int64)
        for channel in np.unique(self.channels):
            own = np.flatnonzero(self.channels == channel)
            members = np.flatnonzero(channels == channel)
            if len(members):
                result[own] = members[_matched(self.places[own], points[members])]
            else:
                result[own] = KDTree(points).query(self.places[own])[1]
        return result

    def means(self, points: np.ndarray, channels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(M, D) float64 means of (N, D) numbers of a surface over what each slot gets of it.

        Where the heart has no such class, NaN. Unlike the one point of :meth:`rows`, the mean does
        not hop from point to point.

        points, channels : (N, 3) and (N,) of the surface.
        """
        result = np.full((len(self.places), numbers.shape[1]), np.nan)
        for channel in np.intersect1d(self.channels, channels):
            own = np.flatnonzero(self.channels == channel)
            members = np.flatnonzero(channels == channel)
            result[own] = _shares(self.places[own], points[members]) @ numbers[members]
        return result

    def digest(self) -> str:
        """Hex digest."""
        state = hashlib.sha256(np.ascontiguousarray(self.places).data)
        state.update(np.ascontiguousarray(self.channels).data)
        return state.hexdigest()

    def save(self, path: Path, columns: Sequence[str], vecset_sha256: str) -> None:
        """With the columns of the latents beside it, and the hash of the model that made them."""
        save_npz(
            path,
            places=self.places,
            channels=self.channels,
            columns=np.array(list(columns), str),
            vecset_sha256=np.array(vecset_sha256),
            format_version=SLOTS.version,
        )


def load_slots(path: str | Path) -> tuple[Slots, tuple[str, ...], str]:
    """Slots, names of the columns, and the hash of the VecSet's model.pt."""
    arrays = SLOTS.load(path)
    columns = tuple(str(name) for name in arrays["columns"])
    slots = Slots(arrays["places"], arrays["channels"])
    return slots, columns, str(arrays["vecset_sha256"])


def check_made_by(path: Path, made_by: str, vecset: Path) -> None:
    """InputError where slots, and so the latents in them, are of another VecSet.

    path, made_by : file of the slots, and the hash in it.    vecset : model.pt.
    """
    if made_by != sha256_file(vecset):
        fact = "is of another VecSet than --vecset"
        raise InputError(problem(path, fact, again("encode_set_latents")))


def _matched(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(Q,) rows of (N, 3) points, one for each of (Q, 3) places of the mean heart: the point
    nearest to the middle of what the place gets of them."""
    return KDTree(points).query(_shares(places, points) @ points)[1]


def _shares(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(Q, N) how much of each place of the mean heart is each of (N, 3) points; rows add up to 1.

    Both sets are moved to one middle and scaled to one size; then all points are dealt out to the
    places, each of which gets as much of the surface as the others, with the least sum of squared
    ways (entropic optimal transport; Cuturi, NeurIPS 2013).
    """
    wanted = _normal(places)
    ways = cdist(wanted, _normal(points), "sqeuclidean")
    spacing = KDTree(wanted).query(wanted, k=min(2, len(wanted)))[0].reshape(len(wanted), -1)
    blur = max(BLUR * float(np.square(spacing[:, -1]).mean()), ways.max() / MOST_EXPONENT, 1e-6)
    kernel = np.exp(-ways / blur)
    of_points = np.ones(len(points))
    for _ in range(SINKHORN_STEPS):
        of_places = 1 / (len(places) * (kernel @ of_points))
        of_points = 1 / (len(points) * (of_places @ kernel))
    shares = of_places[:, None] * kernel * of_points
    return shares / shares.sum(axis=1, keepdims=True)


def _normal(points: np.ndarray) -> np.ndarray:
    apart = points - points.mean(axis=0)
    return apart / max(np.sqrt(np.square(apart).sum(axis=1).mean()), 1e-6)
