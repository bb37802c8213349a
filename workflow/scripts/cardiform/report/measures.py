"""Measures of the cohort: what is usual, and the hearts that lie far from it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from .parts import Results, Section, Table, number, words

FAR = 3.0  # standard deviations
MOST_ROWS = 40
NAMES = ("class", "part", "measure", "unit")


def measures_section(results: Results) -> Section | None:
    """Norms and outliers of target measures; None where it was not asked for."""
    folder = results.folder / "measures"
    norms = list(_rows(folder / "norms.csv"))
    far = [row for row in _rows(folder / "zscores.csv") if row["z"] and abs(float(row["z"])) > FAR]
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
        figures = ("mean", "sd", "p05", "median", "p95")
        rows = [
            [
                *words(*(row[name] for name in NAMES), row["cases"]),
                *(number(float(row[figure]), ".4g") for figure in figures),
            ]
            for row in norms
        ]
        columns = (*NAMES, "cases", *figures)
        tables.append(Table("What is usual in this cohort", columns, rows, folded=True))
    text = (
        "Every measure of every heart is in measures/measures.csv; what a scan cuts counts in none."
    )
    return Section("measures", "Measures", text, tables) if tables else None


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
