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
    for value in np.flatnonzero(np.bincount(data.ravel(), minlength=256)[1:]) + 1:
        inner = []
        for axis, size in enumerate(data.shape):
            low, high = ((data.take(end, axis=axis) == value).any() for end in (0, -1))
            inner.append(slice(LEAST_SPAN_VOX * low, max(size - LEAST_SPAN_VOX * high, 0)))
        seen = data[tuple(inner)] == value
        if seen.any() and not seen.all():
            return
    fact = "is cut by its border in every class, and no surface is left"
    raise InputError(problem(path, fact, "segment more of the image, or leave the case out"))


def labelled_box(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) lowest and highest index of all that is labelled in an (X, Y, Z); there must be some."""
    ends = []
    for axis in range(3):
        line = np.flatnonzero(data.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((line[0], line[-1]))
    low, high = np.array(ends).T
    return low, high
