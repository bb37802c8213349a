"""Signed-distance samples -> closed triangle meshes in world millimetres."""

from __future__ import annotations

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
    if not len(mesh.faces):
        return 0.0
    # About the mesh's own middle: far from the origin the terms would cancel in vain.
    corners = (mesh.vertices - mesh.vertices.mean(axis=0, dtype=np.float64))[mesh.faces]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def face_vectors(mesh: Mesh) -> np.ndarray:
    """(F, 3) float64 outward face normals, each as long as its face's area in mm^2."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


def surface_area(mesh: Mesh) -> float:
    """Area, mm^2."""
    return float(np.linalg.norm(face_vectors(mesh), axis=1).sum())


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
