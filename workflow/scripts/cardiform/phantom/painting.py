"""Label maps of hearts that are made of solids, painted block by block."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..geometry.grids import box_corners
from ..labels import LabelTable
from .shapes import Shape, box_distance

LABELS = LabelTable()
# Points per evaluation: the working arrays stay within the cache of a core.
CHUNK_POINTS = 65_536
# Voxels along the edge of a block that is skipped or evaluated as a whole.
BLOCK = 4
# Distances of ellipsoids and blends are exact to first order only; a block is skipped where
# its centre is farther from the surface than this many half diagonals.
BLOCK_SAFETY = 1.6


class Painted(ABC):
    """A heart of solids in a scanner; a subclass says where they are."""

    block_safety = BLOCK_SAFETY
    size: float  # world millimetres per unit of a distance

    @property
    @abstractmethod
    def solids(self) -> tuple[Shape | None, ...]:
        """The whole solid of every class in channel order, heart frame; None: missing."""

    @property
    @abstractmethod
    def scan_range(self) -> tuple[float, float]:
        """Lowest and highest z of the scan, RAS mm."""

    @abstractmethod
    def _to_heart(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) RAS mm to the heart frame."""

    @abstractmethod
    def _world_box(self, solid: Shape) -> np.ndarray:
        """(2, 3) corners of a world box around a solid, RAS mm."""

    def bounds(self) -> np.ndarray:
        """(2, 3) corners of the world box that holds every structure, RAS mm."""
        boxes = np.stack([self._world_box(s) for s in self.solids if s is not None])
        low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
        low[2], high[2] = max(low[2], self.scan_range[0]), min(high[2], self.scan_range[1])
        return np.stack([low, high])

    def label_map(self, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
        """(X, Y, Z) uint8 class values at the voxel centres of the grid."""
        labels = np.zeros(shape, np.uint8)
        order = sorted(range(len(LABELS)), key=lambda c: -LABELS[c].priority)
        for channel in order:
            solid = self.solids[channel]
            if solid is not None:
                self._paint(labels, np.asarray(affine, np.float64), channel, self._world_box(solid))
        return labels

    def _whole(self, channel: int, points: np.ndarray) -> np.ndarray:
        """(N,) distances in mm to the whole solid of a class that is there, world points."""
        solid = self.solids[channel]
        assert solid is not None
        return self.size * solid.evaluate(self._to_heart(points))[0]

    def _paint(self, labels: np.ndarray, affine: np.ndarray, channel: int, box: np.ndarray) -> None:
        """Set the voxels of one whole solid, which lies in a world box, block by block."""
        value = LABELS[channel].value
        window = _voxel_window(box, affine, labels.shape)
        if window is None:
            return
        low, high = window
        blocks = -(-(high - low) // BLOCK)
        index = np.indices(blocks).reshape(3, -1).T * BLOCK + low
        centers = (index + (BLOCK - 1) / 2) @ affine[:3, :3].T + affine[:3, 3]
        half = np.linalg.norm(np.abs(affine[:3, :3]).sum(axis=1)) * (BLOCK - 1) / 2
        near = box_distance(box, centers) <= half
        index, centers = index[near], centers[near]
        distance = np.concatenate(
            [self._whole(channel, part) for part in _parts(centers)] or [np.empty(0)]
        )
        offsets = np.indices((BLOCK,) * 3).reshape(3, -1).T
        mixed = np.abs(distance) <= self.block_safety * half
        self._set(labels, (index[distance < -self.block_safety * half], offsets), affine, value)
        self._set(labels, (index[mixed], offsets), affine, value, channel)

    def _set(self, labels, blocks, affine, value: int, channel: int | None = None) -> None:
        """Set the voxels of blocks, those inside the channel's solid where one is given."""
        index, offsets = blocks
        low, high = self.scan_range
        for part in _parts(index, CHUNK_POINTS // len(offsets)):
            voxels = (part[:, None] + offsets).reshape(-1, 3)
            voxels = voxels[(voxels < labels.shape).all(axis=1)]
            world = voxels @ affine[:3, :3].T + affine[:3, 3]
            inside = (world[:, 2] > low) & (world[:, 2] < high)
            if channel is not None:
                inside[inside] = self._whole(channel, world[inside]) < 0
            labels[tuple(voxels[inside].T)] = value


def _parts(array: np.ndarray, size: int = CHUNK_POINTS):
    return (array[k : k + size] for k in range(0, len(array), size))


def _voxel_window(box: np.ndarray, affine: np.ndarray, shape):
    """Lowest and highest voxel (exclusive) of a grid that may lie in a world box, or None."""
    corners = box_corners(*box) - affine[:3, 3]
    voxels = corners @ np.linalg.inv(affine[:3, :3]).T
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 1, shape)
    return (low, high) if (low < high).all() else None
