"""The whole DAG for real, at the smallest size that still has every part.

Every rule runs in the environment that its file describes (see test_conda.py).
"""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
import yaml
from env_files import read_rules
from tiny_config import TINY, changed

from cardiform import volumes
from cardiform.cohort import splits
from cardiform.cohort.table import demo_cases, read_checked_cases
from cardiform.labels import LabelTable

RULES, _ = read_rules()
ALL = (
    "all",
    "trees",
    "measures",
    "exports",
    "search",
    "results/tiny/windows/bone/64/manifest/chunk_000.tsv",
    "results/tiny/ldm/pointclouds/split/train.csv",
)


def planned(run_in_conda, folder, config) -> set[str]:
    text = run_in_conda(folder, config, "-n")
    table = re.search(r"^job +count\n-.*?\n(.*?)\ntotal", text, re.M | re.S)
    return {line.split()[0] for line in table[1].splitlines()} if table else set()


def file_of_clouds(folder) -> str:
    """Forty small point clouds."""
    points = np.random.default_rng(0).normal(size=(40, 50, 3)) * 30
    with h5py.File(folder / "clouds.h5", "w") as archive:
        archive.create_dataset("points", data=points.astype(np.float32))
    return str(folder / "clouds.h5")


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_in_conda, seed_that_fills_every_part):
    """A finished run on five coarse hearts: its folder, its config, what was printed."""
    folder = tmp_path_factory.mktemp("tiny")
    names = [case.case_id for case in demo_cases(5, "x")]
    seed = seed_that_fills_every_part(names, **TINY["split"])
    config = changed(TINY, "split", seed=seed)
    config = changed(config, "pointclouds", file=file_of_clouds(folder))
    return folder, config, run_in_conda(folder, config, *ALL)


@pytest.fixture(scope="module")
def tiny(made):
    folder, config, _ = made
    return folder, config


@pytest.fixture(scope="module")
def refined(tiny, run_in_conda):
    """The same with refined coronaries: its config, what was printed, the mesh of before."""
    folder, config = tiny
    config = changed(config, "cohort", use_refined=True)
    mesh = (folder / "results" / "tiny" / "meshes" / "phantom_000" / "coronary.ply").read_bytes()
    return config, run_in_conda(folder, config, "points"), mesh


@pytest.mark.slow
def test_every_output_is_there_and_held_out(tiny):
    folder, _ = tiny
    results = folder / "results" / "tiny"
    parts = {p: splits.read_split(results / "split" / f"{p}.csv") for p in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 5
    for name in ("model.pt", "metrics.json", "metrics.jsonl", "curves.png"):
        assert (results / "vecset" / name).stat().st_size > 0, name
    assert list((results / "vecset").rglob("events.out.tfevents*"))
    metrics = json.loads((results / "vecset" / "reconstructions" / "metrics.json").read_text())
    text = json.dumps(metrics)
    held_out = {name for part in ("val", "test") for name, _ in parts[part]}
    for name, _ in parts["train"]:
        assert name not in text, "figures come from held-out cases alone"
    for name in held_out:
        assert name in text
        made = results / "vecset" / "reconstructions" / name
        truth = volumes.load_label_map(folder / "resources" / "demo" / "labels" / f"{name}.nii.gz")
        labels = volumes.load_label_map(made / "labels.nii.gz")
        assert labels.data.shape == truth.data.shape
        assert np.allclose(labels.affine, truth.affine, atol=1e-4)
        assert (made / "compare.png").stat().st_size > 0 and (made / "latents.npz").exists()
    for label in LabelTable():
        assert label.name in text


@pytest.mark.slow
def test_codes_and_reconstructions_of_held_out_hearts_alone(tiny):
    folder, _ = tiny
    results = folder / "results" / "tiny"
    for stage, more in (("0", []), ("1", ["usage.png"]), ("2", ["usage.png", "curves.png"])):
        for name in ("model.pt", "metrics.json", *more):
            assert (results / "vqvae" / f"stage{stage}" / name).stat().st_size > 0, (stage, name)
    made = results / "vqvae" / "reconstructions"
    metrics = json.loads((made / "metrics.json").read_text())
    for part, csv in (("validation", "val"), ("test", "test")):
        names = {name for name, _ in splits.read_split(results / "split" / f"{csv}.csv")}
        assert set(metrics[part]["cases"]) == names
        for name in names:
            path = folder / "resources" / "demo" / "labels" / f"{name}.nii.gz"
            truth = volumes.load_label_map(path)
            labels = volumes.load_label_map(made / name / "labels.nii.gz")
            assert labels.data.shape == truth.data.shape
            assert (made / name / "codes.npz").exists()
            assert (made / name / "compare.png").stat().st_size > 0


@pytest.mark.slow
def test_generated_hearts_and_their_figures(tiny):
    folder, _ = tiny
    made = folder / "results" / "tiny" / "ldm" / "labels"
    for stage in ("autoencoder", "diffusion"):
        assert (made / stage / "model.pt").stat().st_size > 0
    names = json.loads((made / "samples" / "metrics.json").read_text())["samples"]
    assert len(names) == 2
    for name in names:
        assert volumes.load_label_map(made / "samples" / "nifti" / f"{name}.nii.gz").data.any()
        assert (made / "samples" / "pointcloud" / f"{name}.csv").exists()
    assert (made / "samples" / "overview.png").exists() and (made / "samples/figures.json").exists()
    tested = {n for n, _ in splits.read_split(folder / "results" / "tiny" / "split" / "test.csv")}
    completed = json.loads((made / "completion" / "metrics.json").read_text())
    assert set(completed["cases"]) == tested


@pytest.mark.slow
def test_a_search_has_its_trials_and_their_best(tiny):
    folder, _ = tiny
    made = folder / "results" / "tiny" / "search" / "vecset"
    header, *rows = [line.split("\t") for line in (made / "trials.tsv").read_text().splitlines()]
    assert header[2:4] == ["loss_3", "loss_6"] and len(rows) == 2
    assert rows[0][3] and not rows[1][3], "one of two went on"
    best = yaml.safe_load((made / "best.yaml").read_text())
    assert str(best["vecset"]["lr"]) == rows[0][4]
    first, last = (
        json.loads((made / f"rung_{k}" / "place_00" / "vecset" / "metrics.json").read_text())
        for k in (0, 1)
    )
    assert (first["steps"], last["steps"]) == (3, 6)
    events = (made / "rung_1" / "place_00" / "vecset" / "metrics.jsonl").read_text()
    assert json.loads(events.splitlines()[0])["event"] == "resume"


@pytest.mark.slow
def test_a_changed_key_lists_its_stage_and_what_follows(tiny, run_in_conda):
    folder, config = tiny
    assert planned(run_in_conda, folder, config) == set()
    vecset = {"train_vecset", "reconstruct_vecset", "write_report", "all"}
    assert planned(run_in_conda, folder, changed(config, "vecset", lr=3e-4)) == vecset
    assert planned(run_in_conda, folder, changed(config, "points", seed=1)) == {
        "sample_sdf",
        *vecset,
    }


@pytest.mark.slow
def test_a_changed_label_map_is_the_only_case_done_again(tiny, run_in_conda):
    folder, config = tiny
    path = folder / "resources" / "demo" / "labels" / "phantom_001.nii.gz"
    points = folder / "results" / "tiny" / "points"
    before = {p.name: p.stat().st_mtime_ns for p in points.glob("*.npz")}
    labels = volumes.load_label_map(path)
    data = labels.data.copy()
    data[data == 9] = 0
    volumes.save_label_map(path, data, labels.affine)
    run_in_conda(folder, config, "points")
    after = {p.name: p.stat().st_mtime_ns for p in points.glob("*.npz")}
    assert {name for name in before if after[name] != before[name]} == {"phantom_001.npz"}


@pytest.mark.slow
def test_fused_label_maps_feed_the_other_stages(tiny, refined, run_in_conda):
    folder, _ = tiny
    config, _, before = refined
    results = folder / "results" / "tiny"
    for name in ("manifest.tsv", "metrics.json", "phantom_000.png", "fine/phantom_000.nii.gz"):
        assert (results / "coronary" / "refined" / name).stat().st_size > 0, name
    metrics = json.loads((results / "coronary" / "refined" / "metrics.json").read_text())
    found = [metrics[part] for part in ("train", "validation", "test") if metrics[part]["cases"]]
    assert sum(part["cases"] for part in found) == 4, "one case lost its coronaries above"
    for part in found:
        assert part["cases"] == part["cases_with_truth"]
        for column in ("against_label", "against_truth", "label_against_truth"):
            assert 0 < part[column]["dice"] <= 1
    cases = read_checked_cases(results / "fused" / "cases.tsv")
    assert len(cases) == 5 and all("/fused/" in case.labels for case in cases)
    frame = json.loads((results / "meshes" / "phantom_000" / "frame.json").read_text())
    fused = volumes.load_label_map(results / "fused" / "phantom_000.nii.gz")
    assert frame["classes"]["coronary"]["voxels"] == (fused.data == 9).sum()
    assert (results / "meshes" / "phantom_000" / "coronary.ply").read_bytes() != before
    vecset = {"train_vecset", "reconstruct_vecset", "write_report", "all"}
    assert vecset <= planned(run_in_conda, folder, config)


@pytest.mark.slow
def test_every_rule_ran_in_its_environment(made, refined):
    """In both runs together, and no job outside of one."""
    text = made[2] + refined[1]
    finished = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, flags=re.M)
    targets = {"all", "points", "trees", "measures", "exports", "search"}
    # by name alone: apply takes trained models, vessels, folds and sets longer trainings
    named = {r.name for r in RULES if r.name.endswith(("_vessels", "_applied", "_folds"))}
    named |= {r.name for r in RULES if "_set_" in r.name}
    named |= {"complete_vecset", "voxelize_meshes"}  # where classes are hidden; of meshes
    # of three training hearts at least
    named |= {"shape_statistics", "statistics", "latent_statistics"}
    assert set(finished) == {rule.name for rule in RULES} - named - {"apply_models"} | targets
    in_environments = [rule for rule in finished if rule not in targets]
    assert text.count("Activating conda environment: ") == len(in_environments)
