"""How far the structures of a label map reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, problem

if TYPE_CHECKING:
    from .files import LabelMap

Box = tuple[slice, slice, slice]
# Distances are exact to a tenth of a voxel. Of what spans less nothing could be learned.
LEAST_SPAN_VOX = 3
PLAUSIBLE_MM = (5.0, 1000.0)  # of what is a structure of a heart at least, a body at most
IN_GRID_VOX = 1e-3  # so much beyond a grid is rounding
SLAB_VOXELS = 1 << 22  # looked at together: of noise every voxel is a run


def check_extent(path: str | Path, size: Sequence[int], spacing: np.ndarray) -> None:
    """Refuse a label map whose structures are but a few voxels together.

    size : (3,) voxels along each axis.    spacing : (3,) mm.

    Raises
    ------
    InputError
        The longest side is shorter than three of the coarsest voxel edges.
    """
    if max(np.asarray(size) * spacing) < (LEAST_SPAN_VOX - 1e-6) * max(spacing):
        text = " x ".join(map(str, size))
        fact = f"spans {text} voxels only: too little for surfaces and distances"
        raise InputError(problem(path, fact, "segment it on a finer grid, or leave the case out"))


def size_doubt(what: str, size_mm: float) -> str:
    """That something is of no size that a heart has; empty: it may be. Without figures: one line
    tells it of all cases."""
    least, most = PLAUSIBLE_MM
    if least <= size_mm <= most:
        return ""
    how = f"less than {least:g}" if size_mm < least else f"more than {most:g}"
    return f"{what} spans {how} mm: are its numbers millimetres?"


def check_in_view(path: str | Path, label_map: LabelMap) -> None:
    """Refuse a label map of which the border of the volume leaves no surface.

    Within a few layers of the border it is not known how a structure that reaches it goes on.

    label_map : some of it is labelled.

    Raises
    ------
    InputError
        Every class reaches the border, and none has a surface at three or more layers from there.
    """
    data = label_map.data
    for value, box in label_map.boxes.items():
        inner = tuple(
            slice(LEAST_SPAN_VOX * (part.start == 0), size - LEAST_SPAN_VOX * (part.stop == size))
            for part, size in zip(box, data.shape)
        )
        left = [slice(max(i.start, b.start), min(i.stop, b.stop)) for i, b in zip(inner, box)]
        if any(part.start >= part.stop for part in left):
            continue
        # all that is left of the volume is the class: no surface
        filled = (data[tuple(left)] == value).all() and tuple(left) == inner
        if not filled and (data[tuple(left)] == value).any():
            return
    fact = "is cut by its border in every class, and no surface is left"
    raise InputError(problem(path, fact, "segment more of the image, or leave the case out"))


def class_boxes(data: np.ndarray) -> dict[int, Box]:
    """The bounding box of every value above 0 in an (X, Y, Z) uint8 label map.

    Along the axis that lies together in memory, runs of one value are looked at, not voxels.
    """
    transposed = data.flags.f_contiguous and not data.flags.c_contiguous  # as NIfTI data come
    ordered = data.T if transposed else data
    low = np.full((256, 3), np.iinfo(np.int64).max)
    high = np.full((256, 3), -1)
    step = max(1, SLAB_VOXELS * len(ordered) // max(1, data.size))
    for first in range(0, len(ordered), step):
        slab = ordered[first : first + step]
        begins = np.ones(slab.shape, bool)
        np.not_equal(slab[..., 1:], slab[..., :-1], out=begins[..., 1:])
        starts = np.flatnonzero(begins)
        values = np.ascontiguousarray(slab).reshape(-1)[starts]
        ends = np.append(starts[1:], slab.size) - 1
        labelled = values > 0
        values, starts, ends = values[labelled], starts[labelled], ends[labelled]
        for bounds, extreme, where in ((low, np.minimum, starts), (high, np.maximum, ends)):
            for axis, index in enumerate(np.unravel_index(where, slab.shape)):
                extreme.at(bounds[:, axis], values, index + (first if axis == 0 else 0))
    boxes = {}
    for value in np.flatnonzero(high[:, 0] >= 0).tolist():
        box = [slice(a, b + 1) for a, b in zip(low[value].tolist(), high[value].tolist())]
        x, y, z = reversed(box) if transposed else box
        boxes[value] = (x, y, z)
    return boxes


def labelled_box(label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """(3,) lowest and highest index of all that is labelled; there must be some."""
    boxes = list(label_map.boxes.values())
    low = np.min([[part.start for part in box] for box in boxes], axis=0)
    high = np.max([[part.stop for part in box] for box in boxes], axis=0)
    return low, high - 1


def beyond(label_map: LabelMap, value: int, other: LabelMap) -> np.ndarray:
    """(N, 3) int: the voxels of a class whose centres lie outside of another label map's grid."""
    none = np.zeros((0, 3), np.int64)
    if (box := label_map.boxes.get(value)) is None:
        return none
    into = np.linalg.inv(other.affine) @ label_map.affine
    reach = np.array(other.data.shape) - 0.5 + IN_GRID_VOX

    def outside(index: np.ndarray) -> np.ndarray:
        place = index @ into[:3, :3].T + into[:3, 3]
        return ((place < -0.5 - IN_GRID_VOX) | (place > reach)).any(axis=1)

    ends = [(part.start, part.stop - 1) for part in box]
    if not outside(np.array(np.meshgrid(*ends)).reshape(3, -1).T).any():
        return none  # a grid is convex: what lies between the corners is in it, too
    voxels = np.argwhere(label_map.data[box] == value) + [part.start for part in box]
    return voxels[outside(voxels)]
