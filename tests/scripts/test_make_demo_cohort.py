"""make_demo_cohort as the workflow calls it."""

from __future__ import annotations

import json

from cardiform import cohort


def draw(run_script, out, *arguments):
    result = run_script(
        "make_demo_cohort.py", "--out", out, "--cases", 3, "--spacing-mm", 5, *arguments
    )
    assert result.returncode == 0, result.stderr


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_cohort_passes_its_own_check(tmp_path, run_script):
    draw(run_script, tmp_path / "demo")
    made = cohort.read_case_table(tmp_path / "demo" / "cases.tsv")
    assert [c.case_id for c in made] == [c.case_id for c in cohort.demo_cases(3, "x")]
    assert all(len(c.files) == 3 for c in made)
    result = run_script(
        "check_cohort.py", "--table", tmp_path / "demo" / "cases.tsv", "--out", tmp_path / "out"
    )
    assert result.returncode == 0, result.stderr
    qc = json.loads((tmp_path / "out" / "qc" / "cohort.json").read_text())
    assert all(len(case["classes"]) == 10 for case in qc["cases"])


def test_the_same_seed_draws_the_same_files(tmp_path, run_script):
    draw(run_script, tmp_path / "one")
    draw(run_script, tmp_path / "again", "--processes", 2)
    draw(run_script, tmp_path / "other", "--seed", 1)
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "again") == one
    other = contents(tmp_path / "other")
    assert {n for n in one if other[n] == one[n]} == {n for n in one if n.name == "cases.tsv"}
