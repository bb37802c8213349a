"""Label maps of files, with the classes that they lack."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import outputs
from ..anatomy.beyond import joined
from ..cohort.table import Case
from ..errors import InputError, problem
from ..geometry.field_of_view import cut_names, cuts_of, larger_grid
from ..labels import LabelTable
from ..volumes import (
    LabelMap,
    check_extent,
    labelled_box,
    load_label_map,
    save_label_map,
    save_like,
)

log = logging.getLogger(__name__)

TAKE_OUT = "take the class out of the label map, or of --missing"
# Of files that are read and not written: FreeSurfer's, pairs, other compression.
OTHER_ENDING = re.compile(r"\.(mgh|mgz|(nii|hdr|img)(\.gz|\.bz2)?)$", re.IGNORECASE)


class LabelMapCompleter(Protocol):
    """A model that makes missing classes of label maps."""

    @property
    def table(self) -> LabelTable:
        """The classes that it knows."""

    def complete(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], case: Case | None = None
    ) -> Sequence[np.ndarray]:
        """For each request, a list of class names: (X, Y, Z) uint8, with those classes made from
        the others, in the place of background alone.

        case : whose table may list more cut classes, or say that none is."""


def output_name(path: Path) -> str:
    """What a label map is called when it is done: as before, or with .nii.gz in place of the ending
    of another format or of a pair of files."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return path.name
    return f"{OTHER_ENDING.sub('', path.name)}.nii.gz"


def check_names(paths: Sequence[Path], out: Path) -> None:
    """InputError where two label maps would be one file of ``out``, or one lies there already."""
    first: dict[str, Path] = {}
    problems = []
    for path in paths:
        other = first.setdefault(output_name(path), path)
        if other is not path:
            problems.append(problem(path, f"is called like {other}", "give it another --out"))
    problems += outputs.problems_of(out / name for name in first)
    if problems:
        raise InputError(problems)


def complete_files(
    paths: Sequence[Path], out: Path, complete: Callable[[Path, Path], Path]
) -> None:
    """``complete(path, out / output_name(path))`` for each; the others are done where one cannot
    be.

    Raises
    ------
    InputError
        What is wrong with any of them.
    """
    problems = []
    for path in paths:
        try:
            log.info("%s", complete(path, out / output_name(path)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(dict.fromkeys(problems))


def complete_file(
    path: Path,
    out: Path,
    *,
    missing: Sequence[str],
    completer: LabelMapCompleter,
    case: Case | None = None,
) -> Path:
    """Write ``out`` from the label map ``path``: known voxels unchanged, missing classes made.

    missing : class names; none: those without a voxel.    case : that the file is of.
    """
    for name in missing:
        completer.table.channel(name)
    label_map, absent = known_part(path, completer.table)
    wanted = list(missing) or absent
    if not wanted:
        raise InputError(problem(path, "has every class", TAKE_OUT))
    check_absent(path, wanted, absent)
    # what is absent without being asked for is unknown too, but not written
    try:
        made = completer.complete(label_map, [absent], case)[0]
    except InputError as error:
        lines = [line.removeprefix(f"{path}: ") for line in error.problems]
        raise InputError([f"{path}: {line}" for line in lines]) from None
    asked = [completer.table[completer.table.channel(name)].value for name in wanted]
    data = np.where((label_map.data == 0) & ~np.isin(made, asked), np.uint8(0), made)
    save_like(out, data, path)
    return out


def check_absent(path: Path, wanted: Sequence[str], absent: Sequence[str]) -> None:
    """InputError where a label map has a class that is to be made."""
    if there := [name for name in wanted if name not in absent]:
        raise InputError(problem(path, f"has {', '.join(there)} already", TAKE_OUT))


def known_part(path: Path, table: LabelTable) -> tuple[LabelMap, list[str]]:
    """A label map to complete, and the names of the classes that it lacks.

    Raises
    ------
    InputError
        It lacks all of them, or is a heart of a few voxels.
    """
    label_map = load_label_map(path)
    absent = [c.name for c in table if not (label_map.data == c.value).any()]
    if len(absent) == len(table):
        fact = "has none of the classes that the model knows"
        raise InputError(problem(path, fact, "label at least one of them"))
    low, high = labelled_box(label_map)
    check_extent(path, high - low + 1, label_map.spacing)
    return label_map, absent


def complete_beyond(path: Path, out: Path, *, mm: float, completer: LabelMapCompleter) -> Path:
    """Write ``out``: the label map ``path``, grown by ``mm`` past the faces of the volume that cut
    a class, with those classes completed there.

    Raises
    ------
    InputError
        The border cuts none of the classes that the model knows, or it cuts all that are there.
    """
    label_map, absent = known_part(path, completer.table)
    cuts = cuts_of(label_map, completer.table)
    names = cut_names(cuts, completer.table)
    if not names:
        fact = "has no class that the border of the volume cuts"
        raise InputError(problem(path, fact, "leave --beyond-mm out"))
    if len(names) + len(absent) == len(completer.table):
        fact = "is cut by its border in every class, so they can be made from none"
        raise InputError(problem(path, fact, "leave it out"))
    grid = larger_grid(label_map, cuts, mm)
    made = completer.complete(grid, [[*names, *absent]])[0]
    save_label_map(out, joined(grid.data, made, grid.affine, cuts), grid.affine)
    return out
