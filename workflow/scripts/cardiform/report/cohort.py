"""The cohort: its cases, which were left out and why, volumes, cut structures, the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cohort.checks import cut_in
from ..cohort.splits import read_split
from ..cohort.table import OK, read_case_table
from ..labels import LabelTable
from .charts import boxes, histogram
from .parts import Chart, Results, Section, Table, needed, number, structures, titles_of, words

QC = "qc/cohort.json"
PARTS = {"train": "training", "val": "validation", "test": "test"}
MOST_ROWS, MOST_NAMES = 50, 12


def cohort_section(results: Results, labels: LabelTable) -> Section:
    """Volumes over the cases and what was left out."""
    found = needed(results, QC)
    cases = read_case_table(results.folder / "cases.tsv")
    skipped = [case for case in cases if case.status != OK]
    tables = [_volumes(results, labels), *_cut(found["cases"], labels), _grids(found["cases"])]
    if skipped:
        rows = [words(case.case_id, case.reason) for case in skipped[:MOST_ROWS]]
        more = len(skipped) - len(rows)
        note = f"and {more} more, see cases.tsv" if more else ""
        tables.append(Table("Left out", ("case", "why"), rows, note))
    warned = [c for c in found["cases"] if c["warnings"]]
    if warned:
        rows = [words(c["case_id"], "; ".join(c["warnings"])) for c in warned[:MOST_ROWS]]
        more = len(warned) - len(rows)
        note = f"and {more} more, see {QC}" if more else ""
        tables.append(Table("Used, with a warning", ("case", "what was noticed"), rows, note))
    text = f"{len(cases)} cases, of which {len(cases) - len(skipped)} are used."
    charts = [_volume_chart(found["cases"], labels), *_edges(found["cases"])]
    return Section("cohort", "Cohort", text, tables, charts)


def split_section(results: Results) -> Section | None:
    """How many cases each part has, and which."""
    rows = []
    for part, title in PARTS.items():
        path = results.folder / "split" / f"{part}.csv"
        if path.is_file():
            names = [case_id for case_id, _ in read_split(path)]
            more = ", …" if len(names) > MOST_NAMES else ""
            shown = ", ".join(names[:MOST_NAMES]) + more
            rows.append(words(title, len(names), shown))
    if not rows:
        return None
    text = "Cases of one patient stay together. Figures are of cases that no model was trained on."
    return Section("split", "Split", text, [Table("", ("part", "cases", "which"), rows)])


def _volumes(results: Results, labels: LabelTable) -> Table:
    rows, titles = [], titles_of(labels)
    for label in labels:
        keys = ("classes", label.name)
        if label.name not in results.json(QC)["classes"]:
            continue
        volume = [
            results.number(QC, (*keys, "volume_ml", name), ".1f")
            for name in ("mean", "sd", "min", "max")
        ]
        counts = [
            results.number(QC, (*keys, name), ".0f")
            for name in ("cases", "touches_border", "other_components")
        ]
        rows.append([*words(titles[label.name]), counts[0], *volume, *counts[1:]])
    columns = (
        "structure", "cases", "mean ml", "sd", "least", "most", "cut by the border",
        "unusual number of parts",
    )  # fmt: skip
    note = "Volumes of label maps. Where the border cuts a structure its volume is not whole."
    return Table("Structures", columns, rows, note)


def _grids(cases: Sequence[Mapping[str, Any]]) -> Table:
    """The least and largest voxel edge along each axis."""
    known = [case["spacing_mm"] for case in cases if case.get("spacing_mm")]
    rows = []
    for axis, name in enumerate("xyz"):
        edges = [spacing[axis] for spacing in known]
        if edges:
            middle = sorted(edges)[len(edges) // 2]
            cells = [number(value, ".2f") for value in (min(edges), middle, max(edges))]
            rows.append([*words(name), *cells])
    return Table("Voxel edges, mm", ("axis", "least", "median", "largest"), rows)


def _edges(cases: Sequence[Mapping[str, Any]]) -> list[Chart]:
    known = [case["spacing_mm"] for case in cases if case.get("spacing_mm")]
    series = {axis: [spacing[k] for spacing in known] for k, axis in enumerate("xyz")}
    return [Chart("Voxel edges", histogram(series, "mm"), 300)] if known else []


def _cut(cases: Sequence[Mapping[str, Any]], labels: LabelTable) -> list[Table]:
    """Structure by structure the cases in which it is cut; nothing where none is."""
    found: dict[str, list[str]] = {}
    for case in cases:
        for name in cut_in(case):
            found.setdefault(name, []).append(case["case_id"])
    rows = []
    for name, title, _ in structures(found, labels):
        shown = ", ".join(found[name][:MOST_NAMES])
        more = len(found[name]) - MOST_NAMES
        rows.append(words(title, f"{shown} and {more} more, see {QC}" if more > 0 else shown))
    title = "Cut structures, by the border of the label map or as the case table says"
    return [Table(title, ("structure", "cases"), rows, folded=True)] if rows else []


def _volume_chart(cases: Sequence[Mapping[str, Any]], labels: LabelTable) -> Chart:
    series, titles = {}, titles_of(labels)
    for label in labels:
        found = [c["classes"][label.name]["volume_ml"] for c in cases if label.name in c["classes"]]
        if found:
            names = [c["case_id"] for c in cases if label.name in c["classes"]]
            series[titles[label.name]] = (found, names, label.color)
    return Chart("Volumes", boxes(series, "ml"), 420)
