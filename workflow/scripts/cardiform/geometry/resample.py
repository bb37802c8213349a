"""Masks from one grid to another, thin parts kept whole."""

from __future__ import annotations

import itertools

import numpy as np

from ..volumes import LabelMap, spacing_of
from .frame import apply_affine
from .grids import covered, planes
from .interpolation import trilinear
from .sdf import smooth_distance

LATTICE_TOLERANCE_VOX = 1e-3
RIM = 3  # voxels around a mask where its distance is known
SMOOTHING_VOX = 1.0
MAX_SHIFT_VOX = 0.5  # the most that the surface is moved to keep the volume
LINK_STEPS = 8  # samples of the way between two voxels that touch at an edge or a corner


def resample_mask(mask: LabelMap, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the voxels of a grid that lie within a mask of another grid.

    mask : non-zero is inside.    shape, affine : of the wanted grid.

    Notes
    -----
    Between lattices that coincide, also where their axes are swapped or run backwards, voxels are
    moved as they are. Otherwise the signed distance to the mask's surface is interpolated, and
    cut where the volume stays: nearest neighbours would tear thin structures, a cut at zero would
    thin them. Where two voxels touch at an edge or a corner only, the way from centre to centre
    is kept.
    """
    into = np.linalg.inv(mask.affine) @ affine  # wanted index to index of the mask
    result = np.zeros(shape, bool)
    filled = np.argwhere(mask.data)
    if not len(filled):
        return result
    if (moved := _between_lattices(into)) is not None:
        _set(result, apply_affine(moved, filled))
        return result
    low, high = filled.min(axis=0) - RIM, filled.max(axis=0) + 1 + RIM
    crop = np.zeros(high - low, bool)
    crop[tuple((filled - low).T)] = True
    distance = smooth_distance(crop, spacing_of(mask.affine), SMOOTHING_VOX)
    box = covered(low, high - 1, np.linalg.inv(into), shape)
    values = np.full([s.stop - s.start for s in box], np.inf, np.float32)
    for plane, voxels in zip(values, planes(box)):
        index = apply_affine(into, voxels) - low
        known = ((index >= 0) & (index <= np.array(crop.shape) - 1)).all(axis=1)
        plane.reshape(-1)[known] = trilinear(distance, index[known].astype(np.float32))
    ratio = abs(np.linalg.det(into[:3, :3]))
    there = apply_affine(np.linalg.inv(into), filled.astype(np.float64))
    within = ((there > -0.5) & (there < np.array(shape) - 0.5)).all(axis=1).sum()
    limit = MAX_SHIFT_VOX * float(spacing_of(mask.affine).max())
    result[box] = values < _level(values, round(within / ratio), limit)
    places = apply_affine(np.linalg.inv(into), _links(crop) + low)
    _set(result, np.rint(places).astype(int))
    return result


def _between_lattices(into: np.ndarray) -> np.ndarray | None:
    """(4, 4) int: index of the mask to index wanted, where either voxel centre is one of the other
    grid; else None."""
    lattice = np.rint(into)
    if np.abs(into - lattice).max() >= LATTICE_TOLERANCE_VOX:
        return None
    if abs(round(np.linalg.det(lattice))) != 1:  # the wanted voxels are larger
        return None
    return np.rint(np.linalg.inv(lattice)).astype(int)


def _level(values: np.ndarray, number: int, limit: float) -> float:
    """The distance below which ``number`` of the values lie, within ``limit`` of the surface."""
    if not 0 < number < values.size:
        return 0.0
    return float(np.clip(np.partition(values, number, axis=None)[number], -limit, limit))


def _links(mask: np.ndarray) -> np.ndarray:
    """(N, 3) float64 samples of the ways between voxels that touch at an edge or a corner only."""
    found = [np.zeros((0, 3))]
    steps = np.linspace(0, 1, LINK_STEPS + 1)[:, None, None]
    for offset in itertools.product((-1, 0, 1), repeat=3):
        if np.count_nonzero(offset) < 2 or offset < (0, 0, 0):
            continue  # faces are joined by interpolation; each pair once
        start = np.argwhere(_touching(mask, offset))
        if len(start):
            ways = start + steps * np.array(offset)
            found.append(ways.reshape(-1, 3))
    return np.concatenate(found)


def _touching(mask: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
    """Voxels that have a neighbour at ``offset`` and none in the box between both.

    The mask has a rim of False: rolling around its ends does not matter.
    """
    back = tuple(-o for o in offset)
    pairs = mask & np.roll(mask, back, (0, 1, 2))
    for part in itertools.product(*((0, o) if o else (0,) for o in offset)):
        if any(part) and part != offset:
            pairs &= ~np.roll(mask, tuple(-p for p in part), (0, 1, 2))
    return pairs


def _set(result: np.ndarray, index: np.ndarray) -> None:
    index = index[((index >= 0) & (index < result.shape)).all(axis=1)]
    result[tuple(index.T)] = True
