"""Work on many cases: finished ones are skipped, bad ones stop no other, a manifest tells all.

Standard library only.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from .. import outputs
from ..errors import InputError, again, limit_fact, memory_fact, problem
from ..files import os_problem, sha256_file, sha256_json, write_json
from ..formats import Format
from .manifest import write_manifest
from .table import OK, Case

log = logging.getLogger(__name__)

KILLED = "its process was killed, most likely for want of memory"
MORE_MEMORY = (
    "give the job more memory (mem_mb), or run fewer cases at a time (--processes, threads of "
    "the rule), and run the same command again: finished cases are kept"
)
PARENT_POLL_S = 1.0
# A case whose state cannot be read is made again.
STATE = Format(
    "state",
    {
        "key": "text",
        "outputs": "object (N)",
        "outputs.*.path": "text",
        "outputs.*.bytes": "integer",
        "outputs.*.sha256": "text",
    },
    marked=False,
)


@dataclass(frozen=True)
class CaseRun:
    """Which cases a stage works on, where its files go, and how many cases run at a time.

    out : the stage's folder; ``out/state`` records what each finished case was made from.
    manifest : the table of all files, written when every good case is finished.
    processes : cases at a time, each in a process of its own.
    """

    cases: Sequence[Case]
    out: Path
    manifest: Path
    processes: int = 1

    def record(self, case: Case) -> Path:
        """Where it is recorded what a case was made from, and which files were made of it."""
        return self.out / "state" / f"{case.case_id}.json"


def run_cases(
    run: CaseRun,
    work: Callable[[Case], list[Path]],
    *,
    inputs: Callable[[Case], Sequence[str | Path]],
    parameters: Mapping | Callable[[Case], Mapping],
    made: Mapping[Path, str] | None = None,
    verdict: Callable[[Path], str] | None = None,
    memory: str = "",
    quiet: bool = False,
) -> None:
    """Run ``work`` on every good case that is not finished yet, then write the manifest.

    A case is finished if its record has the same input bytes and parameters, and all its
    outputs are still the same bytes: those in the output folder, also where this is a copy of
    another one, or was moved. One bad case does not stop the others: finished work
    stays, and all failures are reported at the end.

    work : picklable; writes a case's files atomically and returns their paths.
    inputs : the files that ``work`` reads.
    parameters : JSON-ready; whatever else decides the outputs, of all cases or of each.
    made : output folders of earlier stages -> their rules: inputs from there must be the bytes
        that were written.
    verdict : why an output is not to be used, for its status in the manifest; empty: it is.
    memory : the remedy where memory is exhausted; by default that of work on the CPU.
    quiet : the log has no lines on finished cases.

    Raises
    ------
    InputError
        One line per failed case; the manifest is not written then.
    """
    with outputs.reading():
        level = logging.DEBUG if quiet else logging.INFO
        todo, failures = _unfinished(run, inputs, parameters, made or {}, level)
        guarded = functools.partial(_guarded, work, memory or MORE_MEMORY)
        for done, (case, outcome) in enumerate(_each(guarded, todo, run.processes), start=1):
            try:
                _keep(run.record(case), todo[case], outcome)
                log.log(level, "%s done (%d of %d)", case.case_id, done, len(todo))
            except InputError as error:  # a full disk, say: the other cases may still fit
                failures += error.problems
        if failures:
            raise InputError(failures)
        write_manifest(run.manifest, _rows(run, verdict))


def _unfinished(
    run: CaseRun,
    inputs,
    parameters: Mapping | Callable[[Case], Mapping],
    made: Mapping[Path, str],
    level: int,
) -> tuple[dict[Case, str], list[str]]:
    """The good cases that are to be worked on, with their keys; problems of the others' inputs."""
    good = [case for case in run.cases if case.status == OK]
    todo, problems, finished = {}, [], 0
    for case in good:
        try:
            read = list(inputs(case))
            cut = [case.cut] if case.cut else []  # a case without an entry keeps its old key
            others = parameters(case) if callable(parameters) else parameters
            key = sha256_json([dict(others), _hashes(case, read, made), *cut])
            outputs.protect(read)
        except InputError as error:
            problems += error.problems
            continue
        if _is_finished(run, case, key):
            finished += 1
        elif foreign := outputs.problems_of([run.record(case)]):
            problems += foreign
        else:
            todo[case] = key
    if finished:
        log.log(level, "%d of %d cases are finished already", finished, len(good))
    return todo, problems


def _keep(record: Path, key: str, outcome: list[Path] | InputError) -> None:
    """Record what a case was made from, and its files; InputError where its work failed."""
    if isinstance(outcome, InputError):
        raise outcome
    write_json(record, {"key": key, "outputs": [_describe(path) for path in outcome]})


def _rows(run: CaseRun, verdict: Callable[[Path], str] | None) -> list[list]:
    """What the manifest says of every case."""
    rows = []
    for case in run.cases:
        if case.status != OK:
            rows.append([case.case_id, "", 0, "", f"skipped: {case.reason}"])
            continue
        for output in STATE.load(run.record(case))["outputs"]:
            status = (verdict(Path(output["path"])) if verdict else "") or OK
            rows.append([case.case_id, output["path"], output["bytes"], output["sha256"], status])
    return rows


def _hashes(case: Case, paths: Iterable[str | Path], made: Mapping[Path, str]) -> list[str]:
    """sha256 of every input; InputError where one is missing, or not what its stage wrote."""
    hashes, problems = [], []
    for path in map(Path, paths):
        rule = next((rule for folder, rule in made.items() if folder in path.parents), "")
        try:
            hashes.append(sha256_file(path))
        except OSError as error:
            remedy = again(rule) if rule else "correct the path, or run its stage again"
            problems.append(problem(path, error.strerror or str(error), remedy))
            continue
        if rule and _recorded(case, path, made).get(path.name, hashes[-1]) != hashes[-1]:
            problems.append(problem(path, f"is not what {rule} wrote", again(rule)))
    if problems:
        raise InputError(problems)
    return hashes


def _recorded(case: Case, path: Path, made: Mapping[Path, str]) -> dict[str, str]:
    """File name -> sha256 of what an earlier stage wrote for a case."""
    folder = next(folder for folder in made if folder in path.parents)
    try:
        outputs = STATE.load(folder / "state" / f"{case.case_id}.json")["outputs"]
        return {Path(o["path"]).name: o["sha256"] for o in outputs}
    except InputError:
        return {}


def _each(work, todo: Mapping[Case, str], processes: int):
    """Yield (case, output paths or InputError) as the cases finish.

    Where a process is killed, most likely because the memory was short, the cases that ran at
    that moment are tried once more, one at a time: alone they need less of it.
    """
    if processes <= 1 or len(todo) <= 1:
        for case in todo:
            yield case, work(case)
        return
    waiting = collections.deque(todo)
    struck: list[Case] = []
    while waiting:
        struck += yield from _pooled(work, waiting, min(processes, len(waiting)))
    if struck:
        names = ", ".join(case.case_id for case in struck)
        log.warning("a process was killed, out of memory? One at a time again: %s", names)
    for case in struck:
        if (yield from _pooled(work, collections.deque([case]), 1)):
            yield case, InputError(problem(case.main_file, KILLED, MORE_MEMORY))


def _pooled(work, waiting: collections.deque[Case], processes: int):
    """Work off ``waiting``, no more cases at a time than ``processes``.

    Yields (case, outcome) as they finish; returns the cases that a killed process took along,
    and leaves the others waiting.
    """
    running: dict[concurrent.futures.Future, Case] = {}
    with process_pool(processes) as pool:
        while waiting or running:
            try:
                while waiting and len(running) < processes:
                    running[pool.submit(work, waiting[0])] = waiting[0]
                    waiting.popleft()
            except BrokenProcessPool:
                return list(running.values())
            done, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    continue
                yield running.pop(future), future.result()
            if any(future in running for future in done):
                return list(running.values())
    return []


@contextlib.contextmanager
def process_pool(processes: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Processes that end with this one and guard the same outputs."""
    with (
        _broken_pipes_are_errors(),
        concurrent.futures.ProcessPoolExecutor(
            processes, initializer=_start, initargs=(outputs.HERE,)
        ) as pool,
    ):
        yield pool


@contextlib.contextmanager
def _broken_pipes_are_errors() -> Iterator[None]:
    """Live on where a pipe has no reader any more, as the one to a process that was killed.

    A script leaves SIGPIPE to the system (:func:`cardiform.cli.run`), which would end it without
    a word at the next case that it hands to such a process.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before or signal.SIG_DFL)


def _start(places: outputs.Places) -> None:
    end_with_parent()
    outputs.register(places)


def end_with_parent() -> None:
    """Let this process end soon after the one that started it, however that one ended.

    A pool's processes would wait for the next case forever, and with them whoever reads what
    they say: the job would never end.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _guarded(work, memory: str, case: Case) -> list[Path] | InputError:
    """Bad input and surprises alike fail this case alone, under its name."""
    try:
        return work(case)
    except InputError as error:
        return error
    except Exception as error:
        if limit := limit_fact(error):
            return InputError(problem(case.main_file, *limit))
        if fact := memory_fact(error):
            return InputError(problem(case.main_file, fact, memory))
        if line := os_problem(error, f"an output of case {case.case_id}"):
            return InputError(line)
        log.error("%s\n%s", case.case_id, traceback.format_exc())
        return InputError(
            problem(case.main_file, f"{type(error).__name__}: {error}", "see the log for details")
        )


def _is_finished(run: CaseRun, case: Case, key: str) -> bool:
    """Whether nothing is to be done for a case; its record names the files of this folder then."""
    try:
        record = STATE.load(run.record(case))
        if record["key"] != key:
            return False
        folders = [run.out, *outputs.HERE.folders]
        found = [there for o in record["outputs"] if (there := _found(o, folders))]
        if len(found) < len(record["outputs"]):
            return False
        if found != record["outputs"]:
            write_json(run.record(case), {"key": key, "outputs": found})
        return True
    except (InputError, OSError):
        return False


def _found(output: Mapping, folders: Sequence[Path]) -> dict | None:
    """A recorded output as it lies in one of the folders, with the same bytes; None: it does not.

    The record of a copied or moved folder names the place that it was copied from.
    """
    path = Path(output["path"])
    place = Path(os.path.realpath(path))
    if any(place.is_relative_to(os.path.realpath(folder)) for folder in folders):
        places = [path]
    else:
        ends = [Path(*path.parts[first:]) for first in range(1, len(path.parts))]
        places = [folder / end for end in ends for folder in folders]
    for path in places:
        if path.is_file() and sha256_file(path) == output["sha256"]:
            return {**output, "path": str(path)}
    return None


def _describe(path: Path) -> dict:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
