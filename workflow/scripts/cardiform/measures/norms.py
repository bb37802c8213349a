"""What is usual in a cohort, and how far a heart lies from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError, problem
from ..formats import Format
from ..tables import read_table
from .table import KEYS, NUMBERED, WHOLE

SHARES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
COLUMNS = (*KEYS, "cases", "mean", "sd", "min", *SHARES, "max")
NORMS = Format("table of norms", dict.fromkeys(COLUMNS, "text"), marked=False)
REMEDY = "give the norms.csv of collect_measures"
LEAST_SPREAD = 1e-9  # of the mean: what does not vary has no z-score


def norms_of(measures: pd.DataFrame, least_cases: int) -> pd.DataFrame:
    """A row of :data:`COLUMNS` for every measure of at least so many hearts.

    measures : of :func:`cardiform.measures.table.read_measures`. Rows of what the scan cuts do not
        count, nor those of parts that are only numbered. sd is that of a sample (n - 1).
    """
    groups = _comparable(measures).groupby(list(KEYS), sort=True)["value"]
    found = groups.agg(["count", "mean", "std", "min", "max"])
    for name, share in SHARES.items():
        found[name] = groups.quantile(share)
    found = found.rename(columns={"count": "cases", "std": "sd"})
    return found[found["cases"] >= least_cases].reset_index()[list(COLUMNS)]


def scores_of(measures: pd.DataFrame, norms: pd.DataFrame) -> pd.DataFrame:
    """The measures that have a norm, with their ``z``: (value - mean) / sd.

    What the scan cuts has a row and no z: its value is that of the part in view.
    """
    known = norms[[*KEYS, "cases", "mean", "sd"]]
    found = measures.merge(known, on=list(KEYS), how="inner", sort=False)
    spread = found["sd"].where(found["sd"] > LEAST_SPREAD * found["mean"].abs())
    found["z"] = ((found["value"] - found["mean"]) / spread).where(~found["cut"])
    return found


def read_norms(path: str | Path) -> pd.DataFrame:
    """The norms of another cohort.

    Raises
    ------
    InputError
        It is no such table, or not a whole one.
    """
    header, rows = read_table(path, whole=True)
    NORMS.check_header(path, header)
    frame = pd.DataFrame([row for _, row in rows], columns=list(COLUMNS))
    numbers = [name for name in COLUMNS if name not in KEYS]
    if frame.empty:
        fact = "has no norm in it: too few hearts had a measure whole"
        raise InputError(problem(path, fact, "give the norms of a larger cohort, or none"))
    frame[numbers] = frame[numbers].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(frame[numbers]).all(axis=1) | (frame["sd"] < 0)
    if wrong.any():
        line = rows[int(np.argmax(wrong))][0]
        raise InputError(problem(f"{path}:{line}", "has an entry that is no number", REMEDY))
    if (twice := frame.duplicated(list(KEYS))).any():
        line = rows[int(np.argmax(twice))][0]
        raise InputError(problem(f"{path}:{line}", "is there twice", REMEDY))
    return frame


def _comparable(measures: pd.DataFrame) -> pd.DataFrame:
    """The rows that other hearts have too, and that are whole."""
    return measures[~measures["cut"] & ~measures["part"].str.startswith(NUMBERED)]


def wide(measures: pd.DataFrame) -> pd.DataFrame:
    """Hearts by measures: a row per case, a column per key; NaN where one lacks it or is cut."""
    return _comparable(measures).pivot_table(
        index="case_id", columns=list(KEYS), values="value", aggfunc="first"
    )


def summary_lines(measures: pd.DataFrame, norms: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """What there is, as lines of text."""
    cut = measures.loc[measures["cut"], ["case_id", "class"]].drop_duplicates()
    lines = [
        f"{measures['case_id'].nunique()} cases, {len(measures)} measures, {len(norms)} norms; "
        f"{len(cut)} cut structures count in none"
    ]
    far = scores[np.abs(scores["z"]) > 3].sort_values("z", key=np.abs, ascending=False)
    for row in far.head(10).itertuples(index=False):
        part = "" if row.part == WHOLE else f" {row.part}"
        name = f"{row[1]}{part} {row.measure}"  # "class" is no name of an attribute
        lines.append(f"{row.case_id}: {name} {row.value:.4g} {row.unit} (z {row.z:+.1f})")
    return lines
