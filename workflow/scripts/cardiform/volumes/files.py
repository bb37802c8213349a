"""Label maps and images from and to files. A format is one entry of ``FORMATS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError, problem
from . import nifti
from .affines import spacing_of

INTEGER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelMap:
    """A label map on its grid.

    data : (X, Y, Z) uint8, class values, 0 outside.
    affine : (4, 4) float64, voxel indices to RAS millimetres.
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) float64 voxel edges, mm."""
        return spacing_of(self.affine)


class Volume(Protocol):
    """A volume file that was opened. Everything may raise InputError."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z), from the header alone."""
        ...

    def values(self) -> np.ndarray:
        """(X, Y, Z) values as they are meant: rescaled, of any type of number."""
        ...

    def affine(self) -> np.ndarray:
        """(4, 4) float64, voxel indices to RAS millimetres, fit to measure by."""
        ...


@dataclass(frozen=True)
class VolumeFormat:
    """How files of one format are read and written.

    open : path -> Volume.    save : path, (X, Y, Z) values, (4, 4) affine.
    save_like : path, (X, Y, Z) integers, path of the file whose header is taken over.
    """

    open: Callable[[str | Path], Volume]
    save: Callable[[str | Path, np.ndarray, np.ndarray], None]
    save_like: Callable[[str | Path, np.ndarray, str | Path], None]


NIFTI = VolumeFormat(nifti.NiftiVolume, nifti.save, nifti.save_like)
FORMATS = {".nii": NIFTI, ".nii.gz": NIFTI}  # by the end of the file name, in lower case


def load_label_map(path: str | Path) -> LabelMap:
    """Read a label map as uint8.

    Raises
    ------
    InputError
        Unreadable or truncated file; not 3-D (one trailing volume is squeezed); values that are
        not integers within 0-255; unusable affine
        (:func:`cardiform.volumes.affines.check_affine`).
    """
    volume = _format_of(path).open(path)
    return LabelMap(_to_labels(path, volume.values()), volume.affine())


def load_image(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with slope and intercept applied: (X, Y, Z) float32 and its affine.

    Raises
    ------
    InputError
        As of a label map, but for the values: colours and complex numbers are refused.
    """
    volume = _format_of(path).open(path)
    values = volume.values()
    if values.dtype.kind not in "fiub":
        kind = "colours" if values.dtype.names else f"{values.dtype} values"
        raise InputError(problem(path, f"holds {kind}", "export the CT in Hounsfield units"))
    return np.asarray(values, dtype=np.float32), volume.affine()


def image_grid(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (three axes) and affine of an image, from its header alone."""
    volume = _format_of(path).open(path)
    return volume.shape, volume.affine()


def save_label_map(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an (X, Y, Z) uint8 label map, atomically and reproducibly."""
    save_image(path, np.asarray(data, np.uint8), affine)


def save_image(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an (X, Y, Z) image in its own dtype, atomically and reproducibly."""
    _format_of(path).save(path, data, affine)


def save_like(path: str | Path, data: np.ndarray, like: str | Path) -> None:
    """Write labels with the header of another file: its affine, codes, units, dtype and shape.

    data : (X, Y, Z) integers on the grid of ``like``.
    """
    _format_of(path).save_like(path, data, like)


def _format_of(path: str | Path) -> VolumeFormat:
    """By the ending; what is unknown goes to nibabel, which reads some more or says why not."""
    name = Path(path).name.lower()
    return next((form for ending, form in FORMATS.items() if name.endswith(ending)), NIFTI)


def _to_labels(path, raw: np.ndarray) -> np.ndarray:
    """(X, Y, Z) raw values as uint8 class values."""
    if raw.dtype.kind not in "fiub":
        raise InputError(problem(path, f"holds {raw.dtype} values", "export integer labels"))
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise InputError(
                problem(path, "holds values that are not finite", "export integer labels")
            )
        rounded = np.rint(raw)
        worst = float(np.abs(raw - rounded).max())
        if worst > INTEGER_TOLERANCE:
            raise InputError(
                problem(
                    path,
                    f"values are not integers (off by {worst:.3g})",
                    "export labels, not probabilities, and resample by nearest neighbour",
                )
            )
        raw = rounded
    low, high = raw.min(), raw.max()
    if low < 0 or high > 255:
        raise InputError(
            problem(path, f"values run from {low:g} to {high:g}", "labels lie within 0-255")
        )
    return raw.astype(np.uint8, copy=False)
