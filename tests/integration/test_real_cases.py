"""Real hearts and a real CT through the settings of config/few_cases.yaml."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from cardiform import volumes
from cardiform.cohort.splits import read_split
from cardiform.cohort.table import read_checked_cases
from cardiform.labels import LabelTable

CT = "chest_ct.nii.gz", "chest_heart1_aorta6_pa7.nii.gz"
SHARES = {"validation": 0.2, "test": 0.2}
TRAINING = {"steps": 2, "validate_every": 2, "device": "cpu"}  # enough to see that each one runs
# What few_cases.yaml does in minutes, in seconds.
SETTINGS = {
    "coronary_repair": {"spacing_mm": 1.6},
    "coronary": TRAINING | {"batch_size": 2, "patch": 16, "scales_mm": [1.6], "device": "cpu"},
    "coronary_refine": {"resolution": 64, "device": "cpu"},
    "vecset": TRAINING | {"steps": 20, "validate_every": 10, "input_points": 512},
    "vecset_reconstruct": {"spacing_mm": 4.0, "device": "cpu"},
    "voxels": {"resolution": 64},
    "vqvae_pretrain": TRAINING,
    "vqvae_codebook": {"device": "cpu"},
    "vqvae_joint": TRAINING,
    "vqvae_reconstruct": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory, real_hearts, run_workflow):
    """Six real hearts after a run with config/few_cases.yaml: cases, folder of the results."""
    folder = tmp_path_factory.mktemp("real")
    lines = (real_hearts / "cases.tsv").read_text().split("\n")[1:]
    rows = [line.split("\t") for line in lines if line]
    table = [["case_id", "patient_id", "labels"]]
    table += [[case, patient, str(real_hearts / name)] for case, patient, name in rows]
    (folder / "cohort.tsv").write_text("\n".join("\t".join(row) for row in table) + "\n")
    cohort = {"name": "real", "table": "cohort.tsv", "chunks": 1}
    config = {"cohort": cohort, "split": SHARES, **SETTINGS}
    voxels = "results/real/ldm/labels/voxels/manifest.tsv"
    # one after another on one thread: networks this small spend much of a second one on waiting
    targets = ("vecset", "vqvae", "fused", voxels)
    run_workflow(folder, config, *targets, base="few_cases.yaml", cores=1)
    cases = {case: volumes.load_label_map(path) for case, _, path in table[1:]}
    return cases, folder / "results" / "real"


def classes_of(label_map) -> dict[str, int]:
    """Voxels of every class that is there."""
    counts = np.bincount(label_map.data.ravel(), minlength=256)
    return {c.name: int(counts[c.value]) for c in LabelTable() if counts[c.value]}


@pytest.mark.slow
def test_what_is_unusual_in_real_hearts_is_noted_at_most(hearts):
    """Three and four trees of veins, an aorta in one piece, walls left as background."""
    cases, results = hearts
    assert [case.case_id for case in read_checked_cases(results / "cases.tsv")] == list(cases)
    for report in json.loads((results / "qc" / "cohort.json").read_text())["cases"]:
        assert not report["problems"]
        for warning in report["warnings"]:
            assert re.search(
                "is missing|is cut by the image border|has [2-9] components, expected 1$", warning
            ), f"{report['case_id']}: {warning}"


@pytest.mark.slow
def test_meshes_points_and_voxels_of_real_hearts(hearts):
    cases, results = hearts
    for case, label_map in cases.items():
        classes = classes_of(label_map)
        frame = json.loads((results / "meshes" / case / "frame.json").read_text())["classes"]
        assert {name: c["voxels"] for name, c in frame.items()} == classes
        for name, found in frame.items():
            assert found["watertight"], (case, name)
            assert found["volume_mesh_mm3"] == pytest.approx(found["volume_voxels_mm3"], rel=0.02)
        points = np.load(results / "points" / f"{case}.npz")
        assert points["annotated"].sum() == len(classes)
        cut = points["cut"] if "cut" in points else np.zeros(len(points["annotated"]), bool)
        known = np.isfinite(points["near_sdf"])
        assert known[:, points["annotated"] & ~cut].all(), case
        assert (known[:, cut].mean(axis=0) > 0.5).all(), case
        made = {path.stem for path in (results / "sparse" / "64" / case).glob("*.npz")}
        assert made == set(classes)
    grid = json.loads((results / "ldm" / "labels" / "voxels" / "grid.json").read_text())
    assert {c["name"] for c in grid["classes"]} == set(LabelTable().names) - {"coronary"}


@pytest.mark.slow
def test_fusion_takes_nothing_of_a_real_heart_but_specks(hearts):
    cases, results = hearts
    for case, label_map in cases.items():
        before = classes_of(label_map)
        after = classes_of(volumes.load_label_map(results / "fused" / f"{case}.nii.gz"))
        for name in before.keys() - {"coronary"}:
            assert after[name] == pytest.approx(before[name], rel=0.03), (case, name)
        assert ("coronary" in after) == ("coronary" in before), case


@pytest.mark.slow
def test_real_hearts_are_trained_on_and_reconstructed(hearts):
    cases, results = hearts
    lines = (results / "vecset" / "metrics.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "validation"]
    assert events[-1]["figures"]["loss"] < events[0]["figures"]["loss"]
    parts = [dict(read_split(results / "split" / f"{p}.csv")) for p in ("train", "val", "test")]
    both = {f"mri_biventricular_1_{phase}" for phase in ("ed", "es")}
    assert any(both <= part.keys() for part in parts), "one patient in two phases"
    for family in ("vecset", "vqvae"):
        made = results / family / "reconstructions"
        assert "NaN" not in (made / "metrics.json").read_text()
        held_out = parts[1].keys() | parts[2].keys()
        assert {path.parent.name for path in made.glob("*/labels.nii.gz")} == held_out
        for case in held_out:
            labels = volumes.load_label_map(made / case / "labels.nii.gz")
            assert labels.data.shape == cases[case].data.shape
            assert np.allclose(labels.affine, cases[case].affine, atol=1e-4)


@pytest.mark.slow
def test_the_real_ct_goes_through_the_window_route(
    tmp_path, real_data, run_workflow, seed_that_fills_every_part
):
    """One CT under three names: enough to see that every step reads what the last one wrote."""
    names = ("one", "two", "three")
    files = "\t".join(str(real_data / name) for name in reversed(CT))
    rows = [f"{name}\t{files}" for name in names]
    (tmp_path / "cohort.tsv").write_text("\n".join(["case_id\tlabels\timage", *rows]) + "\n")
    config = {
        "cohort": {"name": "real", "table": "cohort.tsv"},
        "split": {"seed": seed_that_fills_every_part(names, validation=0.25, test=0.25)},
        "windows": {"resolution": 64, "windows": ["bone=300/1500"]},
        "vqvae_pretrain": {"steps": 10, "validate_every": 5, "device": "cpu"},
        "vqvae_codebook": {"device": "cpu"},
        "vqvae_joint": {"steps": 10, "validate_every": 5, "device": "cpu"},
        "vqvae_reconstruct": {"device": "cpu"},
    }
    run_workflow(tmp_path, config, "vqvae_windows", base="few_cases.yaml")
    results = tmp_path / "results" / "real" / "vqvae_windows" / "bone"
    metrics = json.loads((results / "reconstructions" / "metrics.json").read_text())
    for part in ("validation", "test"):
        figures = metrics[part]["model"]["mean"]["bone"]
        assert figures["l1_voxels"] < 3 and figures["structure_recall"] > 0
    # ten steps say nothing about the codes after the joint training
    usage = json.loads((results / "stage1" / "metrics.json").read_text())["train"]
    assert usage["usage"] > 0.9
