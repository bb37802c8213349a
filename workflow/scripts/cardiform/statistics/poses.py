"""Position, turn and size of hearts: what is taken away before shapes are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 10
STILL = 1e-4  # mm that the mean moves by: it has settled


@dataclass(frozen=True)
class Pose:
    """A similarity: ``scale * points @ turn.T + shift``, mm to mm.

    turn : (3, 3) float64 rotation.    shift : (3,) float64.    scale : float.
    """

    turn: np.ndarray
    shift: np.ndarray
    scale: float = 1.0

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> Pose:
        """Of a (4, 4) affine."""
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        return cls(matrix[:3, :3] / scale, matrix[:3, 3], scale)

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) float64."""
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = self.scale * self.turn, self.shift
        return result

    @property
    def rigid(self) -> Pose:
        """The same without the change of size: of points that are as large as their heart."""
        return Pose(self.turn, self.shift)

    @property
    def inverse(self) -> Pose:
        return Pose(self.turn.T, -(self.shift @ self.turn) / self.scale, 1 / self.scale)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) float64."""
        return self.scale * points @ self.turn.T + self.shift


def best_pose(
    points: np.ndarray, onto: np.ndarray, *, with_scale: bool = False, turning: bool = True
) -> Pose:
    """The pose that brings points to others in the sense of least squares (Umeyama 1991).

    points, onto : (N, 3) mm, row by row.
    """
    middle, target = points.mean(axis=0, dtype=np.float64), onto.mean(axis=0, dtype=np.float64)
    a, b = points - middle, onto - target
    left, values, right = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = left * sign @ right if turning else np.eye(3)
    spread = float((a**2).sum())
    scale = float((values * sign).sum() / spread) if with_scale and spread > 0 else 1.0
    return Pose(turn, target - scale * turn @ middle, scale)


def aligned(shapes: np.ndarray, *, with_scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes alignment (Gower 1975).

    shapes : (N, V, 3) vertices in correspondence.

    Returns
    -------
    mean : (V, 3) float64 about its middle, as large as the hearts are in the mean.
    moved : (N, V, 3) float32, the shapes in the pose of the mean.
    """
    size = np.mean([_size(shape) for shape in shapes])
    mean = shapes[0] - shapes[0].mean(axis=0, dtype=np.float64)
    for _ in range(ROUNDS):
        moved = np.stack([onto_mean(s, mean, with_scale=with_scale) for s in shapes])
        new = moved.mean(axis=0, dtype=np.float64)
        new -= new.mean(axis=0)
        if with_scale:
            new *= size / _size(new)
        # against a slow turn of the mean, which means nothing
        new = best_pose(new, mean)(new)
        change, mean = float(np.abs(new - mean).max()), new
        if change < STILL:
            break
    return mean, np.stack([onto_mean(s, mean, with_scale=with_scale) for s in shapes])


def onto_mean(shape: np.ndarray, mean: np.ndarray, *, with_scale: bool) -> np.ndarray:
    """(V, 3) float32: a shape in the pose of the mean."""
    pose = best_pose(shape, mean, with_scale=with_scale)
    return pose(shape.astype(np.float64)).astype(np.float32)


def common_middles(places: Sequence[np.ndarray]) -> np.ndarray:
    """(C, 3) mean of the middles of the classes of hearts, in a common pose.

    places : of (C, 3) mm, of hearts that have all of the classes.
    """
    mean = places[0] - places[0].mean(axis=0)
    for _ in range(ROUNDS):
        mean = np.mean([middles_pose(p, mean)(p) for p in places], axis=0)
    return mean


def middles_pose(places: np.ndarray, onto: np.ndarray) -> Pose:
    """The rigid motion between the middles of classes that both have, one at least; a shift where
    the few of them allow no turn.

    places, onto : (C, 3) mm, NaN of a class that is not there.
    """
    both = np.isfinite(places).all(axis=1) & np.isfinite(onto).all(axis=1)
    turning = int(both.sum()) >= 3 and _spans(places[both]) and _spans(onto[both])
    return best_pose(places[both], onto[both], turning=turning)


def _spans(points: np.ndarray) -> bool:
    """Whether points lie well off one line."""
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(values[1] > 0.1 * values[0])


def _size(points: np.ndarray) -> float:
    """Root of the mean squared distance from the middle, mm."""
    about = points - points.mean(axis=0, dtype=np.float64)
    return float(np.sqrt((about**2).sum(axis=1).mean()))
