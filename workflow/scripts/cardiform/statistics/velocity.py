"""Diffeomorphic registration of signed distances of several classes on one grid.

A stationary velocity field is integrated by scaling and squaring (Arsigny et al., MICCAI 2006) and
updated in the log domain (Vercauteren et al., MICCAI 2008). The update is a Gauss-Newton step whose
normal equations are averaged over a Gaussian window (Lucas and Kanade 1981): every class pulls its
own surface, and between surfaces the neighbours decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

NEAR_MM = 3.0  # a surface pulls what lies so far from it half as much as itself
MOST_VOXELS = 0.7  # that one step moves
# (factor of the grid's edge, most steps) from coarse to fine
LEVELS = ((4, 30), (2, 25), (1, 14))
ENOUGH = 0.005  # a level ends where a step lowers the error by less than this share
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of axes: a symmetric matrix
SHORT = 0.4  # voxels of the first of the squared maps


@dataclass(frozen=True)
class Stiffness:
    """What decides where no surface does: a surface pulls along its normal alone, and without this
    the vertices drift along it, from heart to heart in another way.

    damping : of the normal equations.
    relaxed : voxels, sd of the Gaussian that smooths the velocity after each step.
    settling : last steps by the exact distances.
    """

    damping: float
    relaxed: float
    settling: int


STIFF = Stiffness(0.2, 0.8, 10)
LOOSE = Stiffness(1e-3, 0.35, 3)  # of templates of format 1
NO_STEP = 1e-9  # least determinant: no division by zero


@dataclass(frozen=True)
class Registered:
    """A map of the grid's points.

    displacement : (X, Y, Z, 3) float32 voxels.
    folded : share of the voxels at which it turns space inside out; 0: a diffeomorphism.
    """

    displacement: np.ndarray
    folded: float

    def moved(self, index: np.ndarray) -> np.ndarray:
        """(N, 3) float32 grid indices, moved."""
        return index + rows_at(self.displacement, index)


def register(
    fixed: np.ndarray,
    moving: np.ndarray,
    spacing: float,
    smoothing_mm: float,
    stiffness: Stiffness = STIFF,
) -> Registered:
    """The map phi with ``moving(phi(x)) = fixed(x)``.

    fixed, moving : (X, Y, Z, C) float32 signed distances in mm, clipped alike; the same grid.
    spacing : of the grid, mm.    smoothing_mm : sd of the window.
    """
    velocity = np.zeros((1, 1, 1, 3), np.float32)
    for factor, steps in _levels(fixed.shape[:3]):
        target, source = _coarser(fixed, factor), _coarser(moving, factor)
        velocity = _on_grid(velocity, target.shape[:3])
        window = max(smoothing_mm / (spacing * factor), 1.0)
        velocity = _descend(velocity, target, source, spacing * factor, window, steps, stiffness)
    displacement = exponential(velocity)
    return Registered(displacement, folded_share(displacement))


def rows_at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N, C) float32 trilinear values of (X, Y, Z, C) at (N, 3) indices; the border beyond."""
    shape = np.array(values.shape[:3])
    index = np.clip(index, 0, (shape - 1).astype(np.float32))
    low = np.minimum(index.astype(np.int32), np.maximum(shape - 2, 0).astype(np.int32))
    weights = (index - low).astype(np.float32)
    steps = np.array([shape[1] * shape[2], shape[2], 1]) * (shape > 1)
    first = (low[:, 0].astype(np.int64) * shape[1] + low[:, 1]) * shape[2] + low[:, 2]
    flat = values.reshape(-1, values.shape[3])

    def along(axis: int, offset: int) -> np.ndarray:
        if axis == 3:
            return flat.take(first + offset, axis=0)
        near = along(axis + 1, offset)
        rise = along(axis + 1, offset + int(steps[axis]))
        rise -= near
        rise *= weights[:, axis, None]
        rise += near
        return rise

    return along(0, 0)


def exponential(velocity: np.ndarray) -> np.ndarray:
    """(X, Y, Z, 3) displacement in voxels of the flow along a velocity for one unit of time."""
    largest = float(np.abs(velocity).max())
    halvings = max(int(np.ceil(np.log2(max(largest, 1e-9) / SHORT))), 0)
    result = velocity / np.float32(2**halvings)
    points = _points(velocity.shape[:3])
    for _ in range(halvings):
        moved = rows_at(result, points + result.reshape(-1, 3))
        result = result + moved.reshape(result.shape)
    return result


def folded_share(displacement: np.ndarray) -> float:
    """Share of the voxels with a Jacobian determinant of zero or less."""
    if min(displacement.shape[:3]) < 2:
        return 0.0
    columns = [np.gradient(displacement, axis=axis) for axis in range(3)]
    jacobian = np.stack(columns, axis=-1) + np.eye(3, dtype=np.float32)
    return float((np.linalg.det(jacobian) <= 0).mean())


def _levels(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Those at which the grid has voxels left; the finest in any case."""
    return [(f, n) for f, n in LEVELS if f == 1 or min(shape) // f >= 6]


def _descend(
    velocity, fixed, moving, spacing: float, window: float, steps: int, stiffness: Stiffness
) -> np.ndarray:
    """The velocity after some steps at one level."""
    points = _points(fixed.shape[:3])
    before = np.inf
    best = velocity
    for _ in range(steps):
        displacement = exponential(velocity)
        warped = rows_at(moving, points + displacement.reshape(-1, 3)).reshape(fixed.shape)
        weight = _weights(fixed, warped)
        error = float((weight * (warped - fixed) ** 2).sum() / weight.sum())
        if error < before:
            best = velocity
        if error > before * (1 - ENOUGH):
            break
        before = error
        step = _step(fixed, warped, weight, spacing, window, stiffness.damping)
        velocity = _smoothed(velocity + step, stiffness.relaxed)
    return best


def _weights(fixed: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """(X, Y, Z, C): the nearer to either surface, the more."""
    nearest = np.minimum(np.abs(fixed), np.abs(warped)) / NEAR_MM
    return 1 / (1 + nearest**2)


def _step(fixed, warped, weight, spacing: float, window: float, damping: float) -> np.ndarray:
    """(X, Y, Z, 3) voxels: the least squares of all classes within a window."""
    slopes = [np.gradient(warped, axis=axis) / np.float32(spacing) for axis in range(3)]
    heavy = [weight * slope for slope in slopes]
    rest = (fixed - warped) / np.float32(spacing)
    normal = [np.einsum("...c,...c", heavy[a], slopes[b]) for a, b in PAIRS]
    right = [np.einsum("...c,...c", part, rest) for part in heavy]
    return solved(normal, right, window, MOST_VOXELS, damping)


def solved(
    normal: Sequence[np.ndarray],
    right: Sequence[np.ndarray],
    window: float,
    most: float,
    damping: float,
) -> np.ndarray:
    """(X, Y, Z, 3) voxels, ``most`` at most: the solution of normal equations that are averaged
    over a Gaussian window of so many voxels.

    normal : six (X, Y, Z) in the order of :data:`PAIRS`.    right : three (X, Y, Z).
    """
    xx, xy, xz, yy, yz, zz = (_blurred(part, window) for part in normal)
    bx, by, bz = (_blurred(part, window) for part in right)
    xx, yy, zz = xx + damping, yy + damping, zz + damping
    # the inverse of the symmetric 3 x 3 matrix, by its cofactors
    cxx, cyy, czz = yy * zz - yz**2, xx * zz - xz**2, xx * yy - xy**2
    cxy, cxz, cyz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - xx * yz
    determinant = xx * cxx + xy * cxy + xz * cxz
    step = (
        np.stack(
            [
                cxx * bx + cxy * by + cxz * bz,
                cxy * bx + cyy * by + cyz * bz,
                cxz * bx + cyz * by + czz * bz,
            ],
            axis=-1,
        )
        / np.maximum(determinant, NO_STEP)[..., None]
    )
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return (step * np.minimum(1, most / np.maximum(length, 1e-9))).astype(np.float32)


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=2.5)


def _smoothed(velocity: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([_blurred(velocity[..., axis], sigma) for axis in range(3)], axis=-1)


def _coarser(values: np.ndarray, factor: int) -> np.ndarray:
    """Means of cubes of voxels; the border repeats where the grid is no multiple."""
    if factor == 1:
        return values
    shape = np.array(values.shape[:3])
    more = -shape % factor
    values = np.pad(values, [*((0, int(n)) for n in more), (0, 0)], mode="edge")
    x, y, z = (shape + more) // factor
    cubes = values.reshape(x, factor, y, factor, z, factor, -1)
    return cubes.mean(axis=(1, 3, 5), dtype=np.float32)


def _on_grid(velocity: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A velocity on a grid of twice the voxels, in its voxels; zero on a first grid."""
    if velocity.shape[:3] == (1, 1, 1):
        return np.zeros((*shape, 3), np.float32)
    index = (_points(shape) + 0.5) / 2 - 0.5
    return 2 * rows_at(velocity, index.astype(np.float32)).reshape(*shape, 3)


def _points(shape: Sequence[int]) -> np.ndarray:
    """(X * Y * Z, 3) float32 indices of a grid."""
    return np.indices(tuple(shape)).reshape(3, -1).T.astype(np.float32)
