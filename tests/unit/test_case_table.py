"""The case table and chunks."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import pytest

from cardiform.cohort.table import (
    Case,
    assign_chunks,
    id_remedy,
    read_case_table,
    read_checked_cases,
    write_cases,
)
from cardiform.errors import InputError

RESULTS_BEFORE = Path(__file__).resolve().parents[1] / "data" / "results_before.tar.xz"
RESULTS = PurePosixPath("results/before")


def case(name, patient=None, **more):
    return Case(case_id=name, patient_id=patient or name, labels=f"{name}.nii.gz", **more)


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_table_paths_count_from_its_folder(tmp_path, delimiter):
    rows = [
        ["case_id", "labels", "image"],
        ["a", "x/a.nii", ""],
        ["b", "/abs/b.nii", "b.ct.nii"],
    ]
    path = tmp_path / "t.tsv"
    path.write_text("\ufeff" + "\n".join(delimiter.join(r) for r in rows) + "\n")
    a, b = read_case_table(path)
    assert (a.case_id, a.patient_id, a.labels) == ("a", "a", str(tmp_path / "x/a.nii"))
    assert (b.labels, b.image, b.pointcloud) == ("/abs/b.nii", str(tmp_path / "b.ct.nii"), "")


def test_table_problems_come_all_at_once(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text(
        "case_id\tpatient_id\tlabels\na\tp\tx\na\tp\ty\n../b\tp\tx\nc d\tp\tx\ne;rm\tp\tx\n"
        "f\tp q\tx\ng\tp\t\n"
    )
    with pytest.raises(InputError) as caught:
        read_case_table(path)
    assert len(caught.value.problems) == 6
    assert "t.tsv:3: case_id a stands already in line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id\tpath\n", "no column labels"),
        ("case_id\tlabels\tlabel\n", "unknown column label;"),
        ("case_id\tlabels\tsex\n", "one of your own begins with x_"),
        ("case_id\tlabels\n", "has no cases"),
        ("", "no column case_id, labels"),
    ],
)
def test_unusable_tables(tmp_path, text, words):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_case_table(tmp_path / "t.tsv")


def test_checked_cases_round_trip(tmp_path):
    members = [case("b", status="skipped", reason="x"), case("a", image="i.nii")]
    write_cases(tmp_path / "cases.tsv", members)
    assert read_checked_cases(tmp_path / "cases.tsv") == members[::-1]
    assert read_checked_cases(tmp_path / "cases.tsv", ["b"]) == members[:1]
    with pytest.raises(InputError, match="has no case z"):
        read_checked_cases(tmp_path / "cases.tsv", ["z"])


def test_a_reason_may_hold_any_line_separator_of_unicode(tmp_path):
    members = [case("a", status="skipped", reason="x\u2028y")]
    write_cases(tmp_path / "cases.tsv", members)
    assert read_checked_cases(tmp_path / "cases.tsv") == members


def test_a_cut_table_is_refused_with_its_line(tmp_path):
    path = tmp_path / "cases.tsv"
    write_cases(path, [case("a"), case("b"), case("c")])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "b\tb\n", lines[3]]))
    with pytest.raises(InputError, match=r"cases\.tsv:3: has 2 of \d+ columns"):
        read_checked_cases(path)


def test_small_cohorts_have_a_chunk_per_case():
    assert assign_chunks(["b", "a"], 2) == {"a": ["a"], "b": ["b"]}


def test_a_new_case_moves_no_other():
    names = [f"case{i}" for i in range(300)]
    before = assign_chunks(names, 16)
    after = assign_chunks(["aaa", *names], 16)
    assert sum(map(len, before.values())) == 300 and len(before) == 16
    assert [c for c in before if before[c] != after[c]] == [
        next(c for c in after if "aaa" in after[c])
    ]


@pytest.mark.parametrize(
    "name", ["state", "State", "manifest", "manifest.tsv", "metrics", "metrics.json", "summary"]
)
def test_names_that_the_stages_use_are_no_case_ids(tmp_path, name):
    (tmp_path / "t.tsv").write_text(f"case_id\tlabels\na\tx\n{name}\tx\n")
    with pytest.raises(InputError) as caught:
        read_case_table(tmp_path / "t.tsv")
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path / 't.tsv'}:3: case_id '{name}' is not usable; rename it")
    write_cases(tmp_path / "cases.tsv", [case(name)])
    with pytest.raises(InputError, match="rename it"):
        read_checked_cases(tmp_path / "cases.tsv")
    patient = f"case_id\tpatient_id\tlabels\na\t{name}\tx\n"
    (tmp_path / "t.tsv").write_text(patient)
    assert read_case_table(tmp_path / "t.tsv")[0].patient_id == name, "no file is called so"


def test_no_other_name_meets_a_file_of_a_stage():
    """In a folder with files of the cases, whatever else lies there is nobody's file."""
    with tarfile.open(RESULTS_BEFORE) as archive:
        paths = [PurePosixPath(name) for name in archive.getnames()]
    paths = {part for path in paths for part in (path, *path.parents)}
    cases = [f"phantom_{k:03d}" for k in range(4)]
    endings: dict = {}
    for path in paths:
        for name in cases:
            if path.name.startswith(name):
                endings.setdefault(path.parent, set()).add(path.name.removeprefix(name))
    for folder in ("coronary/refined", "fused", "ldm/labels/completion"):
        # what was made of the cases there is not kept, or not all of it
        endings.setdefault(RESULTS / folder, set()).update((".json", ".nii.gz", ".png"))
    assert len(endings) > 20
    met = {
        path.name.removesuffix(ending)
        for path in paths
        for ending in endings.get(path.parent, ())
        if path.name.endswith(ending) and not path.name.startswith(tuple(cases))
    }
    assert {"state", "manifest", "manifest.tsv", "metrics", "metrics.json", "summary"} <= met
    assert [name for name in met if not id_remedy(name)] == []


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ("\t", "ok", ""),
        ("ok\tlooked at", "ok", ""),
        ("OK\t", "ok", ""),
        ("skipped\t", "skipped", "by the case table"),
        ("Skipped\tno  contrast", "skipped", "no contrast"),
    ],
)
def test_a_status_by_hand_is_obeyed(tmp_path, fields, status, reason):
    (tmp_path / "t.tsv").write_text(f"case_id\tlabels\tstatus\treason\na\tx\t{fields}\n")
    (found,) = read_case_table(tmp_path / "t.tsv")
    assert (found.status, found.reason) == (status, reason)


def test_a_case_that_is_skipped_by_hand_needs_no_label_map(tmp_path):
    (tmp_path / "t.csv").write_text("case_id,labels,status\na,,skipped\nb,x,ok\n")
    assert [c.files for c in read_case_table(tmp_path / "t.csv")] == [[], [str(tmp_path / "x")]]


def test_any_other_status_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("case_id,labels,status\na,x,bad\nb,x,skip\nc,x,ok\n")
    with pytest.raises(InputError) as caught:
        read_case_table(tmp_path / "t.csv")
    assert [line.partition(": ")[2] for line in caught.value.problems] == [
        "status 'bad' is not usable; use ok or skipped",
        "status 'skip' is not usable; use ok or skipped",
    ]


def test_free_columns_change_nothing_else(tmp_path):
    path = tmp_path / "cohort.tsv"
    path.write_text("case_id\tlabels\tx_sex\tx_age\na\ta.nii\tf\t61\n")
    [case] = read_case_table(path)
    path.write_text("case_id\tlabels\na\ta.nii\n")
    assert [case] == read_case_table(path)
