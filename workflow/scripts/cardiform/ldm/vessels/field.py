"""A vessel tree as channels on the coarse grid of a heart, and back to places and radii.

Every voxel within :data:`REACH_VOX` of a centreline says how near that is, where, and how wide
the vessel is there: several voxels about a place say so, and where they agree they can be
believed. Thinner than a voxel, a vessel keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ...errors import again
from ...files import save_npz
from ...formats import Format
from .tree import VesselTree

CHANNELS = 5  # closeness, the way to the centreline (3), radius
REACH_VOX = 1.5
SIGNAL = 2.0  # values lie within so much of 0: noise of deviation 1 hides them late
RADIUS_MM, RADIUS_SPREAD = 1.5, 0.7  # what a radius is measured by, and its logarithm
RIM_VOX = 0.5  # between the trees of the training and the faces of their box, beyond the reach
LEVEL = 0.4  # closeness of a voxel that is believed
VOTES = Format(
    "vessel-votes",
    {"points": "f32 (N, 3)", "radii": "f32 (N)", "weights": "f32 (N)", "format_version": "i64"},
    again("draw_vessels", "draw_set_vessels"),
)


@dataclass(frozen=True)
class Votes:
    """What the voxels say of a tree.

    points : (N, 3) float64 mm from the middle of the cube, on centrelines.
    radii : (N,) float64 mm.    weights : (N,) float64, closeness.
    """

    points: np.ndarray
    radii: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Box:
    """The part of the cube in which vessels run: the network looks at nothing else.

    start, size : (3,) voxels.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def of(cls, trees: Iterable[VesselTree], size: int, spacing: float, multiple: int) -> Box:
        """The box about some trees, at least one of which has a node.

        size : voxels along the edge of the cube, a multiple of ``multiple``, as those of the box.
        """
        ends = np.array([[t.points.min(axis=0), t.points.max(axis=0)] for t in trees if len(t)])
        low = ends[:, 0].min(axis=0) / spacing + (size - 1) / 2 - REACH_VOX - RIM_VOX
        high = ends[:, 1].max(axis=0) / spacing + (size - 1) / 2 + REACH_VOX + RIM_VOX
        low, high = np.floor(low), np.ceil(high) + 1
        count = np.minimum(np.ceil((high - low) / multiple) * multiple, size)
        start = np.clip(np.round((low + high - count) / 2), 0, size - count)
        return cls(tuple(map(int, start)), tuple(map(int, count)))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Of the last three axes of an array over the cube."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size))

    def as_lists(self) -> list[list[int]]:
        """Plain builtins, as in model files."""
        return [list(self.start), list(self.size)]

    @classmethod
    def from_lists(cls, content: Sequence[Sequence[int]]) -> Box:
        """The inverse."""
        start, size = content
        return cls(tuple(start), tuple(size))


def centres(size: int, spacing: float) -> np.ndarray:
    """(S, S, S, 3) float64 mm from the middle of the cube."""
    along = (np.arange(size) - (size - 1) / 2) * spacing
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1)


def encode(tree: VesselTree, size: int, spacing: float, box: Box | None = None) -> np.ndarray:
    """(CHANNELS, S, S, S) float32, or of the voxels of a box.

    size : voxels along the edge of the cube.    spacing : edge of a voxel, mm.
    """
    places = centres(size, spacing)
    places = places if box is None else places[box.slices]
    field = np.zeros((CHANNELS, *places.shape[:3]), np.float32)
    field[0] = -1
    if len(tree):
        reach = REACH_VOX * spacing
        away, near = cKDTree(tree.points).query(places, distance_upper_bound=reach)
        inside = np.isfinite(away)
        near = near[inside]
        field[0][inside] = 1 - 2 * away[inside] / reach
        field[1:4, inside] = ((tree.points[near] - places[inside]) / reach).T
        field[4][inside] = np.log(tree.radii[near] / RADIUS_MM) / RADIUS_SPREAD
    return SIGNAL * field


def decode(
    field: np.ndarray, size: int, spacing: float, box: Box | None = None, level: float = LEVEL
) -> Votes:
    """The inverse, as far as voxels above a level of closeness tell."""
    places = centres(size, spacing)
    places = places if box is None else places[box.slices]
    values = np.asarray(field, np.float64) / SIGNAL
    closeness = (values[0] + 1) / 2
    chosen = closeness > level
    off = values[1:4, chosen].T * REACH_VOX * spacing
    radii = RADIUS_MM * np.exp(np.clip(values[4][chosen], -2, 2) * RADIUS_SPREAD)
    return Votes(places[chosen] + off, radii, np.minimum(closeness[chosen], 1.0))


def save_votes(path: str | Path, votes: Votes) -> None:
    """Write them as npz."""
    save_npz(
        path,
        compressed=True,
        points=votes.points.astype(np.float32),
        radii=votes.radii.astype(np.float32),
        weights=votes.weights.astype(np.float32),
        format_version=VOTES.version,
    )


def load_votes(path: str | Path) -> Votes:
    """The inverse; InputError where the file is none."""
    content = VOTES.load(path)
    return Votes(*(content[name].astype(np.float64) for name in ("points", "radii", "weights")))
