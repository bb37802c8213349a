"""Label maps of which only some layers are annotated, and stacks of thick slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..volumes import LabelMap
from .frame import Frame
from .grids import cropped_affine

LEAST_EMPTY = 0.3  # of the layers between the first and the last annotated one: not by chance
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
        return float(np.median(steps[steps > 1]))

    def away(self, size: int) -> np.ndarray:
        """(size,) int64: for each layer of a grid how many layers away the nearest annotated one
        is."""
        return np.abs(np.arange(size)[:, None] - self.layers).min(axis=1)

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

    Either layers without any label lie between annotated ones; or every slice is annotated, and
    much thicker than its voxels are wide: each then becomes an odd number of layers, of which the
    middle one is the annotated one.

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
    empty = [1 - len(layers) / (layers[-1] - layers[0] + 1) for layers in there]
    axis, times = int(np.argmax(empty)), 1
    if empty[axis] < LEAST_EMPTY:
        axis = int(np.argmax(label_map.spacing))
        ratio = label_map.spacing[axis] / np.delete(label_map.spacing, axis).max()
        if ratio < LEAST_THICK:
            fact = "has neither layers without labels between annotated ones, nor thick slices"
            raise InputError(problem(path, fact, "leave --slices out"))
        times = max(3, 1 + 2 * round((ratio - 1) / 2))
    if len(there[axis]) < 2:
        fact = "has a single annotated slice"
        raise InputError(problem(path, fact, "annotate several"))
    slices = Slices(axis, there[axis] * times + times // 2)
    affine = label_map.affine
    if times > 1:
        step = np.where(np.arange(3) == axis, 1 / times, 1.0)
        affine = cropped_affine(affine, (step - 1) / 2, step)
    size = label_map.data.shape[axis] * times
    return LabelMap(_copied(label_map.data, slices, size, times), affine), slices


def _annotated_layers(data: np.ndarray, axis: int) -> np.ndarray:
    """(K,) int64 layers with a label, ascending."""
    return np.flatnonzero(data.any(axis=tuple(k for k in range(3) if k != axis)))


def _copied(data: np.ndarray, slices: Slices, size: int, times: int) -> np.ndarray:
    """``data`` with so many times the layers, each a copy of the nearest annotated one; empty
    farther away than half of their distance."""
    nearest = slices.layers[np.abs(np.arange(size)[:, None] - slices.layers).argmin(axis=1)]
    copied = np.take(data, nearest // times, axis=slices.axis)
    beyond = slices.away(size) > slices.step / 2
    copied[(slice(None),) * slices.axis + (beyond,)] = 0
    return copied
