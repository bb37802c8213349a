"""Ready voxel files of other code: one channel before the axes, values of any meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import InputError, problem
from .affines import spacing_of
from .nifti import NiftiVolume

UNEVEN = 0.01  # of the edge of a voxel: edges that differ by more are no cube's


@dataclass(frozen=True)
class Voxels:
    """data : (X, Y, Z), integers or floats as they are stored, the axes nearest to RAS.

    spacing : edge of a voxel: mm by the unit of the header, or as it stands there where it names
        none.
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
        As of a label map (:func:`cardiform.volumes.load_label_map`), but for the values; voxels
        that are no cubes.
    """
    volume = NiftiVolume(path, channel_first=True)
    data = volume.values()[:, :, :]
    if volume.leading:
        return Voxels(data, 1.0)
    affine = volume.affine()
    edges = spacing_of(affine)
    if np.ptp(edges) > UNEVEN * edges.max():
        fact = f"has voxels of {' x '.join(f'{e:.3g}' for e in edges)}"
        raise InputError(problem(path, fact, "resample it to cubes"))
    data = nib.orientations.apply_orientation(data, nib.orientations.io_orientation(affine))
    return Voxels(data, float(edges.mean()))
