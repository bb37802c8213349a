"""How far the structures of a label map reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, problem

# Distances are exact to a tenth of a voxel. Of what spans less nothing could be learned.
LEAST_SPAN_VOX = 3


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


def check_in_view(path: str | Path, data: np.ndarray) -> None:
    """Refuse a label map of which the border of the volume leaves no surface.

    Within a few layers of the border it is not known how a structure that reaches it goes on.

    data : (X, Y, Z) uint8 class values; some are labelled.

    Raises
    ------
    InputError
        Every class reaches the border, and none has a surface at three or more layers from there.
    """
    faces = [(face_values(data, axis, 0), face_values(data, axis, -1)) for axis in range(3)]
    for value in np.flatnonzero(value_counts(data)[1:]) + 1:
        inner = []
        for size, (low, high) in zip(data.shape, faces):
            first = LEAST_SPAN_VOX * (value in low)
            inner.append(slice(first, max(size - LEAST_SPAN_VOX * (value in high), 0)))
        seen = data[tuple(inner)] == value
        if seen.any() and not seen.all():
            return
    fact = "is cut by its border in every class, and no surface is left"
    raise InputError(problem(path, fact, "segment more of the image, or leave the case out"))


def value_counts(data: np.ndarray) -> np.ndarray:
    """(256,) int64: voxels of each value of an (X, Y, Z) uint8, whatever its order in memory."""
    counts = np.zeros(256, np.int64)
    for plane in data.T if data.flags.f_contiguous else data:  # np.bincount widens to int64
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts


def face_values(data: np.ndarray, axis: int, end: int) -> set[int]:
    """The values on the first (0) or last (-1) layer of an (X, Y, Z) along an axis."""
    # a view: np.take would copy all voxels first where they do not lie in C order
    return set(np.unique(np.moveaxis(data, axis, 0)[end]).tolist())


def labelled_box(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) lowest and highest index of all that is labelled in an (X, Y, Z); there must be some."""
    ends = []
    for axis in range(3):
        line = np.flatnonzero(data.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((line[0], line[-1]))
    low, high = np.array(ends).T
    return low, high
