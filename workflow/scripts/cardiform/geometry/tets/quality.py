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
    result = np.empty(len(tets))
    for start in range(0, len(tets), CHUNK):
        one, two, three = _sides(points, tets[start : start + CHUNK])
        result[start : start + CHUNK] = (one * _cross(two, three)).sum(axis=0) / 6
    return result


def sharpest(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T,) float64 cosine of the smallest dihedral angle; INVERTED where the volume is not
    positive."""
    result = np.empty(len(tets))
    for start in range(0, len(tets), CHUNK):
        result[start : start + CHUNK] = _sharpest(*_sides(points, tets[start : start + CHUNK]))
    return result


def smallest_angles(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T,) degrees, the smallest dihedral angle of each; -1 where it is inverted."""
    cosines = sharpest(points, tets)
    return np.where(cosines > 1, -1.0, np.degrees(np.arccos(np.minimum(cosines, 1))))


def _sides(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(3, 3, N) float64: from the first corner to the others."""
    corners = np.ascontiguousarray(points[tets].transpose(1, 2, 0), np.float64)
    return corners[1:] - corners[0]


def _sharpest(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> np.ndarray:
    """Each (3, N)."""
    normals = [_cross(two, three), _cross(three, one), _cross(one, two)]
    inside = (one * normals[0]).sum(axis=0)
    normals.append(-(normals[0] + normals[1] + normals[2]))
    for normal in normals:
        normal /= np.sqrt((normal * normal).sum(axis=0)) + 1e-300
    worst = np.full(one.shape[1], -1.0)
    for a, b in itertools.combinations(normals, 2):
        np.maximum(worst, -(a * b).sum(axis=0), out=worst)
    worst[inside <= 0] = INVERTED
    return worst


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, N) x (3, N)."""
    return np.stack([
        a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    ])  # fmt: skip
