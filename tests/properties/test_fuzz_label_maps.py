"""Whole cohorts of drawn label maps, from the file to meshes, points and sparse voxels.

What the check accepts, every stage makes; what it refuses, it names. Nothing else is touched.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
from drawn_label_maps import Drawn, faulty, plain, sound
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from laws_of_geometry import NAMES, check_case
from profiles import examples
from stages import Cohort, errors_of, tree

# Files of others in the folders that the stages write to.
FOREIGN = (
    "notes.txt", "meshes/notes.txt", "meshes/c0/mine.ply", "meshes/c0/notes.md", "points/mine.npz",
    "sparse/c0/mine.npz", "sparse/c0.npz", "qc/cases/other.json", "qc/mine.tsv",
)  # fmt: skip
NOTHING_LEFT = "is cut by its border in every class, and no surface is left"
LEAST_SPAN = 2.99  # of the coarsest voxel edges
MADE = (".ply", ".npz", "frame.json")


def written(folder, maps: list[Drawn]) -> Cohort:
    """The label maps c0, c1, ... in an empty folder, and their table."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    rows = [f"c{k}\t{m.write(folder / 'in', f'c{k}').name}" for k, m in enumerate(maps)]
    table = folder / "in" / "table.tsv"
    table.write_text("\n".join(["case_id\tlabels", *rows]) + "\n")
    return Cohort(table, folder / "out")


@examples(12)
@given(st.lists(sound(), min_size=1, max_size=3), st.sampled_from([64, 64, 96]))
def test_what_the_check_accepts_every_stage_makes(tmp_path, maps, resolution):
    # within the image: what the scan cuts is the matter of the next test
    goes_through(tmp_path, [replace(m, data=np.pad(m.data, 1)) for m in maps], resolution)


@settings(examples(3), phases=[Phase.generate])
@given(st.lists(sound(), min_size=1, max_size=3))
def test_what_the_scan_cuts_goes_through_all_stages(tmp_path, maps):
    goes_through(tmp_path, maps, 64)


def goes_through(tmp_path, maps, resolution) -> None:
    cohort = written(tmp_path / "x", [*maps, plain()])
    given_files = tree(cohort.table.parent)
    for name in FOREIGN:
        (cohort.out / name).parent.mkdir(parents=True, exist_ok=True)
        (cohort.out / name).write_text(name)
    cohort.check()
    good = {case.case_id for case in cohort.cases() if case.status == "ok"}
    for number, drawn in enumerate(maps):
        reason = cohort.cases()[number].reason
        assert (f"c{number}" in good) == (large(drawn) and NOTHING_LEFT not in reason), reason
    log, points, voxels = cohort.geometry(resolution)
    for result in (log, points, voxels):
        assert result.returncode == 0, result.stderr
    for number, drawn in enumerate([*maps, plain()]):
        if f"c{number}" in good:
            check_report(drawn, cohort.out / "qc" / "cases" / f"c{number}.json")
            path = cohort.table.parent / f"c{number}{drawn.ending}"
            check_case(f"c{number}", path, cohort.out, log.stderr)
    assert tree(cohort.table.parent) == given_files
    for name in FOREIGN:
        assert (cohort.out / name).read_text() == name


def large(drawn: Drawn) -> bool:
    """Whether what is labelled spans the few voxels that surfaces and distances need."""
    size = np.ptp(np.argwhere(drawn.data), axis=0) + 1
    spacing = np.linalg.norm(drawn.affine[:3, :3], axis=0)
    return bool((size * spacing).max() >= LEAST_SPAN * spacing.max())


def check_report(drawn: Drawn, path) -> None:
    report = json.loads(path.read_text())
    spacing = np.linalg.norm(drawn.affine[:3, :3], axis=0)
    np.testing.assert_allclose(report["spacing_mm"], spacing, rtol=1e-3)
    assert report["shape"] == list(drawn.data.shape)
    values, counts = np.unique(drawn.data[drawn.data > 0], return_counts=True)
    found = {name: entry["voxels"] for name, entry in report["classes"].items()}
    assert found == {NAMES[v]: n for v, n in zip(values.tolist(), counts.tolist())}


@examples(12)
@given(st.lists(faulty(), min_size=1, max_size=4), st.lists(sound(), max_size=1))
def test_skip_skips_exactly_the_bad_cases_and_names_their_files(tmp_path, bad, good):
    good = [replace(m, data=np.pad(m.data, 1)) for m in good if large(m)]  # cut by no border
    cohort = written(tmp_path / "x", [*bad, plain(), *good])
    result = cohort.check()
    assert result.returncode == 0, result.stderr
    status = {case.case_id: case.status for case in cohort.cases()}
    skipped = [f"c{k}" for k in range(len(bad))]
    assert {name for name, found in status.items() if found != "ok"} == set(skipped)
    stopped = cohort.check("stop")
    assert stopped.returncode == 2
    lines = errors_of(stopped)
    for number, drawn in enumerate(bad):
        path = str(cohort.table.parent / f"c{number}{drawn.ending}")
        assert any(path in line for line in lines), (drawn.fault, lines)
    for name in set(status) - set(skipped):
        assert not any(f"/{name}." in line for line in lines), lines


@examples(3)
@given(sound())
def test_the_same_input_gives_the_same_bytes(tmp_path, drawn):
    found = []
    for folder in (tmp_path / "x", tmp_path / "y"):
        cohort = written(folder, [drawn, plain()])
        cohort.check()
        cohort.geometry(64)
        found.append({k: v for k, v in tree(cohort.out).items() if k.endswith(MADE)})
    assert found[0] == found[1]
    before = {path: path.stat().st_mtime_ns for path in cohort.out.rglob("*.npz")}
    cohort.geometry(64)
    assert {path: path.stat().st_mtime_ns for path in cohort.out.rglob("*.npz")} == before
