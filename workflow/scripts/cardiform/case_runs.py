"""Work on many cases: finished ones are skipped, bad ones stop no other, a manifest tells all.

Standard library only.
"""

from __future__ import annotations

import concurrent.futures
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .cohort import OK, Case, read_table, write_table
from .errors import InputError, problem
from .files import read_json, sha256_file, sha256_json, write_json

log = logging.getLogger(__name__)

MANIFEST_COLUMNS = ("case_id", "path", "bytes", "sha256", "status")


def add_case_arguments(
    parser, cases_required: bool = True, cases: str = "cases.tsv of check_cohort"
) -> None:
    """The arguments of a per-case script: which cases, where to, how parallel."""
    group = parser.add_argument_group("cases and files")
    group.add_argument("--cases", required=cases_required, help=cases)
    group.add_argument("--select", nargs="*", default=[], metavar="CASE", help="default: all")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")


def add_training_arguments(parser, weights: str = "", one_manifest: bool = False):
    """The arguments of a training on per-case files; returns their group.

    weights : what the model that it starts from is; empty: it starts from none.
    one_manifest : the samples were made by one job.
    """
    group = parser.add_argument_group("files")
    group.add_argument("--train", required=True, help="split CSV of the training cases")
    group.add_argument("--validation", required=True, help="split CSV of the validation cases")
    many = {} if one_manifest else {"nargs": "+"}
    group.add_argument("--manifest", required=True, help="manifest of the samples", **many)
    if weights:
        group.add_argument("--weights", required=True, type=Path, help=weights)
    group.add_argument("--out", required=True, type=Path, help="output folder")
    return group


def run_cases(
    cases: Sequence[Case],
    work: Callable[[Case], list[Path]],
    *,
    inputs: Callable[[Case], list[str | Path]],
    parameters: Mapping,
    state: Path,
    manifest: Path,
    processes: int = 1,
    verdict: Callable[[Path], str] | None = None,
) -> None:
    """Run ``work`` on every good case that is not finished yet, then write the manifest.

    A case is finished where ``state/<case_id>.json`` records the same input bytes and
    parameters, and all its outputs are still the same bytes. One bad case does not stop
    the others: finished work stays, and all failures are told at the end.

    work : picklable; writes a case's files atomically and returns their paths.
    inputs : the files that ``work`` reads.
    parameters : JSON-ready; whatever else decides the outputs.
    processes : cases at a time, each in a process of its own.
    verdict : why an output is not to be used, for its status in the manifest; empty: it is.

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
            status = (verdict(Path(output["path"])) if verdict else "") or OK
            rows.append([case.case_id, output["path"], output["bytes"], output["sha256"], status])
    write_table(manifest, MANIFEST_COLUMNS, rows)


def read_manifest(path: str | Path) -> list[dict[str, str]]:
    """The rows of a manifest: case_id, path, bytes, sha256, status; InputError where it is none."""
    header, rows = read_table(Path(path))
    if tuple(header) != MANIFEST_COLUMNS:
        raise InputError(problem(path, "is no manifest", "name the manifests of a per-case stage"))
    return [row for _, row in rows]


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
