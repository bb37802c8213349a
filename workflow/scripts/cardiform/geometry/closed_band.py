"""A narrow band closed to a solid: every voxel gets its side, then surfaces and masks follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from .frame import Frame, apply_affine
from .grids import covered, cropped_affine, planes
from .surface import Mesh, extract_surface

RIM = 2  # voxels of outside that are kept around a crop


@dataclass(frozen=True)
class Solid:
    """Distances of one structure on a box of voxels.

    values : (X, Y, Z) float32 in half-bands, negative inside; -1 or 1 off the band.
    affine : (4, 4) float64, indices of ``values`` to RAS mm.
    """

    values: np.ndarray
    affine: np.ndarray

    @classmethod
    def of_band(cls, coords: np.ndarray, sdf: np.ndarray, resolution: int, frame: Frame) -> Solid:
        """From (V, 3) voxels of the unit frame and their (V,) distances in half-bands."""
        affine = voxel_affine(resolution, frame)
        if not len(coords):
            return cls(np.ones((1, 1, 1), np.float32), affine)
        first = coords.min(axis=0).astype(np.int64) - RIM
        shape = tuple(coords.max(axis=0).astype(np.int64) + RIM + 1 - first)
        inner = coords.astype(np.int64) - first
        solid = fill_sign(inner, sdf < 0, shape)
        values = np.where(solid, np.float32(-1), np.float32(1))
        # a value of exactly zero would make triangles without area
        values[tuple(inner.T)] = np.where(sdf == 0, 1e-4, sdf)
        return cls(values, cropped_affine(affine, first))

    def surface(self) -> Mesh:
        """The zero surface in RAS mm, outward; empty where nothing is inside."""
        return extract_surface(self.values, self.affine)

    def on_grid(
        self, shape: tuple[int, ...], affine: np.ndarray
    ) -> tuple[tuple[slice, ...], np.ndarray]:
        """The distances on the part of a grid that the box covers: where, and (x, y, z) float32.

        Trilinear between the voxels; 1 beyond the box.
        """
        into = np.linalg.inv(affine) @ self.affine
        where = covered(np.zeros(3), np.array(self.values.shape) - 1.0, into, shape)
        back = np.linalg.inv(into)
        result = np.ones([s.stop - s.start for s in where], np.float32)
        for plane, index in zip(result, planes(where)):
            there = apply_affine(back, index)
            values = map_coordinates(self.values, there.T, order=1, cval=1.0, prefilter=False)
            plane[...] = values.reshape(plane.shape)
        return where, result

    def lookup(self, coords: np.ndarray, resolution: int, frame: Frame) -> np.ndarray:
        """(V,) values at (V, 3) voxels of the unit frame; 1 beyond the box."""
        first = np.linalg.solve(
            voxel_affine(resolution, frame)[:3, :3],
            self.affine[:3, 3] - voxel_affine(resolution, frame)[:3, 3],
        )
        inner = coords.astype(np.int64) - np.rint(first).astype(np.int64)
        inside = ((inner >= 0) & (inner < self.values.shape)).all(axis=1)
        values = np.ones(len(coords), np.float32)
        values[inside] = self.values[tuple(inner[inside].T)]
        return values


def mean_solid(solids: Sequence[Solid]) -> Solid:
    """The mean of several solids on one lattice of voxels; what has no inside counts as 1."""
    filled = [solid for solid in solids if (solid.values < 0).any()]
    if not filled:
        return solids[0]
    origin = filled[0].affine
    starts = [
        np.rint(np.linalg.solve(origin[:3, :3], s.affine[:3, 3] - origin[:3, 3])).astype(int)
        for s in filled
    ]
    low = np.min(starts, axis=0)
    high = np.max([at + s.values.shape for at, s in zip(starts, filled)], axis=0)
    total = np.full(tuple(high - low), np.float32(len(solids)))
    for at, solid in zip(starts, filled):
        box = tuple(slice(a, a + n) for a, n in zip(at - low, solid.values.shape))
        total[box] += solid.values - 1
    mean = total / np.float32(len(solids))
    mean[mean == 0] = 1e-4  # zeros would make triangles without area
    return Solid(mean, cropped_affine(origin, low))


def voxel_affine(resolution: int, frame: Frame) -> np.ndarray:
    """(4, 4) float64: voxel index of the unit frame to RAS mm."""
    edge = 2 / resolution / frame.scale
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = frame.to_world(np.full(3, 1 / resolution - 1))
    return affine


def fill_sign(coords: np.ndarray, inside: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(X, Y, Z) bool: the solid whose band is given; voxels off the band get their side.

    coords : (V, 3) int voxels of the band within ``shape``.    inside : (V,) bool.

    Notes
    -----
    Along every grid line a gap between two inside voxels of the band is inside. The three
    directions vote, so a hole in a predicted band leaves a streak in one of them and nothing
    leaks. Filling the gaps with "outside" instead would give a second wall.
    """
    state = np.zeros(shape, np.int8)  # 0: not stored
    state[tuple(coords.T)] = np.where(inside, -1, 1)
    votes = np.zeros(shape, np.int8)
    for axis in range(3):
        before = _last_stored(state, axis)
        after = np.flip(_last_stored(np.flip(state, axis), axis), axis)
        votes += (before < 0) & (after < 0)
    solid = votes >= 2
    solid[tuple(coords.T)] = inside
    return solid


def _last_stored(state: np.ndarray, axis: int) -> np.ndarray:
    """For every voxel the state of the last stored one up to it along ``axis``, 0 for none."""
    ticks = np.arange(state.shape[axis], dtype=np.int32).reshape(
        [-1 if a == axis else 1 for a in range(3)]
    )
    at = np.maximum.accumulate(np.where(state != 0, ticks, 0), axis=axis)
    return np.take_along_axis(state, at, axis=axis)
