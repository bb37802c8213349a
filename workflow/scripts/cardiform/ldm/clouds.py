"""HDF5 point clouds, sample by sample, and their voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from ..errors import InputError, problem
from ..options.ldm import PointcloudsOptions
from .cube import Cube

TYPICAL = 99  # percentile of the filled voxels that a field's 1.0 stands for


@dataclass(frozen=True)
class Cloud:
    """points : (N, 3) float64 mm.    labels : (N,) uint8 class values, or None."""

    name: str
    points: np.ndarray
    labels: np.ndarray | None


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
        The file is missing, no HDF5, or has none of these layouts.
    """

    def __init__(self, path: str | Path, options: PointcloudsOptions):
        self.path, self.options = Path(path), options
        self.order = np.array(["xyz".index(a) for a in options.axes]).argsort()
        try:
            with h5py.File(self.path) as archive:
                self.layout, self.names = self._layout(archive)
        except OSError as error:
            fact = f"is no readable HDF5 file ({error})"
            raise InputError(
                problem(self.path, fact, "correct the path, or export it again")
            ) from None
        if not self.names:
            raise InputError(problem(self.path, "has no samples", f"look at {options.key}"))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> Cloud:
        """One sample.

        Raises
        ------
        InputError
            Its dataset is empty, of another shape, not finite, or its classes do not fit.
        """
        where = f"{self.path}:{name}"
        try:
            with h5py.File(self.path) as archive:
                points = self._part(archive, self.options.key, name)
                labels = self._part(archive, self.options.labels_key, name)
        except (OSError, TypeError) as error:  # damaged bytes; a group in place of a dataset
            fact = f"cannot be read ({error})"
            raise InputError(problem(where, fact, "export it again")) from None
        if points is not None and np.asarray(points).dtype.kind not in "fiu":
            fact = f"holds {np.asarray(points).dtype}, not numbers"
            raise InputError(problem(where, fact, "store coordinates as floating-point numbers"))
        points = np.asarray(points, np.float64) if points is not None else np.empty(0)
        if self.layout == "ragged" and points.size % 3 == 0:
            points = points.reshape(-1, 3)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            fact = f"has the shape {points.shape}, not (N, 3)"
            raise InputError(problem(where, fact, "remove or mend this sample"))
        if not np.isfinite(points).all():
            raise InputError(problem(where, "has points that are not finite", "mend this sample"))
        return Cloud(
            name,
            points[:, self.order] * self.options.unit_mm,
            self._classes(labels, len(points), where),
        )

    def __iter__(self) -> Iterator[Cloud]:
        return map(self.read, self.names)

    def _layout(self, archive) -> tuple[str, list[str]]:
        key = self.options.key
        found = archive.get(key)
        if isinstance(found, h5py.Dataset):
            if h5py.check_vlen_dtype(found.dtype):
                return "ragged", _numbered(found.shape[0])
            if found.ndim == 3:
                return "stack", _numbered(found.shape[0])
            if found.ndim == 2:
                return "single", [self.path.stem]
            fact = f"{key} has the shape {found.shape}"
            remedy = "store (N, 3), (samples, N, 3) or rows of variable length"
            raise InputError(problem(self.path, fact, remedy))
        if isinstance(found, h5py.Group):
            return "datasets", sorted(found)
        groups = sorted(name for name in archive if isinstance(archive[name], h5py.Group))
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
        if self.layout in ("stack", "ragged"):
            return found[self.names.index(name)]
        return found[()]

    def _classes(self, labels, count: int, where: str) -> np.ndarray | None:
        if labels is None:
            return None
        labels = np.asarray(labels).reshape(-1)
        fit = len(labels) == count and labels.dtype.kind in "iub"
        if not fit or labels.min() < 0 or labels.max() > 255:
            fact = f"has {len(labels)} classes ({labels.dtype}) for {count} points"
            raise InputError(problem(where, fact, "store an integer of 0-255 per point"))
        return labels.astype(np.uint8)


def counts_on(cube: Cube, points: np.ndarray, channels: np.ndarray, number: int) -> np.ndarray:
    """(number, S, S, S) float32: points of each channel in each voxel; those outside are lost."""
    index = np.floor((points - cube.affine[:3, 3]) / cube.spacing + 0.5).astype(np.int64)
    within = ((index >= 0) & (index < cube.size)).all(axis=1)
    flat = np.ravel_multi_index((channels[within], *index[within].T), (number, *(cube.size,) * 3))
    counts = np.bincount(flat, minlength=number * cube.size**3)
    return counts.reshape(number, *(cube.size,) * 3).astype(np.float32)


def fields_of(counts: np.ndarray, options: PointcloudsOptions) -> np.ndarray:
    """Counts -> fields of one scale for the whole data set (see :func:`typical`), not clipped."""
    if options.method == "occupancy":
        return (counts > 0).astype(np.float32)
    if options.method == "gaussian":
        return np.stack([ndimage.gaussian_filter(c, options.sigma_vox) for c in counts])
    return counts


def typical(fields: np.ndarray) -> float:
    """What a well-filled voxel of one sample holds."""
    total = fields.sum(axis=0)
    return float(np.percentile(total[total > 1e-6], TYPICAL)) if (total > 1e-6).any() else 0.0


def volume_of(fields: np.ndarray, scale: float) -> np.ndarray:
    """(S, S, S) float32 within [0, 1] of fields without classes."""
    return np.clip(fields.sum(axis=0) / scale, 0, 1)


def label_map_of(fields: np.ndarray, scale: float, values, threshold: float) -> np.ndarray:
    """(S, S, S) uint8: the class of the largest field where all together exceed ``threshold``."""
    inside = fields.sum(axis=0) / scale >= threshold
    inside &= fields.max(axis=0) > 0
    return np.where(inside, np.asarray(list(values), np.uint8)[fields.argmax(axis=0)], 0)


def _numbered(count: int) -> list[str]:
    return [f"sample_{i:05d}" for i in range(count)]
