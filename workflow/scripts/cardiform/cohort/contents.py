"""What is in the files of a case beside its label map, and in those of several cases."""

from __future__ import annotations

import collections
import itertools
import logging
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line, memory_fact, problem
from ..files import NO_ROOM
from ..labels import LabelTable
from ..volumes import (
    LabelMap,
    check_extent,
    check_hounsfield,
    check_in_view,
    check_truth,
    labelled_box,
    labels_on,
    load_image,
    load_label_map,
)
from .found_files import MESHES
from .free_columns import NO_NUMBER
from .table import Case

log = logging.getLogger(__name__)

LookAtMesh = Callable[[str, bool], list[str]]  # of geometry, which this room does not know
COLUMNS = ("label map", "image", "point cloud", "truth")  # as the reports have their hashes
NAMED = 3  # patients that a warning names
NOBODY = (*NO_NUMBER, "unknown")  # no name of a patient


def judged(check: Callable[[str], Any], path: str, problems: list[str]) -> Any:
    """What ``check`` makes of a file; None where it finds problems, which are added.

    Whatever a library says of a file that it cannot read is a problem of this file alone.
    """
    try:
        return check(path)
    except InputError as error:
        problems += error.problems
    except Exception as error:
        if memory_fact(error) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        log.debug("%s", path, exc_info=True)
        fact = f"cannot be read ({type(error).__name__}: {first_line(error)})"
        problems.append(problem(path, fact, "export the file again"))
    return None


def image_doubts(path: str | Path, labels: LabelMap | None) -> list[str]:
    """Warnings of a CT, which is judged as a CT window judges it.

    labels : of the same case; None where they could not be read.

    Raises
    ------
    InputError
        Unreadable file, or no Hounsfield units (:func:`cardiform.volumes.check_hounsfield`).
    """
    image, affine = load_image(path)
    return check_hounsfield(path, image, labels_on(labels, image.shape, affine))


def extent_problems(case: Case, labels: LabelMap) -> list[str]:
    """That the label map is too small to be sampled; empty where it holds nothing."""
    if not labels.boxes:
        return []
    low, high = labelled_box(labels)
    try:
        check_extent(case.labels, high - low + 1, labels.spacing)
        if case.may_be_cut:
            check_in_view(case.labels, labels)
    except InputError as error:
        return error.problems
    return []


def truth_doubts(path: str | Path, labels: LabelMap | None, table: LabelTable) -> list[str]:
    """Warnings of an expert's label map (:func:`cardiform.volumes.check_truth`)."""
    return check_truth(path, load_label_map(path), labels, dict(zip(table.values, table.names)))


def mesh_doubts(path: str | Path, look: LookAtMesh | None, inside: bool) -> list[str]:
    """What is odd about a mesh file; InputError where it is unfit, or ``path`` is a folder that
    holds none.

    look : looks into the file; None: nobody does.    inside : its inside must be defined.
    """
    if os.path.isdir(path):
        fact = f"has no file that ends in {', '.join(MESHES)}"
        raise InputError(problem(path, fact, "correct the column meshes"))
    return look(str(path), inside) if look else []


def check_point_cloud(path: str | Path, table: LabelTable) -> list[str]:
    """What is odd about an HDF5 point cloud; InputError where it cannot be converted."""
    from ..volumes.clouds import cloud_of_case

    if not os.path.isfile(path):
        raise InputError(problem(path, "does not exist", "correct the path in the case table"))
    cloud = cloud_of_case(path)
    if cloud.labels is not None and not np.isin(cloud.labels, table.values).any():
        fact = "has no point of a class of the label table"
        raise InputError(problem(path, fact, "correct its labels, or the table"))
    return [f"point cloud: {cloud.note}"] if cloud.note else []


def warn_of_patients(cases: Iterable[Case], reports: Iterable[dict]) -> None:
    """Add a warning to the reports of cases that have a file of another patient, and of those whose
    patient is named as what is missing.

    Of two patients one may be trained on and the other tested; two cases of one patient never are.
    """
    patients = {case.case_id: case.patient_id for case in cases}
    of_patient = collections.Counter(patients.values())
    having: dict[str, set[str]] = {}
    alike: dict[tuple, set[str]] = {}
    reports = list(reports)
    for report in reports:
        patient = patients[report["case_id"]]
        for sha256 in filter(None, report["sha256"]):
            having.setdefault(sha256, set()).add(patient)
        alike.setdefault(_counts(report), set()).add(patient)
    for report in reports:
        patient = patients[report["case_id"]]
        if patient.lower() in NOBODY and of_patient[patient] > 1:
            report["warnings"].append(_unnamed(patient, of_patient[patient]))
        label_map, counts = report["sha256"][0], _counts(report)
        if len(counts) > 1 and alike[counts] - having.get(label_map, set()):
            report["warnings"].append(_alike(alike[counts]))
        columns = itertools.chain(COLUMNS, itertools.repeat("mesh"))
        for column, sha256 in zip(columns, report["sha256"]):
            if len(having.get(sha256, ())) > 1:
                report["warnings"].append(_shared(column, having[sha256]))


def _counts(report: dict) -> tuple:
    """Of a label map: what a copy has, too, whose file is another one (compressed anew, say)."""
    classes = report["classes"].items()
    return tuple((name, found["voxels"], found["components"]) for name, found in classes)


def _alike(patients: Collection[str]) -> str:
    return (
        f"the label maps of {len(patients)} patients ({_named(patients)}) have as many voxels in "
        "each class: if it is one heart, give them one patient_id, or training and test may share "
        "it"
    )


def _unnamed(patient: str, cases: int) -> str:
    return (
        f"{cases} cases are of one patient, {patient}, and so in one part of the split: leave "
        "patient_id empty where it is not known"
    )


def _shared(column: str, patients: Collection[str]) -> str:
    return (
        f"the {column} is the same file under {len(patients)} patients ({_named(patients)}): "
        "give them one patient_id, or training and test may share it"
    )


def _named(patients: Iterable[str]) -> str:
    names = sorted(patients)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
