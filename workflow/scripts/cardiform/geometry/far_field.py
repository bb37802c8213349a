"""Coarse distances for the space between and around the fine crops of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import edt
import numpy as np

from ..volumes import spacing_of
from .frame import UNIT_RADIUS, apply_affine
from .grids import box_corners, lattice
from .interpolation import trilinear

# Cells along the longest axis: a 512 x 512 x 300 case gets cells of about 4 voxels.
CELLS = 128
# Not more than a crop is wide: every crop holds the centre of a cell.
STEP_VOX = (2, 8)
FADE_CELLS = 4


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

    def lookup(self, far: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(N,) float32 mm of a far field at (N, 3) float32 voxel indices.

        Past the lattice, the distance to the surface point that is closest to the nearest
        point of the lattice.
        """
        cell = (index - self.first_centre) / self.step.astype(np.float32)
        nearest = np.clip(cell, 0, np.array(self.shape, np.float32) - 1)
        result = trilinear(far, nearest)
        past = np.flatnonzero((cell != nearest).any(axis=1))
        if len(past):
            edge = self.spacing.astype(np.float32)
            to_surface = self._gradient(far, nearest[past]) * result[past, None]
            way = (cell[past] - nearest[past]) * edge + to_surface
            result[past] = np.linalg.norm(way, axis=1)
        return result

    def _gradient(self, far: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """(N, 3) float32 unit vectors away from the class, at (N, 3) cells."""
        last = np.array(self.shape, np.float32) - 1
        slopes = []
        for axis in range(3):
            step = np.zeros(3, np.float32)
            step[axis] = 1
            ends = np.clip(cell + step, 0, last), np.clip(cell - step, 0, last)
            rise = trilinear(far, ends[0]) - trilinear(far, ends[1])
            slopes.append(rise / ((ends[0] - ends[1])[:, axis] * self.spacing[axis]))
        gradient = np.stack(slopes, axis=1)
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-6)


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


def far_field(grid: FarGrid, values: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Coarse distances of one class that meet its fine field at the faces of the crop.

    Parameters
    ----------
    values : (X, Y, Z) float32, mm
        The field of the class on its crop.
    origin : (3,) int
        Voxel index of the crop's first voxel.

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
    occupied, first = _cells(grid, values < 0, origin)
    coarse = np.ones(grid.shape, np.uint8)
    window = tuple(slice(a, a + n) for a, n in zip(first, occupied.shape))
    coarse[window] += occupied
    far = edt.edt(coarse, anisotropy=tuple(map(float, grid.spacing)))
    np.negative(far, out=far, where=coarse > 1)
    _fit(far, *_fine_on_cells(grid, values, origin))
    return far


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


def _fine_on_cells(grid: FarGrid, values: np.ndarray, origin: np.ndarray):
    """The cells whose centres lie in the crop, and the fine field there."""
    centre = grid.first_centre - origin
    low = np.ceil(-centre / grid.step).astype(int)
    high = np.floor((np.array(values.shape) - 1 - centre) / grid.step).astype(int)
    axes = [np.arange(a, b + 1) for a, b in zip(low, high)]
    fine = trilinear(values, (lattice(*axes) * grid.step + centre).astype(np.float32))
    window = tuple(slice(a, b + 1) for a, b in zip(low, high))
    return window, fine.reshape([len(a) for a in axes])
