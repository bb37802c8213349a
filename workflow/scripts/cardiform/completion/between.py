"""Label maps of files of which only some slices are annotated, with what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..geometry.between_slices import held_to_slices
from ..geometry.slices import Slices, annotated_slices
from ..labels import LabelTable
from ..volumes import LabelMap, save_label_map, save_like
from .files import check_absent, known_part


class SliceCompleter(Protocol):
    """A model that makes hearts from slices."""

    @property
    def table(self) -> LabelTable:
        """The classes that it knows."""

    def between(
        self, label_map: LabelMap, slices: Slices, missing: Sequence[str] = ()
    ) -> np.ndarray:
        """(X, Y, Z) uint8: the classes that the slices show, and ``missing``, on their grid."""


def complete_between(
    path: Path, out: Path, *, missing: Sequence[str], completer: SliceCompleter
) -> Path:
    """Write ``out``: the annotated slices of the label map ``path`` as they are, and what lies
    between them.

    Thick slices become several layers each. Past the first and the last annotated slice the heart
    is made as far as the next one would lie; classes of ``missing``, which no slice shows, are made
    wherever there is background.

    Raises
    ------
    InputError
        There are no slices with anything between them, or a class of ``missing`` is there.
    """
    channels = [completer.table.channel(name) for name in missing]
    label_map, absent = known_part(path, completer.table)
    check_absent(path, missing, absent)
    grid, slices = annotated_slices(path, label_map)
    try:
        made = completer.between(grid, slices, missing)
    except InputError as error:
        raise InputError([f"{path}: {line}" for line in error.problems]) from None
    values = [completer.table[channel].value for channel in channels]
    data = held_between(grid, made, slices, values)
    if data.shape == label_map.data.shape:
        save_like(out, data, path)
    else:
        save_label_map(out, data, grid.affine)
    return out


def held_between(
    grid: LabelMap, made: np.ndarray, slices: Slices, missing: Sequence[int] = ()
) -> np.ndarray:
    """(X, Y, Z) uint8: annotated layers as they are given, others as they are made, moved so that
    their contours continue these.

    grid, slices : of :func:`cardiform.geometry.slices.annotated_slices`.
    made : (X, Y, Z) uint8 on the grid.    missing : class values that no slice shows.
    """
    joined = joined_between(grid.data, made, slices, missing)
    held = held_to_slices(made, joined, slices, grid.spacing)
    return joined_between(grid.data, held, slices, missing)


def joined_between(
    given: np.ndarray, made: np.ndarray, slices: Slices, missing: Sequence[int] = ()
) -> np.ndarray:
    """(X, Y, Z) uint8: annotated layers as they are given, others as they are made.

    given, made : (X, Y, Z) uint8 on one grid.    missing : class values that no slice shows.
    """
    size = given.shape[slices.axis]
    annotated = np.isin(np.arange(size), slices.layers)
    shape = np.where(np.arange(3) == slices.axis, size, 1)
    known, reached = (part.reshape(shape) for part in (annotated, slices.past(size) < slices.step))
    new = np.isin(made, missing)
    data = np.where(known, given, np.where(reached | new, made, np.uint8(0)))
    return np.where((data == 0) & new, made, data)
