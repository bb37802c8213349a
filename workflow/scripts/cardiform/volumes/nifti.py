"""NIfTI files, and whatever else nibabel reads: values, affine, header."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from ..errors import InputError, first_line, problem
from ..files import atomic_path
from .affines import check_affine, corners_apart_mm, place_tolerance_mm, spacing_of

nib.imageglobals.logger.setLevel(logging.ERROR)  # header repairs are reported here, once


class NiftiVolume:
    """A NIfTI file that was opened: its header is read, its values are not.

    Raises
    ------
    InputError
        Missing or unreadable file; not one 3-D volume.
    """

    def __init__(self, path: str | Path):
        self.path, self.image = path, _open(path)
        _check_volume_shape(path, self.image.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image.shape[:3]

    def values(self) -> np.ndarray:
        """(X, Y, Z) values with slope and intercept applied; InputError where they are cut off."""
        return _read(self.path, self.image).reshape(self.shape)

    def affine(self) -> np.ndarray:
        """(4, 4) float64, voxel indices to RAS mm.

        Raises
        ------
        InputError
            Unusable (:func:`check_affine`); sform and qform absent, or in different places.
        """
        affine = np.asarray(self.image.affine, np.float64)
        check_affine(self.path, affine)
        _check_forms(self.path, self.image, spacing_of(affine))
        return affine


def save(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an (X, Y, Z) image in its own dtype, atomically and reproducibly."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    forms = image.header.get_sform(), image.header.get_qform()
    if corners_apart_mm(image.shape, *forms) > place_tolerance_mm(image.shape, spacing_of(affine)):
        image.set_qform(None, code=0)  # a qform knows no shear: what it says is another place
    _save(image, path)


def save_like(path: str | Path, data: np.ndarray, like: str | Path) -> None:
    """Write labels with the header of another file: its affine, codes, units, dtype and shape.

    data : (X, Y, Z) integers on the grid of ``like``.
    """
    image = _open(like)
    header = image.header.copy()
    header.set_slope_inter(1, 0)
    kind = header.get_data_dtype()
    _save(nib.Nifti1Image(data.reshape(image.shape).astype(kind), image.affine, header), path)


def _check_forms(path, image, spacing) -> None:
    """InputError where the header says no place, or two of them."""
    header = image.header
    if not hasattr(header, "get_sform"):
        return
    sform, scode = header.get_sform(coded=True)
    qform, qcode = header.get_qform(coded=True)
    if not scode and not qcode:
        raise InputError(
            problem(
                path,
                "has neither sform nor qform, so its place in space is unknown",
                "set the affine in the header",
            )
        )
    if scode and qcode:
        shift_mm = corners_apart_mm(image.shape, sform, qform)
        voxels = shift_mm / spacing.min()
        if shift_mm > place_tolerance_mm(image.shape, spacing):
            raise InputError(
                problem(
                    path,
                    f"sform and qform differ by {voxels:.2g} voxels",
                    "correct one of them in the header",
                )
            )


def _open(path):
    path = Path(path)
    if not path.is_file():
        raise InputError(problem(path, "does not exist", "correct the path in the case table"))
    try:
        return nib.load(path)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            problem(
                path,
                f"is not a readable NIfTI file ({first_line(error)})",
                "export the file again",
            )
        ) from None


def _read(path, image) -> np.ndarray:
    try:
        _check_gzip(path)
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            problem(
                path,
                f"cannot be read to its end ({first_line(error)})",
                "copy or export the file again",
            )
        ) from None


def _check_gzip(path) -> None:
    """Read a .gz file to its end, where its checksum is compared.

    nibabel stops at the last voxel, short of it: a changed byte would pass as other labels.
    """
    if str(path).endswith(".gz"):
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass


def _check_volume_shape(path, shape) -> None:
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise InputError(
            problem(
                path,
                f"shape {'x'.join(map(str, shape))} is not one 3-D volume",
                "export a single volume",
            )
        )


def _save(image, path) -> None:
    # The gzip header would carry the temporary name and the time: the same content shall
    # always be the same bytes.
    with atomic_path(path) as temporary:
        content = image.to_bytes()
        if str(path).endswith(".gz"):
            compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            content = compressor.compress(content) + compressor.flush()
        temporary.write_bytes(content)
