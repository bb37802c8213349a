"""The cube of voxels in which hearts are generated, and label maps on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..geometry.frame import apply_affine
from ..labels import channel_of_value
from ..volumes import LabelMap
from .bonus import bonuses

# Per axis and voxel; an odd number, so that a plane never halves the points of a voxel: where it
# did, surfaces on both sides of a class won, and classes grew (myocardium by a seventh).
MOST_SUBSAMPLES = 5
LARGEST_BONUS = 0.25  # of a class that would lose volume: of a voxel's shares
# What decides between equal shares: the shares around them, then the place; of a share.
BY_SURROUNDINGS, BY_PLACE = 1e-4, 1e-8
ROUND_MM = 1.0  # edges are rounded up to this, so that one more heart rarely moves the grid
RIM_VOXELS = 2
# A heart is cut where it is so much larger than nearly all: one that came with half a chest would
# make the voxels of all others coarse.
USUAL, MARGIN = 95, 1.15  # percentile, and what it is multiplied with
CHAMBERS = ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium")
# RAS mm: with its great vessels a heart reaches further behind and above the chambers. A constant:
# what follows from the vessels that a scan shows would move the heart with its field of view.
WITH_VESSELS = (0.0, -17.0, 6.0)
MICRON = 3  # decimals of a millimetre
ROUNDS = 100  # of the two means that heart_centers takes in turn


@dataclass(frozen=True)
class Cube:
    """A cube of voxels; its axes are those of RAS.

    center : (3,) float64 mm, the middle of the cube.
    spacing : edge of a voxel, mm.
    size : voxels along each edge.
    """

    center: np.ndarray
    spacing: float
    size: int

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel indices to RAS mm."""
        return self.subdivided(1)

    def subdivided(self, parts: int) -> np.ndarray:
        """The affine of the cube with ``parts`` voxels in the place of each, along each axis."""
        edge, count = self.spacing / parts, self.size * parts
        affine = np.diag([edge, edge, edge, 1.0])
        affine[:3, 3] = np.asarray(self.center, np.float64) - edge * (count - 1) / 2
        return affine


def edge_mm(extents: np.ndarray, size: int) -> float:
    """Edge of the cube of ``size`` voxels that holds boxes of (N, 3) mm with a rim: all of them,
    but for boxes that are far larger than nearly all others."""
    largest = np.asarray(extents, np.float64).reshape(len(extents), -1).max(axis=1)
    held = min(float(largest.max()), MARGIN * float(np.percentile(largest, USUAL)))
    needed = held * size / (size - 2 * RIM_VOXELS)
    return float(np.ceil(needed / ROUND_MM) * ROUND_MM)


def reach_mm(box: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(3,) mm: extents of the box about ``center`` that holds a (2, 3) box."""
    return 2 * np.abs(np.asarray(box) - center).max(axis=0)


def heart_centers(
    middles: Sequence[Mapping[str, np.ndarray]], classes: Collection[str]
) -> np.ndarray:
    """(N, 3) mm: the middle of the cubes of N hearts, wherever their scans end.

    The mean of the chambers' own middles, and :data:`WITH_VESSELS` from there. Of a heart that
    lacks some, the mean over what it has of where the middle is, seen from there, in the other
    hearts. Where no heart has a chamber, all classes are taken in their place.

    middles : class name -> (3,) mm, of the classes that the scan does not cut.
    classes : names of all that take part.
    """
    names = sorted(set().union(*middles))
    core = [n for n in names if n in CHAMBERS] or names
    at = np.array([[m.get(n, np.full(3, np.nan)) for n in names] for m in middles], np.float64)
    chosen = np.isfinite(at[..., 0])
    is_core = np.isin(names, core)
    # what lies outside of the chambers moves with the field of view: it counts alone only
    weights = np.where((chosen & is_core).any(axis=1, keepdims=True), chosen & is_core, chosen)
    seen = np.where(chosen[..., None], at, 0)
    offsets = np.zeros((len(names), 3))
    for _ in range(ROUNDS):
        centers = _mean(seen - offsets, weights, axis=1)
        offsets = _mean(seen - centers[:, None], chosen, axis=0)
        offsets -= offsets[is_core].mean(axis=0)
    if "aorta" in classes and set(core) & set(CHAMBERS):
        centers = centers + WITH_VESSELS
    return centers.round(MICRON)  # so that other hearts do not move one by a rounding


def _mean(values: np.ndarray, chosen: np.ndarray, axis: int) -> np.ndarray:
    total = (values * chosen[..., None]).sum(axis=axis)
    return total / np.maximum(chosen.sum(axis=axis), 1)[:, None]


def labelled_box(label_map: LabelMap, values) -> np.ndarray | None:
    """(2, 3) lowest and highest corner, RAS mm, of the voxels with one of ``values``."""
    chosen = np.isin(label_map.data, list(values))
    x, y = np.nonzero(chosen.any(axis=2))
    if not len(x):
        return None
    # a linear function over the voxels is largest at an end of a column
    first = chosen.argmax(axis=2)[x, y]
    last = chosen.shape[2] - 1 - chosen[:, :, ::-1].argmax(axis=2)[x, y]
    index = np.concatenate([np.stack([x, y, end], axis=1) for end in (first, last)])
    world = apply_affine(label_map.affine, index)
    half = np.abs(label_map.affine[:3, :3]).sum(axis=1) / 2
    return np.stack([world.min(axis=0) - half, world.max(axis=0) + half])


def class_centroids(label_map: LabelMap, values: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Name -> (3,) RAS mm middle of each class that is there."""
    found = {}
    for name, value in values.items():
        index = np.argwhere(label_map.data == value)
        if len(index):
            found[name] = apply_affine(label_map.affine, index.mean(axis=0))
    return found


def on_cube(label_map: LabelMap, cube: Cube, values) -> np.ndarray:
    """A label map on a coarse grid, antialiased: (S, S, S) uint8.

    A voxel is labelled where the classes of ``values`` fill about half of it, with the class that
    fills most: where two classes touch no gap opens. What "half" and "most" are follows from the
    volumes (see :func:`_chosen`). Shares are counted at up to 125 points in each voxel. Values
    beside ``values`` count as background.
    """
    values = np.asarray(list(values), np.uint8)
    shares = _shares(label_map, cube, values)
    return np.r_[np.uint8(0), values][_chosen(shares)]


def _shares(label_map: LabelMap, cube: Cube, values: np.ndarray) -> np.ndarray:
    """(S, S, S, C + 1) float32: how much of each voxel the background and each class fill."""
    parts = int(np.clip(np.ceil(cube.spacing / label_map.spacing.min()), 1, MOST_SUBSAMPLES)) | 1
    lookup = np.array(channel_of_value(values, first=1), np.uint8)
    classes = lookup[label_map.data]
    to_source = np.linalg.inv(label_map.affine) @ cube.subdivided(parts)
    size, fine, channels = cube.size, cube.size * parts, len(values) + 1
    column = np.repeat(np.arange(size), parts)
    place = (column[:, None] * size + column[None, :])[None] * channels
    shares = np.empty((size, size, size, channels), np.float32)
    for x in range(size):
        offset = to_source[:3, :3] @ (x * parts, 0, 0) + to_source[:3, 3]
        slab = ndimage.affine_transform(
            classes, to_source[:3, :3], offset, (parts, fine, fine), order=0, mode="grid-constant"
        )
        counts = np.bincount((place + slab).ravel(), minlength=size * size * channels)
        shares[x] = counts.reshape(size, size, channels) / parts**3
    return shares


def _chosen(shares: np.ndarray) -> np.ndarray:
    """(S, S, S) channel of each voxel, 0 background: every class keeps its volume.

    The channel is the one with the largest share, where all classes together stand against the
    background. A plain majority would make convex classes smaller (a ball of three voxels'
    radius by 3 %), so each class gets a bonus with which it has as many voxels as its shares add
    up to. A small one: what is far thinner than a voxel still vanishes. Voxels with equal shares
    are ranked by the shares around them, and those that are equal in that, too, by their place:
    never all, on both sides of a class, are won or lost.

    shares : (S, S, S, C + 1) float32.
    """
    size, channels = shares.shape[0], shares.shape[-1]
    result = np.zeros(size**3, np.uint8)
    filled = np.flatnonzero((shares[..., 0] < 1).ravel())
    if not len(filled):
        return result.reshape((size,) * 3)
    wanted = shares.sum(axis=(0, 1, 2), dtype=np.float64).round().astype(int)
    around = ndimage.uniform_filter(shares, (3, 3, 3, 1)).reshape(-1, channels)[filled]
    given = shares.reshape(-1, channels)[filled].astype(np.float64)
    # against the background the class that fills most stands for all of them
    worth = given.copy()
    worth[:, 1:] += (given[:, 1:].sum(axis=1) - given[:, 1:].max(axis=1))[:, None]
    worth += BY_SURROUNDINGS * around + BY_PLACE * np.outer(filled / size**3, np.arange(channels))
    worth[:, 1:][given[:, 1:] == 0] = -np.inf
    worth += bonuses(worth, wanted, LARGEST_BONUS)
    result[filled] = worth.argmax(axis=1)
    return result.reshape((size,) * 3)
