"""CTs of a phantom as scanners and exports leave them: in Hounsfield units, or not."""

from __future__ import annotations

import functools

import numpy as np

from cardiform.phantom.imaging import ct_volume
from cardiform.phantom.scans import draw_scan
from cardiform.volumes import spacing_of

SPACING_MM = 3.0
AIR_HU = -1000


@functools.cache
def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, Y, Z) float64 HU of a heart in lung, bone and air, its labels, and the (4, 4) affine."""
    labels, affine = draw_scan(0, SPACING_MM, 0)
    rng = np.random.default_rng(0)
    labels = np.pad(labels, 6)
    affine = affine.copy()
    affine[:3, 3] -= 6 * affine[:3, :3].sum(axis=1)
    hu = ct_volume(labels, spacing_of(affine), rng).astype(np.float64)
    hu[:3] = AIR_HU + rng.normal(0, 20, hu[:3].shape)
    hu[3:5] = rng.normal(40, 25, hu[3:5].shape)  # a wall of muscle
    hu[4, ::4] = rng.normal(1100, 150, hu[4, ::4].shape)  # ribs
    return hu, labels, affine


def circular(hu: np.ndarray, value: float) -> np.ndarray:
    """The field of view of a scanner: a circle, with padding around it."""
    x, y = np.indices(hu.shape[:2])
    middle = (np.array(hu.shape[:2]) - 1) / 2
    radius = min(middle)
    outside = np.hypot(x - middle[0], y - middle[1]) > radius
    return np.where(outside[..., None], value, hu)


def heart_only(hu: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cropped so far that neither air nor lung is left: soft tissue and fat alone."""
    low, high = (f(np.argwhere(labels), axis=0) for f in (np.min, np.max))
    size = (high - low) // 3
    part = tuple(slice(a + s, b - s) for a, b, s in zip(low, high, size))
    crop = hu[part]
    return np.where(crop < -300, -90 + (crop + 850) / 2, crop), labels[part]


def magnetic_resonance(labels: np.ndarray) -> np.ndarray:
    """(X, Y, Z) float64 of arbitrary scale: bright blood, noise whose least is 0."""
    rng = np.random.default_rng(1)
    tissue = np.where(labels > 1, 900.0, np.where(labels == 1, 350.0, 120.0))
    return np.hypot(tissue + rng.normal(0, 30, labels.shape), rng.normal(0, 30, labels.shape))
