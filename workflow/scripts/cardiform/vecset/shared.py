"""Points of a cohort that all processes of a machine share: mapped, beside what is made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import sha256_json
from ..geometry.sampling import POINTS
from ..labels import LabelTable
from ..training.mapped import MappedNpz
from ..training.shared import each_of_all, shared_npz
from .data import CasePoints, load_case_points
from .inputs import Labelled

PARTS = ("surface", "near", "volume")
LAYOUT = 1  # of what is derived; another one is made again
SUM = "_crc"
SURFACE, NORMALS = "surface_points", "surface_normals"  # all of them are drawn from
DRAWN_FROM = ("near_points", "near_sdf", "volume_points", "volume_sdf")


def shared_cases(
    rows: Sequence[tuple[str, Path]],
    labels: LabelTable,
    folder: Path,
    keep: int = 0,
    truncation: float = math.inf,
    normals: bool = False,
) -> list[CasePoints]:
    """The (case id, path) rows of a split.

    folder : where what is derived of each case is kept, ``<case>.npz``.
    keep, truncation, normals : as of :func:`cardiform.vecset.data.load_case_points`.

    Raises
    ------
    InputError
        All problems of all files.
    """
    how = {"labels": labels, "keep": keep, "truncation": truncation, "normals": normals}
    return each_of_all(functools.partial(_case, folder=folder, how=how), rows)


def _case(row: tuple[str, Path], folder: Path, how: Mapping[str, Any]) -> CasePoints:
    """how : the other arguments of load_case_points."""
    case_id, path = row
    keep, normals = how["keep"], how["normals"]
    surface = dict.fromkeys((SURFACE, NORMALS) if normals else (SURFACE,), 0)
    points = MappedNpz.open(path, POINTS.remedy, dict.fromkeys(DRAWN_FROM, keep) | surface)
    POINTS.check(path, points.outlines)
    decided_by = [points.contents, case_id, how["labels"].values, keep, how["truncation"], LAYOUT]
    decided_by += [NORMALS] if normals else []

    def make() -> dict[str, Any]:
        return _derived(load_case_points(path, case_id, **how), points)

    shared = shared_npz(folder / f"{case_id}.npz", sha256_json(decided_by), make)
    head = slice(0, keep or None)
    arrays = {**points.arrays, **shared.arrays}
    return CasePoints(
        case_id=case_id,
        surface=_labelled(arrays, "surface", slice(None), normals),
        near=_labelled(arrays, "near", head),
        near_sdf=arrays["near_sdf"][head],
        volume=_labelled(arrays, "volume", head),
        volume_sdf=arrays["volume_sdf"][head],
        annotated=arrays["annotated"].astype(bool),
        planes=arrays.get("cut_planes"),
        check=functools.partial(_check, points, shared),
        stored_digest=str(arrays["digest"]),
    )


def _derived(case: CasePoints, points: MappedNpz) -> dict[str, Any]:
    """Arrays of a case that are no part of its points file, or cannot be mapped there."""
    made: dict[str, Any] = {"digest": np.array(case.digest())}
    for name in PARTS:
        part: Labelled = getattr(case, name)
        made[f"{name}_channels"] = part.channels
        made[f"{name}_rows"] = np.concatenate(part.rows).astype(np.uint32)
        made[f"{name}_counts"] = np.array([len(rows) for rows in part.rows])
        made[f"{name}_shares"] = part.shares
        if f"{name}_points" not in points.sections:
            made[f"{name}_points"] = part.points
    if case.surface.normals is not None and NORMALS not in points.sections:
        made[NORMALS] = case.surface.normals
    for name in ("near_sdf", "volume_sdf"):
        if "near_least" in points.outlines or name not in points.sections:
            made[name] = getattr(case, name)
    sums = {f"{name}{SUM}": np.int64(crc) for name, crc in points.sums().items()}
    return made | sums


def _check(points: MappedNpz, shared: MappedNpz) -> None:
    """InputError where bytes of the files are not those that were looked at when they were made."""
    shared.check()
    points.check({name: int(shared.arrays[f"{name}{SUM}"]) for name in points.sections})


def _labelled(
    arrays: Mapping[str, np.ndarray], name: str, head: slice, normals: bool = False
) -> Labelled:
    ends = np.cumsum(arrays[f"{name}_counts"])
    return Labelled(
        arrays[f"{name}_points"][head],
        arrays[f"{name}_channels"],
        tuple(np.split(arrays[f"{name}_rows"], ends[:-1])),
        arrays[f"{name}_shares"],
        arrays.get(f"{name}_normals") if normals else None,
    )
