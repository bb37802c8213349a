"""HDF5 point clouds, sample by sample: the one judge of what is in them."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from ..errors import InputError, first_line, problem
from ..options.ldm import PointcloudsOptions
from .extent import size_doubt

# A point this many times as far from the middle as half of the points is noted, ...
FAR = 10.0
# ... and this many times refused: a grid of 64 voxels would hold the heart in four of them.
TOO_FAR = 40.0
LARGEST = 1e9  # of coordinates: beyond a thousand kilometres nothing is a heart
DENSEST = 2000  # bytes of an array per byte of its file: no compression does better
HEAP = b"GCOL\x01\0\0\0"  # how a collection of rows of variable length begins, in version 1
AGAIN = "export it again"


@dataclass(frozen=True)
class Cloud:
    """points : (N, 3) float64 mm.    labels : (N,) uint8 class values, or None.

    note : what is odd about it; empty: nothing.
    """

    name: str
    points: np.ndarray
    labels: np.ndarray | None
    note: str = ""


class CloudFile:
    """The samples of an HDF5 file, read one at a time: the file may be larger than the memory.

    Layouts, told apart by what lies under ``options.key``: a dataset (N, 3) is one sample; a
    dataset (S, N, 3) are S samples; a dataset of S variable-length rows (x, y, z, x, y, z, ...)
    are S samples of their own lengths; a group has a dataset (N, 3) per sample; where there is
    nothing of this name, each group of the file is a sample with a dataset of this name. The
    classes lie in the same way under ``options.labels_key``.

    Raises
    ------
    InputError
        The file is missing, no HDF5, damaged, or has none of these layouts.
    """

    def __init__(self, path: str | Path, options: PointcloudsOptions):
        self.path, self.options = Path(path), options
        self.order = np.array(["xyz".index(a) for a in options.axes]).argsort()
        with opened(self.path) as archive:
            try:
                _check_heaps(self.path)
                self.layout, self.names = self._layout(archive)
            except (OSError, RuntimeError, KeyError, ValueError, UnicodeError) as error:
                raise InputError(_unreadable(self.path, error)) from None
        if not self.names:
            raise InputError(problem(self.path, "has no samples", f"look at {options.key}"))

    def __len__(self) -> int:
        return len(self.names)

    def only(self) -> str:
        """The name of its one sample; InputError where it has several."""
        if len(self) != 1:
            fact = f"has {len(self)} samples for one case"
            raise InputError(problem(self.path, fact, "name it in pointclouds.file"))
        return self.names[0]

    def read(self, name: str) -> Cloud:
        """One sample.

        Raises
        ------
        InputError
            Its dataset is damaged, empty, of another type or shape, not finite, without an
            extent, with points far beyond the others, or its classes do not fit.
        """
        where = f"{self.path}:{name}"
        try:
            with h5py.File(self.path) as archive:
                points = self._part(archive, self.options.key, name)
                labels = self._part(archive, self.options.labels_key, name)
        except MemoryError:
            raise
        except Exception as error:  # the library fails in as many ways as files are damaged
            raise InputError(_unreadable(where, error)) from None
        points = self._ordered(points, where) * self.options.unit_mm
        classes = self._classes(labels, len(points), where)
        return Cloud(name, points, classes, note_on_extent(points, where))

    def __iter__(self) -> Iterator[Cloud]:
        return map(self.read, self.names)

    def _ordered(self, points, where: str) -> np.ndarray:
        """(N, 3) float64 x, y, z in stored units; InputError for anything else."""
        if points is None:
            fact = f"has no dataset {self.options.key}"
            raise InputError(problem(where, fact, "add it, or remove this group"))
        points = np.asarray(points)
        if points.dtype.kind not in "fiu":
            fact = f"holds {points.dtype}, not numbers"
            raise InputError(problem(where, fact, "store coordinates as floating-point numbers"))
        points = points.astype(np.float64)
        if self.layout == "ragged" and points.size % 3 == 0:
            points = points.reshape(-1, 3)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            fact = f"has the shape {points.shape}, not (N, 3)"
            transposed = points.ndim == 2 and points.shape[0] == 3
            remedy = "transpose it" if transposed else "remove or repair this sample"
            raise InputError(problem(where, fact, remedy))
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        if bad:
            fact = f"has points that are not finite ({bad} of {len(points)})"
            raise InputError(problem(where, fact, "remove them"))
        return points[:, self.order]

    def _layout(self, archive) -> tuple[str, list[str]]:
        key = self.options.key
        found = archive.get(key)
        if isinstance(found, h5py.Dataset):
            _check_size(found, found.nbytes)
            text = h5py.check_string_dtype(found.dtype) is not None
            if h5py.check_vlen_dtype(found.dtype) and found.ndim == 1 and not text:
                return "ragged", _numbered(found.shape[0])
            if found.shape and found.ndim == 3:
                return "stack", _numbered(found.shape[0])
            if found.shape and found.ndim == 2:
                return "single", [self.path.stem]
            fact = f"{key} has the shape {found.shape} ({found.dtype})"
            remedy = "store (N, 3), (samples, N, 3) or rows of variable length"
            raise InputError(problem(self.path, fact, remedy))
        if isinstance(found, h5py.Group):
            return "datasets", sorted(found)
        groups = _groups(archive)
        if any(key in archive[name] for name in groups):
            return "groups", groups
        there = ", ".join(sorted(archive)) or "nothing"
        fact = f"has no dataset {key} (it has {there})"
        raise InputError(problem(self.path, fact, "set pointclouds.key"))

    def _part(self, archive, key: str, name: str):
        place = {"groups": f"{name}/{key}", "datasets": f"{key}/{name}"}.get(self.layout, key)
        if not key or place not in archive:
            return None
        found = archive[place]
        if isinstance(found, h5py.Group):
            raise TypeError("a group in place of a dataset")
        whole = self.layout not in ("stack", "ragged")
        _check_size(found, found.nbytes if whole else found.nbytes // max(len(found), 1))
        return found[()] if whole else _as_stored(found[self.names.index(name)], found.dtype)

    def _classes(self, labels, count: int, where: str) -> np.ndarray | None:
        if labels is None:
            return None
        labels = np.asarray(labels)
        remedy = "store an integer of 0-255 per point"
        if labels.ndim == 2 and labels.shape[0] == count and labels.shape[1] > 1:
            fact = f"has classes of the shape {labels.shape} for {count} points"
            raise InputError(problem(where, fact, f"{remedy}, not a column per class"))
        labels = labels.reshape(-1)
        if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():  # NaN equals nothing
            labels = np.clip(labels, -1, 256).astype(np.int64)
        if len(labels) != count or labels.dtype.kind not in "iub":
            fact = f"has {len(labels)} classes ({labels.dtype}) for {count} points"
            raise InputError(problem(where, fact, remedy))
        if labels.min() < 0 or labels.max() > 255:
            raise InputError(problem(where, "has classes outside of 0-255", remedy))
        return labels.astype(np.uint8)


def _check_size(found: h5py.Dataset, claimed: int) -> None:
    """ValueError where so many bytes cannot be in the file: it would be filled with zeros, and of
    millions of samples that are not there each would be looked at."""
    elsewhere = found.is_virtual or found.external
    if not elsewhere and claimed > DENSEST * os.path.getsize(found.file.filename):
        raise ValueError(f"{claimed / 1e9:.1f} GB, more than its file can hold")


def _check_heaps(path: Path) -> None:
    """OSError where HDF5 2.0 would look for rows of variable length without end: it goes from
    row to row by their sizes, and zeroed bytes are free space of no size.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as heap:
        start = heap.find(HEAP)
        while start >= 0 and start + 16 <= len(heap):
            end = min(start + struct.unpack_from("<Q", heap, start + 8)[0], len(heap))
            at = start + 16
            while end - at >= 16:
                number, size = struct.unpack_from("<H6xQ", heap, at)
                if not number and not size:
                    raise OSError("bytes of its rows of variable length are lost")
                at += 16 + -(-size // 8) * 8 if number else size
            start = heap.find(HEAP, start + 1)


def _as_stored(row, kind: np.dtype):
    """A row of a dataset of this ``kind``. Where rows are of variable length, h5py 3.16 takes the
    bytes for native numbers, whatever their order in the file."""
    stored = h5py.check_vlen_dtype(kind)
    misread = stored is not None and row.dtype == stored.newbyteorder("=")
    return row.view(stored) if misread else row


def opened(path: Path) -> h5py.File:
    """The open file; InputError where it is missing or no HDF5."""
    if not path.exists():
        raise InputError(problem(path, "does not exist", "correct the path"))
    try:
        return h5py.File(path)
    except (OSError, ValueError, RuntimeError) as error:
        fact = f"is no readable HDF5 file ({first_line(error)})"
        raise InputError(problem(path, fact, "correct the path, or export it again")) from None


def cloud_of_case(path: str | Path) -> Cloud:
    """The one cloud of a case's file, for whoever does not know pointclouds.key.

    A dataset of the default name is judged as the conversion to voxels will; without one, some
    dataset of the file must be a cloud.

    Raises
    ------
    InputError
        As of :class:`CloudFile`; several samples; no cloud at all.
    """
    options = PointcloudsOptions()
    keys = _other_keys(Path(path), options.key)
    if keys is None:
        file = CloudFile(path, options)
        return file.read(file.only())
    problems: list[str] = []
    for key in keys:
        try:
            file = CloudFile(path, replace(options, key=key, labels_key=""))
            return file.read(file.only())
        except InputError as error:
            problems += error.problems
    raise InputError(problems[:3] or problem(path, "holds no dataset", AGAIN))


def _other_keys(path: Path, default: str) -> list[str] | None:
    """The paths of all datasets of a file; None where one has the default name."""
    with opened(path) as archive:
        try:
            if default in archive or any(default in archive[name] for name in _groups(archive)):
                return None
            keys = {name for name in archive if isinstance(archive.get(name), h5py.Dataset)}
            archive.visititems(
                lambda name, item: keys.add(name) if isinstance(item, h5py.Dataset) else None
            )
        except (OSError, RuntimeError, KeyError, ValueError, UnicodeError) as error:
            raise InputError(_unreadable(path, error)) from None
    return sorted(keys)


def note_on_extent(points: np.ndarray, where: str) -> str:
    """What is odd about the extent of (N, 3) mm, empty where nothing is.

    Raises
    ------
    InputError
        All points are one, or some are so far from the others that a grid around all of them
        would show nothing.
    """
    if np.abs(points).max() > LARGEST:
        fact = f"has coordinates up to {np.abs(points).max():.3g}"
        raise InputError(problem(where, fact, f"{AGAIN}, in millimetres"))
    if not np.ptp(points, axis=0).max() > 0:
        fact = f"has no extent: its {len(points)} points are all equal"
        raise InputError(problem(where, fact, AGAIN))
    away, usual = _distances(points, points)
    if away.max() <= FAR * usual:
        return size_doubt("what it holds", float(np.ptp(points, axis=0).max()))
    # clouds of one length may be padded with copies of a point
    away, usual = _distances(points, np.unique(points, axis=0))
    far = int((away > FAR * usual).sum())
    if not far or not usual > 0:
        return ""
    fact = (
        f"{far} of {len(points)} points lie up to {away.max():.4g} mm from the middle, "
        f"half of all within {usual:.3g} mm"
    )
    if away.max() > TOO_FAR * usual:
        remedy = "remove them: voxels for all of it would be too coarse for the heart"
        raise InputError(problem(where, fact, remedy))
    return fact


def _distances(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """(N,) distances of points from the middle of others, and the median of theirs."""
    middle = np.median(others, axis=0)
    usual = float(np.median(np.linalg.norm(others - middle, axis=1)))
    return np.linalg.norm(points - middle, axis=1), usual


def _groups(archive) -> list[str]:
    return sorted(name for name in archive if isinstance(archive.get(name), h5py.Group))


def _unreadable(where: str | Path, error: Exception) -> str:
    return problem(where, f"cannot be read ({first_line(error)})", AGAIN)


def _numbered(count: int) -> list[str]:
    return [f"sample_{i:05d}" for i in range(count)]
