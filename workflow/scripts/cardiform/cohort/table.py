"""The cases of a cohort: tables, ids, chunks (standard library only)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, problem
from ..files import ANEW
from ..formats import Format
from ..tables import read_table, write_table
from .found_files import MESHES

CASE_COLUMNS = (
    "case_id", "patient_id", "labels", "image", "pointcloud", "truth", "status", "reason"
)  # fmt: skip
CASES = Format("checked case table", dict.fromkeys(CASE_COLUMNS, "text"), marked=False)
# A table has these columns where a case has an entry in them, behind all others.
MESHES_COLUMN, CUT_COLUMN, DICOM_COLUMN = "meshes", "cut", "dicom"
OPTIONAL_COLUMNS = (MESHES_COLUMN, CUT_COLUMN, DICOM_COLUMN)
# What a cohort may consist of: a table has one of these columns at least.
SOURCES = {
    "labels": "label map",
    "image": "CT",
    "pointcloud": "point cloud",
    MESHES_COLUMN: "mesh file or folder of meshes",
}
# Columns of a user's own begin with this: another unknown name is most likely a slip.
FREE_PREFIX = "x_"
NOTHING = "none"  # in that column: no class is cut, although it reaches the border
# Targets that a column alone suffices for.
TARGETS = {
    "labels": ("meshes", "points", "voxels", "vecset", "vqvae"),
    "image": ("vqvae_windows",),
    "pointcloud": ("ldm with ldm.sources: [pointclouds]",),
    MESHES_COLUMN: ("voxels", "vqvae"),
}
# Ids become file names and shell words.
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ID_REMEDY = "use up to 100 letters, digits, '.', '_' and '-', not first '.', '_' or '-'"
# The stages keep state/ and manifest/ beside the folders of the cases, metrics.json and
# summary.json beside <case>.json: a case of that name would be overwritten, or overwrite them.
RESERVED = {
    "state", "manifest", "manifest.tsv", "metrics", "metrics.json", "summary", "summary.json",
    "branches.csv", "measures.csv", "norms.csv", "zscores.csv", "groups.csv",
}  # fmt: skip
RESERVED_REMEDY = "rename it: the stages keep files of their own under this name"
PATH_COLUMNS = ("labels", "image", "pointcloud", "truth", MESHES_COLUMN)
# A job's command line names the cases of its chunk; Linux takes 128 KiB.
MOST_CHARACTERS = 100_000
OK, SKIPPED = "ok", "skipped"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the case table; empty paths where the cohort has none.

    truth : an expert's label map, for figures alone: nothing is trained on it.
    meshes : a mesh file, or a folder of them, one for each structure.
    cut : names of the classes that the scan cuts off beside those that reach the border of the
        label map, separated by spaces; ``none``: no class is cut.
    dicom : the folder of the DICOM series that the label map was drawn on.
    """

    case_id: str
    patient_id: str
    labels: str = ""
    image: str = ""
    pointcloud: str = ""
    truth: str = ""
    meshes: str = ""
    status: str = OK
    reason: str = ""
    cut: str = ""
    dicom: str = ""

    def cut_classes(self, at_border: Iterable[str]) -> list[str]:
        """Names of the classes that are cut, where those ``at_border`` reach the border."""
        if not self.may_be_cut:
            return []
        return list(dict.fromkeys([*at_border, *self.cut.split()]))

    @property
    def may_be_cut(self) -> bool:
        """Whether a class that reaches the border counts as cut."""
        return self.cut != NOTHING

    @property
    def files(self) -> list[str]:
        named = (self.labels, self.image, self.pointcloud, self.truth)
        return [*filter(None, named), *self.mesh_files]

    @property
    def main_file(self) -> str:
        """What a message about the case names: its first file, or its id."""
        return next(iter(self.files), self.case_id)

    @property
    def mesh_files(self) -> list[str]:
        """The mesh file, or those of the folder, by name; the path itself where none is there."""
        if not os.path.isdir(self.meshes):
            return [self.meshes] if self.meshes else []
        found = sorted(n for n in os.listdir(self.meshes) if n.lower().endswith(MESHES))
        return [os.path.join(self.meshes, name) for name in found] or [self.meshes]


def read_case_table(path: str | Path, select: Iterable[str] = ()) -> list[Case]:
    """Cases of a TSV or CSV table; relative paths count from the table's folder.

    Columns: case_id, and at least one of labels, image, pointcloud and meshes, filled in every
    row where it is the first of these; patient_id (default: the case id), truth, cut, dicom.
    A status ``skipped`` leaves a case out, with its reason; all else is for check_cohort to find.
    Columns that begin with ``x_`` are free: nothing but the measures reads them.

    select : case ids to keep, all where empty.

    Raises
    ------
    InputError
        All problems of the table: missing columns, unusable or duplicate ids, no files.
    """
    path = Path(path)
    header, rows = read_table(path)
    has = [c for c in SOURCES if c in header]
    missing = [c for c in ("case_id", *([] if has else ["labels"])) if c not in header]
    if missing:
        found = f"no column {', '.join(missing)} in {' | '.join(header) or 'an empty header'}"
        remedy = (
            "name case_id and labels (or image, pointcloud, meshes) in the header, separated by "
            "tabs or commas"
        )
        raise InputError(problem(path, found, remedy))
    # An empty column is none.
    source = next((c for c in has if any(row[c] for _, row in rows)), has[0])
    known = (*CASE_COLUMNS, *OPTIONAL_COLUMNS)
    unknown = [c for c in header if c not in known and not c.startswith(FREE_PREFIX)]
    if unknown:
        raise InputError(
            problem(
                path,
                f"unknown column {', '.join(map(str, unknown))}",
                f"known columns: {', '.join(known)}; one of your own begins with {FREE_PREFIX}",
            )
        )
    problems, cases = [], []
    seen: dict[str, int] = {}
    for line, full in rows:
        row = {column: text for column, text in full.items() if column in known}
        row["patient_id"] = row.get("patient_id") or row["case_id"]
        row[CUT_COLUMN] = _listed(row.get(CUT_COLUMN, ""))
        problems += _unusable(row, f"{path}:{line}")
        by_hand = _status_by_hand(row)
        if by_hand["status"] not in (OK, SKIPPED):
            fact, remedy = f"status {row['status']!r} is not usable", "use ok or skipped"
            problems.append(problem(f"{path}:{line}", fact, remedy))
        if not row[source] and by_hand["status"] != SKIPPED:
            remedy = f"name the {SOURCES[source]}"
            problems.append(problem(f"{path}:{line}", f"{source} is empty", remedy))
        if row["case_id"] in seen:
            problems.append(
                problem(
                    f"{path}:{line}",
                    f"case_id {row['case_id']} stands already in line {seen[row['case_id']]}",
                    "give every case its own id",
                )
            )
        seen.setdefault(row["case_id"], line)
        for column in (*PATH_COLUMNS, DICOM_COLUMN):
            if row.get(column):
                row[column] = str(path.parent / row[column])
        cases.append(Case(**row | by_hand))
    if not rows:
        problems.append(problem(path, "has no cases", "list at least one"))
    if problems:
        raise InputError(problems)
    return _selected(cases, select, path, "correct --select")


def read_checked_cases(
    path: str | Path, select: Iterable[str] = (), needs: str = "labels"
) -> list[Case]:
    """Cases of the cases.tsv that check_cohort writes; paths are taken as they stand.

    select : case ids to keep, all where empty; an unknown id is an InputError.
    needs : column that the cases must have an entry in, those that are skipped excepted; empty:
        none.
    """
    header, rows = read_table(Path(path), whole=True)
    more = [name for name in OPTIONAL_COLUMNS if name in header]
    own = header[: -len(more)] if more and header[-len(more) :] == more else header
    CASES.check_header(path, own)
    problems = [text for line, row in rows for text in _unusable(row, f"{path}:{line}")]
    if problems:
        raise InputError(problems)
    cases = [Case(**row) for _, row in rows]
    check_column(cases, needs, path)
    return _selected(cases, select, path, ANEW)


def check_column(cases: Iterable[Case], column: str, table: str | Path) -> None:
    """InputError where no case that is used has an entry in a column.

    column : of SOURCES; empty: nothing is checked.    table : that they are of, for the message.
    """
    used = [case for case in cases if case.status == OK]
    if not column or not used or any(getattr(case, column) for case in used):
        return
    has = [name for name in SOURCES if any(getattr(case, name) for case in used)]
    raise InputError(
        problem(
            table or "the demo's case table",
            f"has no column {column}, which this target is made from",
            f"add it, or make what {' and '.join(has)} suffice for: "
            + ", ".join(target for name in has for target in TARGETS[name]),
        )
    )


def id_remedy(name: str) -> str:
    """What to do about a name that no case may have; empty where it may.

    It is part of file names and a shell word, and lies beside the stages' own files.
    """
    if not ID_PATTERN.fullmatch(name):
        return ID_REMEDY
    return RESERVED_REMEDY if name.lower() in RESERVED else ""


def _status_by_hand(row: dict[str, str]) -> dict[str, str]:
    """Status and reason that a case table gives a case."""
    status = row.get("status", "").lower() or OK
    reason = " ".join(row.get("reason", "").split()) or "by the case table"
    return {"status": status, "reason": reason if status == SKIPPED else ""}


def _unusable(row: dict[str, str], where: str) -> list[str]:
    """Problems of ids and paths that must go no further than the table that they stand in."""
    found = {c: row[c] for c in ("case_id", "patient_id") if not ID_PATTERN.fullmatch(row[c])}
    if found.get("patient_id") == found.get("case_id"):
        found.pop("patient_id", None)
    bad = [(f"{column} {text[:60]!r}", ID_REMEDY) for column, text in found.items()]
    if "case_id" not in found and (remedy := id_remedy(row["case_id"])):
        bad.append((f"case_id {row['case_id']!r}", remedy))
    for column in (*PATH_COLUMNS, DICOM_COLUMN):
        if not row.get(column, "").isprintable():
            remedy = "rename the file: tabs, line breaks and the like cannot be part of its name"
            bad.append((f"{column} {row[column][:60]!r}", remedy))
    return [problem(where, f"{what} is not usable", remedy) for what, remedy in bad]


def _listed(cut: str) -> str:
    """The classes of a field of the column cut, separated by spaces."""
    names = " ".join(re.findall(r"[^\s,;]+", cut))
    return NOTHING if names.lower() == NOTHING else names


def _selected(cases: list[Case], select: Iterable[str], path, remedy: str) -> list[Case]:
    known = {case.case_id: case for case in cases}
    select = list(select)
    unknown = [case_id for case_id in select if case_id not in known]
    if unknown:
        raise InputError(problem(path, f"has no case {', '.join(unknown)}", remedy))
    return [known[case_id] for case_id in select] or cases


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Write the checked case table, sorted by case id."""
    cases = list(cases)
    filled = [name for name in OPTIONAL_COLUMNS if any(getattr(c, name) for c in cases)]
    columns = (*CASE_COLUMNS, *filled)
    rows = [[getattr(c, name) for name in columns] for c in cases]
    write_table(path, columns, sorted(rows))


def demo_cases(number: int, folder: str | Path) -> list[Case]:
    """The cases that make_demo_cohort draws into ``folder``."""
    folder = Path(folder)
    return [
        Case(
            case_id=f"phantom_{i:03d}",
            patient_id=f"phantom_{i:03d}",
            labels=str(folder / "labels" / f"phantom_{i:03d}.nii.gz"),
            image=str(folder / "images" / f"phantom_{i:03d}.nii.gz"),
            pointcloud=str(folder / "pointclouds" / f"phantom_{i:03d}.h5"),
            truth=str(folder / "truth" / f"phantom_{i:03d}.nii.gz"),
        )
        for i in range(number)
    ]


def assign_chunks(case_ids: Iterable[str], chunks: int) -> dict[str, list[str]]:
    """Deal case ids into chunks; adding a case never moves another.

    Up to ``chunks`` cases: a chunk is a case and carries its id. Above: by hash, as
    ``chunk_017``.

    Raises
    ------
    InputError
        A chunk has more cases than a command line can name.
    """
    case_ids = sorted(case_ids)
    if len(case_ids) <= chunks:
        return {case_id: [case_id] for case_id in case_ids}
    result: dict[str, list[str]] = {}
    for case_id in case_ids:
        number = int(hashlib.sha256(case_id.encode()).hexdigest(), 16) % chunks
        result.setdefault(f"chunk_{number:03d}", []).append(case_id)
    if max(len(" ".join(members)) for members in result.values()) > MOST_CHARACTERS:
        raise InputError(
            f"cohort.chunks: {chunks} for {len(case_ids)} cases makes command lines of more than "
            f"{MOST_CHARACTERS} characters; raise it"
        )
    return dict(sorted(result.items()))
