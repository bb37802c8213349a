"""The new cases: label maps or a table, looked at before any compute is spent."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..cohort.checks import REPORT, check_cases, notes
from ..cohort.found_files import case_name, files_of
from ..cohort.table import OK, SKIPPED, Case, check_column, id_remedy, read_case_table
from ..errors import InputError, problem
from ..labels import LabelTable

log = logging.getLogger(__name__)

COARSER = 3.0  # times the training's voxels: from here on thin structures get lost
UNKNOWN_LABEL = "remap it to the classes that the models were trained with"


@dataclass(frozen=True)
class Looked:
    """The cases after a look at their files.

    cases : all; the bad ones are skipped, with their reasons.    problems : of the bad ones.
    notes : case id -> remarks about it.
    """

    cases: list[Case]
    problems: list[str]
    notes: dict[str, list[str]]


def cases_of_files(paths: Sequence[str]) -> list[Case]:
    """A case per label map, called by its file name; folders and quoted patterns are followed.

    Raises
    ------
    InputError
        Of every name: it cannot be one of a case, or two files would be the same case; nothing
        fits a folder or a pattern.
    """
    problems: list[str] = []
    found: dict[str, str] = {}
    for path in _followed(paths, problems):
        name = case_name(Path(path).name)
        if not name:
            fact = "is not called like a label map"
            problems.append(
                problem(path, fact, "name files that end in .nii.gz, .nii, .mgz or .hdr")
            )
        elif remedy := id_remedy(name):
            fact = f"would be the case {name[:60]!r}, which is not usable"
            problems.append(problem(path, fact, f"{remedy}, or give a case table (--table)"))
        elif name in found:
            fact = f"would be the case {name}, as {found[name]}"
            problems.append(problem(path, fact, "give both an id in a case table (--table)"))
        else:
            found[name] = path
    if problems:
        raise InputError(problems)
    return [Case(case_id=name, patient_id=name, labels=path) for name, path in found.items()]


def _followed(paths: Iterable[str], problems: list[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            try:
                found += [str(f.path) for f in files_of("labels", path)[0]]
            except InputError as error:
                problems += error.problems
        elif glob.has_magic(path) and not Path(path).exists():
            fitting = sorted(glob.glob(path, recursive=True))
            if not fitting:
                problems.append(problem(path, "fits no file", "correct the pattern"))
            found += fitting
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def cases_of_table(path: str | Path, select: Iterable[str] = ()) -> list[Case]:
    """The cases of a table; of their files label map and truth alone count.

    Raises
    ------
    InputError
        What is wrong with the table (:func:`cardiform.cohort.table.read_case_table`), or it names
        no label map.
    """
    cases = read_case_table(path, select)
    check_column(cases, "labels", path)
    return [replace(case, image="", pointcloud="", meshes="") for case in cases]


def look_at(
    cases: Sequence[Case],
    table: LabelTable,
    *,
    out: Path,
    manifest: Path,
    training_mm: Sequence[float],
) -> Looked:
    """Check every case's files: ``out/cases/<case_id>.json`` and a manifest.

    training_mm : geometric means of the voxel edges of training cases.
    """
    check_cases(
        cases,
        table,
        out=out,
        manifest=manifest,
        processes=1,
        unknown=UNKNOWN_LABEL,
        quiet=True,  # each case has a line when it is done
    )
    looked, problems, remarks, reports = [], [], {}, []
    for case in cases:
        if case.status == OK:
            report = REPORT.load(out / "cases" / f"{case.case_id}.json")
            reports.append(report)
            problems += [f"case {case.case_id}: {line}" for line in report["problems"]]
            report["warnings"] += _coarse(report, training_mm)
            remarks[case.case_id] = report["warnings"]
            if report["problems"]:
                reason = " ".join("; ".join(report["problems"]).split())
                case = replace(case, status=SKIPPED, reason=reason)
        looked.append(case)
    for line in notes(reports):
        log.warning("%s", line)
    return Looked(looked, problems, remarks)


def _coarse(report: dict, training_mm: Sequence[float]) -> list[str]:
    """A warning where the voxels are far larger than those of the training."""
    if not training_mm or "spacing_mm" not in report:
        return []
    usual = median(training_mm)
    own = float(np.prod(report["spacing_mm"]) ** (1 / 3))
    if own < COARSER * usual:
        return []
    times = f"{own / usual:.1f} times the {usual:.2g} mm of the training"
    return [f"voxels of {own:.2g} mm, {times}: what is thinner than a voxel is lost"]
