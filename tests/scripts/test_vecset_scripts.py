"""train_vecset and reconstruct_vecset refuse what cannot work before they begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import refused
from inside import run_inside
from points_files import write_points_file

from cardiform.cohort import splits
from cardiform.cohort.table import Case, write_cases
from cardiform.labels import LabelTable
from cardiform.volumes import load_label_map, save_label_map

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"
TABLE = LabelTable()


def write_points(folder, name, number=700):
    """Points on a ball of class 3, the only one."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(number, 3)).astype(np.float32)
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    points *= 0.9 / np.linalg.norm(points, axis=1, keepdims=True)
    sdf = np.full((number, len(TABLE)), np.nan, np.float16)
    sdf[:, 2] = 0
    labels = np.full(number, 3, np.uint8)
    write_points_file(
        folder / f"{name}.npz",
        surface_points=points, surface_labels=labels, surface_normals=normals,
        near_points=points, near_labels=labels,
        near_sdf=sdf, volume_points=points, volume_sdf=sdf, annotated=np.isin(TABLE.values, 3),
        class_values=np.array(TABLE.values, np.uint8),
        center=np.zeros(3), scale=np.float64(0.02),
    )  # fmt: skip


def write_split(folder, part, names):
    cases = [Case(case_id=n, patient_id=n, labels="x.nii.gz") for n in names]
    splits.write_split(folder / f"{part}.csv", cases, folder)


@pytest.fixture
def train(tmp_path):
    write_points(tmp_path, "a")
    write_split(tmp_path, "train", ["a"])
    write_split(tmp_path, "val", [])

    def run(*arguments):
        places = ["--train", tmp_path / "train.csv", "--validation", tmp_path / "val.csv"]
        places += ["--out", tmp_path / "out", "--preset", "demo", "--device", "cpu"]
        return run_inside("train_vecset.py", *places, *arguments)

    return run


def test_nothing_to_train_on(tmp_path, train):
    write_split(tmp_path, "train", [])
    refused(train(), "train.csv: has no cases", "lower split.validation or .test")


def test_all_unusable_points_are_named(tmp_path, train):
    write_split(tmp_path, "train", ["a", "gone", "broken"])
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    refused(train(), "gone.npz", "broken.npz")
    assert not (tmp_path / "out" / "model.pt").exists()


def test_fewer_points_than_latents(train):
    words = "vecset.input_points: 100 points are too few for the 512 latents"
    refused(train("--input-points", 100, "--steps", 1), words)


def test_values_out_of_range_are_named(train):
    refused(train("--steps", 0), "--steps")
    refused(train("--eikonal", "guess"), "--eikonal")


def test_a_few_steps_give_a_model_and_are_not_done_twice(tmp_path, train):
    tiny = ("--input-points", 600, "--volume-queries", 8, "--near-queries", 8)
    tiny += ("--surface-queries", 8, "--eikonal-queries", 4, "--steps", 2, "--batch-size", 1)
    tiny += ("--workers", 0, "--preview-every", 0)
    first = train(*tiny)
    assert first.returncode == 0, first.stderr
    assert " loss " in first.stderr
    for name in ("model.pt", "metrics.json", "metrics.jsonl", "curves.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    options = json.loads((tmp_path / "out" / "options.json").read_text())["vecset"]
    assert (options["steps"], options["input_points"], options["preset"]) == (2, 600, "demo")
    model = tmp_path / "out" / "model.pt"
    sound = model.read_bytes()
    model.write_bytes(sound[:-100])
    again = train(*tiny)
    assert again.returncode == 0, again.stderr
    assert "resuming from step 2" in again.stderr and " loss " not in again.stderr
    assert model.read_bytes() == sound, "else all that follows would be made again"


def test_a_model_that_is_none(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"nothing")
    for part in ("train", "validation", "test"):
        write_split(tmp_path, part, [])
    write_cases(tmp_path / "cases.tsv", [])
    places = {"cases": tmp_path / "cases.tsv", "meshes": tmp_path, "out": tmp_path / "out"}
    places |= {p: tmp_path / f"{p}.csv" for p in ("train", "validation", "test")}
    places |= {"model": tmp_path / "model.pt", "metrics": tmp_path / "metrics.json"}
    arguments = [a for name, path in places.items() for a in (f"--{name}", path)]
    refused(run_inside("reconstruct_vecset.py", *arguments), "model.pt")


def test_what_cannot_be_completed_is_refused_before_anything_is_made(tmp_path, train):
    tiny = ("--input-points", 600, "--volume-queries", 8, "--near-queries", 8)
    tiny += ("--surface-queries", 8, "--eikonal-queries", 4, "--steps", 1, "--batch-size", 1)
    assert train(*tiny, "--workers", 0, "--preview-every", 0).returncode == 0
    model = ("--model", tmp_path / "out" / "model.pt", "--out", tmp_path / "completed")
    maps = ("--label-maps", tmp_path / "a.nii.gz")
    result = run_inside("complete_vecset.py", *model, *maps)
    refused(result, "model.pt: was not trained to complete; train it with vecset.hidden_share")
    for wrong in ((), (*maps, "--cases", "x"), ("--cases", "x"), ("--train", "x", "--test", "y")):
        result = run_inside("complete_vecset.py", *model, *wrong)
        refused(result, "name --label-maps, or --cases, --train and --test")
    split = ("--cases", "x", "--train", "y", "--test", "z")
    result = run_inside("complete_vecset.py", *model, *split, "--missing", "aorta")
    refused(result, "--missing needs --label-maps")
    refused(run_inside("complete_vecset.py", *model, *split, "--slices"), "--slices needs --label")
    result = run_inside("complete_vecset.py", *model, *maps, "--slices")
    words = "was not trained to complete slices; train it with vecset.slices_share"
    refused(result, f"model.pt: {words}")
    assert not (tmp_path / "completed").exists()


TINY = ("--input-points", 600, "--volume-queries", 8, "--near-queries", 8, "--steps", 4)
TINY += ("--surface-queries", 8, "--eikonal-queries", 4, "--batch-size", 1, "--workers", 0)
TINY += ("--preview-every", 0, "--checkpoint-every", 1)


def test_a_loss_that_is_not_finite_ends_it_in_one_line(tmp_path, train):
    """A learning rate far too high: the second step sees what the first has done."""
    result = train(*TINY, "--lr", 1e30, "--warmup-steps", 0)
    refused(result, "error: step 1: the model loss is not finite; cases of the batch: a", "--lr")
    assert sum(line.startswith("error:") for line in result.stderr.splitlines()) == 1
    kept = torch.load(tmp_path / "out" / "checkpoints" / "last.pt", weights_only=True)
    assert kept["step"] == 1 and not (tmp_path / "out" / "model.pt").exists()
    again = train(*TINY)
    assert again.returncode == 0 and "lr 1e+30 -> 0.0001" in again.stderr, again.stderr
    assert (tmp_path / "out" / "checkpoints.1" / "last.pt").exists()


def test_damaged_points_are_refused_with_the_command_that_mends_them(tmp_path, train):
    path = tmp_path / "a.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(train(), "a.npz: cannot be read (Bad CRC", "snakemake --forcerun sample_sdf")


@pytest.mark.parametrize("place", ["before the training", "during it"])
def test_exhausted_memory_names_the_keys_of_this_training(tmp_path, place):
    """Where it strikes does not matter."""
    module, name = {
        "before the training": ("cardiform.vecset.shared", "shared_cases"),
        "during it": ("cardiform.training.steps.Stepper", "step"),
    }[place]
    code = f"""
import pkgutil, runpy, sys
def short(*arguments, **options): raise MemoryError("no room for 3 GB")
setattr(pkgutil.resolve_name({module!r}), {name!r}, short)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    write_points(tmp_path, "a")
    write_split(tmp_path, "train", ["a"])
    write_split(tmp_path, "val", [])
    places = ["--train", tmp_path / "train.csv", "--validation", tmp_path / "val.csv"]
    places += ["--out", tmp_path / "out", "--preset", "demo", "--device", "cpu"]
    command = [sys.executable, "-c", code, SCRIPTS / "train_vecset.py", *places, *TINY]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment
    )
    refused(result, "the memory is exhausted (no room for 3 GB)")
    for key in ("raise vecset.accumulate", "vecset.batch_size", "vecset.input_points", "mem_mb"):
        assert key in result.stderr


def test_a_heart_is_made_from_its_slices(tmp_path, train):
    """By a network that has learned next to nothing: annotated slices stay as they are."""
    refused(train(*TINY, "--slices-share", 1.0), "vecset.slices_share is 1.0", "vecset.normals")
    assert train(*TINY, "--slices-share", 1.0, "--normals", "true").returncode == 0
    index = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"), axis=-1)
    data = (np.linalg.norm(index - 19.5, axis=-1) < 14).astype(np.uint8) * 3
    data[..., np.arange(40) % 4 > 0] = 0
    save_label_map(tmp_path / "stack.nii.gz", data, np.diag([2.0, 2.0, 2.0, 1.0]))
    places = ("--model", tmp_path / "out" / "model.pt", "--label-maps", tmp_path / "stack.nii.gz")
    asked = (*places, "--slices", "--device", "cpu", "--out", tmp_path / "completed")
    result = run_inside("complete_vecset.py", *asked)
    assert result.returncode == 0, result.stderr
    made = load_label_map(tmp_path / "completed" / "stack.nii.gz").data
    kept = data.any(axis=(0, 1))
    assert np.array_equal(made[..., kept], data[..., kept])
    missing = ("--missing", "aorta", "--out", tmp_path / "other")
    result = run_inside("complete_vecset.py", *asked, *missing)
    refused(result, "was not trained to complete; train it with vecset.hidden_share")
