"""Every case looked at before any compute is spent: problems, warnings and figures per case."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import outputs
from ..errors import InputError, again, problem
from ..files import future_problems, sha256_file, write_json
from ..formats import Format
from ..labels import LabelTable
from ..volumes import (
    LabelMap,
    axes_like,
    corners_apart_mm,
    image_grid,
    load_label_map,
    place_tolerance_mm,
)
from . import per_case
from .contents import (
    LookAtMesh,
    check_point_cloud,
    extent_problems,
    image_doubts,
    judged,
    mesh_doubts,
    truth_doubts,
)
from .table import OK, Case

REPORT = Format(
    "check-report",
    {
        "case_id": "text",
        "sha256": "text (F)",
        "problems": "text (P)",
        "warnings": "text (W)",
        "classes": "object",
        "classes.*.voxels": "integer",
        "classes.*.volume_ml": "number",
        "classes.*.components": "integer",
        "classes.*.touches_border": "bool",
        "cut?": "text (K)",
        "shape?": "integer (3)",
        "spacing_mm?": "number (3)",
        "files?": "text (F)",
    },
    again("check_cases"),
    marked=False,
)
# A surface is about a tenth of the coarsest voxel edge accurate: beyond these it shows.
MAX_SPACING_MM = 3.0
MAX_SPACING_RATIO = 4.0
# Beyond these no heart is scanned: a header with another unit.
PLAUSIBLE_SPACING_MM = (0.01, 50.0)
# Fewer voxels than this make a speck, not a structure.
MIN_CLASS_VOXELS = 9
NAMED = 3  # cases that a note names
UNKNOWN_LABEL = "add it to the table of cohort.labels, or remap it"


def check_case(
    case: Case,
    table: LabelTable,
    folder: Path,
    unknown: str = UNKNOWN_LABEL,
    look_at_mesh: LookAtMesh | None = None,
) -> list[Path]:
    """Check one case and write ``folder/<case_id>.json``; never raises for bad input.

    unknown : what to do about a label that the table lacks.
    look_at_mesh : what is doubtful about a mesh file, or InputError; None: nobody looks into them.
        Its second argument: whether the inside is needed, as it is where there is no label map.

    The report holds ``sha256`` of the files (so a changed one is another report, a moved one
    is not), ``problems`` (the case cannot be used) and then ``files``, ``warnings``; of a label
    map ``shape``, ``spacing_mm`` and, per class name, ``voxels``, ``volume_ml``, ``components``
    and ``touches_border``; ``cut``, the cut classes, where the case table says something of them.
    """
    report: dict[str, Any] = {
        "case_id": case.case_id,
        "sha256": [sha256_file(p) if _is_readable(p) else "" for p in _columns(case)],
        "problems": [],
        "warnings": [],
        "classes": {},
    }
    problems: list[str] = report["problems"]
    problems += _cut_problems(case, table)
    labels = judged(load_label_map, case.labels, problems) if case.labels else None
    look = functools.partial(mesh_doubts, look=look_at_mesh, inside=not case.labels)
    doubts = [judged(look, path, problems) or [] for path in case.mesh_files]
    doubts += [
        judged(check, path, problems) or []
        for path, check in (
            (case.image, functools.partial(image_doubts, labels=labels)),
            (case.pointcloud, functools.partial(check_point_cloud, table=table)),
            (case.truth, functools.partial(truth_doubts, labels=labels, table=table)),
        )
        if path
    ]
    if labels is not None:
        report["problems"] += _label_problems(case, labels, table, unknown)
        report["problems"] += extent_problems(case, labels)
        report |= describe(labels, table)
        if case.cut:
            report["cut"] = case.cut_classes(cut_in(report))
        report["warnings"] = _warnings(report, table)
    report["warnings"] += itertools.chain(*doubts)
    if report["problems"]:
        report["files"] = _columns(case)
    output = folder / f"{case.case_id}.json"
    write_json(output, report)
    return [output]


def check_cases(
    cases: Sequence[Case],
    table: LabelTable,
    *,
    out: Path,
    manifest: Path,
    processes: int,
    unknown: str = UNKNOWN_LABEL,
    look_at_mesh: LookAtMesh | None = None,
    quiet: bool = False,
) -> None:
    """Check cases, finished ones excepted: ``out/cases/<case_id>.json`` and the manifest."""
    folder = out / "cases"
    _forget_outdated(cases, folder)
    per_case.run_cases(
        per_case.CaseRun(cases, out, manifest, processes),
        functools.partial(
            check_case, table=table, folder=folder, unknown=unknown, look_at_mesh=look_at_mesh
        ),
        inputs=lambda case: list(filter(_is_readable, case.files)),
        parameters={"labels": table.as_dicts(), **table.other_parts},
        verdict=_verdict,
        quiet=quiet,
    )


def _is_readable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def late_files(cases: Iterable[Case], *tables: str) -> list[str]:
    """Problems of the tables that are named, and of the cases' files, with a date in the future."""
    return future_problems([*filter(None, tables), *(path for c in cases for path in c.files)])


def _forget_outdated(cases: Iterable[Case], folder: Path) -> None:
    """Delete reports that cannot be read, and those about other files or other columns: the state
    of a case knows what was in the files, not how they are called, and a missing one not at all."""
    for case in cases:
        path = folder / f"{case.case_id}.json"
        if path.is_file() and outputs.is_ours(path) and _is_outdated(path, case):
            path.unlink()


def _is_outdated(path: Path, case: Case) -> bool:
    """Whether a report cannot be read, or reports on other files (of a good case: columns)."""
    try:
        report = REPORT.load(path)
    except InputError:
        return True
    if report["problems"]:
        return report.get("files") != _columns(case)
    return list(map(bool, report["sha256"])) != list(map(bool, _columns(case)))


def _verdict(report: Path) -> str:
    """``bad`` where the case of a report cannot be used, else empty."""
    return "bad" if REPORT.load(report)["problems"] else ""


def _columns(case: Case) -> list[str]:
    return [case.labels, case.image, case.pointcloud, case.truth, *case.mesh_files]


def describe(labels: LabelMap, table: LabelTable) -> dict:
    """Shape, spacing and the figures of every class that is there."""
    import cc3d

    voxel_ml = float(abs(np.linalg.det(labels.affine[:3, :3])) / 1000)
    classes = {}
    for label in table:
        box = labels.boxes.get(label.value)
        if box is None:
            continue
        # without a rim cc3d raises on specks within a slice; turned as the data lie in memory
        mask = np.pad(label.value == labels.data[box].T, 1)
        voxels = int(np.count_nonzero(mask))
        _, components = cc3d.connected_components(mask, connectivity=26, return_N=True)
        classes[label.name] = {
            "voxels": voxels,
            "volume_ml": round(voxels * voxel_ml, 4),
            "components": int(components),
            "touches_border": any(
                part.start == 0 or part.stop == n for part, n in zip(box, labels.data.shape)
            ),
        }
    return {
        "shape": list(labels.data.shape),
        "spacing_mm": [round(float(s), 4) for s in labels.spacing],
        "classes": classes,
    }


def cut_in(report: Mapping) -> list[str]:
    """Names of the classes of a report that the scan cuts: no volume of theirs is whole."""
    at_border = [name for name, found in report["classes"].items() if found["touches_border"]]
    return report.get("cut", at_border)


def judge(
    cases: Sequence[Case],
    found: Mapping[str, Path],
    *,
    on_bad_case: str,
    max_bad_cases: int,
    others: Sequence[str] = (),
) -> tuple[list[Case], list[dict]]:
    """Cases with their status, and the reports of those that the case table does not skip.

    found : case id -> its report of :func:`check_case`.
    others : problems that no skipping of cases removes.

    Raises
    ------
    InputError
        A case has no report; or all problems of all cases, where ``on_bad_case`` is ``stop``
        or more than ``max_bad_cases`` are bad; or there are others, or no case is left.
    """
    wanted = [case for case in cases if case.status == OK]
    unseen = [case.case_id for case in wanted if case.case_id not in found]
    if unseen:
        raise InputError(f"cohort: {', '.join(unseen)} were not checked; run check_cases")
    reports = [REPORT.load(found[case.case_id]) for case in wanted]
    bad = {r["case_id"]: r["problems"] for r in reports if r["problems"]}
    lines = [f"case {name}: {line}" for name, found in bad.items() for line in found]
    lines += others
    if bad and on_bad_case == "stop":
        hint = "cohort: set cohort.on_bad_case to skip to go on without"
        raise InputError([*lines, f"{hint} {len(bad)} of {len(wanted)} cases"])
    if others:
        raise InputError(lines)
    if len(bad) > max_bad_cases:
        raise InputError(
            [*lines, f"cohort: {len(bad)} bad cases; max_bad_cases is {max_bad_cases}"]
        )
    if len(bad) == len(wanted):
        raise InputError([*lines, "cohort: no usable case is left; repair the files above"])
    judged = [
        replace(case, status="skipped", reason=" ".join("; ".join(bad[case.case_id]).split()))
        if case.case_id in bad
        else case
        for case in cases
    ]
    return judged, reports


def summarise(reports: Sequence[dict], table: LabelTable) -> dict:
    """Per class over all good cases: in how many, and the spread of their volumes in ml.

    Of cut classes only their number counts.
    """
    summary = {}
    for label in table:
        having = [r for r in reports if label.name in r["classes"]]
        found = [r["classes"][label.name] for r in having]
        whole = [r["classes"][label.name] for r in having if label.name not in cut_in(r)]
        volumes = np.array([c["volume_ml"] for c in whole])
        cut = {"cut": len(found) - len(whole)} if len(found) > len(whole) else {}
        summary[label.name] = {"cases": len(found), **cut} | (
            {
                "volume_ml": {
                    "mean": round(float(volumes.mean()), 3),
                    "sd": round(float(volumes.std()), 3),
                    "min": round(float(volumes.min()), 3),
                    "max": round(float(volumes.max()), 3),
                }
                if whole
                else None,
                "touches_border": sum(c["touches_border"] for c in found),
                "other_components": sum(c["components"] not in label.expected for c in whole),
            }
            if found
            else {}
        )
    return summary


def _cut_problems(case: Case, table: LabelTable) -> list[str]:
    """Of the column cut of the case table: names that the label table lacks."""
    unknown = [name for name in case.cut_classes([]) if name not in table.names]
    if not unknown:
        return []
    fact = f"{', '.join(unknown)} is no class of the label table"
    remedy = f"write none, or names of {', '.join(table.names)}"
    return [problem("column cut of the case table", fact, remedy)]


def _label_problems(case: Case, labels: LabelMap, table: LabelTable, remedy: str) -> list[str]:
    problems = []
    unknown = [value for value in labels.boxes if value not in table.values]
    if unknown:
        problems.append(
            problem(
                case.labels,
                f"label {', '.join(map(str, unknown))} is not in the label table "
                f"({_ranges(table.values)})",
                remedy,
            )
        )
    elif not labels.boxes:
        problems.append(
            problem(case.labels, "holds no class of the label table", "segment at least one")
        )
    if case.image:
        problems += _grid_problems(case, labels)
    return problems


def _grid_problems(case: Case, labels: LabelMap) -> list[str]:
    try:
        shape, affine = image_grid(case.image)
    except InputError:
        return []  # reported already, as the image's own problem
    remedy = "resample one to the other's grid"
    # stored in another order, an image still has its voxels in the same places
    shape, affine = axes_like(shape, affine, labels.affine)
    if tuple(shape) != labels.data.shape:
        text = f"shape {tuple(shape)} differs from the label map's {labels.data.shape}"
        return [problem(case.image, text, remedy)]
    worst = corners_apart_mm(shape, affine, labels.affine)
    if worst > place_tolerance_mm(shape, labels.spacing):
        text = f"lies up to {worst:.3g} mm beside the label map {case.labels}"
        return [problem(case.image, text, remedy)]
    return []


def _warnings(report: dict, table: LabelTable) -> list[str]:
    warnings = []
    spacing = report["spacing_mm"]
    if max(spacing) > MAX_SPACING_MM or max(spacing) > MAX_SPACING_RATIO * min(spacing):
        warnings.append(f"coarse grid: {' x '.join(map(str, spacing))} mm")
    least, most = PLAUSIBLE_SPACING_MM
    if not least <= min(spacing) <= max(spacing) <= most:
        text = " x ".join(f"{s:g}" for s in spacing)
        warnings.append(f"spacing of {text} mm: are the header's units right?")
    for label in table:
        found = report["classes"].get(label.name)
        if found is None:
            warnings.append(f"{label.name} is missing")
            continue
        if found["voxels"] < MIN_CLASS_VOXELS:
            warnings.append(f"{label.name} has {found['voxels']} voxels only")
        if found["components"] not in label.expected:
            parts, expected = found["components"], label.expected_text
            warnings.append(f"{label.name} has {parts} components, expected {expected}")
        if label.name in cut_in(report):
            edge = "by the image border" if found["touches_border"] else "as the case table says"
            warnings.append(f"{label.name} is cut {edge}")
    return warnings


def notes(reports: Iterable[Mapping]) -> list[str]:
    """The warnings of all cases, each once, with the cases that it is about."""
    cases: dict[str, list[str]] = {}
    for report in reports:
        for warning in report["warnings"]:
            cases.setdefault(warning, []).append(report["case_id"])
    lines = []
    for warning, names in sorted(cases.items(), key=lambda item: -len(item[1])):
        named = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        lines.append(f"{warning}: {len(names)} of the cases ({named})")
    return lines


def _ranges(values: Sequence[int]) -> str:
    """Class values as people write them: 1-10, 12."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
