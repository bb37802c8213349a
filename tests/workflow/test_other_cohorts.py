"""Cohorts without label maps: what they can be used for, and what each target says it lacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trimesh
from dag import ROOT, make_project, planned, snakemake
from planner import planner

from cardiform.geometry.narrowband import NarrowBand

TRAININGS = {"pretrain_vqvae": 1, "train_codebook": 1, "train_vqvae": 1, "reconstruct_vqvae": 1}
LACKS = "has no column {}, which this target is made from"


@pytest.fixture
def project(tmp_path):
    """Twelve cases whose table a test writes."""
    return make_project(tmp_path)


def table(project, columns, cases=12):
    """A case table with some columns, and files for them."""
    lines = ["\t".join(["case_id", *columns])]
    for i in range(cases):
        row = [f"case{i}"]
        for column in columns:
            path = Path("data") / f"{i}.{column}"
            if column == "meshes":
                (project / path).mkdir(exist_ok=True)
                (project / path / "ventricle.ply").write_text("ply")
            else:
                (project / path).write_text(column)
            row.append(str(path))
        lines.append("\t".join(row))
    (project / "cohort.tsv").write_text("\n".join(lines) + "\n")


def refused(project, *targets) -> str:
    result = snakemake(project, "-n", *targets)
    text = result.stdout + result.stderr
    assert result.returncode == 1 and "Traceback" not in text, text
    return text


def test_cts_alone_train_the_windows(project):
    table(project, ["image"])
    jobs = planned(project, "vqvae_windows")
    windows = jobs["window_ct"] // jobs["check_cases"]
    assert windows > 1 and not {"extract_meshes", "voxelize_labels"} & set(jobs)
    assert all(jobs[rule] == windows * count for rule, count in TRAININGS.items())


def test_meshes_alone_train_the_vqvae(project):
    table(project, ["meshes"])
    jobs = planned(project, "vqvae")
    assert jobs["voxelize_meshes"] == jobs["check_cases"]
    assert not {"extract_meshes", "voxelize_labels", "sample_sdf"} & set(jobs)
    assert {rule: jobs[rule] for rule in TRAININGS} == TRAININGS


def test_clouds_alone_train_the_diffusion(project):
    table(project, ["pointcloud"])
    (project / "mine.yaml").write_text(
        (project / "mine.yaml").read_text() + "ldm: {sources: [pointclouds]}\n"
    )
    jobs = planned(project, "ldm")
    assert jobs["convert_pointclouds"] == 1 and "resample_labels" not in jobs


def test_label_maps_come_before_meshes(project):
    table(project, ["labels", "meshes"])
    jobs = planned(project, "voxels")
    assert "voxelize_labels" in jobs and "voxelize_meshes" not in jobs


@pytest.mark.parametrize(
    "target",
    [
        "all", "meshes", "points", "vecset", "coronary", "fused", "trees", "measures", "exports",
        "vessels",
    ],
)  # fmt: skip
def test_a_target_says_that_it_lacks_label_maps(project, target):
    table(project, ["image", "meshes"])
    text = refused(project, target)
    assert f"cohort.tsv: {LACKS.format('labels')}; add it, or make" in text
    assert "what image and meshes suffice for: vqvae_windows, voxels, vqvae" in text


def test_a_target_says_that_it_lacks_cts_or_clouds(project):
    table(project, ["labels"])
    assert f"cohort.tsv: {LACKS.format('image')}" in refused(project, "vqvae_windows")
    (project / "mine.yaml").write_text(
        (project / "mine.yaml").read_text() + "ldm: {sources: [pointclouds]}\n"
    )
    assert f"cohort.tsv: {LACKS.format('pointcloud')}" in refused(project, "ldm")


def test_dense_windows_need_no_ct(project):
    table(project, ["labels"])
    (project / "dense").mkdir()
    (project / "mine.yaml").write_text(
        (project / "mine.yaml").read_text() + "windows: {volumes: dense}\n"
    )
    assert "window_ct" in planned(project, "vqvae_windows")


def test_a_row_without_what_the_cohort_consists_of_is_refused(project):
    table(project, ["image", "meshes"])
    rows = (project / "cohort.tsv").read_text().replace("\tdata/3.image\t", "\t\t")
    (project / "cohort.tsv").write_text(rows)
    assert "cohort.tsv:5: image is empty; name the CT" in refused(project, "vqvae_windows")


def test_an_empty_column_of_label_maps_is_none(project):
    table(project, ["meshes"])
    rows = (project / "cohort.tsv").read_text().splitlines()
    rows = [rows[0] + "\tlabels", *(f"{row}\t" for row in rows[1:])]
    (project / "cohort.tsv").write_text("\n".join(rows) + "\n")
    assert "voxelize_meshes" in planned(project, "voxels")


def test_meshes_and_cts_are_checked_and_voxelised_by_the_workflow(tmp_path):
    """In earnest: two cases of two balls, and a CT of air and water."""
    rows = ["case_id\timage\tmeshes"]
    for case, size in (("a", 20.0), ("b", 24.0)):
        for name, x in (("left", 0.0), ("right", 50.0)):
            ball = trimesh.creation.icosphere(3, size)
            ball.apply_translation([x, 0, 0])
            path = tmp_path / "hearts" / case / f"{name}.stl"
            path.parent.mkdir(parents=True, exist_ok=True)
            ball.export(path)
        image = np.full((24, 24, 24), -1000, np.int16)
        image[6:18, 6:18, 6:18] = 40
        nib.save(nib.Nifti1Image(image, np.diag([2, 2, 2, 1.0])), tmp_path / f"{case}.nii.gz")
        rows.append(f"{case}\t{case}.nii.gz\thearts/{case}")
    (tmp_path / "cohort.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "mine.yaml").write_text(
        "cohort: {name: acme, table: cohort.tsv}\nvoxels: {resolution: 32}\n"
        "windows: {windows: [soft=50/400], resolution: 32}\n"
    )
    places = ["-s", ROOT / "workflow" / "Snakefile", "--configfile", "mine.yaml", "--cores", "1"]
    targets = ["voxels", "results/acme/windows/soft/32/manifest/a.tsv"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    result = planner()([*places, *targets], tmp_path, environment)
    assert result.returncode == 0, result.stdout + result.stderr
    for case in "ab":
        folder = tmp_path / "results" / "acme" / "sparse" / "32" / case
        left, right = (NarrowBand.load(folder / f"{name}.npz") for name in ("left", "right"))
        assert left.frame.scale == right.frame.scale
    assert len(NarrowBand.load(tmp_path / "results/acme/windows/soft/32/a/soft.npz").sdf)
    (tmp_path / "hearts" / "b" / "left.stl").write_bytes(
        (tmp_path / "hearts" / "a" / "left.stl").read_bytes()
    )
    result = planner()([*places, "results/acme/cases.tsv"], tmp_path, environment)
    assert "the mesh is the same file under 2 patients (a, b)" in result.stdout + result.stderr
    (tmp_path / "hearts" / "b" / "right.stl").write_bytes(b"solid")
    result = planner()([*places, "voxels"], tmp_path, environment)
    assert result.returncode == 1
    assert "case b: hearts/b/right.stl: " in result.stdout + result.stderr
