"""Distances between two surfaces in millimetres."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.sampling import SurfaceSampler
from ..geometry.surface import Mesh

SAMPLES = 10_000  # points per surface
F_THRESHOLD_MM = 1.0  # about a voxel of clinical CT
CANDIDATES = 12  # triangles that are tried before the bound is asked
POINTS_AT_A_TIME = 1024  # of those that need more candidates: bounds the memory
NAMES = ("assd_mm", "hd95_mm", "chamfer_mm", "f_score")


def surface_figures(truth: Mesh, predicted: Mesh, seed: int = 0) -> dict[str, float | None]:
    """Agreement of two surfaces, from area-weighted points on each to the other's triangles.

    Returns
    -------
    assd_mm : average symmetric surface distance, the mean over the points of both.
    hd95_mm : the larger of the two 95th percentiles.
    chamfer_mm : sum of the two mean (unsquared) distances.
    f_score : harmonic mean of the shares of both that lie within 1 mm of the other.

    All None where both surfaces are empty; where one is, the distances are None and the
    F-score is 0.
    """
    if not len(truth.faces) or not len(predicted.faces):
        one = bool(len(truth.faces)) != bool(len(predicted.faces))
        return {**dict.fromkeys(NAMES), "f_score": 0.0 if one else None}
    rng = np.random.default_rng(seed)
    there = distance_to_mesh(SurfaceSampler(truth).draw(SAMPLES, rng)[0], predicted)
    back = distance_to_mesh(SurfaceSampler(predicted).draw(SAMPLES, rng)[0], truth)
    recall, precision = (there <= F_THRESHOLD_MM).mean(), (back <= F_THRESHOLD_MM).mean()
    both = float(recall + precision)
    return {
        "assd_mm": float(np.concatenate([there, back]).mean()),
        "hd95_mm": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "chamfer_mm": float(there.mean() + back.mean()),
        "f_score": 2 * float(recall) * float(precision) / both if both else 0.0,
    }


def distance_to_mesh(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Exact distances (N,) float64 mm of (N, 3) points to the triangles of a mesh.

    The triangles with the nearest middles are tried first. One that is nearer still must have
    its middle within the distance found plus the largest radius of a triangle: where there can
    be such, all of those are tried.
    """
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    middles = corners.mean(axis=1)
    radius = np.linalg.norm(corners - middles[:, None], axis=2).max()
    tree = cKDTree(middles)
    tried = min(CANDIDATES, len(middles))
    reach, rows = tree.query(points, k=tried)
    reach, rows = reach.reshape(-1, tried), rows.reshape(-1, tried)
    best = np.full(len(points), np.inf)
    for k in range(tried):
        np.minimum(best, _triangle_distance(points, corners[rows[:, k]]), out=best)
    unsettled = np.flatnonzero(reach[:, -1] - radius < best)
    for start in range(0, len(unsettled) if tried < len(middles) else 0, POINTS_AT_A_TIME):
        chosen = unsettled[start : start + POINTS_AT_A_TIME]
        within = tree.query_ball_point(points[chosen], best[chosen] + radius)
        owner = np.repeat(chosen, [len(found) for found in within])
        triangles = np.concatenate([np.asarray(found, np.int64) for found in within])
        np.minimum.at(best, owner, _triangle_distance(points[owner], corners[triangles]))
    return best


def _triangle_distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance of (N, 3) points to one triangle each, (N, 3, 3): to its inside or an edge."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    squared = np.einsum("nk,nk->n", normal, normal)
    edges = [(a, b), (b, c), (c, a)]
    over = squared > 0
    for start, end in edges:
        inward = np.cross(normal, end - start)
        over &= np.einsum("nk,nk->n", inward, points - start) >= 0
    height = np.abs(np.einsum("nk,nk->n", normal, points - a)) / np.sqrt(
        np.maximum(squared, 1e-300)
    )
    to_edges = np.min([_segment_distance(points, s, e) for s, e in edges], axis=0)
    return np.where(over, height, to_edges)


def _segment_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    way = end - start
    length = np.maximum(np.einsum("nk,nk->n", way, way), 1e-300)
    along = np.clip(np.einsum("nk,nk->n", points - start, way) / length, 0, 1)
    return np.linalg.norm(points - start - along[:, None] * way, axis=1)
