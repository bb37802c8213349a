"""Label maps of which only some layers are annotated, and stacks of thick slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..volumes import LabelMap
from .frame import Frame
from .grids import cropped_affine

LEAST_THICK = 2.0  # slices are so many times as thick as voxels are wide
SINGLE = 2.0  # layers that follow each other, on average: they were annotated singly
LEAST_RUNS = 3  # of layers that follow each other, where these are more


@dataclass(frozen=True)
class Slices:
    """Parallel layers of voxels that are annotated; of those between them nothing is known.

    axis : of the voxel indices, across the layers.
    layers : (K,) int64, ascending, two at least.
    """

    axis: int
    layers: np.ndarray

    @property
    def widest(self) -> int:
        """Layers between two annotated ones at most, and one."""
        return int(np.diff(self.layers).max())

    @property
    def step(self) -> float:
        """Layers from one annotated slice to the next, as a rule."""
        steps = np.diff(self.layers)
        return float(np.median(steps[steps > 1])) if (steps > 1).any() else 1.0

    def past(self, size: int) -> np.ndarray:
        """(size,) int64: how many layers each layer of a grid lies before the first annotated one,
        or behind the last; 0 between them."""
        index = np.arange(size)
        return np.maximum(np.maximum(self.layers[0] - index, index - self.layers[-1]), 0)

    def planes(self, affine: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """The planes in the unit frame: their direction (3,) and places along it (K,), float64.

        affine : (4, 4) voxel indices to RAS mm.
        """
        row = np.linalg.inv(affine)[self.axis]
        length = np.linalg.norm(row[:3])
        direction = row[:3] / length
        offsets = (self.layers - row[3]) / length
        return direction, (offsets - direction @ frame.center) * frame.scale


def annotated_slices(path: Path, label_map: LabelMap) -> tuple[LabelMap, Slices]:
    """The grid on which the heart between annotated slices is to be made.

    Layers without any label lie between annotated ones, which follow each other singly or nearly so
    along one axis. Or else voxels are much longer than wide along one axis, and all layers across
    it may be annotated. Such thick slices become an odd number of layers each, of which the middle
    one is annotated.

    Returns
    -------
    label_map : on that grid, each layer a copy of the nearest annotated one, up to half of their
        distance past the first and the last.
    slices : the annotated layers.

    Raises
    ------
    InputError
        Neither is so, or a single slice is annotated.
    """
    there = [_annotated_layers(label_map.data, axis) for axis in range(3)]
    if min(map(len, there)) < 2:
        fact = "has a single annotated slice"
        raise InputError(problem(path, fact, "annotate several"))
    axis, times = _across(path, there, label_map.spacing)
    slices = Slices(axis, there[axis] * times + times // 2)
    affine = label_map.affine
    if times > 1:
        step = np.where(np.arange(3) == axis, 1 / times, 1.0)
        affine = cropped_affine(affine, (step - 1) / 2, step)
    size = label_map.data.shape[axis] * times
    return LabelMap(_copied(label_map.data, slices, size, times), affine), slices


def _across(path: Path, there: list[np.ndarray], spacing: np.ndarray) -> tuple[int, int]:
    """The axis across slices, and how many layers each becomes.

    there : of each axis, the layers with a label. Where structures lie apart there are gaps as
        well, but between many layers.
    """
    runs = np.array([1 + (np.diff(layers) > 1).sum() for layers in there])
    length = np.where(runs > 1, [len(layers) for layers in there] / runs, np.inf)
    axis, thick = int(np.argmin(length)), int(np.argmax(spacing))
    ratio = spacing[thick] / np.delete(spacing, thick).max()
    if length[axis] > SINGLE and ratio >= LEAST_THICK:
        axis = thick
    elif length[axis] > SINGLE and runs[axis] < LEAST_RUNS:
        fact = "has neither layers without labels between annotated ones, nor thick slices"
        raise InputError(problem(path, fact, "leave --slices out"))
    if axis == thick and ratio >= LEAST_THICK:
        return axis, max(3, 1 + 2 * round((ratio - 1) / 2))
    return axis, 1


def continued(label_map: LabelMap, slices: Slices) -> tuple[LabelMap, Slices]:
    """A grid of :func:`annotated_slices` with so many layers more at both ends, copies of the
    outermost, that no annotated one lies at its border: what is cut there is not cut by the scan.
    """
    more = int(np.ceil(slices.step / 2))
    width = np.where(np.arange(3)[:, None] == slices.axis, more, 0) * np.ones((1, 2), int)
    affine = cropped_affine(label_map.affine, -width[:, 0].astype(float))
    data = np.pad(label_map.data, width, mode="edge")
    return LabelMap(data, affine), Slices(slices.axis, slices.layers + more)


def _annotated_layers(data: np.ndarray, axis: int) -> np.ndarray:
    """(K,) int64 layers with a label, ascending."""
    return np.flatnonzero(data.any(axis=tuple(k for k in range(3) if k != axis)))


def _copied(data: np.ndarray, slices: Slices, size: int, times: int) -> np.ndarray:
    """``data`` with so many times the layers, each a copy of the nearest annotated one; empty
    farther past the first and the last than half of their distance."""
    nearest = slices.layers[np.abs(np.arange(size)[:, None] - slices.layers).argmin(axis=1)]
    copied = np.take(data, nearest // times, axis=slices.axis)
    copied[(slice(None),) * slices.axis + (slices.past(size) > slices.step / 2,)] = 0
    return copied
