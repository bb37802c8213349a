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


@dataclass(frozen=True)
class Slices:
    """Parallel layers of voxels that are annotated; of those between them nothing is known.

    axis : of the voxel indices, across the layers.
    layers : (K,) int64, ascending, two at least.
    """

    axis: int
    layers: np.ndarray

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

    Slices lie across the axis along which voxels are much longer than wide: each then becomes an
    odd number of layers, of which the middle one is annotated. Or else layers without any label lie
    between annotated ones, and the slices lie across the axis along which these take turns most
    often.

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
    axis, times = int(np.argmax(label_map.spacing)), 1
    ratio = label_map.spacing[axis] / np.delete(label_map.spacing, axis).max()
    if ratio >= LEAST_THICK:
        times = max(3, 1 + 2 * round((ratio - 1) / 2))
    else:
        gaps = [np.diff(layers)[np.diff(layers) > 1] for layers in there]
        axis = int(np.argmax([len(found) for found in gaps]))
        # two structures that lie apart are a gap, too
        if len(gaps[axis]) < 2 and len(there[axis]) > 1 + len(gaps[axis]):
            fact = "has neither layers without labels between annotated ones, nor thick slices"
            raise InputError(problem(path, fact, "leave --slices out"))
    slices = Slices(axis, there[axis] * times + times // 2)
    affine = label_map.affine
    if times > 1:
        step = np.where(np.arange(3) == axis, 1 / times, 1.0)
        affine = cropped_affine(affine, (step - 1) / 2, step)
    size = label_map.data.shape[axis] * times
    return LabelMap(_copied(label_map.data, slices, size, times), affine), slices


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
