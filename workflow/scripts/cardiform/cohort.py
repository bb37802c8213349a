"""The case table, chunks, and per-case work that is never done twice (standard library only)."""

from __future__ import annotations

import concurrent.futures
import csv
import hashlib
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, problem
from .files import read_json, sha256_file, sha256_json, write_json, write_text
from .options import SplitOptions

log = logging.getLogger(__name__)

CASE_COLUMNS = ("case_id", "patient_id", "labels", "image", "pointcloud", "status", "reason")
MANIFEST_COLUMNS = ("case_id", "path", "bytes", "sha256", "status")
# Ids become file names and shell words.
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OK = "ok"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the case table; empty paths where the cohort has none."""

    case_id: str
    patient_id: str
    labels: str
    image: str = ""
    pointcloud: str = ""
    status: str = OK
    reason: str = ""

    @property
    def files(self) -> list[str]:
        return [path for path in (self.labels, self.image, self.pointcloud) if path]


def read_case_table(path: str | Path) -> list[Case]:
    """Cases of a TSV or CSV table; relative paths count from the table's folder.

    Columns: case_id and labels; patient_id (default: the case id), image, pointcloud.

    Raises
    ------
    InputError
        All problems of the table: missing columns, unusable or duplicate ids, no labels.
    """
    path = Path(path)
    header, rows = _read_table(path)
    missing = [c for c in ("case_id", "labels") if c not in header]
    if missing:
        found = f"no column {', '.join(missing)} in {' | '.join(header) or 'an empty header'}"
        remedy = "name case_id and labels in the header, separated by tabs or commas"
        raise InputError(problem(path, found, remedy))
    unknown = [c for c in header if c not in CASE_COLUMNS]
    if unknown:
        raise InputError(
            problem(
                path,
                f"unknown column {', '.join(map(str, unknown))}",
                f"known columns: {', '.join(CASE_COLUMNS)}",
            )
        )
    problems, cases, seen = [], [], {}
    for line, row in rows:
        row = {key: (value or "").strip() for key, value in row.items() if key}
        row["patient_id"] = row.get("patient_id") or row["case_id"]
        for column in ("case_id", "patient_id"):
            if column == "patient_id" and row[column] == row["case_id"]:
                continue
            if not ID_PATTERN.fullmatch(row[column]):
                problems.append(
                    problem(
                        f"{path}:{line}",
                        f"{column} {row[column]!r} is not usable",
                        "use letters, digits, '.', '_' and '-', not first '.', '_' or '-'",
                    )
                )
        if not row["labels"]:
            problems.append(problem(f"{path}:{line}", "labels is empty", "name the label map"))
        if row["case_id"] in seen:
            problems.append(
                problem(
                    f"{path}:{line}",
                    f"case_id {row['case_id']} stands already in line {seen[row['case_id']]}",
                    "give every case its own id",
                )
            )
        seen.setdefault(row["case_id"], line)
        for column in ("labels", "image", "pointcloud"):
            if row.get(column):
                row[column] = str(path.parent / row[column])
        row["status"] = row.get("status") or OK
        cases.append(Case(**row))
    if not rows:
        problems.append(problem(path, "has no cases", "list at least one"))
    if problems:
        raise InputError(problems)
    return cases


def read_checked_cases(path: str | Path, select: Iterable[str] = ()) -> list[Case]:
    """Cases of the cases.tsv that check_cohort writes; paths are taken as they stand.

    select : case ids to keep, all where empty; an unknown id is an InputError.
    """
    header, rows = _read_table(Path(path))
    if tuple(header) != CASE_COLUMNS:
        raise InputError(problem(path, "is no checked case table", "run check_cohort"))
    cases = {row["case_id"]: Case(**row) for _, row in rows}
    select = list(select)
    unknown = [case_id for case_id in select if case_id not in cases]
    if unknown:
        raise InputError(problem(path, f"has no case {', '.join(unknown)}", "run check_cohort"))
    return [cases[case_id] for case_id in select] if select else list(cases.values())


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Write the checked case table, sorted by case id."""
    rows = [[getattr(c, name) for name in CASE_COLUMNS] for c in cases]
    _write_table(path, CASE_COLUMNS, sorted(rows))


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
        )
        for i in range(number)
    ]


def assign_chunks(case_ids: Iterable[str], chunks: int) -> dict[str, list[str]]:
    """Deal case ids into chunks; adding a case never moves another.

    Up to ``chunks`` cases: a chunk is a case and carries its id. Above: by hash, as
    ``chunk_017``.
    """
    case_ids = sorted(case_ids)
    if len(case_ids) <= chunks:
        return {case_id: [case_id] for case_id in case_ids}
    result: dict[str, list[str]] = {}
    for case_id in case_ids:
        number = int(hashlib.sha256(case_id.encode()).hexdigest(), 16) % chunks
        result.setdefault(f"chunk_{number:03d}", []).append(case_id)
    return dict(sorted(result.items()))


def split_cases(cases: Iterable[Case], options: SplitOptions) -> dict[str, list[Case]]:
    """Deal cases into ``train``, ``val`` and ``test`` by a seeded hash of the patient id.

    With ``folds`` the hash picks one of k folds: fold ``fold`` is tested, the next one
    validated, the rest trained on.

    Raises
    ------
    InputError
        A part that should have cases is empty: the cohort is small, or all one patient.
    """
    parts: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    check_shares(options)
    for case in sorted(cases, key=lambda c: c.case_id):
        parts[_part_of(case.patient_id, options)].append(case)
    wanted = {
        "train": True,
        "val": options.folds > 0 or options.validation > 0,
        "test": options.folds > 0 or options.test > 0,
    }
    counts = ", ".join(f"{part} {len(members)}" for part, members in parts.items())
    if any(wanted[part] and not members for part, members in parts.items()):
        raise InputError(
            f"split: a part is empty ({counts}); change split.seed or the shares, or add cases"
        )
    return parts


def write_split(path: str | Path, cases: Iterable[Case], points: Path) -> None:
    """Write one part as CSV: case_id, patient_id, path of the points file."""
    lines = [f"{c.case_id},{c.patient_id},{points / (c.case_id + '.npz')}" for c in cases]
    write_text(path, "\n".join(["case_id,patient_id,path", *lines]) + "\n")


def read_split(path: str | Path) -> list[tuple[str, Path]]:
    """(case id, path) of every row of a split CSV."""
    header, rows = _read_table(Path(path))
    if header != ["case_id", "patient_id", "path"]:
        raise InputError(problem(path, "is no split file", "run split_cohort"))
    return [(row["case_id"], Path(row["path"])) for _, row in rows]


def add_case_arguments(parser) -> None:
    """The arguments of a per-case script: which cases, where to, how parallel."""
    group = parser.add_argument_group("cases and files")
    group.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    group.add_argument("--select", nargs="*", default=[], metavar="CASE", help="default: all")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")


def run_cases(
    cases: Sequence[Case],
    work: Callable[[Case], list[Path]],
    *,
    inputs: Callable[[Case], list[str | Path]],
    parameters: Mapping,
    state: Path,
    manifest: Path,
    processes: int = 1,
) -> None:
    """Run ``work`` on every good case that is not finished yet, then write the manifest.

    A case is finished where ``state/<case_id>.json`` records the same input bytes and
    parameters, and all its outputs are still the same bytes. One bad case does not stop
    the others: finished work stays, and all failures are told at the end.

    work : picklable; writes a case's files atomically and returns their paths.
    inputs : the files that ``work`` reads.
    parameters : JSON-ready; whatever else decides the outputs.
    processes : cases at a time, each in a process of its own.

    Raises
    ------
    InputError
        One line per failed case; the manifest is not written then.
    """
    good = [case for case in cases if case.status == OK]
    failures: list[str] = []
    todo = {}
    for case in good:
        try:
            key = sha256_json([dict(parameters), [sha256_file(path) for path in inputs(case)]])
        except OSError as error:
            failures.append(problem(error.filename, error.strerror, "run its stage again"))
            continue
        if not _is_finished(state / f"{case.case_id}.json", key):
            todo[case] = key
    if len(todo) < len(good):
        log.info("%d of %d cases are finished already", len(good) - len(todo), len(good))
    for done, (case, outcome) in enumerate(_each(work, todo, processes), start=1):
        if isinstance(outcome, list):
            outputs = [_describe(path) for path in outcome]
            write_json(state / f"{case.case_id}.json", {"key": todo[case], "outputs": outputs})
            log.info("%s done (%d of %d)", case.case_id, done, len(todo))
        else:
            failures += outcome.problems
    if failures:
        raise InputError(failures)
    rows = []
    for case in cases:
        if case.status != OK:
            rows.append([case.case_id, "", 0, "", f"skipped: {case.reason}"])
            continue
        for output in read_json(state / f"{case.case_id}.json")["outputs"]:
            rows.append([case.case_id, output["path"], output["bytes"], output["sha256"], OK])
    _write_table(manifest, MANIFEST_COLUMNS, rows)


def read_manifests(paths: Iterable[str | Path]) -> dict[str, list[Path]]:
    """Case id -> files, from the manifests of all chunks; skipped cases are left out.

    Raises
    ------
    InputError
        A manifest or a file that it lists is missing or has another size.
    """
    result: dict[str, list[Path]] = {}
    problems = []
    for manifest in paths:
        header, rows = _read_table(Path(manifest))
        if tuple(header) != MANIFEST_COLUMNS:
            raise InputError(problem(manifest, "is no manifest", "run its stage again"))
        for _, row in rows:
            if row["status"] != OK:
                continue
            path = Path(row["path"])
            result.setdefault(row["case_id"], []).append(path)
            if not path.is_file() or path.stat().st_size != int(row["bytes"]):
                problems.append(
                    problem(
                        path,
                        "is missing or not what its manifest says",
                        f"delete {manifest} and run again",
                    )
                )
    if problems:
        raise InputError(problems)
    return result


def check_shares(options: SplitOptions) -> None:
    if options.validation + options.test >= 1:
        raise InputError("split: validation + test leave nothing to train on; lower them")
    if options.folds in (1, 2) or (options.folds and options.fold >= options.folds):
        raise InputError(
            f"split: fold {options.fold} of {options.folds}; at least 3 folds, fold below folds"
        )


def _part_of(patient_id: str, options: SplitOptions) -> str:
    digest = hashlib.sha256(f"{options.seed}:{patient_id}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    if options.folds:
        place = (number % options.folds - options.fold) % options.folds
        return {0: "test", 1: "val"}.get(place, "train")
    share = number / 2**64
    if share < options.test:
        return "test"
    return "val" if share < options.test + options.validation else "train"


def _each(work, todo: Mapping[Case, str], processes: int):
    """Yield (case, output paths or InputError) as the cases finish."""
    if processes <= 1 or len(todo) <= 1:
        for case in todo:
            yield case, _guarded(work, case)
        return
    with concurrent.futures.ProcessPoolExecutor(min(processes, len(todo))) as pool:
        futures = {pool.submit(_guarded, work, case): case for case in todo}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def _guarded(work, case: Case) -> list[Path] | InputError:
    """Bad input and surprises alike fail this case alone, under its name."""
    try:
        return work(case)
    except InputError as error:
        return error
    except Exception as error:
        log.error("%s\n%s", case.case_id, traceback.format_exc())
        return InputError(
            problem(case.labels, f"{type(error).__name__}: {error}", "see the log for details")
        )


def _is_finished(state: Path, key: str) -> bool:
    try:
        record = read_json(state)
        return record["key"] == key and all(
            Path(o["path"]).is_file() and sha256_file(o["path"]) == o["sha256"]
            for o in record["outputs"]
        )
    except (InputError, KeyError, TypeError):
        return False


def _describe(path: Path) -> dict:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line, row) of a TSV or CSV file, the delimiter read off its header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(
                stream, delimiter="\t" if "\t" in first else ",", restval="", strict=True
            )
            return list(reader.fieldnames or []), [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise InputError(
            problem(path, f"cannot be read ({error.strerror})", "correct the path")
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(problem(path, f"is no table ({error})", "save it as UTF-8 TSV")) from None


def _write_table(path, columns, rows) -> None:
    lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
    write_text(path, "\n".join(lines) + "\n")
