"""Figures of a mask on the grid of its label map, whatever that grid is."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..geometry.grids import cropped_affine
from ..geometry.mask_surface import blurred, surface_of_mask
from .surface import surface_figures
from .topology import topology_figures

RIM = 1  # voxels around both masks


def own_grid_figures(truth: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> dict:
    """How well a mask meets the truth, on the voxels that are handed on.

    truth, mask : (X, Y, Z) bool on one grid.    affine : (4, 4) float64 of it.

    Returns
    -------
    dice, cl_dice, component_error, components : as of
        :func:`cardiform.metrics.topology.topology_figures`.
    hd95_mm, assd_mm, chamfer_mm, f_score, missed : as of
        :func:`cardiform.metrics.surface.surface_figures`, between the faces of the voxels.

    None where an empty mask leaves a figure undefined; of an empty truth all but the components.
    """
    filled = np.argwhere(truth | mask)
    low = filled.min(axis=0) if len(filled) else np.zeros(3, int)
    high = filled.max(axis=0) + 1 if len(filled) else np.ones(3, int)
    box = tuple(map(slice, low, high))
    own = cropped_affine(affine, low - RIM)
    true, found = np.pad(truth[box], RIM), np.pad(mask[box], RIM)
    figures = topology_figures(true, found, 1.0)
    del figures["centreline_overlap"]  # it needs voxels of equal edges
    faces = partial(blurred, sigma_vox=0)
    surfaces = [surface_of_mask(m, own, faces, pad=1) for m in (true, found)]
    return figures | surface_figures(surfaces[0], surfaces[1])
