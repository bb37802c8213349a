"""Edges of voxels that arrays do not carry: given, or in a table beside them (standard library
only)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError, problem
from ..tables import number_of, read_table
from .found_files import as_id

METADATA = "metadata.csv"
ID_COLUMNS = ("case_id", "case", "id", "name")
SPACING_COLUMNS = ("spacing_mm", "spacing")
AXIS_COLUMNS = ("spacing_x", "spacing_y", "spacing_z")
REMEDY = f"name case_id and spacing_mm, or {', '.join(AXIS_COLUMNS)}, in its header"
Spacing = tuple[float, float, float]


def spacing_of_text(text: str) -> Spacing | None:
    """Three edges in mm of text such as ``0.8``, ``0.8 0.8 1.0`` or ``(0.8, 0.8, 1)``."""
    words = re.sub(r"[()\[\],;x]", " ", text).split()
    edges = [number for word in words if (number := number_of(word)) is not None]
    return as_spacing(edges) if len(edges) == len(words) else None


def as_spacing(edges: Sequence[float]) -> Spacing | None:
    """One edge or three, above 0; None: they are none."""
    if len(edges) not in (1, 3) or not all(math.isfinite(e) and e > 0 for e in edges):
        return None
    return edges[0], edges[len(edges) // 2], edges[-1]


def read_metadata(path: Path) -> dict[str, Spacing]:
    """Case, as the table calls it, and by its id where that is one case's -> edges of its voxels.

    Raises
    ------
    InputError
        It lacks the columns, or a row has no spacing.
    """
    header, rows = read_table(path)
    named = next((c for c in ID_COLUMNS if c in header), "")
    whole = next((c for c in SPACING_COLUMNS if c in header), "")
    columns = [whole] if whole else [c for c in AXIS_COLUMNS if c in header]
    if not named or not (whole or len(columns) == 3):
        fact = f"has no spacings of cases in {' | '.join(header) or 'an empty header'}"
        raise InputError(problem(path, fact, REMEDY))
    found: dict[str, Spacing] = {}
    problems: list[str] = []
    for line, row in rows:
        text = " ".join(row[c] for c in columns)
        spacing = spacing_of_text(text)
        if spacing is None:
            fact = f"{' '.join(columns)} {text!r} is no spacing"
            problems.append(problem(f"{path}:{line}", fact, "write one edge in mm, or three"))
        elif found.setdefault(row[named], spacing) != spacing:
            fact = f"gives case {row[named]} another spacing than a line above"
            problems.append(problem(f"{path}:{line}", fact, "keep the right one"))
    if problems:
        raise InputError(problems)
    by_id: dict[str, set[Spacing]] = {}
    for name, spacing in found.items():
        by_id.setdefault(as_id(name), set()).add(spacing)
    return {name: min(spacings) for name, spacings in by_id.items() if len(spacings) == 1} | found


def spacings_of(volumes: Mapping[str, Path], table: str | Path = "") -> dict[str, Spacing]:
    """Case -> edges of its voxels.

    volumes : case -> file.    table : of the spacings; empty: the nearest ``metadata.csv`` of the
        folder of a file and those above it that knows the case.

    Raises
    ------
    InputError
        All faults of the tables; cases that none knows.
    """
    tables: dict[Path, dict[str, Spacing]] = {}
    problems: list[str] = []
    result = {}
    for case, volume in volumes.items():
        paths = [Path(table)] if table else [folder / METADATA for folder in volume.parents]
        for path in paths:
            if path not in tables and (table or path.is_file()):
                try:
                    tables[path] = read_metadata(path)
                except InputError as error:
                    tables[path] = {}
                    problems += error.problems
            if spacing := tables.get(path, {}).get(case):
                result[case] = spacing
                break
    lacking = [case for case in volumes if case not in result]
    if lacking and not problems:
        where = table or f"a {METADATA} beside them or above"
        fact = f"{len(lacking)} volumes have no spacing in {where} ({', '.join(lacking[:5])})"
        problems.append(f"{fact}; give --spacing, or add them")
    if problems:
        raise InputError(problems)
    return result
