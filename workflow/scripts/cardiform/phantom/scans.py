"""Scans of the demo cohort: most are ordinary, some are odd in the ways that real ones are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..anatomy.corruption import corrupt
from ..geometry.grids import box_corners
from .heart import draw_phantom
from .painting import LABELS, Painted
from .wide import draw_wide

MARGIN_MM = 6.0
# Kinds of noise in the coronaries of the demo's label maps, and their strengths.
CORONARY_NOISE = {"jagged": 1.0, "breaks": 1.0, "blobs": 0.7, "speckle": 1.0}
# Relative voxel edges of a scan with thick slices; their product is about one.
THICK_SLICES = (0.85, 0.85, 1.4)
OBLIQUE_DEG = (12.0, -8.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """What is unusual about a scan.

    flips : array axes that run against RAS. order : the world axis that each array axis
        follows. oblique : the grid is turned against the body. thick : anisotropic voxels.
    missing : classes that are not there.
    cut_mm : the field of view starts this far inside of the heart's left side.
    """

    flips: tuple[int, ...] = ()
    order: tuple[int, int, int] = (0, 1, 2)
    oblique: bool = False
    thick: bool = False
    missing: tuple[str, ...] = ()
    cut_mm: float = 0.0


# By the number of the scan; they repeat after the last. Every second scan is ordinary.
ODDITIES = {
    1: Oddity(flips=(0, 1)),  # LPS, as converted DICOM series often are
    3: Oddity(thick=True),
    5: Oddity(missing=("left_atrial_appendage",)),
    7: Oddity(oblique=True),
    9: Oddity(cut_mm=8.0),
    11: Oddity(order=(2, 0, 1)),
    13: Oddity(thick=True, flips=(2,)),
}
PERIOD = 16


def draw_scan(
    number: int, spacing_mm: float, seed: int, variety: str = "usual"
) -> tuple[np.ndarray, np.ndarray]:
    """Label map (X, Y, Z) uint8 and its (4, 4) affine of the demo cohort's scan ``number``.

    spacing_mm : voxel edge, mm (the geometric mean where voxels are anisotropic).
    variety : "usual", or "wide" (:mod:`cardiform.phantom.wide`).
    """
    odd = ODDITIES.get(number % PERIOD, Oddity())
    spacing = spacing_mm * np.array(THICK_SLICES if odd.thick else (1.0, 1.0, 1.0))
    # half a voxel's diagonal: thinner vessels would fall apart on this grid
    least, own = max(0.75, float(np.linalg.norm(spacing)) / 2), seed * 100_003 + number
    heart: Painted
    if variety == "wide":
        heart = draw_wide(own, least_vessel_radius=least)
    else:
        heart = draw_phantom(own, least_vessel_radius=least, missing=odd.missing)
    shape, affine = _grid(heart.bounds(), spacing, odd)
    return heart.label_map(shape, affine), affine


def noisy_coronaries(
    labels: np.ndarray, spacing: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """A copy of a label map whose coronaries are as noisy as automatic labels are.

    strength : of every kind of :data:`CORONARY_NOISE`; 0 changes nothing.

    What the noise adds covers background only; what it takes becomes background.
    """
    value = LABELS[LABELS.channel("coronary")].value
    clean = labels == value
    if not strength or not clean.any():
        return labels.copy()
    kinds = {kind: strength * share for kind, share in CORONARY_NOISE.items()}
    noisy = corrupt(clean, spacing, kinds, rng)
    result = np.where(clean, np.uint8(0), labels)
    result[noisy & (result == 0)] = value
    return result


def _grid(bounds: np.ndarray, spacing: np.ndarray, odd: Oddity):
    """Shape and affine of the grid that holds ``bounds`` (2, 3) mm with a margin."""
    axes = np.eye(3)
    if odd.oblique:
        axes = Rotation.from_euler("xyz", OBLIQUE_DEG, degrees=True).as_matrix()
    corners = box_corners(*bounds) @ axes
    low, high = corners.min(axis=0) - MARGIN_MM, corners.max(axis=0) + MARGIN_MM
    low[0] += (MARGIN_MM + odd.cut_mm) * (odd.cut_mm > 0)
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ low
    for axis in odd.flips:
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        affine[:3, axis] *= -1
    order = list(odd.order)
    affine[:, :3] = affine[:, order]
    return tuple(int(n) for n in shape[order]), affine
