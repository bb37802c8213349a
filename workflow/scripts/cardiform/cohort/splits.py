"""Train, validation and test split of a cohort by patient (standard library only)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import InputError, together
from ..files import write_text
from ..formats import Format
from ..options.cohort import SplitOptions
from .table import Case, read_table

COLUMNS = ("case_id", "patient_id", "path")
SPLIT = Format("split file", dict.fromkeys(COLUMNS, "text"), marked=False)


def split_cases(cases: Iterable[Case], options: SplitOptions) -> dict[str, list[Case]]:
    """Deal cases into ``train``, ``val`` and ``test`` by a seeded hash of the patient id.

    With ``folds`` the hash picks one of k folds: fold ``fold`` is tested, the next one
    validated, the rest trained on.

    Raises
    ------
    InputError
        A part that should have cases is empty: the cohort is small, or all one patient.
    """
    parts: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    check_shares(options)
    for case in sorted(cases, key=lambda c: c.case_id):
        parts[_part_of(case.patient_id, options)].append(case)
    wanted = {
        "train": True,
        "val": options.folds > 0 or options.validation > 0,
        "test": options.folds > 0 or options.test > 0,
    }
    counts = ", ".join(f"{part} {len(members)}" for part, members in parts.items())
    if any(wanted[part] and not members for part, members in parts.items()):
        raise InputError(
            f"split: a part is empty ({counts}); change split.seed or the shares, or add cases"
        )
    return parts


def write_split(path: str | Path, cases: Iterable[Case], points: Path) -> None:
    """Write one part as CSV: case_id, patient_id, path of the points file."""
    paths = [(c, _cell(str(points / f"{c.case_id}.npz"))) for c in cases]
    lines = [f"{c.case_id},{c.patient_id},{path}" for c, path in paths]
    write_text(path, "\n".join([",".join(COLUMNS), *lines]) + "\n")


def _cell(text: str) -> str:
    """A cell of a CSV, in quotes where it would not be read back without them."""
    quoted = '"' + text.replace('"', '""') + '"'
    return quoted if "," in text or text.startswith('"') else text


def read_split(path: str | Path) -> list[tuple[str, Path]]:
    """(case id, path) of every row of a split CSV."""
    header, rows = read_table(Path(path), whole=True)
    SPLIT.check_header(path, header)
    return [(row["case_id"], Path(row["path"])) for _, row in rows]


def read_splits(paths: Mapping[str, str | Path]) -> dict[str, list[tuple[str, Path]]]:
    """Part of the split -> :func:`read_split` of its file; all bad files are reported."""
    rows = together(*(functools.partial(read_split, path) for path in paths.values()))
    return dict(zip(paths, rows))


def check_shares(options: SplitOptions) -> None:
    if options.validation + options.test >= 1:
        raise InputError("split: validation + test leave nothing to train on; lower them")
    if options.folds in (1, 2) or (options.folds and options.fold >= options.folds):
        raise InputError(
            f"split: fold {options.fold} of {options.folds}; at least 3 folds, fold below folds"
        )


def _part_of(patient_id: str, options: SplitOptions) -> str:
    digest = hashlib.sha256(f"{options.seed}:{patient_id}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    if options.folds:
        place = (number % options.folds - options.fold) % options.folds
        return {0: "test", 1: "val"}.get(place, "train")
    share = number / 2**64
    if share < options.test:
        return "test"
    return "val" if share < options.test + options.validation else "train"
