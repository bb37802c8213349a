"""Plane sections of a closed surface, and where rays leave it."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..geometry.surface import Mesh

MOST_MM = 60.0  # a ray looks no farther
RIM = 1e-9  # of a triangle: a ray through an edge passes between no two of them


class Surface:
    """A closed surface that planes and rays are put through.

    The triangles near a ray are found by the R-tree of trimesh.
    """

    def __init__(self, mesh: Mesh):
        vertices = mesh.vertices.astype(np.float64)
        self._solid = trimesh.Trimesh(vertices, mesh.faces, process=False)
        self._middles = cKDTree(self._solid.triangles_center)

    def section(
        self, place: np.ndarray, normal: np.ndarray, reach: float
    ) -> tuple[float, np.ndarray]:
        """mm^2 of the section that a place lies in, and its (3,) middle; NaN where it is in none.

        place, normal : (3,) RAS mm, and a unit vector.    reach : mm, a wider section is none.
        """
        nowhere = np.nan, np.full(3, np.nan)
        solid = self._solid
        faces = np.array(self._middles.query_ball_point(place, reach), int)
        corners = solid.triangles[faces]
        heights = (corners - place) @ normal
        crossed = (heights > 0) != (np.roll(heights, -1, axis=1) > 0)  # edges 0-1, 1-2, 2-0
        cut = crossed.any(axis=1)
        if not cut.any():
            return nowhere
        faces, corners, heights, crossed = faces[cut], corners[cut], heights[cut], crossed[cut]
        after = np.roll(heights, -1, axis=1)
        share = np.divide(heights, heights - after, out=np.zeros_like(heights), where=crossed)
        points = corners + share[..., None] * (np.roll(corners, -1, axis=1) - corners)
        across = _plane(normal)
        ends = ((points[crossed] - place) @ across.T).reshape(-1, 2, 2)
        _, nodes = np.unique(solid.faces_unique_edges[faces][crossed], return_inverse=True)
        nodes = nodes.reshape(-1, 2)
        # counter-clockwise around the inside: the normal of the face is to the right of the way
        way = ends[:, 1] - ends[:, 0]
        outward = solid.face_normals[faces] @ across.T
        turned = way[:, 1] * outward[:, 0] - way[:, 0] * outward[:, 1] < 0
        ends[turned] = ends[turned, ::-1]
        own = _loop_around(ends, nodes)
        parts = _crossed(ends[own, 0], ends[own, 1]) / 2
        area = float(parts.sum())
        if area <= 0:
            return nowhere
        middle = (ends[own].sum(axis=1) * parts[:, None]).sum(axis=0) / (3 * area)
        return area, place + middle @ across

    def ahead(
        self, places: np.ndarray, directions: np.ndarray, least: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) mm from places to the surface along unit directions; NaN where it is not met.

        places, directions : (N, 3).    least : nearer hits do not count, mm.

        Returns
        -------
        The ways; the (N,) cosines between the directions and the normals of what they meet; the
        (N,) int triangles that these are, -1 for none.
        """
        result, cosines = np.full((2, len(places)), np.nan)
        met = np.full(len(places), -1)
        solid = self._solid
        tree, triangles, normals = solid.triangles_tree, solid.triangles, solid.face_normals
        ends = np.stack([places, places + MOST_MM * directions])
        boxes = np.concatenate([ends.min(axis=0), ends.max(axis=0)], axis=1)
        for k, box in enumerate(boxes):
            near = np.fromiter(tree.intersection(box), int)
            ways = _ways(places[k], directions[k], triangles[near])
            ways[~(ways > least)] = np.inf
            if len(near) and np.isfinite(ways.min()):
                first = int(ways.argmin())
                result[k], met[k] = ways[first], near[first]
                cosines[k] = normals[near[first]] @ directions[k]
        return result, cosines, met


def _loop_around(ends: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(N,) bool: the steps of closed loops that go around the origin.

    ends : (N, 2, 2) mm, from where to where each step goes.    nodes : (N, 2) int, its points.
    """
    count = int(nodes.max()) + 1
    joined = coo_array((np.ones(len(nodes)), tuple(nodes.T)), shape=(count, count))
    number, of_node = connected_components(joined, directed=False)
    loops = of_node[nodes[:, 0]]
    open_end = np.bincount(nodes.ravel(), minlength=count) != 2
    closed = np.bincount(of_node, open_end, number) == 0
    around = np.abs(np.bincount(loops, _turns(ends[:, 0], ends[:, 1]), number)) > 0.5
    return (closed & around)[loops]


def _plane(normal: np.ndarray) -> np.ndarray:
    """(2, 3) unit vectors across a normal, the second to the left of the first."""
    side = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(normal, side)])


def _crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _turns(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(N,) turns about the origin on the way from each point to the next."""
    return np.arctan2(_crossed(start, end), (start * end).sum(axis=1)) / (2 * np.pi)


def _ways(place: np.ndarray, direction: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) mm along a ray to each triangle; NaN where it passes by.

    Moeller and Trumbore, "Fast, minimum storage ray-triangle intersection" (1997).
    """
    corner, one, two = triangles[:, 0], *(triangles[:, k] - triangles[:, 0] for k in (1, 2))
    across = np.cross(direction, two)
    scale = (one * across).sum(axis=1)
    scale[np.abs(scale) < 1e-12] = np.nan
    off = place - corner
    u = (off * across).sum(axis=1) / scale
    turned = np.cross(off, one)
    v = turned @ direction / scale
    inside = (u >= -RIM) & (v >= -RIM) & (u + v <= 1 + RIM)
    return np.where(inside, (two * turned).sum(axis=1) / scale, np.nan)
