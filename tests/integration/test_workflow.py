"""The whole DAG for real, at the smallest size that still has every part."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cardiform import cohort, nifti
from cardiform.labels import LabelTable
from cardiform.options import SplitOptions

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

TINY = {
    "cohort": {"name": "tiny", "chunks": 3},
    "demo": {"cases": 5, "spacing_mm": 4.0},
    "split": {"validation": 0.25, "test": 0.25},
    "points": {
        "surface_points": 3000,
        "min_class_points": 100,
        "near_points": 4000,
        "volume_points": 2000,
    },
    "vecset": {
        "preset": "demo",
        "input_points": 256,
        "volume_queries": 64,
        "near_queries": 64,
        "surface_queries": 64,
        "eikonal_queries": 16,
        "eikonal_start": 2,
        "steps": 6,
        "batch_size": 2,
        "warmup_steps": 2,
        "validate_every": 3,
        "checkpoint_every": 3,
        "log_every": 2,
        "preview_every": 0,
        "workers": 0,
        "device": "cpu",
    },
    "vecset_reconstruct": {"device": "cpu"},
}


def seed_that_fills_every_part(names, **shares) -> int:
    """The first split seed with a case in each part; so small a cohort needs a choice."""
    members = [cohort.Case(case_id=n, patient_id=n, labels="x") for n in names]
    for seed in range(1000):
        try:
            cohort.split_cases(members, SplitOptions(seed=seed, **shares))
            return seed
        except cohort.InputError:
            continue
    raise AssertionError("no seed fills every part")


def snakemake(folder, *arguments):
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [str(BIN / "snakemake"), *arguments, "-s", str(ROOT / "workflow" / "Snakefile")]
        + ["--profile", str(ROOT / "profiles" / "default")]
        + ["--configfile", "mine.yaml", "--cores", "2"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def run(folder, config, *arguments) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(folder, *arguments)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text[-6000:]
    return text


def planned(folder, config) -> set[str]:
    text = run(folder, config, "-n")
    table = re.search(r"^job +count\n-.*?\n(.*?)\ntotal", text, re.M | re.S)
    return {line.split()[0] for line in table[1].splitlines()} if table else set()


def changed(config, section, **keys):
    return {**config, section: {**config.get(section, {}), **keys}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished run on five coarse hearts."""
    folder = tmp_path_factory.mktemp("tiny")
    names = [case.case_id for case in cohort.demo_cases(5, "x")]
    seed = seed_that_fills_every_part(names, **TINY["split"])
    config = changed(TINY, "split", seed=seed)
    run(folder, config)
    return folder, config


@pytest.mark.slow
def test_every_output_is_there_and_held_out(tiny):
    folder, _ = tiny
    results = folder / "results" / "tiny"
    parts = {p: cohort.read_split(results / "split" / f"{p}.csv") for p in ("train", "val", "test")}
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
        truth = nifti.load_label_map(folder / "resources" / "demo" / "labels" / f"{name}.nii.gz")
        labels = nifti.load_label_map(made / "labels.nii.gz")
        assert labels.data.shape == truth.data.shape
        assert np.allclose(labels.affine, truth.affine, atol=1e-4)
        assert (made / "compare.png").stat().st_size > 0 and (made / "latents.npz").exists()
    for label in LabelTable():
        assert label.name in text


@pytest.mark.slow
def test_a_changed_key_lists_its_stage_and_what_follows(tiny):
    folder, config = tiny
    assert planned(folder, config) == set()
    vecset = {"train_vecset", "reconstruct_vecset", "all"}
    assert planned(folder, changed(config, "vecset", lr=3e-4)) == vecset
    assert planned(folder, changed(config, "points", seed=1)) == {"sample_sdf", *vecset}


@pytest.mark.slow
def test_a_changed_label_map_is_the_only_case_done_again(tiny):
    folder, config = tiny
    path = folder / "resources" / "demo" / "labels" / "phantom_001.nii.gz"
    points = folder / "results" / "tiny" / "points"
    before = {p.name: p.stat().st_mtime_ns for p in points.glob("*.npz")}
    labels = nifti.load_label_map(path)
    data = labels.data.copy()
    data[data == 9] = 0
    nifti.save_label_map(path, data, labels.affine)
    run(folder, config, "points")
    after = {p.name: p.stat().st_mtime_ns for p in points.glob("*.npz")}
    assert {name for name in before if after[name] != before[name]} == {"phantom_001.npz"}
