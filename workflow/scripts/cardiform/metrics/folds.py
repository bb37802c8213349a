"""Figures of a k-fold: every case is held out once; means and intervals over the folds."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..errors import InputError, again, problem
from ..files import read_json, write_text
from ..labels import CHAMBERS_AND_GREAT_VESSELS
from ..tables import names_width
from .record import HELD_OUT_RECORD
from .summary import mean, mean_over_cases, mean_over_classes

CONFIDENCE = 0.95
ALL_CLASSES, GROUP = "all_classes", "chambers_and_great_vessels"
CASE_COLUMNS = ("fold", "case_id", "class", "figure", "value")
COLUMNS = ("class", "figure", "mean", "low_95", "high_95", "sd", "folds", "cases")


@dataclass(frozen=True)
class Fold:
    """What one fold's model makes of the cases that it is tested on.

    cases : case id -> class -> figure -> value; None where the scan cuts the class or nobody
        annotated it.
    missed : of a refinement, test cases that have the structure in their truth alone.
    """

    name: str
    cases: dict[str, dict[str, dict[str, float | None]]]
    missed: int = 0

    @classmethod
    def read(cls, name: str, path: Path, rule: str, tested: Sequence[str] = ()) -> Fold:
        """From metrics.json of a rule that works on held-out cases.

        rule : that made it.    tested : of a refinement, its test cases.

        Raises
        ------
        InputError
            The file is damaged, or of another rule.
        """
        found = read_json(path, again(rule))
        places = {"complete_labels": ("cases",), "refine_coronary": ("test",)}
        own = dict.fromkeys(places.get(rule, ("test", "test.cases")), "object")
        form = dataclasses.replace(HELD_OUT_RECORD, keys={**HELD_OUT_RECORD.keys, **own})
        form.check(path, found, again(rule))
        if found["kind"] != rule:
            fact = f"holds the figures of {found['kind']}"
            raise InputError(problem(path, fact, f"name metrics.json of {rule}"))
        if rule == "complete_labels":
            return cls(name, {case: _completed(rows) for case, rows in found["cases"].items()})
        if rule == "refine_coronary":
            return cls(name, _refined(path, tested), found["test"].get("cases_missed", 0))
        cases = {}
        for case_id, figures in found["test"]["cases"].items():
            cut = figures.get("cut", ())
            cases[case_id] = {
                label: dict.fromkeys(row) if label in cut else row
                for label, row in figures["model"].items()
            }
        return cls(name, cases)


def _completed(rows: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The classes of a case, each made from the others; the size of the volume error counts."""
    found = {}
    for label, row in rows.items():
        error = row["model"]["volume_error"]
        figures = {**row["model"], "volume_error": None if error is None else abs(error)}
        found[label] = dict.fromkeys(figures) if row.get("cut") else figures
    return found


def _refined(path: Path, tested: Iterable[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The test cases that have the structure: ``dice_against_truth``, say, on the fine grid, and
    on that of the label map (``own_dice_against_truth``)."""
    cases = {}
    for case_id in tested:
        file = path.parent / f"{case_id}.json"
        if not file.exists():
            continue
        found = read_json(file, again("refine_coronary"))
        figures = {
            f"{grid}{name}_{column}": value
            for grid, columns in (("", found), ("own_", found["own_grid"]))
            for column, row in columns.items()
            if column.endswith(("against_label", "against_truth")) and row
            for name, value in row.items()
        }
        cases[case_id] = {path.parents[1].name: figures}
    return cases


def read_folds(
    paths: Sequence[tuple[str, Path]], rule: str, tested: Sequence[Sequence[str]] = ()
) -> list[Fold]:
    """All folds; InputError where a case is tested by two of them: they are of several splits.

    paths : (name, metrics.json) of each fold.    tested : of a refinement, the test cases of each.
    """
    folds = [
        Fold.read(name, path, rule, names)
        for (name, path), names in zip(paths, tested or [()] * len(paths), strict=True)
    ]
    times = Counter(case_id for fold in folds for case_id in fold.cases)
    twice = sorted(case_id for case_id, number in times.items() if number > 1)
    if twice:
        where = ", ".join(str(path) for _, path in paths)
        fact = f"{', '.join(twice[:5])} is tested by several folds"
        raise InputError(problem(where, fact, "name the folds of one k-fold, each once"))
    return folds


def summary_rows(folds: Sequence[Fold]) -> list[dict]:
    """A row of ``COLUMNS`` per class and figure; groups of classes come last.

    The interval is that of Student's t for the means of the folds. Their training sets overlap, so
    it is somewhat too narrow (Bengio and Grandvalet, JMLR 2004: no unbiased estimate exists).
    """
    means = [mean_over_cases(list(fold.cases.values())) for fold in folds if fold.cases]
    for found in means:
        classes = list(found)
        found[GROUP] = mean_over_classes(found, CHAMBERS_AND_GREAT_VESSELS)
        found[ALL_CLASSES] = mean_over_classes(found, classes)
    counts = _case_counts(folds)
    rows = []
    for name in dict.fromkeys(name for found in means for name in found):
        for figure in dict.fromkeys(f for found in means for f in found.get(name, {})):
            values = [found.get(name, {}).get(figure) for found in means]
            known = [value for value in values if value is not None]
            if known:
                number = counts.get((name, figure), sum(len(fold.cases) for fold in folds))
                cells = (name, figure, mean(known), *spread(known), len(known), number)
                rows.append(dict(zip(COLUMNS, cells)))
    return rows


def spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Both ends of the 95 % interval of the mean, and the standard deviation of ``values``."""
    if len(values) < 2:
        return None, None, None
    sd = float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(len(values))
    middle = float(np.mean(values))
    return middle - half, middle + half, sd


def _case_counts(folds: Iterable[Fold]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for fold in folds:
        for classes in fold.cases.values():
            for name, row in classes.items():
                for figure, value in row.items():
                    counts[name, figure] += value is not None
    return counts


def case_rows(folds: Iterable[Fold]) -> list[dict]:
    """A row of ``CASE_COLUMNS`` per case, class and figure that is known."""
    return [
        dict(zip(CASE_COLUMNS, (fold.name, case_id, name, figure, value)))
        for fold in folds
        for case_id, classes in sorted(fold.cases.items())
        for name, row in classes.items()
        for figure, value in row.items()
        if value is not None
    ]


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """A CSV; what is None stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def table_of_folds(rows: Sequence[dict], figure: str = "dice") -> str:
    """The rows of one figure as lines of text."""
    width = names_width((row["class"] for row in rows), 28)
    lines = [f"{figure:{width}}{'mean':>8}{'95 % interval':>18}{'sd':>8}{'cases':>7}"]
    for row in rows:
        if row["figure"] == figure:
            ends = "-"
            if row["low_95"] is not None:
                ends = f"{row['low_95']:.3f} to {row['high_95']:.3f}"
            sd = "-" if row["sd"] is None else f"{row['sd']:.3f}"
            line = f"{row['class']:{width}}{row['mean']:>8.3f}{ends:>18}{sd:>8}{row['cases']:>7}"
            lines.append(line)
    return "\n".join(lines)
