"""Arrays of npz files that lie in memory once for all processes of a machine.

What is stored uncompressed is mapped in place: the pages belong to the operating system's cache of
the file, whichever rank or loader reads them. A map keeps no file open.
"""

from __future__ import annotations

import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..errors import InputError, problem
from ..files import ANEW, NPZ_ERRORS, save_npz, sha256_text

log = logging.getLogger(__name__)

FOLDER = "shared"  # of a training: what its processes share beside the files of the stages
LOADERS = 4  # files that are opened or made at a time
SMALL = 1 << 12  # bytes: arrays below are read, they are no more than a page
PIECE = 1 << 20  # bytes that are checked at a time
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive: name and extra lengths
KEY = "key"


@dataclass(frozen=True)
class Member:
    """Where the bytes of a mapped array, header included, lie in the archive, and their sum."""

    start: int
    size: int
    crc: int


@dataclass(frozen=True)
class MappedNpz:
    """An npz whose arrays are mapped, read only; small and compressed ones are copies.

    members : of the mapped arrays, by name.    contents : hash of the names and checksums of all
    arrays, by which the archive knows them: the same arrays have the same one wherever they lie.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    members: Mapping[str, Member]
    contents: str
    remedy: str

    @classmethod
    def open(cls, path: str | Path, remedy: str = ANEW) -> MappedNpz:
        """Read directory and headers.

        Raises
        ------
        InputError
            It is missing, is no npz or not a whole one. The bytes of the mapped arrays are
            not looked at: :meth:`check` does that.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
                size = os.fstat(stream.fileno()).st_size
                # by the open file: what is at the path may be replaced meanwhile
                place = f"/proc/self/fd/{stream.fileno()}"
                storage = torch.UntypedStorage.from_file(place, False, size)
                whole = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
                arrays, members = {}, {}
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    if info.compress_type == zipfile.ZIP_STORED and info.file_size >= SMALL:
                        members[name] = _member(stream, info, size)
                        arrays[name] = _mapped(stream, members[name], whole)
                    else:
                        with archive.open(info) as part:
                            arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
                listed = sorted((i.filename, i.file_size, i.CRC) for i in archive.infolist())
        except FileNotFoundError:
            raise InputError(problem(path, "does not exist", remedy)) from None
        except (*NPZ_ERRORS, RuntimeError, struct.error) as error:
            raise InputError(problem(path, f"cannot be read ({error})", remedy)) from None
        return cls(path, arrays, members, sha256_text(repr(listed)), remedy)

    def check(self, but: Collection[str] = ()) -> None:
        """Compare the checksums of the mapped arrays, but for some of them.

        They are read, not mapped: no page is held for what a training does not use.

        Raises
        ------
        InputError
            Bytes have changed, or the file is gone.
        """
        names = self.members.keys() - set(but)
        try:
            with self.path.open("rb", buffering=0) as stream:
                bad = [name for name in names if not _is_sound(stream, self.members[name])]
        except OSError as error:
            fact = f"cannot be read ({error.strerror})"
            raise InputError(problem(self.path, fact, self.remedy)) from None
        if bad:
            fact = f"is damaged (bytes of {', '.join(sorted(bad))} have changed)"
            raise InputError(problem(self.path, fact, self.remedy))


def shared_npz(path: Path, key: str, make: Callable[[], Mapping[str, Any]]) -> MappedNpz:
    """The npz at ``path`` if it has this key; else it is made, and replaced when complete.

    key : hash of all that decides the arrays of ``make``, none of which is named "key".
    """
    if path.exists():
        try:
            found = MappedNpz.open(path)
            if KEY in found.arrays and str(found.arrays[KEY]) == key:
                return found
            log.info("%s is of other data or options: it is made again", path)
        except InputError as error:
            log.warning("%s: it is made again", "; ".join(error.problems))
    save_npz(path, key=np.array(key), **make())
    return MappedNpz.open(path)


def each_of_all(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``work`` of every item, in their order, several at a time.

    Every rank begins elsewhere: what the first one makes and stores, the others find.

    Raises
    ------
    InputError
        All problems of all items, in their order.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    first = rank * len(items) // size
    order = [*range(first, len(items)), *range(first)]
    found: dict[int, Any] = {}
    problems: dict[int, list[str]] = {}
    with ThreadPoolExecutor(LOADERS) as pool:
        jobs = [pool.submit(work, items[i]) for i in order]
        done = tqdm(jobs, desc="opening cases", unit="case", disable=None, delay=2)
        for i, job in zip(order, done):
            try:
                found[i] = job.result()
            except InputError as error:
                problems[i] = error.problems
    if problems:
        raise InputError([line for i in sorted(problems) for line in problems[i]])
    return [found[i] for i in range(len(items))]


def _member(stream, info: zipfile.ZipInfo, size: int) -> Member:
    stream.seek(info.header_offset)
    mark, name, extra = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    start = info.header_offset + LOCAL_HEADER.size + name + extra
    if mark != b"PK\x03\x04" or start + info.file_size > size:
        raise zipfile.BadZipFile(f"{info.filename} is not where the archive says")
    return Member(start, info.file_size, info.CRC)


def _mapped(stream, member: Member, whole: np.ndarray) -> np.ndarray:
    """The array of a member, as a part of the mapped file."""
    stream.seek(member.start)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version}")
    read = np.lib.format.read_array_header_1_0
    shape, fortran, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        stream
    )
    offset = stream.tell()
    wanted = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if dtype.hasobject or offset + wanted != member.start + member.size:
        raise ValueError(f"{dtype} {shape} does not fit its {member.size} bytes")
    array: np.ndarray = np.ndarray(shape, dtype, whole, offset, order="F" if fortran else "C")
    array.flags.writeable = False
    return array


def _is_sound(stream, member: Member) -> bool:
    """Whether the bytes of a member have their checksum."""
    stream.seek(member.start)
    left, crc = member.size, 0
    while left > 0 and (piece := stream.read(min(left, PIECE))):
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    return crc == member.crc and left == 0
