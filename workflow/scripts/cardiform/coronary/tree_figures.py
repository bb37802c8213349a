"""How well traced branches meet true centrelines: place, radius, name, over their length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

# name, (K, 3) points and (K,) radii, mm; the points of one branch are evenly spaced
Line = tuple[str, np.ndarray, np.ndarray]
FIGURES = ("named", "found", "invented", "length_ratio", "radius_error", "radius_bias")


def tree_figures(true: Sequence[Line], traced: Sequence[Line], spacing: float) -> dict[str, float]:
    """Figures of traced branches; all shares are of length.

    spacing : voxel edge of the label map, mm: the unit of errors of radius.

    Returns
    -------
    named : share of the traced branches whose name is that of a true branch that they lie in;
        where two true branches run into one, both names are right.
    found : share of the true branches that a traced one meets within its radius, or a voxel.
    invented : share of the traced branches that meets no true one.
    length_ratio : traced over true length.
    radius_error : mean absolute error of the radius where they meet, voxels; against the widest
        true branch at a place.    radius_bias : its mean, voxels.
    """
    points, radii, names, weight = _merged(true)
    own_points, own_radii, own_names, own_weight = _merged(traced)
    if not len(own_points):
        return dict.fromkeys(FIGURES, 0.0)
    gap, _ = cKDTree(own_points).query(points)
    found = gap <= np.maximum(radii, spacing)
    right, met = np.zeros(len(own_points), bool), np.zeros(len(own_points), bool)
    error = np.zeros(len(own_points))
    tree, reach = cKDTree(points), max(float(radii.max()), spacing)
    for k, around in enumerate(tree.query_ball_point(own_points, reach)):
        away = np.linalg.norm(points[around] - own_points[k], axis=1)
        near = np.array(around, int)[away <= np.maximum(radii[around], spacing)]
        if len(near):
            met[k] = True
            right[k] = own_names[k] in names[near]
            error[k] = (own_radii[k] - radii[near].max()) / spacing
    share = own_weight * met / max(float((own_weight * met).sum()), 1e-9)
    values = (
        own_weight[right].sum() / own_weight.sum(),
        weight[found].sum() / weight.sum(),
        own_weight[~met].sum() / own_weight.sum(),
        own_weight.sum() / weight.sum(),
        share @ np.abs(error),
        share @ error,
    )
    return {name: float(value) for name, value in zip(FIGURES, values, strict=True)}


def _merged(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, radii, names, and the mm that each point stands for."""
    if not lines:
        return np.zeros((0, 3)), np.zeros(0), np.zeros(0, str), np.zeros(0)
    lengths = []
    for _, points, _ in lines:
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        lengths.append((np.append(steps, 0) + np.insert(steps, 0, 0)) / 2)
    return (
        np.concatenate([line[1] for line in lines]),
        np.concatenate([line[2] for line in lines]),
        np.concatenate([np.full(len(line[1]), line[0], object) for line in lines]).astype(str),
        np.concatenate(lengths),
    )
