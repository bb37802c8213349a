"""Affines of voxel grids: spacing, distance between two headers, what makes one unusable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, problem

# Headers may differ by rounding; a tenth of a voxel is another place.
PLACE_TOLERANCE_VOX = 0.1
# Radians. A qform keeps three of four quaternion components, in float32; of a turn by almost
# 180 degrees, as LPS files have, the fourth is then known to 3.5e-4 only.
QUATERNION_ROUNDING = 1e-3
# Distances use the column norms as spacing: measured error is noise below one degree.
MAX_SHEAR_DEG = 1.0
# Mesh files hold float32: at 100 m they are 0.004 mm exact.
MAX_AWAY_MM = 1e5


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) float64 voxel edges in mm: the column norms of the affine."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def corners_apart_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """How far, mm, two affines put the corner voxels of one grid apart, at most.

    shape : of the grid; axes beyond the third are ignored.    affine, other : (4, 4).
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, -1)
    shift = (affine - other)[:3, :3] @ corners + (affine - other)[:3, 3:]
    return float(np.linalg.norm(shift, axis=0).max())


def place_tolerance_mm(shape: Sequence[int], spacing: np.ndarray) -> float:
    """How far, mm, the corners of one and the same grid may lie apart in two headers."""
    size_mm = float(np.linalg.norm(np.array(shape[:3]) * spacing))
    return PLACE_TOLERANCE_VOX * float(spacing.min()) + QUATERNION_ROUNDING * size_mm


def shear_deg(affine: np.ndarray) -> float:
    """By how much the angle between two axes of a (4, 4) affine is off 90 degrees, at most."""
    axes = affine[:3, :3] / spacing_of(affine)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(cosine, 1.0))))


def axes_like(
    shape: Sequence[int], affine: np.ndarray, other: np.ndarray
) -> tuple[tuple[int, int, int], np.ndarray]:
    """The same voxels with the axes in the order and direction of another image's.

    shape, affine : of the grid, (X, Y, Z) and (4, 4).    other : (4, 4).
    Returns its shape and affine then; those it has where no order of the axes fits.
    """
    axes, others = (a[:3, :3] / spacing_of(a) for a in (affine, other))
    cosines = others.T @ axes
    order = np.abs(cosines).argmax(axis=1)
    if sorted(order) != [0, 1, 2]:
        return (shape[0], shape[1], shape[2]), affine
    turned = affine.copy()
    for axis, own in enumerate(order):
        turned[:3, axis] = affine[:3, own]
        if cosines[axis, own] < 0:
            turned[:3, axis] *= -1
            turned[:3, 3] += affine[:3, own] * (shape[own] - 1)
    first, second, third = order
    return (shape[first], shape[second], shape[third]), turned


def check_affine(path: str | Path, affine: np.ndarray) -> None:
    """Refuse an affine, (4, 4) float64, that nothing can be measured by.

    Raises
    ------
    InputError
        Not finite, singular, zero or enormous spacing, far from the origin, sheared.
    """
    if not np.isfinite(affine).all():
        raise InputError(problem(path, "affine is not finite", "repair the header"))
    if np.abs(affine[:3, :3]).max() > MAX_AWAY_MM:
        text = f"has voxels of {np.abs(affine[:3, :3]).max():.2g} mm"
        raise InputError(problem(path, text, "repair the affine in the header"))
    spacing = spacing_of(affine)
    if spacing.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3])) < 1e-9 * spacing.prod():
        raise InputError(
            problem(path, f"affine is singular (spacing {_text(spacing)} mm)", "repair the header")
        )
    away = float(np.abs(affine[:3, 3]).max())
    if away > MAX_AWAY_MM:
        text = f"lies {away:.2g} mm from the origin of its space"
        raise InputError(problem(path, text, "repair the translation in the header"))
    shear = shear_deg(affine)
    if shear > MAX_SHEAR_DEG:
        raise InputError(
            problem(
                path,
                f"axes are sheared by {shear:.1f} degrees",
                "resample to an orthogonal grid (nearest neighbour)",
            )
        )


def _text(vector) -> str:
    return " x ".join(f"{v:.3g}" for v in vector)
