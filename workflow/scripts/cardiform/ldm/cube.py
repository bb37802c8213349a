"""The cube of voxels in which hearts are generated, and label maps on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..geometry.frame import apply_affine
from ..labels import channel_of_value
from ..volumes import LabelMap

MOST_SUBSAMPLES = 4  # per axis and voxel: the error of a share is below a hundredth then
ROUND_MM = 1.0  # edges are rounded up to this, so that one more heart rarely moves the grid
RIM_VOXELS = 2


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
    """Edge of the cube of ``size`` voxels that holds boxes of (N, 3) mm with a rim."""
    needed = float(np.max(extents)) * size / (size - 2 * RIM_VOXELS)
    return float(np.ceil(needed / ROUND_MM) * ROUND_MM)


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

    A voxel is labelled where the classes of ``values`` fill at least half of it, with the
    class that fills most: where two classes touch no gap opens, and volumes stay. The shares are
    counted at up to 64 points in each voxel. Values beside ``values`` count as background.
    """
    parts = int(np.clip(np.ceil(cube.spacing / label_map.spacing.min()), 1, MOST_SUBSAMPLES))
    values = np.asarray(list(values), np.uint8)
    lookup = np.array(channel_of_value(values, first=1), np.uint8)
    classes = lookup[label_map.data]
    to_source = np.linalg.inv(label_map.affine) @ cube.subdivided(parts)
    size, fine, channels = cube.size, cube.size * parts, len(values) + 1
    column = np.repeat(np.arange(size), parts)
    place = (column[:, None] * size + column[None, :])[None] * channels
    result = np.empty((size, size, size), np.uint8)
    for x in range(size):
        offset = to_source[:3, :3] @ (x * parts, 0, 0) + to_source[:3, 3]
        slab = ndimage.affine_transform(
            classes, to_source[:3, :3], offset, (parts, fine, fine), order=0, mode="constant"
        )
        counts = np.bincount((place + slab).ravel(), minlength=size * size * channels)
        counts = counts.reshape(size, size, channels)
        inside = 2 * counts[..., 1:].sum(axis=-1) >= parts**3
        result[x] = np.where(inside, values[counts[..., 1:].argmax(axis=-1)], 0)
    return result
