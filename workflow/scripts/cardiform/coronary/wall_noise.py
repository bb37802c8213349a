"""How rough the wall of a label is, beside that of a smooth vessel on the same grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry.distances import box_about, signed_distance
from ..geometry.grids import cropped_affine
from ..geometry.mask_surface import blurred_as_large
from ..geometry.resample import resample_mask
from ..volumes import LabelMap
from .thin_structure import ThinStructure

BAND_VOX = 1.2  # about the wall, in which it is looked at
REACH_VOX = 4  # distances are known so far
BLUR_VOX, RIM_VOX = 1.0, 8  # of the blur, and room for it


def roughness(given: np.ndarray, affine: np.ndarray, thin: ThinStructure) -> float:
    """How much the wall of a label deviates from its own blur, as a multiple of what that of a
    smooth vessel does: about 1 where it is smooth.

    The smooth vessel is the repaired label, blurred, put on the label's own grid and back: so the
    steps of voxels and slices count in both.

    given, affine : (X, Y, Z) bool, the label on its own grid.    thin : on the isotropic one.
    """
    spacing, box = thin.spacing, box_about(given, 2)
    if box is None or not (thin.label.any() and thin.repaired.any()):
        return 1.0
    smooth, there = np.zeros_like(thin.repaired), box_about(thin.repaired, RIM_VOX)
    edges = np.full(3, spacing)
    smooth[there] = blurred_as_large(thin.repaired[there], edges, sigma_vox=BLUR_VOX) < 0
    own = cropped_affine(affine, [s.start for s in box])
    on_own = resample_mask(LabelMap(smooth, thin.affine), given[box].shape, own)
    usual = resample_mask(LabelMap(on_own, own), smooth.shape, thin.affine)
    if not usual.any():
        return 1.0
    least = _deviation(usual, spacing)
    return _deviation(thin.label, spacing) / least if least > 0 else 1.0


def _deviation(mask: np.ndarray, spacing: float) -> float:
    """Standard deviation of the distances about the wall from their blur, mm."""
    distance = signed_distance(mask[box_about(mask, RIM_VOX)], spacing, REACH_VOX * spacing)
    apart = distance - ndimage.gaussian_filter(distance, BLUR_VOX)
    wall = apart[np.abs(distance) < BAND_VOX * spacing]
    return float(wall.std()) if len(wall) else 0.0
