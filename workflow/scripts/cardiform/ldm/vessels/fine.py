"""A heart of the coarse grid on a finer one, and its vessels drawn in."""

from __future__ import annotations

import numpy as np

from ..cube import Cube
from .tree import VesselTree

RIM_VOX = 2  # coarse voxels around the heart
# Half the diagonal of a voxel: a ball of it about any place holds a voxel's middle.
LEAST_VOX = 3**0.5 / 2
# Equal shares are ranked by their place: else all of them, on both sides of a class, would be won
# (where the grids' spacings are a whole number apart a box grew by an eighth).
BY_PLACE = 1e-4


def fine_cube(edge_mm: float, spacing: float) -> Cube:
    """The cube of a heart in finer voxels, about its middle."""
    return Cube(np.zeros(3), spacing, max(round(edge_mm / spacing), 1))


def finer(channels: np.ndarray, coarse: Cube, fine: Cube) -> np.ndarray:
    """(N, N, N) uint8 channels: smooth surfaces between the classes, which keep their volumes.

    channels : (S, S, S) uint8, 0 background.    coarse, fine : their grids.
    """
    result = np.zeros((fine.size,) * 3, np.uint8)
    there = np.argwhere(channels > 0)
    if not len(there):
        return result
    low = np.maximum(there.min(axis=0) - RIM_VOX, 0)
    high = np.minimum(there.max(axis=0) + 1 + RIM_VOX, coarse.size)
    box = channels[tuple(map(slice, low, high))]
    weights, spans = [], []
    for axis in range(3):
        of_axis = _spline(coarse, fine)[:, low[axis] : high[axis]]
        rows = np.flatnonzero(of_axis.any(axis=1))
        spans.append(slice(int(rows[0]), int(rows[-1]) + 1))
        weights.append(of_axis[spans[-1]])
    shape = tuple(len(w) for w in weights)
    best, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    chosen = np.zeros(shape, np.uint8)
    x, y, z = (np.linspace(-BY_PLACE, BY_PLACE, count, dtype=np.float32) for count in shape)
    place = x[:, None, None] + y[:, None] / 3 + z / 9
    for channel in np.unique(box[box > 0]).tolist():
        share = (box == channel).astype(np.float32)
        for of_axis in weights:  # each axis goes to the end in its turn
            share = np.tensordot(share, of_axis, axes=([0], [1]))
        share += np.where(share > BY_PLACE, place / 2, 0)
        total += share
        share /= _level(share)
        nearer = share > best
        chosen[nearer], best[nearer] = channel, share[nearer]
    result[tuple(spans)] = np.where((best >= 1) | (total >= 0.5), chosen, 0)
    return result


def _level(share: np.ndarray) -> float:
    """The share that as many voxels reach as the shares make together: so a class keeps its
    volume, as thin ones would not at one half."""
    found = share[share > 0]
    voxels = min(round(float(share.sum(dtype=np.float64))), len(found))
    if not voxels:
        return float("inf")
    return float(np.partition(found, len(found) - voxels)[len(found) - voxels])


def _spline(coarse: Cube, fine: Cube) -> np.ndarray:
    """(N, S) float32 weights of a cubic B-spline: it smooths the steps of the voxels."""
    places = (np.arange(fine.size) - (fine.size - 1) / 2) * fine.spacing / coarse.spacing
    away = np.abs(places[:, None] - (np.arange(coarse.size) - (coarse.size - 1) / 2))
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away) ** 3 / 6
    return np.where(away < 1, near, np.where(away < 2, far, 0)).astype(np.float32)


def draw(tree: VesselTree, fine: Cube) -> np.ndarray:
    """(N, N, N) bool: the vessels as tubes, each in one piece whatever its radius."""
    size, spacing = fine.size, fine.spacing
    mask = np.zeros((size,) * 3, bool)
    points, radii = dense(tree, spacing / 2)
    radii = np.maximum(radii / spacing, LEAST_VOX)
    index = points / spacing + (size - 1) / 2
    for reach in np.unique(np.ceil(radii)).astype(int).tolist():
        chosen = np.ceil(radii).astype(int) == reach
        around = np.indices((2 * reach + 1,) * 3).reshape(3, -1).T - reach
        voxels = np.round(index[chosen])[:, None] + around
        inside = np.linalg.norm(voxels - index[chosen][:, None], axis=2) <= radii[chosen][:, None]
        found = voxels[inside].astype(int)
        found = found[((found >= 0) & (found < size)).all(axis=1)]
        mask[tuple(found.T)] = True
    return mask


def dense(tree: VesselTree, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii along all steps of a tree, no farther apart than ``step`` mm."""
    there = np.flatnonzero(tree.before >= 0)
    if not len(there):
        return tree.points, tree.radii
    parts = max(int(np.ceil(tree.steps.max() / step)), 1)
    t = np.arange(1, parts + 1)[:, None] / parts
    start, end = tree.before[there], there
    points = tree.points[start] + t[..., None] * (tree.points[end] - tree.points[start])
    radii = tree.radii[start] + t * (tree.radii[end] - tree.radii[start])
    return (
        np.concatenate([tree.points, points.reshape(-1, 3)]),
        np.concatenate([tree.radii, radii.ravel()]),
    )
