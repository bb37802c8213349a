"""Real label maps, most classes missing, through the settings of config/few_cases.yaml."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardiform import volumes

FILES = {
    "chest": "chest_heart1_aorta6_pa7.nii.gz",
    "thorax": "thorax_heart1_lad9.nii.gz",
    "artery": "chest_pulmonary_artery_other_grid.nii.gz",
}
CLASSES = {
    "chest": {"myocardium", "aorta", "pulmonary_artery"},
    "thorax": {"myocardium", "coronary"},
    "artery": {"myocardium"},  # this file calls its artery 1
}
SHARES = {"validation": 0.25, "test": 0.25}


@pytest.mark.slow
def test_real_cases_go_through(tmp_path, real_data, run_workflow, seed_that_fills_every_part):
    rows = [f"{case}\t{real_data / name}" for case, name in FILES.items()]
    (tmp_path / "cohort.tsv").write_text("\n".join(["case_id\tlabels", *rows]) + "\n")
    config = {
        "cohort": {"name": "real", "table": "cohort.tsv"},
        "split": {"seed": seed_that_fills_every_part(FILES, **SHARES)},
        # enough steps to see that the loss falls, not enough to see hearts
        "vecset": {"steps": 20, "validate_every": 10, "input_points": 512, "device": "cpu"},
        "vecset_reconstruct": {"device": "cpu"},
        "vqvae_pretrain": {"steps": 5, "device": "cpu"},
        "vqvae_codebook": {"device": "cpu"},
        "vqvae_joint": {"steps": 5, "device": "cpu"},
        "vqvae_reconstruct": {"device": "cpu"},
    }
    voxels = "results/real/ldm/labels/voxels/manifest.tsv"
    run_workflow(tmp_path, config, "vecset", "vqvae", voxels, base="few_cases.yaml")

    results = tmp_path / "results" / "real"
    for case, names in CLASSES.items():
        meshes = {path.stem for path in (results / "meshes" / case).glob("*.ply")}
        assert meshes == names
    grid = json.loads((results / "ldm" / "labels" / "voxels" / "grid.json").read_text())
    found = {label["name"] for label in grid["classes"]}
    assert found == set.union(*CLASSES.values()) - {"coronary"}, "what no case has takes no part"
    losses = [
        event["figures"]["loss"]
        for event in map(
            json.loads, (results / "vecset" / "metrics.jsonl").read_text().splitlines()
        )
        if event["event"] == "validation"
    ]
    assert losses[-1] < losses[0]
    metrics = json.loads((results / "vecset" / "reconstructions" / "metrics.json").read_text())
    assert "NaN" not in json.dumps(metrics)
    made = [p.parent for p in (results / "vecset" / "reconstructions").glob("*/labels.nii.gz")]
    assert len(made) == 2, "one validation and one test case"
    for folder in made:
        truth = volumes.load_label_map(real_data / FILES[folder.name])
        labels = volumes.load_label_map(folder / "labels.nii.gz")
        assert labels.data.shape == truth.data.shape
        assert np.allclose(labels.affine, truth.affine, atol=1e-4)


@pytest.mark.slow
def test_the_real_ct_goes_through_the_window_route(
    tmp_path, real_data, run_workflow, seed_that_fills_every_part
):
    """One CT under three names: enough to see that every step reads what the last one wrote."""
    names = ("one", "two", "three")
    files = f"{real_data / FILES['chest']}\t{real_data / 'chest_ct.nii.gz'}"
    rows = [f"{name}\t{files}" for name in names]
    (tmp_path / "cohort.tsv").write_text("\n".join(["case_id\tlabels\timage", *rows]) + "\n")
    config = {
        "cohort": {"name": "real", "table": "cohort.tsv"},
        "split": {"seed": seed_that_fills_every_part(names, **SHARES)},
        "windows": {"resolution": 64, "windows": ["bone=300/1500", "brain=35/80"]},
        "vqvae_pretrain": {"steps": 10, "validate_every": 5, "device": "cpu"},
        "vqvae_codebook": {"device": "cpu"},
        "vqvae_joint": {"steps": 10, "validate_every": 5, "device": "cpu"},
        "vqvae_reconstruct": {"device": "cpu"},
    }
    run_workflow(tmp_path, config, "vqvae_windows", base="few_cases.yaml")
    results = tmp_path / "results" / "real" / "vqvae_windows"
    for window in ("bone", "brain"):
        metrics = json.loads((results / window / "reconstructions" / "metrics.json").read_text())
        for part in ("validation", "test"):
            figures = metrics[part]["model"]["mean"][window]
            assert figures["l1_voxels"] < 3 and figures["structure_recall"] > 0
        # ten steps say nothing about the codes after the joint training
        usage = json.loads((results / window / "stage1" / "metrics.json").read_text())["train"]
        assert usage["usage"] > 0.9
