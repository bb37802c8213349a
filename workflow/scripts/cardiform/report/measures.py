"""Measures of the cohort: what is usual, and the hearts that lie far from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InputError, again, problem
from ..labels import LabelTable
from ..tables import read_table
from .charts import boxes
from .parts import Chart, Results, Section, Table, number, structures, words

WHOLE = "whole"  # as cardiform.measures.table has it
FAR = 3.0  # standard deviations
MOST_ROWS = 40
NAMES = ("class", "part", "measure", "unit")
FIGURES = ("mean", "sd", "p05", "median", "p95")


def measures_section(results: Results, labels: LabelTable) -> Section | None:
    """Norms and outliers of target measures; None where it was not asked for."""
    norms = _rows(results, "norms.csv", (*NAMES, "cases", *FIGURES))
    scores = _rows(results, "zscores.csv", ("case_id", *NAMES, "value", "z"))
    far = [row for row in scores if row["z"] and abs(float(row["z"])) > FAR]
    far.sort(key=lambda row: -abs(float(row["z"])))
    tables = []
    if far:
        rows = [
            [
                *words(row["case_id"], *(row[name] for name in NAMES)),
                number(float(row["value"]), ".4g"),
                number(float(row["z"]), "+.1f"),
            ]
            for row in far[:MOST_ROWS]
        ]
        more = len(far) - len(rows)
        note = f"and {more} more, see measures/zscores.csv" if more else ""
        title = f"More than {FAR:g} standard deviations from the mean"
        tables.append(Table(title, ("case", *NAMES, "value", "z"), rows, note))
    if norms:
        rows = [
            [
                *words(*(row[name] for name in NAMES), row["cases"]),
                *(number(float(row[figure]), ".4g") for figure in FIGURES),
            ]
            for row in norms
        ]
        columns = (*NAMES, "cases", *FIGURES)
        tables.append(Table("What is usual in this cohort", columns, rows, folded=True))
    text = (
        "Every measure of every heart is in measures/measures.csv; what a scan cuts counts in none."
    )
    charts = _volumes(scores, labels)
    return Section("measures", "Measures", text, tables, charts) if tables or charts else None


def _volumes(scores: Sequence[Mapping[str, str]], labels: LabelTable) -> list[Chart]:
    """Volumes of every heart against what is usual: deviations from the mean."""
    found: dict[str, dict[str, float]] = {}
    for row in scores:
        if (row["measure"], row["part"]) == ("volume", WHOLE) and row["z"]:
            found.setdefault(row["class"], {})[row["case_id"]] = float(row["z"])
    series = {
        title: (list(found[name].values()), list(found[name]), color)
        for name, title, color in structures(found, labels)
    }
    if not series:
        return []
    figure = boxes(series, "standard deviations from the mean", from_zero=False)
    return [Chart("Volumes against what is usual", figure, 420)]


def _rows(results: Results, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a table of the measures; none where it is not there.

    Raises
    ------
    InputError
        It is damaged, or no such table.
    """
    results.last = path = results.folder / "measures" / name
    if not path.is_file():
        return []
    header, rows = read_table(path, whole=True)
    if lacking := [column for column in columns if column not in header]:
        fact = f"has no column {', '.join(lacking)}"
        raise InputError(problem(path, fact, again("collect_measures")))
    return [row for _, row in rows]
