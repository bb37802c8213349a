"""Label arrays of other code (.npy): numbers without a place."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import InputError, problem
from .files import LabelMap


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file; no memory is taken for what the file does not hold.

    Raises
    ------
    InputError
        No .npy file, or shorter than its header says; objects, which would need pickle.
    """
    try:
        with Path(path).open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            first = version == (1, 0)
            header = "read_array_header_1_0" if first else "read_array_header_2_0"
            shape, _, dtype = getattr(np.lib.format, header)(stream)
            needed = stream.tell() + math.prod(shape) * dtype.itemsize
            size = os.path.getsize(path)
            if not dtype.hasobject and size < needed:
                raise EOFError(f"it is shorter than its header says: {size} bytes, not {needed}")
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        fact = f"is no .npy file ({str(error) or 'it is cut short'})"
        raise InputError(problem(path, fact, "write it with numpy.save")) from None


def load_dense_labels(path: str | Path, spacing: Sequence[float], axes: str) -> LabelMap:
    """An (X, Y, Z) array of classes as a label map, its middle at the origin.

    spacing : edges of a voxel along the axes of the array, mm.
    axes : where the axes point, such as ``RAS``.

    Raises
    ------
    InputError
        No .npy file, not 3-D (axes of length 1 are left out), or values that are no integers
        within 0-255.
    """
    array = read_npy(path)
    shape = array.shape
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim != 3 or array.dtype.kind not in "biuf" or not array.size:
        fact = f"holds {array.dtype} of the shape {shape}"
        raise InputError(problem(path, fact, "save one volume of class values"))
    labels = array
    if array.dtype.kind == "f":
        labels = np.clip(np.nan_to_num(array, nan=-1.0), -1, 256).astype(np.int64)
    if labels.min() < 0 or labels.max() > 255 or not np.array_equal(labels, array):
        fact = f"has values that are no classes ({array.min():g} to {array.max():g})"
        raise InputError(problem(path, fact, "save integers within 0-255"))
    toward = nib.orientations.axcodes2ornt(axes)
    data = nib.orientations.apply_orientation(labels.astype(np.uint8), toward)
    edges = np.empty(3)
    edges[toward[:, 0].astype(int)] = spacing
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = -edges * (np.array(data.shape) - 1) / 2
    return LabelMap(np.asfortranarray(data), affine)
