"""Signed-distance samples -> closed triangle meshes in world millimetres."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from skimage.measure import marching_cubes

from .frame import apply_affine


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    vertices : (V, 3) float32, RAS mm.
    faces : (F, 3) int32, counter-clockwise seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray

    @functools.cached_property
    def sizes(self) -> tuple[float, float]:
        """Area, mm^2, and enclosed volume, mm^3, which is negative where triangles face inward."""
        if not len(self.faces):
            return 0.0, 0.0
        vectors = face_vectors(self)
        # About the mesh's own middle: far from the origin the terms would cancel in vain.
        first = self.vertices[self.faces[:, 0]] - self.vertices.mean(axis=0, dtype=np.float64)
        area = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).sum())
        return area, float(np.einsum("ij,ij->", first, vectors) / 3)


def extract_surface(
    values: np.ndarray, affine: np.ndarray, where: np.ndarray | None = None
) -> Mesh:
    """The zero surface of a sampled signed distance (negative inside), facing outward.

    Parameters
    ----------
    values : (X, Y, Z) float32
        Positive on the whole border, so that the surface closes; nowhere exactly zero,
        so that no triangle degenerates.
    affine : (4, 4) float64
        Indices of ``values`` to RAS mm. Mirroring affines are welcome.
    where : (X, Y, Z) bool
        No surface lies elsewhere: it is found in a fraction of the time. None: it may lie
        anywhere.

    Notes
    -----
    Lewiner et al., "Efficient implementation of marching cubes' cases with topological
    guarantees", Journal of Graphics Tools 8 (2003), as implemented in scikit-image.
    """
    if not values.min() < 0 < values.max():
        return Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    indices, faces, _, _ = marching_cubes(values, 0.0, allow_degenerate=True, mask=where)
    vertices = apply_affine(affine, indices.astype(np.float64)).astype(np.float32)
    # On a distance that is negative inside the triangles face outward; a mirror turns them.
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return Mesh(vertices, np.ascontiguousarray(faces, np.int32))


def signed_volume(mesh: Mesh) -> float:
    """Enclosed volume, mm^3; negative where the triangles face inward."""
    return mesh.sizes[1]


def face_vectors(mesh: Mesh) -> np.ndarray:
    """(F, 3) float64 outward face normals, each as long as its face's area in mm^2."""
    first, *others = mesh.faces.T
    vectors = np.empty((len(first), 3))
    columns = mesh.vertices.T.astype(np.float64, order="C")  # x, y, z each together: fast to pick
    starts = [column[first] for column in columns]
    (ax, ay, az), (bx, by, bz) = (
        [column[other] - start for column, start in zip(columns, starts)] for other in others
    )
    vectors[:, 0] = ay * bz - az * by
    vectors[:, 1] = az * bx - ax * bz
    vectors[:, 2] = ax * by - ay * bx
    vectors /= 2
    return vectors


def surface_area(mesh: Mesh) -> float:
    """Area, mm^2."""
    return mesh.sizes[0]


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge is run through once in each direction (closed and oriented)."""
    if not len(mesh.faces):
        return False
    start, end = mesh.faces.ravel(), np.roll(mesh.faces, -1, axis=1).ravel()
    size = (len(mesh.vertices),) * 2
    # rows are where an edge begins and columns where it ends: compressed, by counting, not sorting
    forward = coo_array((np.ones(len(start), np.int8), (start, end)), shape=size).tocsr()
    backward = forward.T.tocsr()
    if forward.nnz < len(start):  # an edge that is run through twice in one direction
        return False
    forward.sort_indices()
    backward.sort_indices()
    return np.array_equal(forward.indptr, backward.indptr) and np.array_equal(
        forward.indices, backward.indices
    )
