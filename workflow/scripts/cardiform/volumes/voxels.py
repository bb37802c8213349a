"""Ready voxel files of other code: one channel before the axes, values of any meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import InputError, problem
from .nifti import READABLE, check_present, one_line

UNEVEN = 0.01  # of the edge of a voxel: edges that differ by more are no cube's


@dataclass(frozen=True)
class Voxels:
    """data : (X, Y, Z), integers or floats as they are stored, the axes nearest to RAS.

    spacing : edge of a voxel, in the unit of the header.
    """

    data: np.ndarray
    spacing: float

    @property
    def labelled(self) -> bool:
        """Whether the values are integers: classes."""
        return self.data.dtype.kind in "iub"


def load_voxels(path: str | Path) -> Voxels:
    """Read a volume, (X, Y, Z) or with one channel before it, (1, X, Y, Z), as MONAI stores them.

    Of the latter the header knows no place: its axes are taken as they are, its voxels as 1.

    Raises
    ------
    InputError
        Unreadable, of another shape, not numbers, or voxels that are no cubes.
    """
    check_present(path)
    with one_line(path, READABLE, "export the file again"):
        image: Any = nib.load(path)
        channel_first = len(image.shape) == 4 and image.shape[0] == 1 and image.shape[3] != 1
        if not channel_first:
            image = nib.as_closest_canonical(image)
        data = np.asanyarray(image.dataobj)
    edges = np.ones(3) if channel_first else nib.affines.voxel_sizes(image.affine)
    if data.ndim == 4 and 1 in (data.shape[0], data.shape[3]):
        data = data[0] if channel_first else data[..., 0]
    if data.ndim != 3 or data.dtype.kind not in "iufb":
        fact = f"holds {data.dtype} of the shape {'x'.join(map(str, image.shape))}"
        raise InputError(problem(path, fact, "store one volume of numbers"))
    if np.ptp(edges) > UNEVEN * edges.max() or not edges.all():
        fact = f"has voxels of {' x '.join(f'{e:.3g}' for e in edges)}"
        raise InputError(problem(path, fact, "resample it to cubes"))
    return Voxels(data, float(edges.mean()))
