"""Plane sections of a closed surface, and where rays leave it."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..geometry.surface import Mesh

MOST_MM = 60.0  # a ray looks no farther
BATCH = 256  # rays at a time


class Surface:
    """A surface that planes and rays are put through.

    The triangles near a ray are found by the R-tree of trimesh.
    """

    def __init__(self, mesh: Mesh):
        vertices = mesh.vertices.astype(np.float64)
        self._solid = trimesh.Trimesh(vertices, mesh.faces, process=False)

    def area_at(self, place: np.ndarray, normal: np.ndarray) -> float:
        """mm^2 of the section that a place lies in; NaN where it lies in none.

        place, normal : (3,) RAS mm, and a unit vector.
        """
        solid = self._solid
        heights = (solid.vertices - place) @ normal
        above = heights > 0
        edges, of_face = solid.edges_unique, solid.faces_unique_edges
        crossed = above[edges[:, 0]] != above[edges[:, 1]]
        faces = np.flatnonzero(crossed[of_face].sum(axis=1) == 2)
        if not len(faces):
            return np.nan
        ends = of_face[faces][crossed[of_face[faces]]].reshape(-1, 2)
        number = np.cumsum(crossed) - 1
        a, b = edges[crossed].T
        share = (heights[a] / (heights[a] - heights[b]))[:, None]
        flat = _in_plane(solid.vertices[a] * (1 - share) + solid.vertices[b] * share, place, normal)
        start, end = number[ends].T
        # counter-clockwise around the inside: the normal of the face is to the right of the way
        way = flat[end] - flat[start]
        outward = _in_plane(place + solid.face_normals[faces], place, normal)
        turned = way[:, 1] * outward[:, 0] - way[:, 0] * outward[:, 1] < 0
        start, end = np.where(turned, end, start), np.where(turned, start, end)
        size = (len(flat),) * 2
        joined = coo_array((np.ones(len(start)), (start, end)), shape=size)
        loops = connected_components(joined, directed=False)[1][start]
        areas = np.bincount(loops, _crossed(flat[start], flat[end]) / 2)
        turns = np.bincount(loops, _turns(flat[start], flat[end]))
        around = np.abs(turns) > 0.5
        return float(areas[around].sum()) if areas[around].sum() > 0 else np.nan

    def ahead(self, places: np.ndarray, directions: np.ndarray, least: float = 0.0) -> np.ndarray:
        """(N,) mm from places to the surface along unit directions; NaN where it is not met.

        places, directions : (N, 3).    least : nearer hits do not count, mm.
        """
        result = np.full(len(places), np.nan)
        tree, triangles = self._solid.triangles_tree, self._solid.triangles
        ends = np.stack([places, places + MOST_MM * directions])
        boxes = np.concatenate([ends.min(axis=0), ends.max(axis=0)], axis=1)
        for first in range(0, len(places), BATCH):
            near = [list(tree.intersection(box)) for box in boxes[first : first + BATCH]]
            rays = first + np.repeat(np.arange(len(near)), [len(found) for found in near])
            met = triangles[np.concatenate([np.array(found, int) for found in near])]
            ways = _ways(places[rays], directions[rays], met)
            ways[~(ways > least)] = np.inf
            nearest = np.full(len(places), np.inf)
            np.minimum.at(nearest, rays, ways)
            hit = np.isfinite(nearest)
            result[hit] = nearest[hit]
        return result


def _in_plane(points: np.ndarray, place: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(N, 2) mm in a plane, counter-clockwise about its normal."""
    side = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    side /= np.linalg.norm(side)
    return (points - place) @ np.stack([side, np.cross(normal, side)], axis=1)


def _crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _turns(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(N,) turns about the origin on the way from each point to the next."""
    return np.arctan2(_crossed(start, end), (start * end).sum(axis=1)) / (2 * np.pi)


def _ways(places: np.ndarray, directions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) mm along each ray to its triangle; NaN where it passes by.

    Moeller and Trumbore, "Fast, minimum storage ray-triangle intersection" (1997).
    """
    corner, one, two = triangles[:, 0], *(triangles[:, k] - triangles[:, 0] for k in (1, 2))
    across = np.cross(directions, two)
    scale = (one * across).sum(axis=1)
    scale[np.abs(scale) < 1e-12] = np.nan
    off = places - corner
    u = (off * across).sum(axis=1) / scale
    turned = np.cross(off, one)
    v = (directions * turned).sum(axis=1) / scale
    way = (two * turned).sum(axis=1) / scale
    rim = 1e-9
    inside = (u >= -rim) & (v >= -rim) & (u + v <= 1 + rim)
    return np.where(inside, way, np.nan)
