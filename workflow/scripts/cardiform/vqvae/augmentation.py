"""Random rotations, scalings and elastic deformations of a narrow band.

A band is put under a smooth map of space by asking for each new voxel where it came from and
interpolating there. What comes out are distances again: a value is divided by how fast the map
makes it grow along the normal of the surface, and is cut at the same half-band.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

SCALE = 0.1  # largest relative change of size
WAVES = 3  # of an elastic deformation
STRETCH = 0.1  # the most that each of them stretches
WAVELENGTHS = 0.25, 0.75  # parts of the grid's edge
INVERSIONS = 4  # steps to where a voxel goes; each divides the error by three at least
FLAT = 0.3  # a slope below this, as on the axis of a vessel, has no direction
GROWTH = 1.25  # a deformed structure has at most so many times its voxels


@dataclass(frozen=True)
class Warp:
    """A smooth map from places in the new band to those in the old, in voxels.

    centre : (3,) stays where it is, but for the waves.
    matrix : (3, 3) rotation divided by the scale.
    amplitudes, waves, phases : (K, 3), (K, 3) radians per voxel and (K,) of plane waves that are
        added: their lengths bound the stretch, so nothing folds.
    """

    centre: np.ndarray
    matrix: np.ndarray
    amplitudes: np.ndarray
    waves: np.ndarray
    phases: np.ndarray

    @classmethod
    def drawn(
        cls, kinds: Collection[str], centre: np.ndarray, resolution: int, rng: np.random.Generator
    ) -> Warp:
        """A random one: any ``rotation``, a tenth of ``scaling``, three waves (``elastic``)."""
        turn, scale = Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1)
        length = resolution * rng.uniform(*WAVELENGTHS, (WAVES, 1))
        along, moved = (_directions(rng) for _ in range(2))
        strength = STRETCH * rng.uniform(0, 1, (WAVES, 1)) * ("elastic" in kinds)
        waves = 2 * np.pi / length * along
        matrix = turn if "rotation" in kinds else np.eye(3)
        if "scaling" in kinds:
            matrix = matrix * (1 + SCALE) ** -scale
        amplitudes = strength * length / (2 * np.pi) * moved
        parts = centre, matrix, amplitudes, waves, rng.uniform(0, 2 * np.pi, WAVES)
        return cls(*(np.asarray(part, np.float32) for part in parts))

    def source(self, places: np.ndarray) -> np.ndarray:
        """(N, 3) where (N, 3) places of the new band lie in the old one."""
        return self.centre + (places - self.centre) @ self.matrix.T + self._wave(places)

    def target(self, places: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`source`, to a part of a voxel."""
        back = np.linalg.inv(self.matrix).T
        found = self.centre + (places - self.centre) @ back
        if self.amplitudes.any():
            for _ in range(INVERSIONS):
                found = self.centre + (places - self._wave(found) - self.centre) @ back
        return found

    def stretch(self, places: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(N,) how much faster a distance with (N, 3) unit normals in the old band grows at
        (N, 3) places of the new one; a normal of 0 gives the mean of all directions."""
        pulled = normals @ self.matrix
        flat = np.float32((self.matrix**2).sum() / 3)
        if self.amplitudes.any():
            slopes = np.cos(places @ self.waves.T + self.phases)
            pulled = pulled + (slopes * (normals @ self.amplitudes.T)) @ self.waves
        size = (pulled**2).sum(axis=1)
        return np.sqrt(np.where(size > 0, size, flat))

    @property
    def steepest(self) -> float:
        """No stretch is larger."""
        bent = np.linalg.norm(self.amplitudes, axis=1) * np.linalg.norm(self.waves, axis=1)
        return float(np.linalg.norm(self.matrix, 2) + bent.sum())

    def _wave(self, places: np.ndarray) -> np.ndarray:
        if not self.amplitudes.any():
            return np.zeros(3, np.float32)
        return np.sin(places @ self.waves.T + self.phases) @ self.amplitudes


def _directions(rng: np.random.Generator) -> np.ndarray:
    found = rng.normal(size=(WAVES, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def deformed(
    coords: np.ndarray,
    values: np.ndarray,
    resolution: int,
    band_voxels: float,
    kinds: Collection[str],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A band under a random map, as :func:`warped` has them, moved into the cube.

    One that does not fit into the cube afterwards, or has more than 1.25 times its voxels, stays
    as it is.
    """
    centre = (coords.min(axis=0) + coords.max(axis=0)) / 2
    warp = Warp.drawn(kinds, centre, resolution, rng)
    moved, made = warped(coords, values, resolution, band_voxels, warp)
    if not 0 < len(moved) <= GROWTH * len(coords):
        return coords, values
    low, high = moved.min(axis=0), moved.max(axis=0)
    if (high - low >= resolution).any():
        return coords, values
    return (moved + np.clip(0, -low, resolution - 1 - high)).astype(coords.dtype), made


def warped(
    coords: np.ndarray, values: np.ndarray, resolution: int, band_voxels: float, warp: Warp
) -> tuple[np.ndarray, np.ndarray]:
    """A band under a map.

    coords : (V, 3) voxels of the grid.    values : (V, 2) float32 distances in half-bands, and
    whether they are known (1 or 0).

    Returns
    -------
    The same of the new band, sorted; its voxels may lie outside of the grid.
    """
    layers = int(np.ceil(band_voxels * (warp.steepest - 1) + np.sqrt(3)))
    margin = 2 * layers + 2
    first = coords.min(axis=0) - margin
    inner = coords - first
    shape = tuple(inner.max(axis=0) + margin + 1)
    grid = np.full(shape, np.nan, np.float32)
    grid[tuple(inner.T)] = values[:, 0] * np.float32(band_voxels)
    for _ in range(layers):
        _extend(grid, first, resolution)

    places = _candidates(np.rint(warp.target(coords.astype(np.float32))).astype(np.int64))
    wanted = places.astype(np.float32)
    source = warp.source(wanted) - first.astype(np.float32)
    within = ((source >= 0) & (source < np.array(shape) - 1)).all(axis=1)
    places, wanted, source = places[within], wanted[within], source[within]
    away, normals = _interpolated(grid, source)
    there = np.isfinite(away)
    places, wanted, source, away, normals = (
        a[there] for a in (places, wanted, source, away, normals)
    )
    size = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(size > FLAT, normals / np.maximum(size, FLAT), 0)
    new = away / (warp.stretch(wanted, normals) * band_voxels)
    kept = np.abs(new) <= 1
    places = places[kept]
    known = np.ones(len(places), np.float32)
    if not values[:, 1].all():
        unknown = np.zeros(shape, np.float32)
        unknown[tuple(inner.T)] = 1 - values[:, 1]
        # past the old band its outermost voxel along the normal says it
        beyond = away - np.clip(away, 1 - band_voxels, band_voxels - 1)
        stored = (source - beyond[:, None] * normals)[kept]
        known = 1 - unknown[tuple(np.rint(stored).astype(np.int64).T)]
    return places, np.stack([new[kept].astype(np.float32), known], axis=1)


def _candidates(places: np.ndarray) -> np.ndarray:
    """(N, 3) sorted voxels: some places and those next to them."""
    first = places.min(axis=0) - 1
    near = np.zeros(tuple(places.max(axis=0) + 2 - first), bool)
    near[tuple((places - first).T)] = True
    for axis in range(3):
        line = np.moveaxis(near, axis, 0)
        grown = line.copy()
        grown[1:] |= line[:-1]
        grown[:-1] |= line[1:]
        line[...] = grown
    return np.argwhere(near) + first


def _extend(grid: np.ndarray, first: np.ndarray, resolution: int) -> None:
    """Give voxels next to known ones, within the cube, what straight lines through these say."""
    known = np.isfinite(grid)
    rim = _candidates(np.argwhere(known))
    rim = rim[((rim + first >= 0) & (rim + first < resolution)).all(axis=1)]
    rim = rim[~known[tuple(rim.T)]]
    steps = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    steps = steps[(steps != 0).any(axis=1)]
    strides = np.array([grid.shape[1] * grid.shape[2], grid.shape[2], 1])
    flat, at = grid.ravel(), (rim @ strides)[:, None]
    near = flat[at + steps @ strides]
    rise = near - flat[at + 2 * (steps @ strides)]
    found = np.isfinite(rise)
    # a line along the normal is straight for distances: it rises the most
    slope = np.where(found, np.square(rise) / (steps**2).sum(axis=1, dtype=np.float32), 0)
    weights = np.square(slope)
    total = weights.sum(axis=1)
    rows = total > 0
    mean = (weights * np.where(found, near + rise, 0)).sum(axis=1)[rows] / total[rows]
    grid[tuple(rim[rows].T)] = mean


def _interpolated(grid: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) trilinear values at (N, 3) places, NaN next to a NaN, and their (N, 3) slopes."""
    low = index.astype(np.int64)
    x, y, z = (index - low).T
    strides = np.array([grid.shape[1] * grid.shape[2], grid.shape[2], 1])
    flat, at = grid.ravel(), low @ strides
    steps = [np.array(s) @ strides for s in np.ndindex(2, 2, 2)]
    c000, c001, c010, c011, c100, c101, c110, c111 = (flat[at + step] for step in steps)
    dx = [c100 - c000, c101 - c001, c110 - c010, c111 - c011]
    c00, c01, c10, c11 = (c + x * d for c, d in zip((c000, c001, c010, c011), dx))
    dy = [c10 - c00, c11 - c01]
    c0, c1 = c00 + y * dy[0], c01 + y * dy[1]
    slopes = [
        (1 - y) * ((1 - z) * dx[0] + z * dx[1]) + y * ((1 - z) * dx[2] + z * dx[3]),
        (1 - z) * dy[0] + z * dy[1],
        c1 - c0,
    ]
    return c0 + z * slopes[2], np.stack(slopes, axis=1)
