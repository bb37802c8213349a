"""Columns of a user's own in the case table, x_age say (standard library only)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError, problem
from ..tables import number_of, read_table
from .table import FREE_PREFIX


def check_free_columns(path: str | Path, columns: Iterable[str], key: str) -> None:
    """InputError with all of some columns that a case table lacks.

    path : empty: there is no table.    key : what names the columns.
    """
    columns = list(columns)
    header = read_table(path)[0] if columns and str(path) else []
    known = ", ".join(name for name in header if name.startswith(FREE_PREFIX)) or "none"
    remedy = f"add it (columns of your own begin with {FREE_PREFIX}; it has {known})"
    if problems := [
        problem(path or "the demo's case table", f"no column {name}, which {key} names", remedy)
        for name in columns
        if name not in header or not name.startswith(FREE_PREFIX)
    ]:
        raise InputError(problems)


def read_numbers(
    path: str | Path, columns: Sequence[str], cases: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Free columns of a case table: column -> case id -> number; empty cells are left out.

    Raises
    ------
    InputError
        The table lacks one of the columns, or has an entry that is no number.
    """
    if not columns:
        return {}
    check_free_columns(path, columns, "--columns")
    header, rows = read_table(path)
    if "case_id" not in header:
        fact = "no column case_id, by which --columns finds the hearts"
        raise InputError(problem(path, fact, "give the case table of the cohort"))
    wanted, problems = set(cases), []
    result: dict[str, dict[str, float]] = {name: {} for name in columns}
    for line, row in rows:
        for name in columns:
            if row["case_id"] not in wanted or not row[name]:
                continue
            number = number_of(row[name])
            if number is None:
                fact = f"{name} is {row[name][:60]!r}, no number"
                problems.append(problem(f"{path}:{line}", fact, "correct it, or leave it empty"))
            else:
                result[name][row["case_id"]] = number
    if problems:
        raise InputError(problems)
    return result
