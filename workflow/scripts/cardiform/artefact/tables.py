"""The label table that models share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, problem
from ..labels import LabelTable


def shared_table(
    tables: Sequence[tuple[Path, LabelTable, bool]], fact: str, remedy: str
) -> LabelTable:
    """The table with most classes, which all others equal, or are a part of where they may be.

    tables : of each model its file, its table, and whether it may leave classes out.
    fact, remedy : of a model with another table; ``fact`` ends before the file of the first.

    Raises
    ------
    InputError
        A line for each model with another table.
    """
    first, table, _ = max(tables, key=lambda item: len(item[1]))
    known = named(table)
    problems = [
        problem(path, f"{fact} {first}", remedy)
        for path, other, partial in tables
        if (own := named(other)) != known and not (partial and own < known)
    ]
    if problems:
        raise InputError(problems)
    return table


def named(table: LabelTable) -> set[tuple[int, str]]:
    """Values and names, which make tables alike: colours and titles do not count."""
    return {(c.value, c.name) for c in table}
