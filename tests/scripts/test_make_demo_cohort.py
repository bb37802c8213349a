"""make_demo_cohort as the workflow calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardiform.cohort.table import demo_cases, read_case_table
from cardiform.volumes import load_label_map


def draw(run_script, out, *arguments):
    result = run_script(
        "make_demo_cohort.py", "--out", out, "--cases", 3, "--spacing-mm", 5, *arguments
    )
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def demo(tmp_path_factory, run_script):
    return draw(run_script, tmp_path_factory.mktemp("cohort") / "demo")


def contents(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != ".cardiform")
    return {p.relative_to(folder): p.read_bytes() for p in files}


def test_the_cohort_passes_its_own_check(tmp_path, demo, run_script):
    made = read_case_table(demo / "cases.tsv")
    assert [c.case_id for c in made] == [c.case_id for c in demo_cases(3, "x")]
    assert all(len(c.files) == 4 for c in made)
    result = run_script("check_cohort.py", "--table", demo / "cases.tsv", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    qc = json.loads((tmp_path / "qc" / "cohort.json").read_text())
    assert all(len(case["classes"]) == 10 for case in qc["cases"])


def test_the_noise_of_the_coronaries_leaves_the_truth_and_the_other_classes_alone(
    tmp_path, demo, run_script
):
    clean_demo = draw(run_script, tmp_path / "clean", "--coronary-noise", 0)
    for noisy, clean in zip(*(demo_cases(3, folder) for folder in (demo, clean_demo))):
        truth, given = (load_label_map(path).data for path in (noisy.truth, noisy.labels))
        np.testing.assert_array_equal(load_label_map(clean.labels).data, truth)
        changed = given != truth
        assert 0 < changed.sum() < 0.02 * (truth > 0).sum() + (truth == 9).sum()
        assert set(np.unique(truth[changed])) <= {0, 9}
        assert set(np.unique(given[changed])) <= {0, 9}


def test_the_same_seed_draws_the_same_files(tmp_path, demo, run_script):
    draw(run_script, tmp_path / "again", "--processes", 2)
    draw(run_script, tmp_path / "other", "--seed", 1)
    one = contents(demo)
    assert contents(tmp_path / "again") == one
    other = contents(tmp_path / "other")
    assert {n for n in one if other[n] == one[n]} == {n for n in one if n.name == "cases.tsv"}
