"""A class of a label map on an isotropic grid about its own box, and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..volumes import LabelMap
from .distances import box_about, distance_to
from .frame import apply_affine
from .grids import box_corners, cropped_affine
from .resample import resample_mask
from .sdf import class_boxes

BLOCK = 8
BLOCKS_AT_A_TIME = 2048


def isotropic_mask(
    label_map: LabelMap, value: int, spacing: float, margin_mm: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """One class as a mask on an isotropic grid along the axes of the label map.

    spacing : voxel edge, mm.    margin_mm : room around the class.

    Returns
    -------
    (X, Y, Z) bool and its (4, 4) affine; None where the label map lacks the class.
    """
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return None
    start = np.array([s.start for s in box]) - margin_mm / label_map.spacing
    size = np.array([s.stop - s.start for s in box]) * label_map.spacing + 2 * margin_mm
    affine = cropped_affine(label_map.affine, start, spacing / label_map.spacing)
    shape = tuple(int(n) for n in np.ceil(size / spacing))
    return mask_of(label_map, value, shape, affine), affine


def mask_of(
    label_map: LabelMap, value: int, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """(X, Y, Z) bool: one class on another grid."""
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return np.zeros(shape, bool)
    part = cropped_affine(label_map.affine, [s.start for s in box])
    return resample_mask(LabelMap(label_map.data[box] == value, part), shape, affine)


def room_for(
    shape: tuple[int, ...], affine: np.ndarray, label_map: LabelMap, value: int
) -> np.ndarray:
    """(3, 2) int: by how many voxels a grid falls short of a class, before and behind each axis.

    shape, affine : of the grid.    label_map, value : the class, on any grid; it may be absent.
    """
    box = class_boxes(label_map.data).get(value)
    return np.zeros((3, 2), int) if box is None else _short_of(shape, affine, label_map, box)


def _short_of(
    shape: tuple[int, ...], affine: np.ndarray, label_map: LabelMap, box: Sequence[slice]
) -> np.ndarray:
    """The same of a box of voxels of the label map."""
    into = np.linalg.inv(affine) @ label_map.affine
    ends = [[s.start - 0.5 for s in box], [s.stop - 0.5 for s in box]]
    corners = apply_affine(into, box_corners(*ends))
    low, high = np.floor(corners.min(axis=0) + 1e-6), np.ceil(corners.max(axis=0) - 1e-6)
    rim = np.column_stack([-low, high - (np.array(shape) - 1)])
    return np.maximum(rim, 0).astype(int)


def distance_on_grid(
    label_map: LabelMap,
    values: Sequence[int],
    shape: tuple[int, ...],
    affine: np.ndarray,
    beyond_mm: float = 0.0,
) -> np.ndarray | None:
    """(X, Y, Z) float32 mm on an isotropic grid to the nearest voxel of some classes.

    beyond_mm : so far past the grid the classes count, too.

    None where the label map has none of them.
    """
    chosen = np.isin(label_map.data, list(values)).astype(np.uint8)
    box = box_about(chosen > 0, 0)
    if box is None:
        return None
    spacing = float(np.linalg.norm(affine[:3, 0]))
    # no farther than the classes reach
    rim = np.minimum(_short_of(shape, affine, label_map, box), int(np.ceil(beyond_mm / spacing)))
    wide = tuple(int(n) for n in np.array(shape) + rim.sum(axis=1))
    into = np.linalg.inv(label_map.affine) @ cropped_affine(affine, -rim[:, 0].astype(float))
    there = ndimage.affine_transform(
        chosen, into[:3, :3], into[:3, 3], output_shape=wide, order=0, prefilter=False
    )
    inner = tuple(slice(int(r), int(r) + n) for r, n in zip(rim[:, 0], shape))
    return np.ascontiguousarray(distance_to(there > 0, spacing)[inner])


def voxels_near(
    active: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a grid that lie in active cells of an isotropic one, coarse to fine.

    Blocks of the wanted grid that no active cell can reach are passed over as a whole.

    active : (X, Y, Z) bool.    affine : its index to RAS mm.
    shape, wanted : the grid whose voxels are looked for, and its affine.

    Returns
    -------
    (N, 3) int32 voxels of the wanted grid, and their (N, 3) float32 places among the cells.
    """
    into = np.linalg.inv(affine) @ wanted
    blocks = _blocks_of(np.argwhere(active), np.linalg.inv(into), shape)
    offsets = np.indices((BLOCK,) * 3).reshape(3, -1).T
    voxels, places = [np.zeros((0, 3), np.int32)], [np.zeros((0, 3), np.float32)]
    for part in np.array_split(blocks, 1 + len(blocks) // BLOCKS_AT_A_TIME):
        some = (part[:, None] + offsets).reshape(-1, 3)
        some = some[(some < shape).all(axis=1)]
        index = apply_affine(into, some.astype(np.float64))
        cell = np.rint(index).astype(int)
        keep = ((cell >= 0) & (cell < active.shape)).all(axis=1)
        keep[keep] = active[tuple(cell[keep].T)]
        voxels.append(some[keep].astype(np.int32))
        places.append(index[keep].astype(np.float32))
    return np.concatenate(voxels), np.concatenate(places)


def _blocks_of(cells: np.ndarray, out: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(B, 3) lowest voxels of the blocks of a grid that any of (N, 3) cells reaches.

    out : (4, 4) index of the cells to index of the grid.
    """
    middle = apply_affine(out, cells.astype(np.float64))
    half = np.abs(out[:3, :3]).sum(axis=1) / 2 + 1e-6  # of the box around a cell
    number = -(-np.array(shape) // BLOCK)
    marked = np.zeros(number, bool)
    steps = [np.linspace(-h, h, int(np.ceil(2 * h / BLOCK)) + 1) for h in half]
    for offset in itertools.product(*steps):
        block = np.floor((middle + offset) / BLOCK).astype(int)
        block = block[((block >= 0) & (block < number)).all(axis=1)]
        marked[tuple(block.T)] = True
    return np.argwhere(marked) * BLOCK
