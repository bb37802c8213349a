"""The table of measures: a row per case, class, part and measure."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError, again, problem
from ..files import write_text
from ..formats import Format
from ..tables import read_table

COLUMNS = ("case_id", "class", "part", "measure", "value", "unit", "cut")
MEASURES = Format("measure table", dict.fromkeys(COLUMNS, "text"), marked=False)
# What a row is about; the same in every heart but for numbered parts.
KEYS = ("class", "part", "measure", "unit")
ML, CM2, MM, ONE = "ml", "cm2", "mm", "1"
WHOLE = "whole"  # a word: pandas takes an empty field for a number that is missing
NUMBERED = "branch_"  # parts that are counted: that of another heart is another vessel
DIGITS = "%.8g"


@dataclass(frozen=True)
class Measured:
    """One figure of a structure.

    structure : class name.    part : what of it; :data:`WHOLE`: all.
    unit : :data:`ML`, :data:`CM2`, :data:`MM` or :data:`ONE`.
    cut : the scan cuts off what is measured; the figure is that of the part in view.
    """

    structure: str
    measure: str
    value: float
    unit: str
    part: str = WHOLE
    cut: bool = False


def frame_of(case_id: str, rows: Iterable[Measured]) -> pd.DataFrame:
    """The measures of a case as :data:`COLUMNS`; those that are no number are left out."""
    found = [
        (case_id, row.structure, row.part, row.measure, float(row.value), row.unit, bool(row.cut))
        for row in rows
        if np.isfinite(row.value)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def write_frame(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    text = io.StringIO()
    frame.to_csv(text, index=False, float_format=DIGITS, lineterminator="\n")
    write_text(path, text.getvalue())


def read_measures(path: str | Path) -> pd.DataFrame:
    """A table of measures: ``value`` float64, ``cut`` bool, all else text.

    Raises
    ------
    InputError
        It is no such table, or not a whole one.
    """
    header, found = read_table(path, whole=True)
    MEASURES.check_header(path, header)
    frame = pd.DataFrame([row for _, row in found], columns=list(COLUMNS))
    values = pd.to_numeric(frame["value"], errors="coerce").astype(np.float64)
    wrong = ~np.isfinite(values) | ~frame["cut"].isin(["True", "False"])
    if wrong.any():
        line = found[int(np.argmax(wrong))][0]
        fact = "is no measure (value is a number, cut is True or False)"
        raise InputError(problem(f"{path}:{line}", fact, again("measure_shapes")))
    return frame.assign(value=values, cut=frame["cut"] == "True")
