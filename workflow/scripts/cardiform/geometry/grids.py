"""Grids of voxels: corners of boxes, points of lattices, crops, the part that two grids share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .frame import apply_affine


def lattice(*axes: ArrayLike) -> np.ndarray:
    """(X * Y * Z, 3) points of the lattice with these ticks along its axes, the last one fastest.

    axes : three (n,) arrays; the points have their dtype.
    """
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def box_corners(low: Iterable[float], high: Iterable[float]) -> np.ndarray:
    """(8, 3) corners of a box, in the dtype of ``low`` and ``high``.

    low, high : (3,) its lowest and its highest corner, in any unit.
    """
    return lattice(*zip(low, high))


def cropped_affine(
    affine: np.ndarray, start: ArrayLike, step: float | np.ndarray = 1
) -> np.ndarray:
    """(4, 4) float64 affine of a grid that begins within another one, or beside it.

    affine : (4, 4) indices of the given grid to mm.
    start : (3,) place of the new grid's first voxel, in indices of the given grid.
    step : its voxel edges in those of the given grid; one number, or (3,) along the axes.
    """
    result = affine.copy()
    result[:3, :3] = affine[:3, :3] * step
    result[:3, 3] = apply_affine(affine, np.asarray(start))
    return result


def covered(
    low: Iterable[float], high: Iterable[float], into: np.ndarray, shape: Sequence[int]
) -> tuple[slice, slice, slice]:
    """The voxels of a grid that a box of another grid reaches; empty where it lies beside.

    low, high : (3,) corners of the box in indices of its own grid, both of them within it.
    into : (4, 4) those indices to indices of the wanted grid.    shape : of the wanted grid.
    """
    corners = apply_affine(into, box_corners(low, high))
    start = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape)
    stop = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(start, stop))
    return x, y, z


def planes(box: Sequence[slice]) -> Iterator[np.ndarray]:
    """Indices of the voxels of a box, a plane at a time: bounds the memory.

    box : three slices with start and stop, as of :func:`covered`.

    Yields
    ------
    (Y * Z, 3) float64 for every index along the first axis.
    """
    first, *others = box
    plane = lattice([0.0], *(np.arange(s.start, s.stop, dtype=np.float64) for s in others))
    for x in range(first.start, first.stop):
        plane[:, 0] = x
        yield plane.copy()


def whole(shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """The box of all voxels of a grid, for :func:`planes`."""
    x, y, z = (slice(0, n) for n in shape)
    return x, y, z
