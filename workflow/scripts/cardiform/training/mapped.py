"""Arrays of npz files that lie in memory once for all processes of a machine.

What is stored uncompressed is mapped in place: the pages belong to the operating system's cache of
the file, whichever rank or loader reads them. A map keeps no file open.
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from ..errors import InputError, problem
from ..files import ANEW, NPZ_ERRORS, sha256_text

SMALL = 1 << 12  # bytes: arrays below are read, they are no more than a page
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive: name and extra lengths
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
NO_MAPS = "cannot be mapped: this process has as many maps as the system allows, or no more room"
MORE_MAPS = "raise vm.max_map_count (sysctl) or the limit of address space (ulimit -v)"
MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Section:
    """The bytes of a mapped array from the begin of its header on; or of its first rows alone.

    crc : their checksum in the archive; None of a part.
    """

    content: np.ndarray
    crc: int | None


@dataclass(frozen=True)
class MappedNpz:
    """An npz whose arrays are mapped, read only; small ones are copies.

    arrays : those that were asked for and are not compressed, and the small ones.
    outlines : all, for a check of types and shapes; zeros in place of what is not small.
    contents : hash of the names and checksums of all, by which the archive knows them: the same
        arrays have the same one wherever they lie.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    outlines: Mapping[str, np.ndarray]
    sections: Mapping[str, Section]
    contents: str
    remedy: str

    @classmethod
    def open(
        cls, path: str | Path, remedy: str = ANEW, heads: Mapping[str, int] | None = None
    ) -> MappedNpz:
        """Read directory and headers, and map.

        heads : the arrays that are mapped and how many of their first rows (0: all); without,
            all of all.

        Raises
        ------
        InputError
            It is missing, is no npz or not a whole one. The bytes of the mapped arrays are
            not looked at: :meth:`check` does that.
        """
        path = Path(path)
        arrays, outlines, sections = {}, {}, {}
        try:
            with _few_bytes_of(path) as stream, zipfile.ZipFile(stream) as archive:
                content_of = _reader(stream, one_map=not heads)
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    asked = not heads or name in heads
                    if info.file_size < SMALL:
                        with archive.open(info) as part:
                            found = np.lib.format.read_array(part, allow_pickle=False)
                        arrays[name] = outlines[name] = found
                        continue
                    header = Header.read(archive, info)
                    outlines[name] = header.outline()
                    if asked and info.compress_type == zipfile.ZIP_STORED:
                        rows = heads[name] if heads else 0
                        shape = header.head(rows)
                        size = header.size + header.bytes(shape)
                        content = content_of(_start(stream, info), size)
                        crc = info.CRC if shape == header.shape else None
                        sections[name] = Section(content, crc)
                        arrays[name] = header.array(content, rows)
                listed = sorted((i.filename, i.file_size, i.CRC) for i in archive.infolist())
        except FileNotFoundError:
            raise InputError(problem(path, "does not exist", remedy)) from None
        except (*NPZ_ERRORS, struct.error) as error:
            raise InputError(problem(path, f"cannot be read ({error})", remedy)) from None
        return cls(path, arrays, outlines, sections, sha256_text(repr(listed)), remedy)

    def sums(self) -> dict[str, int]:
        """The checksums of all that is mapped, read again."""
        return {name: zlib.crc32(part.content.data) for name, part in self.sections.items()}

    def check(self, sums: Mapping[str, int] | None = None) -> None:
        """Compare the checksums of all that is mapped.

        sums : of :meth:`sums`, for the arrays of which only the first rows are mapped.

        Raises
        ------
        InputError
            Bytes have changed.
        """
        wanted = {name: part.crc for name, part in self.sections.items()} | dict(sums or {})
        bad = sorted(name for name, crc in self.sums().items() if crc != wanted[name])
        if bad:
            fact = f"is damaged (bytes of {', '.join(bad)} have changed)"
            raise InputError(problem(self.path, fact, self.remedy))


@dataclass(frozen=True)
class Header:
    """The npy header of a member: type, shape and order of the array; bytes of the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @classmethod
    def read(cls, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
        """ValueError where it does not fit the size of the member."""
        with archive.open(info) as part:
            version = np.lib.format.read_magic(part)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"npy format {version}")
            first = version == (1, 0)
            read = (np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0)
            shape, fortran, dtype = read[0 if first else 1](part)
            found = cls(dtype, shape, fortran, part.tell())
        if dtype.hasobject or found.size + found.bytes(shape) != info.file_size:
            raise ValueError(f"{info.filename}: {dtype} {shape} does not fit its size")
        return found

    def bytes(self, shape: tuple[int, ...]) -> int:
        return self.dtype.itemsize * math.prod(shape)

    def outline(self) -> np.ndarray:
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)

    def head(self, rows: int) -> tuple[int, ...]:
        """The shape of the first rows; of all where they do not lie together."""
        if not rows or self.fortran or not self.shape:
            return self.shape
        return (min(rows, self.shape[0]), *self.shape[1:])

    def array(self, content: np.ndarray, rows: int) -> np.ndarray:
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        shape = self.head(rows)
        found: np.ndarray = np.ndarray(shape, self.dtype, content, self.size, order=order)
        found.flags.writeable = False
        return found[: rows or None]


def mapped(stream: BinaryIO, start: int, size: int) -> np.ndarray:
    """Bytes of a file, (size,) uint8, mapped read only: no page beside them, and no open file.

    Python's own maps each keep the file open, and torch's begin at its first byte.
    """
    before = start % mmap.PAGESIZE
    length = before + size
    flags = mmap.PROT_READ, mmap.MAP_SHARED
    place = LIBC.mmap(None, length, *flags, stream.fileno(), start - before)
    if place == MAP_FAILED:
        error = ctypes.get_errno()
        if error == errno.ENOMEM:
            raise InputError(problem(stream.name, NO_MAPS, MORE_MAPS))
        raise OSError(error, f"cannot be mapped: {os.strerror(error)}")
    content = (ctypes.c_uint8 * length).from_address(place)
    weakref.finalize(content, LIBC.munmap, place, length)
    return np.frombuffer(memoryview(content).cast("B"), np.uint8)[before:]


@contextmanager
def _few_bytes_of(path: Path) -> Iterator[BinaryIO]:
    """A file of which headers are read here and there: nothing is read ahead within the block."""
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        yield stream
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_NORMAL)  # of its maps it is


def _start(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin."""
    stream.seek(info.header_offset)
    mark, name, extra = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    start = info.header_offset + LOCAL_HEADER.size + name + extra
    if mark != b"PK\x03\x04" or start + info.file_size > os.fstat(stream.fileno()).st_size:
        raise zipfile.BadZipFile(f"{info.filename} is not where the archive says")
    return start


def _reader(stream: BinaryIO, one_map: bool) -> Callable[[int, int], np.ndarray]:
    """Start and size to bytes: of one map of all of the file, or of a map of their own."""
    if not one_map:
        return lambda start, size: mapped(stream, start, size)
    whole = mapped(stream, 0, os.fstat(stream.fileno()).st_size)
    return lambda start, size: whole[start : start + size]
