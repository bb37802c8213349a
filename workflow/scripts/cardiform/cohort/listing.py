"""A case table out of the files that are there (standard library only)."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError, problem
from ..tables import read_table, write_table
from .found_files import PATIENT, Found, as_id, files_of, natural, read_ids
from .table import (
    CASE_COLUMNS,
    DICOM_COLUMN,
    OPTIONAL_COLUMNS,
    PATH_COLUMNS,
    SOURCES,
    Case,
    id_remedy,
)

OTHERS = ("image", "pointcloud", "truth", "meshes")
# {case} alone is the id where it is named; of other names all make it
NAME_THEM = "tell them apart by a pattern such as 'scans/{patient}/{scan}.nii.gz'"

LETTERS = "tell patients apart by letters of a to z or digits"
BY_PATTERNS = "name what they share by patterns, such as '{case}_seg.nii.gz' and '0{case}.nii.gz'"


@dataclass
class Listing:
    """Cases, in the order of their ids; and what was found beside them, with the reason."""

    cases: list[Case]
    left_over: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def list_cases(sources: Mapping[str, str]) -> Listing:
    """The cases that have a label map (or, without label maps, a CT, a point cloud or meshes: the
    first of these that is named), each with its other files.

    sources : column (of PATH_COLUMNS, one of SOURCES among them) -> folder or pattern.

    Raises
    ------
    InputError
        Nothing is found, two files are one case's, a name makes no case id.
    """
    problems: list[str] = []
    found: dict[str, list[Found]] = {}
    left: dict[str, str] = {}
    for column, source in sources.items():
        try:
            found[column], foreign = files_of(column, source)
            left |= {str(path): f"{why}: not taken for {column}" for path, why in foreign.items()}
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    problems += [
        problem(ascii(str(file.path)), "has a name that no table can hold", "rename it")
        for files in found.values()
        for file in files
        if not str(file.path).isprintable()
    ]
    taken = {str(file.path) for files in found.values() for file in files}
    left = {path: why for path, why in left.items() if path not in taken}
    source = next(column for column in SOURCES if column in found)
    named = _unique(found[source], problems)
    rows: dict[str, dict[str, str]] = {name: {source: str(f.path)} for name, f in named.items()}
    for column in OTHERS:
        others = found.get(column, []) if column != source else []
        for name, file in _joined(named, others, column, SOURCES[source], left, problems):
            rows[name][column] = str(file.path)
        if others and named and not any(column in row for row in rows.values()):
            ours, theirs = (
                " ".join(list(n)[:3])
                for n in ((f.name for f in named.values()), (f.name for f in others))
            )
            fact = f"is the {column} of no case; cases are called {ours}, these files {theirs}"
            problems.append(problem(sources[column], fact, BY_PATTERNS))
    problems += _claimed_twice(rows)
    return Listing(_cases(named, rows, problems), left)


def cases_of_files(files: Sequence[Found], column: str) -> list[Case]:
    """A case for each file, which is named in a column.

    Raises
    ------
    InputError
        Two files are one case's, a name makes no case id.
    """
    problems: list[str] = []
    named = _unique(files, problems)
    return _cases(named, {n: {column: str(file.path)} for n, file in named.items()}, problems)


def _cases(named: Mapping[str, Found], rows: Mapping[str, Mapping], problems) -> list[Case]:
    """Cases with their patients, in the order of their ids; InputError with all problems."""
    patients = {name: file.parts.get(PATIENT) or name for name, file in named.items()}
    problems += _unfit(patients)
    if problems:
        raise InputError(problems)
    return [
        Case(case_id=n, patient_id=as_id(patients[n]), **rows[n])
        for n in sorted(named, key=natural)
    ]


def _unfit(patients: Mapping[str, str]) -> list[str]:
    """Patients of cases whose names make no id: each case would become a patient of its own; and
    those whose names make the same one, who would become one patient."""
    problems = []
    named: dict[str, list[str]] = defaultdict(list)
    for case, name in patients.items():
        if fitting := as_id(name):
            named[fitting].append(name)
        else:
            fact = f"its patient {name!r} makes no patient id"
            problems.append(problem(f"case {case}", fact, LETTERS))
    for fitting, names in named.items():
        if len(several := list(dict.fromkeys(names))) > 1:
            fact = f"are one patient id, {fitting}"
            problems.append(problem(f"patients {_some(list(map(repr, several)))}", fact, LETTERS))
    return problems


def _unique(files: Sequence[Found], problems: list[str]) -> dict[str, Found]:
    """Case id -> label map."""
    named: dict[str, Found] = {}
    for file in files:
        name = as_id(file.name)
        if remedy := id_remedy(name):
            problems.append(problem(file.path, f"its name makes no case id ({name!r})", remedy))
        elif name in named:
            fact = f"is case {name}, as is {named[name].path}"
            problems.append(problem(file.path, fact, NAME_THEM))
        else:
            named[name] = file
    return named


def _joined(named: Mapping[str, Found], files, column, what, left, problems):
    """(case id, file) of the files that belong to a case; the others are left over."""
    rows: dict[str, Path] = {}
    keys = _shared_parts(named, files)
    cases = defaultdict(list)
    for name, file in named.items():
        cases[_key(file, keys)].append(name)
    for file in files:
        names = cases.get(_key(file, keys), [])
        if not names:
            left[str(file.path)] = f"no {what} of this case"
        for name in names:
            if name in rows:
                fact = f"is the {column} of case {name}, as is {rows[name]}"
                problems.append(problem(file.path, fact, NAME_THEM))
                continue
            rows[name] = file.path
            yield name, file


def _shared_parts(named: Mapping[str, Found], files: Sequence[Found]) -> list[str]:
    """The named parts by which files belong together; none: the whole names."""
    ours = set(next(iter(named.values())).parts) if named else set()
    theirs = set(files[0].parts) if files else set()
    return sorted(ours & theirs)


def _key(file: Found, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(file.parts.get(k, "") for k in keys) if keys else (as_id(file.name),)


def _claimed_twice(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Files that are two columns'."""
    remedy = "tell them apart by patterns, such as '{case}.label.nii.gz' and '{case}.img.nii.gz'"
    problems = []
    for name, row in rows.items():
        for path, number in Counter(row.values()).items():
            if number > 1:
                columns = " and ".join(c for c in row if row[c] == path)
                problems.append(problem(path, f"is {columns} of case {name}", remedy))
    return problems


def with_patients(cases: Sequence[Case], pattern: str) -> list[Case]:
    """Cases with the patients that are part of their ids.

    pattern : such as ``{patient}_*``.

    Raises
    ------
    InputError
        The pattern has no ``{patient}`` or several, or ids that do not fit it.
    """
    if "{patient}" not in pattern:
        raise InputError(f"--patient: {pattern!r} has no {{patient}}; write '{{patient}}_*', say")
    if pattern.count("{patient}") > 1:
        raise InputError(f"--patient: {pattern!r} has {{patient}} twice; write it once")
    texts = re.split(r"(\{patient\}|\*)", pattern)
    made = {"{patient}": "(?P<patient>.+?)", "*": ".*"}
    expression = re.compile("".join(made.get(text, re.escape(text)) for text in texts))
    found = {case.case_id: expression.fullmatch(case.case_id) for case in cases}
    unfit = [name for name, match in found.items() if not match]
    if unfit:
        some = ", ".join(unfit[:5])
        raise InputError(
            f"--patient: {pattern!r} does not fit {len(unfit)} cases ({some}); widen it"
        )
    named = {name: match["patient"] for name, match in found.items() if match}
    if unfit := _unfit(named):
        raise InputError(unfit)
    return [replace(case, patient_id=as_id(named[case.case_id])) for case in cases]


def with_patients_of(cases: Sequence[Case], path: str | Path) -> list[Case]:
    """Cases with the patients of a table with the columns case_id and patient_id.

    Raises
    ------
    InputError
        The table lacks a column or cases, or gives a case two patients.
    """
    header, rows = read_table(Path(path))
    if lacking := [c for c in ("case_id", "patient_id") if c not in header]:
        fact = f"no column {', '.join(lacking)} in {' | '.join(header) or 'an empty header'}"
        raise InputError(problem(path, fact, "name case_id and patient_id in the header"))
    patients: dict[str, str] = {}
    twice = []
    unnamed = {case.case_id for case in cases} - {row["case_id"] for _, row in rows}
    for line, row in rows:
        case, patient = row["case_id"], row["patient_id"]
        case = fitting if (fitting := as_id(case)) in unnamed else case
        if patient and patients.setdefault(case, patient) != patient:
            fact = f"case {case} is of {patient}, and of {patients[case]} above"
            twice.append(problem(f"{path}:{line}", fact, "keep one of them"))
    if twice:
        raise InputError(twice)
    missing = [case.case_id for case in cases if case.case_id not in patients]
    if missing:
        fact = f"has no patient of {len(missing)} cases ({', '.join(missing[:5])})"
        raise InputError(problem(path, fact, "add a line for each case"))
    if unfit := _unfit({case.case_id: patients[case.case_id] for case in cases}):
        raise InputError(unfit)
    return [replace(c, patient_id=as_id(patients[c.case_id])) for c in cases]


def take_only(listing: Listing, path: str | Path) -> None:
    """Leave out the cases that are not on a list of ids."""
    chosen, others = read_ids(path, [case.case_id for case in listing.cases])
    for case in listing.cases:
        if case.case_id not in chosen:
            listing.left_over |= dict.fromkeys(case.files, f"not on {path}")
    listing.cases = [case for case in listing.cases if case.case_id in chosen]
    if others:
        fact = f"{path}: {len(others)} entries are no case ({_some(others)})"
        listing.notes.append(fact)


def with_whole(listing: Listing, whole: Mapping[str, str | Path]) -> None:
    """Give the cases that are on no list of whole structures an entry in the column ``cut``.

    whole : class name -> list of the cases of which the class is complete.
    """
    names = [case.case_id for case in listing.cases]
    cut: dict[str, list[str]] = {name: [] for name in names}
    for structure, path in whole.items():
        complete, others = read_ids(path, names)
        if others:
            listing.notes.append(f"{path}: {len(others)} entries are no case ({_some(others)})")
        for name in names:
            if name not in complete:
                cut[name].append(structure)
    listing.cases = [replace(c, cut=" ".join(cut[c.case_id])) for c in listing.cases]


def write_case_table(path: Path, cases: Sequence[Case]) -> None:
    """Write the table that a config names in ``cohort.table``: the columns that have entries.

    Files below its folder are named from there, others by their whole path.
    """
    columns = [
        c
        for c in (*CASE_COLUMNS, *OPTIONAL_COLUMNS)
        if c in ("case_id", "patient_id")
        or (c not in ("status", "reason") and any(getattr(case, c) for case in cases))
    ]
    rows = []
    for case in cases:
        cells = {c: getattr(case, c) for c in columns}
        cells |= {
            c: _from(path.parent, cells[c]) for c in (*PATH_COLUMNS, DICOM_COLUMN) if cells.get(c)
        }
        rows.append(list(cells.values()))
    write_table(path, columns, rows)


def _from(folder: Path, path: str) -> str:
    top, whole = os.path.abspath(folder), os.path.abspath(path)
    return os.path.relpath(whole, top) if whole.startswith(top.rstrip("/") + "/") else whole


def summary(listing: Listing) -> list[str]:
    """What was found, and what was left over, as lines."""
    cases = listing.cases
    counts = [f"{sum(bool(getattr(c, o)) for c in cases)} with {o}" for o in OTHERS]
    patients = len({case.patient_id for case in cases})
    lines = [f"{len(cases)} cases of {patients} patients, {', '.join(counts)}"]
    if cut := sum(bool(case.cut) for case in cases):
        lines.append(f"{cut} cases with an entry in the column cut")
    reasons = defaultdict(list)
    for path, why in listing.left_over.items():
        reasons[why].append(path)
    lines += [f"left over, {len(p)} files: {why} ({_some(p)})" for why, p in reasons.items()]
    return lines + listing.notes


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return ", ".join(map(str, texts[:5])) + more
