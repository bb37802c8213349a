"""NIfTI and FreeSurfer files, read by nibabel: values, affine, header."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener

from ..errors import InputError, first_line, problem
from ..files import atomic_path, parts_of
from .affines import check_affine, corners_apart_mm, place_tolerance_mm, spacing_of
from .headers import affine_mm, settle_qform

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what it logs is raised or checked here

# What is read. nibabel opens more, but of Analyze, AFNI, PAR/REC and MINC files it makes up the
# place, or leaves it to other files beside them.
CLASSES: tuple[Any, ...] = (
    nib.Nifti1Pair, nib.Nifti1Image, nib.Nifti2Pair, nib.Nifti2Image, nib.MGHImage,
)  # fmt: skip
CONVERT = "convert it to NIfTI (.nii, .nii.gz, .hdr with .img) or FreeSurfer (.mgh, .mgz)"
# By the end of the name, as nibabel does it.
DECOMPRESS: dict[str, Any] = {".gz": gzip.open, ".mgz": gzip.open, ".bz2": bz2.open}
NOT_NUMBERS = {"V": "colours (RGB)", "c": "complex numbers"}  # by numpy's kind
READABLE = "is not a readable NIfTI file"
WHOLE = "cannot be read to its end"
WRITTEN = (".nii", ".nii.gz")  # names of what is written, in any case
KEPT_BYTES, KEPT_ITEM = 1 << 28, 2  # of a decompressed file, of a voxel


class NiftiVolume:
    """A file that was opened: its header is read, its values are not.

    channel_first : one channel may stand before the axes, (1, X, Y, Z), as MONAI stores it.
    leading : whether it does; the header of such a file knows no place.

    Raises
    ------
    InputError
        Missing, unreadable or of another format; not one 3-D volume of numbers.
    """

    def __init__(self, path: str | Path, channel_first: bool = False):
        self.path, self.files, self.qform_fault = path, parts_of(path), ""
        check_present(path)
        kind = _kind_of(path)
        with one_line(path, READABLE, "export the file again"):
            with ImageOpener(self.files[0]) as stream:
                self.header = self._read_header(kind.header_class, cast(BinaryIO, stream))
            self.voxels = ArrayProxy(self.files[-1], self.header, mmap=False, keep_file_open=True)
        shape = self.voxels.shape
        self.leading = channel_first and len(shape) == 4 and shape[0] == 1 != shape[3]
        self._check_shape_and_type()

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.voxels.shape[self.leading :][:3]

    def values(self) -> StoredValues:
        """(X, Y, Z) values with slope and intercept applied, read where they are indexed.

        Raises
        ------
        InputError
            The file is cut off, or a checksum is not that of its bytes.
        """
        return StoredValues(self.path, self._whole(), self.leading)

    def affine(self) -> np.ndarray:
        """(4, 4) float64, voxel indices to RAS mm.

        Raises
        ------
        InputError
            Unusable (:func:`check_affine`); absent, or two different ones
            (:func:`cardiform.volumes.headers.affine_mm`).
        """
        if isinstance(self.header, nib.Nifti1Header):
            return affine_mm(self.path, self.header, self.shape, self.qform_fault)
        affine = np.asarray(self.header.get_affine(), np.float64)
        check_affine(self.path, affine)
        return affine

    def _read_header(self, kind: type, stream: BinaryIO) -> Any:
        """The header, repaired by nibabel where the repair does not touch the place."""
        if not issubclass(kind, nib.Nifti1Header):
            raw = stream.read(30)
            stream.seek(0)
            if int.from_bytes(raw[28:30], "big", signed=True) <= 0:  # goodRASFlag
                fact = "has no orientation (its goodRASFlag is not set)"
                raise InputError(problem(self.path, fact, "export it with its orientation"))
            return cast(Any, kind).from_fileobj(stream)
        header = cast(Any, kind).from_fileobj(stream, check=False)
        self.qform_fault = settle_qform(header)
        header.check_fix()
        return header

    def _check_shape_and_type(self) -> None:
        shape, kind = self.voxels.shape[self.leading :], self.voxels.dtype.kind
        if len(shape) < 3 or min(shape) < 1 or any(n != 1 for n in shape[3:]):
            fact = f"shape {'x'.join(map(str, shape))} is not one 3-D volume"
            raise InputError(problem(self.path, fact, "export a single volume"))
        if kind not in "iuf":
            fact = f"holds {NOT_NUMBERS.get(kind, self.voxels.dtype)}, not one number a voxel"
            raise InputError(problem(self.path, fact, "export integer labels, or grey values"))

    def _whole(self) -> ArrayProxy:
        """The voxels of a file that is whole; InputError before memory is taken for their values.

        Compressed files are read to their end, where the checksum is: nibabel stops at the last
        voxel, short of it, and a changed byte would pass as other labels. Labels and CTs are kept
        as they are, so that they are decompressed once; wider types would need much memory.
        """
        voxels = self.voxels
        needed = voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize
        with one_line(self.path, WHOLE, "copy or export the file again"):
            *others, path = self.files
            for other in others:
                _length(other)
            narrow = voxels.dtype.itemsize <= KEPT_ITEM and needed <= KEPT_BYTES
            kept, found = _content(path, needed if narrow else 0)
            if found < needed or voxels.offset < 0:
                fact = f"it is shorter than its header says: {found} bytes, not {needed}"
                raise EOFError(fact)
        return ArrayProxy(io.BytesIO(kept), self.header, mmap=False) if kept else voxels


class StoredValues:
    """The values of a volume, read where they are indexed.

    shape : (X, Y, Z).
    """

    def __init__(self, path: str | Path, voxels: ArrayProxy, leading: bool = False):
        self.path, self.voxels, self.leading = path, voxels, (0,) * leading
        self.shape = voxels.shape[leading:][:3]

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        with one_line(self.path, WHOLE, "copy or export the file again"):
            trailing = (0,) * (self.voxels.ndim - 3 - len(self.leading))
            return np.asarray(self.voxels[self.leading + part + trailing])


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
    volume = NiftiVolume(like)
    kind, header = volume.voxels.dtype, volume.header.copy()
    if kind == np.int8 and data.max() > 127:  # it had an intercept, or no such class
        kind = np.dtype(np.uint8)
    if not isinstance(header, nib.Nifti1Header):
        save(path, data.astype(kind), volume.affine())
        return
    header.set_slope_inter(1, 0)
    header.set_data_dtype(kind)
    # in the header's own unit, which stays
    affine = header.get_best_affine()
    _save(nib.Nifti1Image(data.reshape(volume.voxels.shape).astype(kind), affine, header), path)


def check_present(path: str | Path) -> None:
    """InputError where there is no file, or half a pair of files, or a folder."""
    correct = "correct the path in the case table"
    if os.path.isdir(path):
        raise InputError(problem(path, "is a folder", f"name the file in it, or {CONVERT}"))
    if not os.path.isfile(path):
        dead = f"is a link to {os.readlink(path)}, which" if os.path.islink(path) else ""
        raise InputError(problem(path, f"{dead} does not exist".strip(), correct))
    if not os.access(path, os.R_OK):
        raise InputError(problem(path, "may not be read by you", "change its permissions"))
    missing = [part for part in parts_of(path) if not os.path.isfile(part)]
    if missing:
        fact = f"is one of two files, and {Path(missing[0]).name} is not beside it"
        raise InputError(problem(path, fact, "put both into one folder"))


@contextmanager
def one_line(path: str | Path, fact: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong within the block as an InputError of one line.

    Of a damaged header nibabel raises errors of any type. Memory is another matter.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(problem(path, f"{fact} ({first_line(error)})", remedy)) from None


def _kind_of(path: str | Path) -> Any:
    """nibabel's class for a file, by the end of its name and its first bytes."""
    with one_line(path, READABLE, "export the file again"):
        sniff, name = None, os.path.abspath(path)  # a ~ at its start is part of the name
        for kind in CLASSES:
            fits, sniff = kind.path_maybe_image(name, sniff)
            if fits:
                return kind
        if nib.AnalyzeImage.path_maybe_image(name, sniff)[0]:
            fact = "is an Analyze file, which does not say where left and right are"
            raise InputError(problem(path, fact, "convert it to NIfTI where that is known"))
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
    named = Path(path).suffix.lower() in (".gz", ".mgz")
    if named and not packed:
        fact, remedy = "not compressed, whatever its name says", "rename it, or compress it by gzip"
    elif packed and not named:
        fact, remedy = "compressed by gzip, which its name does not say", "add .gz to its name"
    else:
        with one_line(path, WHOLE, "copy or export the file again"):
            for part in parts_of(path):
                _length(part)  # of a damaged one, the first bytes could not be read
        fact, remedy = "its name or its first bytes are those of another format", CONVERT
    raise InputError(problem(path, f"{READABLE} ({fact})", remedy))


def _content(path: str, most: int) -> tuple[bytes, int]:
    """The first bytes of a compressed file, none of another one, and how many it has in all."""
    opened = DECOMPRESS.get(os.path.splitext(path)[1].lower())
    if opened is None or not most:
        return b"", _length(path)
    with opened(path) as stream:
        kept = stream.read(most)
        length = len(kept)
        while block := stream.read(1 << 20):
            length += len(block)
    return kept, length


def _length(path: str) -> int:
    """Bytes in a file; a compressed one is read to its end for them."""
    opened = DECOMPRESS.get(os.path.splitext(path)[1].lower())
    if opened is None:
        return os.path.getsize(path)
    length = 0
    with opened(path) as stream:
        while block := stream.read(1 << 20):
            length += len(block)
    return length


def _save(image, path) -> None:
    name = str(path).lower()
    if not name.endswith(WRITTEN):
        fact = "is written as NIfTI, which its name does not say"
        raise InputError(problem(path, fact, f"let it end in {' or '.join(WRITTEN)}"))
    # The gzip header would carry the temporary name and the time: the same content shall
    # always be the same bytes.
    with atomic_path(path) as temporary:
        content = image.to_bytes()
        if name.endswith(".gz"):
            compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            content = compressor.compress(content) + compressor.flush()
        temporary.write_bytes(content)
