"""Classes that keep their volumes where the best of several wins a voxel."""

from __future__ import annotations

import numpy as np

ROUNDS = 6  # over the classes; they move each other's borders


def bonuses(worth: np.ndarray, wanted: np.ndarray, limit: float) -> np.ndarray:
    """(C,) float64: what to add to ``worth`` so that each class wins as many voxels as it should.

    Class 0, the background, gets none: it has what the others leave.

    worth : (N, C) of each class in each voxel; -inf: never. The largest wins.
    wanted : (C,) voxels.
    limit : of a bonus, in both directions.
    """
    bonus = np.zeros(worth.shape[1])
    scores = worth.copy()
    for _ in range(ROUNDS):
        for k in range(1, len(bonus)):
            scores[:, k] = -np.inf
            lacking = scores.max(axis=1) - worth[:, k]
            bonus[k] = _level(lacking, int(wanted[k]), limit)
            scores[:, k] = worth[:, k] + bonus[k]
    return bonus


def _level(lacking: np.ndarray, number: int, limit: float) -> float:
    """Between what the last of ``number`` voxels lacks and the first that shall not be won."""
    if number <= 0:
        return -limit if (lacking <= 0).any() else 0.0
    if number >= len(lacking):
        return limit if (lacking >= 0).any() else 0.0
    last, first = np.partition(lacking, (number - 1, number))[number - 1 : number + 1]
    return float(np.clip((last + min(first, last + limit)) / 2, -limit, limit))
