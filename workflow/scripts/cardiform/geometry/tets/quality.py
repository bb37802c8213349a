"""Angles and volumes of tetrahedra."""

from __future__ import annotations

import itertools

import numpy as np

CHUNK = 1 << 15  # the working arrays stay within the cache
INVERTED = 2.0


def volumes(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T,) float64 volumes, negative where a tetrahedron is turned inside out.

    points : (V, 3) mm.    tets : (T, 4).
    """
    first = points[tets[:, 0]].astype(np.float64)
    one, two, three = (points[tets[:, k]] - first for k in (1, 2, 3))
    return np.einsum("ij,ij->i", one, np.cross(two, three)) / 6


def sharpest(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T,) float64 cosine of the smallest dihedral angle; INVERTED where the volume is not
    positive."""
    result = np.empty(len(tets))
    for start in range(0, len(tets), CHUNK):
        corners = points[tets[start : start + CHUNK]].transpose(1, 2, 0)
        result[start : start + CHUNK] = _sharpest(np.ascontiguousarray(corners, np.float64))
    return result


def smallest_angles(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T,) degrees, the smallest dihedral angle of each; -1 where it is inverted."""
    cosines = sharpest(points, tets)
    return np.where(cosines > 1, -1.0, np.degrees(np.arccos(np.minimum(cosines, 1))))


def _sharpest(corners: np.ndarray) -> np.ndarray:
    """corners : (4, 3, N)."""
    one, two, three = corners[1:] - corners[0]
    normals = [_cross(two, three), _cross(three, one), _cross(one, two)]
    inside = (one * normals[0]).sum(axis=0)
    normals.append(-(normals[0] + normals[1] + normals[2]))
    for normal in normals:
        normal /= np.sqrt((normal * normal).sum(axis=0)) + 1e-300
    worst = np.full(corners.shape[2], -1.0)
    for a, b in itertools.combinations(normals, 2):
        np.maximum(worst, -(a * b).sum(axis=0), out=worst)
    worst[inside <= 0] = INVERTED
    return worst


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, N) x (3, N)."""
    return np.stack([
        a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    ])  # fmt: skip
