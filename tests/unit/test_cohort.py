"""The case table, chunks, splits and per-case work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cardiform import cohort
from cardiform.cohort import Case
from cardiform.errors import InputError
from cardiform.options import SplitOptions


def case(name, patient=None, **more):
    return Case(case_id=name, patient_id=patient or name, labels=f"{name}.nii.gz", **more)


def cases(number, visits=1):
    return [case(f"c{i:04d}", f"p{i // visits:04d}") for i in range(number)]


# --- table ------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_table_paths_count_from_its_folder(tmp_path, delimiter):
    rows = [
        ["case_id", "labels", "image"],
        ["a", "x/a.nii", ""],
        ["b", "/abs/b.nii", "b.ct.nii"],
    ]
    path = tmp_path / "t.tsv"
    path.write_text("\ufeff" + "\n".join(delimiter.join(r) for r in rows) + "\n")
    a, b = cohort.read_case_table(path)
    assert (a.case_id, a.patient_id, a.labels) == ("a", "a", str(tmp_path / "x/a.nii"))
    assert (b.labels, b.image, b.pointcloud) == ("/abs/b.nii", str(tmp_path / "b.ct.nii"), "")


def test_table_problems_come_all_at_once(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text(
        "case_id\tpatient_id\tlabels\na\tp\tx\na\tp\ty\n../b\tp\tx\nc d\tp\tx\ne;rm\tp\tx\n"
        "f\tp q\tx\ng\tp\t\n"
    )
    with pytest.raises(InputError) as caught:
        cohort.read_case_table(path)
    assert len(caught.value.problems) == 6
    assert "t.tsv:3: case_id a stands already in line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id\tpath\n", "no column labels"),
        ("case_id\tlabels\tlabel\n", "unknown column label;"),
        ("case_id\tlabels\n", "has no cases"),
        ("", "no column case_id, labels"),
    ],
)
def test_unusable_tables(tmp_path, text, words):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        cohort.read_case_table(tmp_path / "t.tsv")


def test_checked_cases_round_trip(tmp_path):
    members = [case("b", status="skipped", reason="x"), case("a", image="i.nii")]
    cohort.write_cases(tmp_path / "cases.tsv", members)
    assert cohort.read_checked_cases(tmp_path / "cases.tsv") == members[::-1]
    assert cohort.read_checked_cases(tmp_path / "cases.tsv", ["b"]) == members[:1]
    with pytest.raises(InputError, match="has no case z"):
        cohort.read_checked_cases(tmp_path / "cases.tsv", ["z"])


# --- chunks and split -------------------------------------------------------------------


def test_small_cohorts_have_a_chunk_per_case():
    assert cohort.assign_chunks(["b", "a"], 2) == {"a": ["a"], "b": ["b"]}


def test_a_new_case_moves_no_other():
    names = [f"case{i}" for i in range(300)]
    before = cohort.assign_chunks(names, 16)
    after = cohort.assign_chunks(["aaa", *names], 16)
    assert sum(map(len, before.values())) == 300 and len(before) == 16
    assert [c for c in before if before[c] != after[c]] == [
        next(c for c in after if "aaa" in after[c])
    ]


def test_split_follows_the_patient_and_never_moves():
    options = SplitOptions(validation=0.2, test=0.2, seed=3)
    parts = cohort.split_cases(cases(600, visits=2), options)
    place = {c.case_id: part for part, members in parts.items() for c in members}
    by_patient = {}
    for c in cases(600, visits=2):
        by_patient.setdefault(c.patient_id, set()).add(place[c.case_id])
    assert all(len(parts_) == 1 for parts_ in by_patient.values())
    share = Counter(place.values())
    assert 80 < share["val"] < 160 and 80 < share["test"] < 160
    more = cohort.split_cases([case("zz"), case("0"), *cases(600, visits=2)], options)
    assert all(place.get(c.case_id, part) == part for part, ms in more.items() for c in ms)
    other = cohort.split_cases(cases(600, visits=2), SplitOptions(seed=4))
    assert [c.case_id for c in other["test"]] != [c.case_id for c in parts["test"]]


def test_folds_test_every_patient_once():
    members = cases(200)
    folds = [cohort.split_cases(members, SplitOptions(folds=5, fold=k)) for k in range(5)]
    tested = Counter(c.case_id for fold in folds for c in fold["test"])
    assert tested == Counter(c.case_id for c in members)
    assert all(not set(f["test"]) & set(f["train"] + f["val"]) for f in folds)
    for options in (SplitOptions(folds=2), SplitOptions(folds=5, fold=5)):
        with pytest.raises(InputError):
            cohort.split_cases(members, options)


def test_an_empty_part_is_told():
    with pytest.raises(InputError, match="a part is empty"):
        cohort.split_cases(cases(1), SplitOptions())
    with pytest.raises(InputError, match="nothing to train on"):
        cohort.split_cases(cases(50), SplitOptions(validation=0.5, test=0.5))
    parts = cohort.split_cases(cases(50), SplitOptions(test=0))
    assert not parts["test"] and parts["train"]


def test_split_files_round_trip(tmp_path):
    cohort.write_split(tmp_path / "train.csv", cases(2), Path("points"))
    assert (tmp_path / "train.csv").read_text().startswith("case_id,patient_id,path\n")
    assert cohort.read_split(tmp_path / "train.csv") == [
        ("c0000", Path("points/c0000.npz")), ("c0001", Path("points/c0001.npz"))
    ]  # fmt: skip


# --- per-case work ----------------------------------------------------------------------


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
        cohort.run_cases(
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
    files = cohort.read_manifests([work.folder / "manifest.tsv"])
    assert files["a"] == [work.folder / "a.out"]


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
    assert "a\t\t0\t\tskipped: cut" in (work.folder / "manifest.tsv").read_text()
    assert set(cohort.read_manifests([work.folder / "manifest.tsv"])) == {"b", "c"}


def test_missing_outputs_are_noticed_by_readers(work):
    work()
    (work.folder / "a.out").unlink()
    with pytest.raises(InputError, match=r"a\.out: is missing"):
        cohort.read_manifests([work.folder / "manifest.tsv"])
