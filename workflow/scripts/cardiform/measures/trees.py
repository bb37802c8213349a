"""What was traced of a vessel tree, as measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..cohort.table import Case
from ..coronary.trace_case import SUMMARY
from ..coronary.tree_files import CUT, read_branches
from .table import MM, ONE, WHOLE, Measured
from .tubes import numbered

BRANCHES_FILE, SUMMARY_FILE = "branches.csv", "summary.json"
WORDS = ("mean", "min", "max")


def tree_inputs(case: Case, trees: Path) -> list[Path]:
    """The files of trace_coronary that belong to a case."""
    return [trees / case.case_id / BRANCHES_FILE, trees / case.case_id / SUMMARY_FILE]


def tree_measures(folder: Path) -> Iterator[Measured]:
    """Length, branches and radius of all trees together, of each vessel by name, of each branch.

    folder : of trace_coronary, of one case.

    Raises
    ------
    InputError
        Its files are missing or damaged.
    """
    summary = SUMMARY.load(folder / SUMMARY_FILE)
    rows = read_branches(folder / BRANCHES_FILE)
    if not rows:
        return
    name, is_cut = summary["structure"], summary["cut"]
    yield from _together(name, rows, WHOLE, is_cut)
    yield Measured(name, "trees", len(summary["trees"]), ONE, cut=is_cut)
    for vessel in sorted(summary["names"]):
        own = [row for row in rows if row["name"] == vessel]
        yield from _together(name, own, vessel, any(row["ends_in"] == CUT for row in own))
    for row in rows:
        part, ends_cut = numbered(int(row["branch"])), row["ends_in"] == CUT
        yield Measured(name, "length", float(row["length_mm"]), MM, part, ends_cut)
        for word in WORDS:
            value = float(row[f"radius_{word}_mm"])
            yield Measured(name, f"radius_{word}", value, MM, part, ends_cut)


def _together(name: str, rows: list[dict[str, str]], part: str, cut: bool) -> Iterator[Measured]:
    """What some branches are together; the mean radius is over their length."""
    lengths = [float(row["length_mm"]) for row in rows]
    means, least, most = ([float(row[f"radius_{word}_mm"]) for row in rows] for word in WORDS)
    length = sum(lengths)
    yield Measured(name, "centreline_length", length, MM, part, cut)
    yield Measured(name, "branches", len(rows), ONE, part, cut)
    if length > 0:
        mean = sum(a * b for a, b in zip(lengths, means)) / length
        yield Measured(name, "radius_mean", mean, MM, part, cut)
        yield Measured(name, "radius_min", min(least), MM, part, cut)
        yield Measured(name, "radius_max", max(most), MM, part, cut)
