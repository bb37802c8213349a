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


def labelled_box(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) lowest and highest index of all that is labelled in an (X, Y, Z); there must be some."""
    ends = []
    for axis in range(3):
        line = np.flatnonzero(data.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((line[0], line[-1]))
    low, high = np.array(ends).T
    return low, high
