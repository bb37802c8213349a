"""Coarse distances for the space between and around the fine crops of the classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import edt
import numpy as np

from ..volumes import spacing_of
from .frame import UNIT_RADIUS, apply_affine
from .grids import box_corners, lattice
from .interpolation import trilinear
from .surface_boxes import widened

# Cells along the longest axis: a 512 x 512 x 300 case gets cells of about 4 voxels.
CELLS = 128
# Not more than a crop is wide: every crop holds the centre of a cell.
STEP_VOX = (2, 8)
FADE_CELLS = 4
# (N, 3) float32 voxel indices of a crop -> (N,) float32 signed distances, mm
Lookup = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FarGrid:
    """A coarse lattice on the voxel axes that holds the unit cube of the case.

    origin : (3,) int, voxel index of the first voxel of cell (0, 0, 0).
    step : (3,) int, voxels per cell.
    shape : cells per axis.
    spacing : (3,) float64, cell edges, mm.
    """

    origin: np.ndarray
    step: np.ndarray
    shape: tuple[int, int, int]
    spacing: np.ndarray

    @property
    def first_centre(self) -> np.ndarray:
        """(3,) float32 voxel index of the centre of cell (0, 0, 0)."""
        return (self.origin + (self.step - 1) / 2).astype(np.float32)


@dataclass(frozen=True)
class FarField:
    """Coarse distances of some classes on one lattice.

    values : (x, y, z, C) float32, mm: what a point needs of all classes lies in one place.
    """

    grid: FarGrid
    values: np.ndarray

    def lookup(self, index: np.ndarray, channel: int | None = None) -> np.ndarray:
        """(N, C) float32 mm at (N, 3) float32 voxel indices; (N, 1) of one channel alone.

        Past the lattice, the distance to the surface point that is closest to the nearest
        point of the lattice.
        """
        grid, shape = self.grid, self.values.shape
        cell = (index - grid.first_centre) / grid.step.astype(np.float32)
        nearest = np.clip(cell, 0, np.array(grid.shape, np.float32) - 1)
        low = np.minimum(nearest.astype(np.int32), np.array(grid.shape, np.int32) - 2)
        weights = (nearest - low).T[:, :, None]
        first = (low[:, 0].astype(np.int64) * shape[1] + low[:, 1]) * shape[2] + low[:, 2]
        strides = (shape[1] * shape[2], shape[2], 1)
        if channel is None:
            result = _between(self.values.reshape(-1, shape[3]), first, strides, weights)
            channels = list(range(shape[3]))
        else:
            numbers = tuple(stride * shape[3] for stride in strides)
            flat = self.values.reshape(-1)
            result = _between(flat, first * shape[3] + channel, numbers, weights[..., 0])[:, None]
            channels = [channel]
        past = np.flatnonzero((cell != nearest).any(axis=1))
        if len(past):
            edge = grid.spacing.astype(np.float32)
            way = (cell[past] - nearest[past]) * edge
            for column, number in enumerate(channels):
                slope = self._gradient(self.values[..., number], nearest[past])
                to_surface = way + slope * result[past, column, None]
                result[past, column] = np.linalg.norm(to_surface, axis=1)
        return result

    def _gradient(self, far: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """(N, 3) float32 unit vectors away from the class, at (N, 3) cells."""
        last = np.array(far.shape, np.float32) - 1
        far = np.ascontiguousarray(far)
        slopes = []
        for axis in range(3):
            step = np.zeros(3, np.float32)
            step[axis] = 1
            ends = np.clip(cell + step, 0, last), np.clip(cell - step, 0, last)
            rise = trilinear(far, ends[0]) - trilinear(far, ends[1])
            slopes.append(rise / ((ends[0] - ends[1])[:, axis] * self.grid.spacing[axis]))
        gradient = np.stack(slopes, axis=1)
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-6)


def _between(flat, first, strides, weights) -> np.ndarray:
    """(N, C) trilinear values of (M, C) rows: (N,) first rows of the cells, (3, N, 1) weights."""
    step_x, step_y, step_z = strides
    wx, wy, wz = weights

    def along_z(offset: int) -> np.ndarray:
        near = flat[first + offset]
        rise = flat[first + (offset + step_z)]
        rise -= near
        rise *= wz
        return near + rise

    def along_y(offset: int) -> np.ndarray:
        near = along_z(offset)
        return near + wy * (along_z(offset + step_y) - near)

    near = along_y(0)
    return near + wx * (along_y(step_x) - near)


def far_grid(
    affine: np.ndarray, boxes: Sequence[tuple[slice, slice, slice]], margin: int
) -> FarGrid:
    """The lattice over the unit cube of the anatomy.

    boxes : one (3,) tuple of voxel slices per class.
    margin : voxels around the boxes that lie on the lattice in any case.
    """
    start = np.min([[s.start for s in box] for box in boxes], axis=0) - 1
    stop = np.max([[s.stop for s in box] for box in boxes], axis=0)
    world = apply_affine(affine, box_corners(start, stop).astype(np.float64))
    centre = (world.min(axis=0) + world.max(axis=0)) / 2
    # The frame's vertices lie within this box, so its cube is smaller than the box's own.
    half = np.linalg.norm(world - centre, axis=1).max() / UNIT_RADIUS
    inverse = np.linalg.inv(affine)
    middle = apply_affine(inverse, centre)
    reach = np.abs(inverse[:3, :3]).sum(axis=1) * half
    low = np.floor(np.minimum(middle - reach, start - margin)).astype(int)
    high = np.ceil(np.maximum(middle + reach, stop + margin)).astype(int)
    spacing = spacing_of(affine)
    edge = ((high - low) * spacing).max() / CELLS
    step = np.clip(np.rint(edge / spacing), *STEP_VOX).astype(int)
    shape = (high - low) // step + 2
    return FarGrid(low, step, tuple(shape.tolist()), spacing * step)


def far_field(grid: FarGrid, side: np.ndarray, origin: np.ndarray, fine: Lookup) -> np.ndarray:
    """Coarse distances of one class that meet its fine field at the faces of the crop.

    Parameters
    ----------
    side : (X, Y, Z) float32
        Negative inside, on the crop of the class.
    origin : (3,) int
        Voxel index of the crop's first voxel.
    fine : Lookup
        The field within the crop.

    Returns
    -------
    (x, y, z) float32, mm, on ``grid``.

    Notes
    -----
    A cell counts where any of its voxels does: one-voxel structures survive. The distances
    to cell centres are off by what cell size and shape make of it; on the cells within the
    crop the fine field tells how much. (The correction of ``sdf.smooth_distance`` on top would
    bias them: it was measured.)
    """
    occupied, first = _cells(grid, side < 0, origin)
    coarse = np.ones(grid.shape, np.uint8)
    window = tuple(slice(a, a + n) for a, n in zip(first, occupied.shape))
    coarse[window] += occupied
    far = edt.edt(coarse, anisotropy=tuple(map(float, grid.spacing)))
    np.negative(far, out=far, where=coarse > 1)
    _fit(far, *_fine_on_cells(grid, side.shape, origin, fine))
    return far


def every_second(mask: np.ndarray) -> np.ndarray:
    """(X/2, Y/2, Z/2) bool: every second voxel of a mask, and what lies beside none of these: a
    vessel of single voxels may run between them.

    mask : (X, Y, Z) bool.
    """
    taken = np.ascontiguousarray(mask[::2, ::2, ::2])
    missed = ~widened(taken)
    any_voxel = np.zeros_like(taken)
    for first in itertools.product((0, 1), repeat=3):
        part = mask[tuple(slice(n, None, 2) for n in first)]
        any_voxel[tuple(slice(0, n) for n in part.shape)] |= part
    missed &= any_voxel
    taken |= missed
    return taken


def _fit(far: np.ndarray, inner: tuple[slice, ...], fine: np.ndarray) -> None:
    """Make ``far`` equal to ``fine`` on its cells and continuous beyond them, in place."""
    error = fine - far[inner]
    rim = [error.take(side, axis=axis).ravel() for axis in range(3) for side in (0, -1)]
    offset = np.float32(np.median(np.concatenate(rim)))
    far += offset
    # What is left of the error at the faces fades out over the next cells.
    low = [min(FADE_CELLS, s.start) for s in inner]
    high = [min(FADE_CELLS, n - s.stop) for s, n in zip(inner, far.shape)]
    error = np.pad(error - offset, list(zip(low, high)), mode="edge")
    for axis, n in enumerate(error.shape):
        cell = np.arange(n)
        beyond = np.maximum(low[axis] - cell, 0) + np.maximum(cell - (n - 1 - high[axis]), 0)
        fading = (1 - beyond / (FADE_CELLS + 1)).astype(np.float32)
        error *= fading.reshape([-1 if a == axis else 1 for a in range(3)])
    far[tuple(slice(s.start - a, s.stop + b) for s, a, b in zip(inner, low, high))] += error


def _cells(grid: FarGrid, mask: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Which cells hold a voxel of the mask, on the window of cells over the crop."""
    first = []
    for axis in range(3):
        step = int(grid.step[axis])
        offset = int(origin[axis] - grid.origin[axis])
        cell = offset // step
        starts = np.arange(cell + 1, (offset + mask.shape[axis] - 1) // step + 1) * step - offset
        mask = np.logical_or.reduceat(mask, np.concatenate([[0], starts]), axis=axis)
        first.append(cell)
    return mask, first


def _fine_on_cells(grid: FarGrid, shape: Sequence[int], origin: np.ndarray, lookup: Lookup):
    """The cells whose centres lie in the crop, and the fine field there."""
    centre = grid.first_centre - origin
    low = np.ceil(-centre / grid.step).astype(int)
    high = np.floor((np.array(shape) - 1 - centre) / grid.step).astype(int)
    axes = [np.arange(a, b + 1) for a, b in zip(low, high)]
    fine = lookup((lattice(*axes) * grid.step + centre).astype(np.float32))
    window = tuple(slice(a, b + 1) for a, b in zip(low, high))
    return window, fine.reshape([len(a) for a in axes])
