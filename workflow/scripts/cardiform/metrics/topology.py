"""Agreement of thin structures: centrelines and connected parts."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..anatomy.centreline import Centreline
from ..anatomy.components import count_components

NAMES = ("dice", "component_error", "components", "cl_dice", "centreline_overlap")


def topology_figures(truth: np.ndarray, predicted: np.ndarray, spacing: float) -> dict:
    """How well a thin structure is met.

    truth, predicted : (X, Y, Z) bool on one isotropic grid of ``spacing`` mm.

    Returns
    -------
    dice : of the voxels.
    cl_dice : harmonic mean of the shares of either skeleton that lie within the other mask
        (Shit et al., clDice, CVPR 2021).
    component_error : absolute difference of the numbers of 26-connected parts.
    centreline_overlap : OV of Schaap et al. (Medical Image Analysis 2009): the share of both
        centrelines that lies within the vessel's radius of the other one, at least a voxel.

    All but ``components`` are None where the truth is empty: nobody annotated it.
    """
    parts = count_components(predicted)
    if not truth.any():
        return {**dict.fromkeys(NAMES), "components": parts}
    figures = {
        "dice": 2 * int((truth & predicted).sum()) / int(truth.sum() + predicted.sum()),
        "component_error": abs(count_components(truth) - parts),
        "components": parts,
    }
    if not predicted.any():
        return {**figures, "cl_dice": 0.0, "centreline_overlap": 0.0}
    true, found = Centreline.of(truth, spacing), Centreline.of(predicted, spacing)
    precision = truth[tuple(found.index.T)].mean()
    sensitivity = predicted[tuple(true.index.T)].mean()
    total = precision + sensitivity
    figures["cl_dice"] = float(2 * precision * sensitivity / total) if total else 0.0
    figures["centreline_overlap"] = centreline_overlap(true, found)
    return figures


def centreline_overlap(truth: Centreline, predicted: Centreline) -> float:
    """OV: share of the points of both centrelines that are met by the other one."""
    spacing = truth.spacing
    reach = np.maximum(truth.radius, spacing)
    gap, _ = cKDTree(predicted.index).query(truth.index)
    back, nearest = cKDTree(truth.index).query(predicted.index)
    met = (gap * spacing <= reach).sum() + (back * spacing <= reach[nearest]).sum()
    return float(met / (len(truth) + len(predicted)))
