"""The surface that a cloud without classes was taken from, found again in its density."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SMOOTH_VOX = 0.7  # of the density: that of few points is lumps, which have no normal
LEAST = 1e-6
STEPS = 20
LONGEST_VOX = 0.5  # of a step
ARRIVED_VOX = 0.02
# As far beyond the ridge as the wall is before it the density has fallen by half as much at least.
# It has not in a solid, whose surface is the wall itself.
FALLS = 0.5
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def on_ridge(points: np.ndarray, field: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Points on the walls of a density, moved across to where it is highest between them.

    A smoothed density of surface points is a shell: its walls lie before and behind the surface,
    its ridge on it. Each point moves along the direction in which the logarithm of the density is
    most curved, by Newton's steps: for the profile of a gaussian the first one arrives. A point
    that finds no ridge stays.

    points : (N, 3) mm.    field : (S, S, S), at least 0.    affine : (4, 4) voxels to mm.
    """
    at = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    density = _Density(field)
    start, found = at, at.copy()
    moving = np.ones(len(at), bool)
    for _ in range(STEPS):
        if not moving.any():
            break
        step = density.step(found[moving])
        found[moving] += step
        moving[moving] = np.linalg.norm(step, axis=1) > ARRIVED_VOX
    before, top, beyond = (density.values(x) for x in (start, found, 2 * found - start))
    arrived = ~moving & (top - beyond >= FALLS * (top - before))
    return np.where(arrived[:, None], found @ affine[:3, :3].T + affine[:3, 3], points)


class _Density:
    """A smoothed field with its derivatives, between the voxels."""

    def __init__(self, field: np.ndarray):
        field = np.asarray(field, np.float32)
        orders = [np.eye(3, dtype=int)[k] for k in range(3)]
        first = [tuple(order) for order in orders]
        second = [tuple(orders[a] + orders[b]) for a, b in PAIRS]
        self.parts = [
            ndimage.gaussian_filter(field, SMOOTH_VOX, order=order, mode="constant")
            for order in ((0, 0, 0), *first, *second)
        ]

    def values(self, at: np.ndarray) -> np.ndarray:
        """(N,) at (N, 3) voxel places."""
        return ndimage.map_coordinates(self.parts[0], at.T, order=1, mode="constant")

    def step(self, at: np.ndarray) -> np.ndarray:
        """(N, 3) voxels towards the ridge; zero where the density is nothing, or has none."""
        value, *rest = (
            ndimage.map_coordinates(part, at.T, order=1, mode="constant") for part in self.parts
        )
        value = np.maximum(value, LEAST)
        slope = np.stack(rest[:3], axis=1) / value[:, None]
        bend = np.empty((len(at), 3, 3))
        for (a, b), part in zip(PAIRS, rest[3:]):
            bend[:, a, b] = bend[:, b, a] = part / value - slope[:, a] * slope[:, b]
        curvatures, directions = np.linalg.eigh(bend)
        across, most = directions[:, :, 0], curvatures[:, 0]
        along = (slope * across).sum(axis=1)
        length = np.where(most < 0, -along / np.minimum(most, -LEAST), 0)
        return across * np.clip(length, -LONGEST_VOX, LONGEST_VOX)[:, None]
