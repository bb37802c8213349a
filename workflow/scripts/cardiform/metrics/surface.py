"""Distances between two surfaces in millimetres."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.field_of_view import Cut
from ..geometry.sampling import SurfaceSampler
from ..geometry.surface import Mesh

SAMPLES = 10_000  # points per surface
F_THRESHOLD_MM = 1.0  # about a voxel of clinical CT
CANDIDATES = 12  # triangles that are tried before the bound is asked
POINTS_AT_A_TIME = 1024  # of those that need more candidates: bounds the memory
NAMES = ("assd_mm", "hd95_mm", "chamfer_mm", "f_score", "missed")


def surface_figures(
    truth: Mesh, predicted: Mesh, seed: int = 0, cut: Cut | None = None
) -> dict[str, float | None]:
    """Agreement of two surfaces, from area-weighted points on each to the other's triangles.

    cut : how the scan cuts the structure: the cap of the truth is none of its surface, and
        nothing is measured there or beyond.

    Returns
    -------
    assd_mm : average symmetric surface distance, the mean over the points of both.
    hd95_mm : the larger of the two 95th percentiles.
    chamfer_mm : sum of the two mean (unsquared) distances.
    f_score : harmonic mean of the shares of both that lie within 1 mm of the other.
    missed : 1 where the prediction is empty. Then the distances are None and the F-score is 0, so a
        mean of distances over cases has to be read beside the mean of this.

    All None where the truth is empty (nobody annotated it) or a cut leaves nothing of it.
    """
    seen = predicted
    if cut is not None:
        truth, seen = cut.open_part(truth), cut.open_part(predicted)
    if not len(truth.faces):
        return dict.fromkeys(NAMES)
    if not len(seen.faces):
        return {**dict.fromkeys(NAMES), "f_score": 0.0, "missed": 1.0}
    rng = np.random.default_rng(seed)
    there = distance_to_mesh(SurfaceSampler(truth).draw(SAMPLES, rng)[0], predicted)
    back = distance_to_mesh(SurfaceSampler(seen).draw(SAMPLES, rng)[0], truth)
    recall, precision = (there <= F_THRESHOLD_MM).mean(), (back <= F_THRESHOLD_MM).mean()
    both = float(recall + precision)
    return {
        "assd_mm": float(np.concatenate([there, back]).mean()),
        "hd95_mm": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "chamfer_mm": float(there.mean() + back.mean()),
        "f_score": 2 * float(recall) * float(precision) / both if both else 0.0,
        "missed": 0.0,
    }


def distance_to_mesh(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Exact distances (N,) float64 mm of (N, 3) points to the triangles of a mesh.

    The triangles with the nearest middles are tried first. One that is nearer still must have
    its middle within the distance found plus the largest radius of a triangle: where there can
    be such, all of those are tried that the bound of their own place and radius lets through.
    """
    triangles = _Triangles(mesh)
    tree = cKDTree(triangles.middles)
    places = np.ascontiguousarray(points.T, dtype=np.float64)
    tried = min(CANDIDATES, len(triangles.middles))
    reach, rows = tree.query(points, k=tried)
    reach, rows = reach.reshape(-1, tried), rows.reshape(-1, tried)
    best = np.full(len(points), np.inf)  # squared
    everyone = np.arange(len(points))
    for k in range(tried):
        triangles.lower(best, places, everyone, rows[:, k])
    largest = triangles.radii.max()
    unsettled = np.flatnonzero(reach[:, -1] - largest < np.sqrt(best))
    if tried == len(triangles.middles):
        unsettled = unsettled[:0]  # all were tried
    for start in range(0, len(unsettled), POINTS_AT_A_TIME):
        chosen = unsettled[start : start + POINTS_AT_A_TIME]
        within = tree.query_ball_point(points[chosen], np.sqrt(best[chosen]) + largest)
        owner = np.repeat(chosen, [len(found) for found in within])
        found = np.fromiter(itertools.chain.from_iterable(within), np.int64, len(owner))
        triangles.lower(best, places, owner, found)
    return np.sqrt(best)


class _Triangles:
    """The triangles of a mesh, by the numbers that distances to them are made of."""

    def __init__(self, mesh: Mesh):
        corners = mesh.vertices.astype(np.float64)[mesh.faces]
        self.middles = corners.mean(axis=1)
        self.radii = np.linalg.norm(corners - self.middles[:, None], axis=2).max(axis=1)
        self.origin, b, c = (np.ascontiguousarray(corners[:, k].T) for k in range(3))
        self.ab, self.ac = b - self.origin, c - self.origin
        normal = np.cross(self.ab, self.ac, axis=0)
        self.normal = normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-300)
        # of ab, of ab and ac, of ac
        self.products = np.stack(
            [_dot(self.ab, self.ab), _dot(self.ab, self.ac), _dot(self.ac, self.ac)]
        )
        self.columns = np.ascontiguousarray(self.middles.T)

    def lower(self, best: np.ndarray, points: np.ndarray, owner: np.ndarray, rows: np.ndarray):
        """Lower ``best`` (N,) squared distances by triangle ``rows[i]`` of point ``owner[i]``.

        points : (3, N).
        """
        # The foot on the plane lies outside of the circle about the middle by this much at least.
        way = np.take(points, owner, axis=1) - np.take(self.columns, rows, axis=1)
        height = _dot(way, np.take(self.normal, rows, axis=1)) ** 2
        beside = np.sqrt(np.maximum(_dot(way, way) - height, 0)) - self.radii[rows]
        near = height + np.maximum(beside, 0) ** 2 < best[owner]
        owner, rows = owner[near], rows[near]
        np.minimum.at(best, owner, self._squared(np.take(points, owner, axis=1), rows))

    def _squared(self, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(M,) squared distance of (3, M) points to a triangle each: to its inside or an edge."""
        way = points - np.take(self.origin, rows, axis=1)
        ab, ac = np.take(self.ab, rows, axis=1), np.take(self.ac, rows, axis=1)
        bb, bc, cc = np.take(self.products, rows, axis=1)
        length, along_b, along_c = _dot(way, way), _dot(way, ab), _dot(way, ac)
        across, opposite = along_c - along_b - bc + bb, np.maximum(bb - 2 * bc + cc, 0)
        squared = np.minimum(
            _beside(length, along_b, bb),
            np.minimum(
                _beside(length, along_c, cc), _beside(length - 2 * along_b + bb, across, opposite)
            ),
        )
        area = bb * cc - bc * bc
        v, w = cc * along_b - bc * along_c, bb * along_c - bc * along_b
        # the inside of a needle is its edges: the signs of v and w say nothing there
        over = (area > 1e-10 * bb * cc) & (v >= 0) & (w >= 0) & (v + w <= area)
        height = _dot(way, np.take(self.normal, rows, axis=1)) ** 2
        return np.maximum(np.where(over, height, squared), 0)


def _beside(length: np.ndarray, along: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Squared distance to an edge, from the squared length of the way to its start, the product
    of that way and the edge, and the squared length of the edge."""
    share = np.clip(along / np.maximum(edge, 1e-300), 0, 1)
    return length + share * (share * edge - 2 * along)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
