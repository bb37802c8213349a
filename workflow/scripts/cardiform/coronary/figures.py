"""Figures of a case against its truth: given, repaired, refined; on the fine and the own grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry.distances import signed_distance
from ..geometry.grids import cropped_affine
from ..geometry.isotropic import mask_of, room_for
from ..geometry.mask_surface import surface_of_mask
from ..geometry.surface import Mesh
from ..metrics.own_grid import own_grid_figures
from ..metrics.surface import surface_figures
from ..metrics.topology import topology_figures
from ..volumes import LabelMap
from .thin_structure import ThinStructure

TRUTH_COLUMNS = ("label_against_truth", "repair_against_truth", "against_truth")
OWN_GRID = "own_grid"  # the same columns there; of fused masks: fused/summary.json


def fine_figures(
    truth: LabelMap | None, value: int, masks: Mapping[str, np.ndarray], thin: ThinStructure
) -> dict[str, dict | None]:
    """Column -> figures on the isotropic grid; None where the truth is unknown, or lacks the
    structure: nobody annotated it.

    The grid is enlarged to hold all of the truth: what lies beyond the box of the label was
    missed.

    truth : the label map of the truth.    value : the structure's.
    masks : column -> (X, Y, Z) bool on the grid of ``thin``.
    """
    return _figures(
        truth,
        value,
        masks,
        thin.affine,
        lambda true, mask, affine: figures_against(true, mask, thin.spacing, affine),
    )


def own_figures(
    truth: LabelMap | None, value: int, masks: Mapping[str, np.ndarray], affine: np.ndarray
) -> dict[str, dict | None]:
    """The same on the grid of the label map, enlarged in the same way.

    masks : column -> (X, Y, Z) bool.    affine : (4, 4) float64 of their grid.
    """
    return _figures(truth, value, masks, affine, own_grid_figures)


def _figures(truth, value, masks, affine, figures) -> dict[str, dict | None]:
    if truth is None:
        return dict.fromkeys(masks)
    shape = np.array(next(iter(masks.values())).shape)
    rim = room_for(tuple(shape), affine, truth, value)
    wider = cropped_affine(affine, -rim[:, 0])
    true = mask_of(truth, value, tuple(int(n) for n in shape + rim.sum(axis=1)), wider)
    if not true.any():
        return dict.fromkeys(masks)
    return {name: figures(true, np.pad(mask, rim), wider) for name, mask in masks.items()}


def figures_against(
    truth: np.ndarray, mask: np.ndarray, spacing: float, affine: np.ndarray
) -> dict:
    """Voxel, centreline, component and surface figures on an isotropic grid.

    truth, mask : (X, Y, Z) bool.    spacing : voxel edge, mm.    affine : (4, 4) of the grid.
    """
    surfaces = surface_figures(
        surface_of(truth, affine, spacing), surface_of(mask, affine, spacing)
    )
    return topology_figures(truth, mask, spacing) | surfaces


def surface_of(mask: np.ndarray, affine: np.ndarray, spacing: float) -> Mesh:
    """The surface of an (X, Y, Z) bool mask on an isotropic grid."""

    def field(padded: np.ndarray, _) -> np.ndarray:
        return signed_distance(padded, spacing, 3 * spacing)

    return surface_of_mask(mask, affine, field, pad=2)
