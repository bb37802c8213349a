"""The case table and chunks."""

from __future__ import annotations

import pytest

from cardiform.cohort.table import (
    Case,
    assign_chunks,
    read_case_table,
    read_checked_cases,
    write_cases,
)
from cardiform.errors import InputError


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
