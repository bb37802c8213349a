"""Large cohorts: what planning costs, how many jobs there are, and a thousand cases for real."""

from __future__ import annotations

import dry_run
import load
import pytest

from cardiform.cohort.table import assign_chunks
from cardiform.errors import InputError

EVERYTHING = ("all", "coronary", "fused", "ldm", "vqvae_windows")
COLUMNS = ("image", "pointcloud", "truth")
CHUNKS = 64
CASES = 18
# per chunk: check, meshes, points, voxels, four windows, repair, fusion
STAGES_OF_A_CHUNK = 10


def test_planning_ten_thousand_cases(tmp_path):
    """Processor time, not time on the clock; a tenth as much is measured (docs/benchmarks.md)."""
    few = dry_run.make_project(tmp_path / "few", 10, COLUMNS)
    many = dry_run.make_project(tmp_path / "many", 10_000, COLUMNS)
    first, _, jobs_of_few = dry_run.dry_run(few, EVERYTHING)
    seconds, megabytes, jobs = dry_run.dry_run(many, EVERYTHING)
    assert seconds < 6 * first
    assert megabytes < 400
    whole = jobs_of_few - STAGES_OF_A_CHUNK * 10  # jobs of the cohort, whatever its size
    assert jobs == STAGES_OF_A_CHUNK * CHUNKS + whole


def test_a_chunk_that_no_command_line_can_name():
    names = [f"{'x' * 90}{n:05d}" for n in range(2000)]
    with pytest.raises(InputError, match=r"cohort\.chunks: 1 for 2000 cases"):
        assign_chunks(names, 1)
    assert len(assign_chunks(names, CHUNKS)) == CHUNKS


@pytest.mark.slow
def test_many_cases_for_real(tmp_path):
    """The benchmark benchmarks/load.py does the same with a thousand."""
    folder = load.make_cohort(tmp_path / "cohort", CASES, 3)
    _, jobs, cases = load.load(folder)
    per_chunk = ("check_cases", "extract_meshes", "sample_sdf", "voxelize_labels")
    assert cases == 4 * CASES and all(jobs[rule] == 3 for rule in per_chunk)
    load.add_case(folder, CASES)
    _, jobs, cases = load.load(folder)
    assert cases == 4 and all(jobs[rule] == 1 for rule in per_chunk)
    assert load.load(folder)[1:] == ({}, 0)
