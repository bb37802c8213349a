"""Label maps with known coronary trees: tubes, phantoms, and what can be done to them."""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial import cKDTree

from cardiform.coronary.branch_names import Named, name_branches
from cardiform.coronary.surroundings import Surroundings
from cardiform.coronary.trace_case import traced
from cardiform.coronary.tree_figures import tree_figures
from cardiform.labels import LabelTable
from cardiform.options.coronary import CoronaryTraceOptions
from cardiform.phantom import draw_phantom
from cardiform.phantom.shapes import Tube
from cardiform.volumes import LabelMap

TABLE = LabelTable()
VALUES = dict(zip(TABLE.names, TABLE.values))
CORONARY = VALUES["coronary"]
OPTIONS = CoronaryTraceOptions(spacing_mm=0.75)
PHANTOM_MM = 1.5


def grid(low, high, spacing) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid over a box, RAS mm."""
    spacing = np.broadcast_to(np.asarray(spacing, float), 3)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    return tuple(int(n) for n in np.ceil((np.asarray(high) - low) / spacing)), affine


def tubes(pieces, spacing, margin=4.0) -> LabelMap:
    """A label map of round-ended tubes of class coronary.

    pieces : (points (K, 3) mm, radius mm or (K,) radii) each.
    """
    every = np.concatenate([np.asarray(points, float) for points, _ in pieces])
    wide = margin + max(np.max(radius) for _, radius in pieces)
    shape, affine = grid(every.min(axis=0) - wide, every.max(axis=0) + wide, spacing)
    places = np.indices(shape).reshape(3, -1).T * np.diag(affine)[:3] + affine[:3, 3]
    inside = np.zeros(len(places), bool)
    for points, radius in pieces:
        points = np.asarray(points, float)
        radii = np.broadcast_to(np.asarray(radius, float), len(points))
        for a, b, ra, rb in zip(points, points[1:], radii, radii[1:]):
            way = b - a
            along = np.clip((places - a) @ way / (way @ way), 0, 1)
            away = np.linalg.norm(places - a - along[:, None] * way, axis=1)
            inside |= away <= ra + along * (rb - ra)
    return LabelMap(inside.reshape(shape).astype(np.uint8) * CORONARY, affine)


def traced_tree(label_map: LabelMap, options=OPTIONS):
    """Forest and names of a label map."""
    around = Surroundings(label_map, TABLE)
    forest = traced(label_map, CORONARY, around, options)
    return forest, name_branches(forest, around)


@functools.cache
def phantom(seed: int):
    """A phantom and its label map; not to be changed."""
    heart = draw_phantom(seed, least_vessel_radius=PHANTOM_MM * 0.87)
    low, high = heart.bounds()
    shape, affine = grid(low - 2, high + 2, PHANTOM_MM)
    return heart, LabelMap(heart.label_map(shape, affine), affine)


def figures_of(heart, forest, named: Named, mirror=(1.0, 1.0, 1.0)) -> dict[str, float]:
    """The traced tree of a phantom against what was drawn; mirror : of the label map's axes."""
    true = [(b.name, b.points * mirror, b.radii) for b in heart.coronary_branches()]
    own = [(name, b.points, b.radii) for name, b in zip(named.names, forest.branches)]
    return tree_figures(true, own, PHANTOM_MM)


def erased(heart, label_map: LabelMap, numbers) -> LabelMap:
    """A copy without some of the phantom's branches, by their numbers; the others stay whole."""
    branches = heart.coronary_branches()
    data = label_map.data.copy()
    index = np.argwhere(data == CORONARY)
    world = index @ label_map.affine[:3, :3].T + label_map.affine[:3, 3]
    gaps = []
    for chosen in ([k for k in range(len(branches)) if k not in numbers], list(numbers)):
        points = np.concatenate([branches[k].points for k in chosen])
        radii = np.concatenate([branches[k].radii for k in chosen])
        away, near = cKDTree(points).query(world)
        gaps.append(away - radii[near])
    gone = index[gaps[1] < gaps[0]]
    data[tuple(gone.T)] = 0
    return LabelMap(data, label_map.affine)


def with_tube(label_map: LabelMap, knots, radius: float, over_all: bool = True) -> LabelMap:
    """A copy with a vessel along the spline through (K, 3) knots, RAS mm.

    over_all : it is drawn over other classes too, not into the background alone.
    """
    tube = Tube.along(knots, np.full(len(knots), radius), step=1.0)
    places = np.indices(label_map.data.shape).reshape(3, -1).T @ label_map.affine[:3, :3].T
    away, _ = cKDTree(tube.points).query(places + label_map.affine[:3, 3])
    inside = (away <= radius).reshape(label_map.data.shape)
    data = label_map.data.copy()
    data[inside if over_all else inside & (data == 0)] = CORONARY
    return LabelMap(data, label_map.affine)
