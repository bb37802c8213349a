"""Per-case work: done once, one bad case stops no other, the manifest tells all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cardiform import case_runs
from cardiform.cohort import Case
from cardiform.errors import InputError


def double(case):
    """The work of these tests; says on disk that it ran."""
    source = Path(case.labels)
    if source.read_text() == "bad":
        raise InputError(f"{source}: is bad; mend it")
    if source.read_text() == "bug":
        raise ZeroDivisionError("oops")
    output = source.with_suffix(".out")
    output.write_text(source.read_text() * 2)
    with source.with_suffix(".runs").open("a") as stream:
        stream.write("x")
    return [output]


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
        case_runs.run_cases(
            self.cases, double, inputs=lambda c: [c.labels], parameters=parameters,
            state=self.folder / "state", manifest=self.folder / "manifest.tsv",
            processes=processes,
        )  # fmt: skip

    def runs(self):
        return [len((self.folder / f"{n}.runs").read_text()) for n in ("a", "b", "c")]


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


def test_skipped_cases_stand_in_the_manifest(work):
    work.cases[0] = Case(case_id="a", patient_id="a", labels="none", status="skipped", reason="cut")
    work()
    lines = (work.folder / "manifest.tsv").read_text().splitlines()
    assert lines[1] == "a\t\t0\t\tskipped: cut"
    assert [line.split("\t")[0] for line in lines[2:]] == ["b", "c"]
