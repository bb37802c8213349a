"""Per-case work: done once, one bad case stops no other, the manifest tells all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inside import apart
from mounts import run_with_disk

from cardiform.cohort import per_case
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import save_npz


def double(case):
    """The work of these tests; says on disk that it ran."""
    source = Path(case.labels)
    if source.read_text() == "bad":
        raise InputError(f"{source}: is bad; mend it")
    if source.read_text() == "bug":
        raise ZeroDivisionError("oops")
    if source.read_text() == "large":
        raise MemoryError
    if source.read_text() == "full":  # as of a library that writes by itself
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if source.read_text() == "kill" or (source.read_text() == "once" and mark(source)):
        os.kill(os.getpid(), signal.SIGKILL)
    output = source.with_suffix(".out")
    output.write_text(source.read_text() * 2)
    with source.with_suffix(".runs").open("a") as stream:
        stream.write("x")
    return [output]


def mark(source):
    """Whether it is the first time."""
    first = not source.with_suffix(".mark").exists()
    source.with_suffix(".mark").touch()
    return first


ORPHANS = """
import os, pathlib, signal, sys, time
from cardiform.cohort import per_case
from cardiform.cohort.table import Case
out, script = pathlib.Path(sys.argv[1]), os.getpid()
def work(case):
    (out / case.case_id).touch()
    while not ((out / "a").exists() and (out / "b").exists()):  # both processes are there
        time.sleep(0.01)
    if case.case_id == "a":
        os.kill(script, signal.SIGKILL)
    return []
cases = [Case(case_id=name, patient_id=name, labels=name) for name in "ab"]
run = per_case.CaseRun(cases, out, out / "m.tsv", processes=2)
per_case.run_cases(run, work, inputs=lambda case: [], parameters={})
"""


class Run:
    """Three cases in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = [
            Case(case_id=n, patient_id=n, labels=str(folder / f"{n}.txt")) for n in ("a", "b", "c")
        ]
        for c in self.cases:
            Path(c.labels).write_text(c.case_id)

    def __call__(self, processes=1, **parameters):
        run = per_case.CaseRun(self.cases, self.folder, self.folder / "manifest.tsv", processes)
        per_case.run_cases(run, double, inputs=lambda c: [c.labels], parameters=parameters)

    def runs(self, *names):
        return [len((self.folder / f"{n}.runs").read_text()) for n in names or ("a", "b", "c")]


@pytest.fixture
def work(tmp_path):
    return Run(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_work_is_done_once(work, processes):
    work(processes)
    first = (work.folder / "manifest.tsv").read_text()
    work(processes)
    assert work.runs() == [1, 1, 1]
    assert (work.folder / "manifest.tsv").read_text() == first
    row = first.splitlines()[1].split("\t")
    assert row[:3] == ["a", str(work.folder / "a.out"), "2"]
    assert row[3] == hashlib.sha256(b"aa").hexdigest() and row[4] == "ok"


def test_changes_redo_the_case_alone(work):
    work()
    (work.folder / "a.txt").write_text("other")  # another input
    (work.folder / "b.out").write_text("x")  # a damaged output of the same kind
    work()
    assert work.runs() == [2, 2, 1] and (work.folder / "b.out").read_text() == "bb"
    (work.folder / "state" / "c.json").write_text("{")
    work()
    assert work.runs() == [2, 2, 2]
    work(sigma=2)
    assert work.runs() == [3, 3, 3]


@pytest.mark.parametrize("processes", [1, 2])
def test_one_bad_case_stops_no_other(work, processes):
    (work.folder / "a.txt").write_text("bad")
    (work.folder / "b.txt").write_text("bug")
    with pytest.raises(InputError) as caught:
        work(processes)
    text = str(caught.value)
    assert "is bad; mend it" in text and "ZeroDivisionError: oops" in text
    assert not (work.folder / "manifest.tsv").exists() and (work.folder / "c.out").exists()
    (work.folder / "a.txt").write_text("a")
    (work.folder / "b.txt").write_text("b")
    work(processes)
    assert work.runs() == [1, 1, 1]


def in_folder(case, out):
    """Work that writes to ``out``, and says that it ran."""
    output = out / case.case_id / "x.out"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(Path(case.labels).read_text())
    with (out / "runs").open("a") as stream:
        stream.write(case.case_id)
    return [output]


def made_in(out, cases):
    """The paths that the manifest lists, and for which cases work was done so far."""
    run = per_case.CaseRun(cases, out, out / "manifest.tsv")
    work = functools.partial(in_folder, out=out)
    per_case.run_cases(run, work, inputs=lambda c: [c.labels], parameters={})
    return [row["path"] for row in read_manifest(run.manifest)], (out / "runs").read_text()


@pytest.mark.parametrize("bring", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_folder_lists_its_own_files(work, bring):
    first, second = work.folder / "first" / "meshes", work.folder / "second" / "meshes"
    made_in(first, work.cases)
    bring(first.parent, second.parent)
    paths = [str(second / name / "x.out") for name in "abc"]
    assert made_in(second, work.cases) == (paths, "abc"), "nothing was made again"
    if bring is shutil.copytree:
        (second / "b" / "x.out").unlink()
        assert made_in(second, work.cases) == (paths, "abcb"), "the other folder's does not count"


def test_a_folder_is_the_same_by_another_path(work):
    out, link = work.folder / "out", work.folder / "link"
    listed, _ = made_in(out, work.cases)
    link.symlink_to(out)
    assert made_in(link, work.cases) == (listed, "abc")


def test_skipped_cases_stand_in_the_manifest(work):
    work.cases[0] = Case(case_id="a", patient_id="a", labels="none", status="skipped", reason="cut")
    work()
    lines = (work.folder / "manifest.tsv").read_text().splitlines()
    assert lines[1] == "a\t\t0\t\tskipped: cut"
    assert [line.split("\t")[0] for line in lines[2:]] == ["b", "c"]


def test_a_killed_process_costs_its_case_alone(work, caplog):
    """As the kernel does where memory is short: the others go on, and are not done again."""
    (work.folder / "a.txt").write_text("kill")
    with pytest.raises(InputError) as caught:
        work(processes=2)
    (line,) = caught.value.problems
    assert line.startswith(f"{work.folder / 'a.txt'}: its process was killed")
    assert "--processes" in line and "mem_mb" in line and "finished cases are kept" in line
    assert "One at a time again: a" in caplog.text
    assert {p.stem for p in (work.folder / "state").iterdir()} == {"b", "c"}
    assert not (work.folder / "manifest.tsv").exists()
    before = work.runs("b", "c")
    (work.folder / "a.txt").write_text("a")
    work(processes=2)
    assert work.runs("a") == [1] and work.runs("b", "c") == before
    assert (work.folder / "manifest.tsv").exists()


def write_to_nobody() -> None:
    """As a pool does whose process was killed, in a script, which leaves SIGPIPE to the system."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    reading, writing = os.pipe()
    os.close(reading)
    with per_case.process_pool(1), pytest.raises(BrokenPipeError):
        os.write(writing, b"a case")
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL, "as before"


def test_a_script_outlives_its_killed_processes():
    """It ended with 141 and not a word where it had just handed over another case."""
    apart(write_to_nobody)


def test_no_process_outlives_a_script_that_is_killed(tmp_path):
    """It would hold the pipe to tee, and the job would never end."""
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANS, tmp_path],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(per_case.__file__).parents[2])},
    )
    try:
        process.communicate(timeout=60)  # until the last one that holds its stdout has ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_case_that_was_killed_is_tried_alone(work):
    (work.folder / "b.txt").write_text("once")
    work(processes=3)
    assert (work.folder / "b.out").read_text() == "onceonce"
    assert len((work.folder / "manifest.tsv").read_text().splitlines()) == 4


def test_a_full_disk_is_said_in_one_line(work, caplog):
    (work.folder / "a.txt").write_text("full")
    with pytest.raises(InputError, match=r"an output of case a: could not be written \(No space"):
        work()
    assert "Traceback" not in caplog.text


def test_want_of_memory_is_said_in_one_line(work, caplog):
    (work.folder / "a.txt").write_text("large")
    with pytest.raises(InputError, match=r"a\.txt: the memory is exhausted .*; .*--processes"):
        work()
    assert "Traceback" not in caplog.text


def test_a_case_without_its_input_does_not_count_as_finished(work, caplog):
    caplog.set_level("INFO")
    work()
    (work.folder / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a\.txt: No such file or directory; correct the path"):
        work()
    assert "2 of 3 cases are finished already" in caplog.text


def test_an_input_that_is_not_what_its_stage_wrote_is_named(work):
    """As a damaged mesh, which has no checksum of its own."""
    work()
    (work.folder / "b.out").write_text("damaged")
    with pytest.raises(InputError) as caught:
        per_case.run_cases(
            per_case.CaseRun(work.cases, work.folder / "later", work.folder / "later.tsv"),
            double,
            inputs=lambda c: [Path(c.labels).with_suffix(".out")],
            parameters={},
            made={work.folder: "earlier"},
        )
    (line,) = caught.value.problems
    assert line.startswith(f"{work.folder / 'b.out'}: is not what earlier wrote")
    assert "snakemake --forcerun earlier" in line
    assert {p.stem for p in (work.folder / "later" / "state").iterdir()} == {"a", "c"}


def test_each_input_is_held_against_its_own_checksum(work):
    """A case that reads two files of an earlier stage, with a record of it and without."""
    work()

    def later(parameters):
        per_case.run_cases(
            per_case.CaseRun(work.cases, work.folder / "later", work.folder / "later.tsv"),
            double,
            inputs=lambda c: [c.labels, Path(c.labels).with_suffix(".out")],
            parameters=parameters,
            made={work.folder: "earlier"},
        )

    later({})
    for path in (work.folder / "state").iterdir():
        path.unlink()
    later({"again": True})


def fill(case):
    """A case of a hundred kilobytes."""
    path = Path(case.labels).parent / "disk" / f"{case.case_id}.npz"
    save_npz(path, x=np.zeros(100_000, np.uint8))
    with (path.parents[1] / "runs").open("a") as stream:
        stream.write(case.case_id)
    return [path]


def fill_twice(folder: Path) -> None:
    """Run on a disk that is full, then once more with room on it; report as JSON."""
    (folder / "disk" / "filler").write_bytes(bytes(300_000))
    work, problems, left = Run(folder), [], []
    for _ in range(2):
        try:
            run = per_case.CaseRun(work.cases, folder / "disk", folder / "disk" / "manifest.tsv")
            per_case.run_cases(run, fill, inputs=lambda c: [c.labels], parameters={})
        except InputError as error:
            problems += error.problems
        left.append(sorted(p.name for p in (folder / "disk").iterdir()))
        (folder / "disk" / "filler").unlink(missing_ok=True)
    json.dump(
        {"problems": problems, "left": left, "runs": (folder / "runs").read_text()}, sys.stdout
    )


def test_a_full_disk_is_named_and_what_is_finished_is_kept(tmp_path):
    (tmp_path / "disk").mkdir()
    command = [
        sys.executable,
        "-c",
        f"import {Path(__file__).stem} as t; t.fill_twice(t.Path(t.sys.argv[1]))",
    ]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    result = run_with_disk(
        "full", tmp_path / "disk", [*command, tmp_path], size="560k", env=environment
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    (line,) = found["problems"]
    assert "c.npz: could not be written (No space left on device); make room" in line
    assert found["left"][0] == ["a.npz", "b.npz", "filler", "state"], "nothing half written"
    assert found["left"][1] == ["a.npz", "b.npz", "c.npz", "manifest.tsv", "state"]
    assert found["runs"] == "abc", "finished cases are not done again"
    assert not any((tmp_path / "disk").iterdir()), "the disk is gone with its process"


@pytest.mark.parametrize(
    ("files", "named"),
    [({"meshes": "hearts/a.stl"}, "hearts/a.stl"), ({"image": "a_ct.nii"}, "a_ct.nii"), ({}, "a")],
)
def test_a_surprise_names_a_file_of_a_case_without_a_label_map(files, named):
    def surprise(case):
        raise RuntimeError("odd")

    found = per_case._guarded(surprise, "", Case(case_id="a", patient_id="a", **files))
    assert found.problems[0].startswith(f"{named}: RuntimeError: odd; ")
