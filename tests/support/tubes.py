"""Straight and bent tubes on isotropic grids."""

from __future__ import annotations

import numpy as np

SPACING = 0.5


def tube(shape, start, end, radius) -> np.ndarray:
    """(X, Y, Z) bool: voxels within ``radius`` mm of the way from start to end, mm."""
    points = np.indices(shape).reshape(3, -1).T * SPACING
    start, way = np.asarray(start, float), np.subtract(end, start).astype(float)
    along = np.clip((points - start) @ way / (way @ way), 0, 1)
    away = np.linalg.norm(points - start - along[:, None] * way, axis=1)
    return (away <= radius).reshape(shape)


def broken_tube(gap=3.0, radius=1.2):
    """A whole tube along x with a side branch, and the same with a gap in it."""
    shape = (90, 50, 40)
    whole = tube(shape, (5, 10, 10), (40, 10, 10), radius)
    whole |= tube(shape, (15, 10, 10), (15, 20, 12), radius)
    x = np.arange(shape[0]) * SPACING
    cut = (np.abs(x - 27) < gap / 2)[:, None, None]
    return whole, whole & ~cut
