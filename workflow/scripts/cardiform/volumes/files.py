"""Label maps and images from and to files. A format is one entry of ``FORMATS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError, problem
from . import nifti
from .affines import spacing_of
from .extent import Box, class_boxes

INTEGER_TOLERANCE = 1e-3
# Read at a time, so that labels stored as float64 need no more memory than uint8 ones.
SLAB_VOXELS = 2**18
MOST, MOST_FOREIGN = 255, 65535  # class values of label maps, and of those that are renamed


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

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The bounding box of every class value that is there, looked for once."""
        return class_boxes(self.data)


class Values(Protocol):
    """An array, or what is indexed like one: a file is read part by part, along its last axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, part: tuple[slice, ...], /) -> np.ndarray: ...


class Volume(Protocol):
    """A volume file that was opened. Everything may raise InputError."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z), from the header alone."""
        ...

    def values(self) -> Values:
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


def load_renamed(path: str | Path, renamed: Mapping[int, int]) -> tuple[LabelMap, list[int]]:
    """Read a label map of another label table: its values become others, those that are not listed
    0. Returns also the values other than 0 that the file has.

    renamed : value of the file (0-65535) to class value.

    Raises
    ------
    InputError
        As of a label map, but that values may be up to 65535.
    """
    volume = _format_of(path).open(path)
    given = _to_labels(path, volume.values(), MOST_FOREIGN)
    lookup = np.zeros(MOST_FOREIGN + 1, np.uint8)
    lookup[list(renamed)] = list(renamed.values())
    found = np.flatnonzero(np.bincount(given.ravel("K"), minlength=1)).tolist()
    return LabelMap(lookup[given], volume.affine()), [value for value in found if value]


def load_image(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with slope and intercept applied: (X, Y, Z) float32 and its affine.

    Raises
    ------
    InputError
        As of a label map, but for the values: colours and complex numbers are refused.
    """
    volume = _format_of(path).open(path)
    values = volume.values()
    image = np.empty(values.shape, np.float32, order="F")
    for part, slab in _slabs(path, values):
        image[:, :, part] = slab
    return image, volume.affine()


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


def _slabs(path, values: Values) -> Iterator[tuple[slice, np.ndarray]]:
    """(X, Y, Z) values in parts: where on the last axis, and what is there."""
    across = max(1, SLAB_VOXELS // (values.shape[0] * values.shape[1]))
    for first in range(0, values.shape[2], across):
        part = slice(first, min(first + across, values.shape[2]))
        slab = values[:, :, part]
        if slab.dtype.kind not in "fiub":
            remedy = "export integer labels, or grey values"
            raise InputError(problem(path, f"holds {slab.dtype} values", remedy))
        yield part, slab


def _to_labels(path, values: Values, most: int = MOST) -> np.ndarray:
    """(X, Y, Z) values as class values up to ``most``, uint8 or uint16."""
    labels = np.empty(values.shape, np.min_scalar_type(most), order="F")
    worst, low, high = 0.0, np.inf, -np.inf
    for part, slab in _slabs(path, values):
        if slab.dtype.kind == "f":
            if not np.isfinite(slab).all():
                raise InputError(
                    problem(path, "holds values that are not finite", "export integer labels")
                )
            rounded = np.rint(slab)
            off = slab - rounded
            worst = max(worst, float(off.max()), -float(off.min()))
            slab = rounded
        low, high = min(low, slab.min()), max(high, slab.max())
        if low >= 0 and high <= most:
            labels[:, :, part] = slab
    if worst > INTEGER_TOLERANCE:
        raise InputError(
            problem(
                path,
                f"values are not integers (off by {worst:.3g})",
                "export labels, not probabilities, and resample by nearest neighbour",
            )
        )
    if low < 0 or high > most:
        raise InputError(
            problem(path, f"values run from {low:g} to {high:g}", f"labels lie within 0-{most}")
        )
    return labels
