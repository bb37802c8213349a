"""Columns of a user's own in the case table, x_age say (standard library only)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError, problem
from ..tables import number_of, read_table
from .table import FREE_PREFIX

# What stands for an entry that is missing, in small letters. In a column of words the last two may
# be a group (no disease, a negative test).
MISSING = ("", "na", "n/a", "nan")
NO_NUMBER = (*MISSING, "none", "-")


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
    """Free columns of a case table: column -> case id -> number; missing ones are left out.

    Raises
    ------
    InputError
        The table lacks one of the columns, or has an entry that is no number.
    """
    found = _read(path, columns, cases, "--columns", NO_NUMBER)
    if problems := [line for name in columns for line in _wrong(path, name, found[name])]:
        raise InputError(problems)
    return {
        name: {case_id: number for case_id, (_, _, number) in entries.items() if number is not None}
        for name, entries in found.items()
    }


def read_groups(
    path: str | Path, columns: Sequence[str], cases: Iterable[str]
) -> dict[str, dict[str, str]]:
    """Free columns of a case table: column -> case id -> text; missing entries are left out.

    Raises
    ------
    InputError
        The table lacks one of the columns, or most entries of one are numbers and some are not.
    """
    found = _read(path, columns, cases, "--groups", MISSING)
    problems = []
    for name, entries in found.items():
        numbers = [number for _, _, number in entries.values() if number is not None]
        # two codes and a word (0, 1, unknown) are groups
        if len(set(numbers)) > 2 and 2 * len(numbers) > len(entries):
            found[name] = entries = {
                c: entry for c, entry in entries.items() if entry[1].lower() not in NO_NUMBER
            }
            problems += _wrong(path, name, entries)
    if problems:
        raise InputError(problems)
    return {
        name: {case_id: text for case_id, (_, text, _) in entries.items()}
        for name, entries in found.items()
    }


# line, text, number
Entry = tuple[int, str, float | None]


def _read(
    path: str | Path, columns: Sequence[str], cases: Iterable[str], key: str, missing: Sequence[str]
) -> dict[str, dict[str, Entry]]:
    """Column -> case id -> entry, of some cases.

    key : what names the columns.    missing : texts that are left out.
    """
    if not columns:
        return {}
    check_free_columns(path, columns, key)
    header, rows = read_table(path)
    if "case_id" not in header:
        fact = f"no column case_id, by which {key} finds the hearts"
        raise InputError(problem(path, fact, "give the case table of the cohort"))
    wanted = set(cases)
    return {
        name: {
            row["case_id"]: (line, row[name], number_of(row[name]))
            for line, row in rows
            if row["case_id"] in wanted and row[name].lower() not in missing
        }
        for name in columns
    }


def _wrong(path: str | Path, name: str, entries: Mapping[str, Entry]) -> list[str]:
    """A line for each entry of a column that is no number."""
    return [
        problem(
            f"{path}:{line}",
            f"{name} is {text[:60]!r}, no number",
            "correct it, or leave it empty",
        )
        for line, text, number in entries.values()
        if number is None
    ]
