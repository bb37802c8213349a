"""export_models and import_models on a results folder, and a bundle's models in other scripts."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from answers import refused
from inside import run_inside

from cardiform.artefact.model import load_model
from cardiform.files import sha256_file
from cardiform.options.vecset import VecsetReconstructOptions
from cardiform.vecset.reconstruct import Reconstructor

ARCHIVE = Path(__file__).parents[1] / "data" / "results_before.tar.xz"
CASES = [f"phantom_00{number}" for number in range(4)]
# how the training data of the archive were made
STAGES = {
    "points": {
        "surface_points": 3000, "min_class_points": 100, "near_points": 4000, "volume_points": 2000
    },
    "voxels": {"resolution": 32},
    "coronary_repair": {"spacing_mm": 2.0},
}  # fmt: skip


def randomise(path: Path) -> None:
    """Give a model weights: those of the archive are zero."""
    torch.manual_seed(0)
    content = torch.load(path, weights_only=True)
    content["weights"] = {n: 0.05 * torch.randn(w.shape) for n, w in content["weights"].items()}
    if "head.bias" in content["weights"]:  # a field far from zero takes less time on a grid
        content["weights"]["head.bias"] += 0.6
    torch.save(content, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The unpacked archive, a figure of its VecSet beside it, and a bundle of two models."""
    folder = tmp_path_factory.mktemp("bundles")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    results = folder / "results" / "before"
    for place in ("vecset", "vqvae/stage2", "coronary/near", "ldm/labels/diffusion"):
        randomise(results / place / "model.pt")
    rows = {"aorta": {"dice": 0.875, "assd_mm": 1.25, "hd95_mm": None}}
    part = {"model": {"mean": rows}, "mean_shape": {"mean": rows}, "cases": {CASES[0]: {}}}
    figures = {"test": part, "model_sha256": sha256_file(results / "vecset" / "model.pt")}
    (results / "vecset" / "reconstructions" / "metrics.json").write_text(json.dumps(figures))
    stages = {"format_version": 1, "stages": STAGES, "spacing_mm": [1.5], "refined": False}
    (results / "stages.json").write_text(json.dumps(stages))
    result = export(results, folder / "acme", "--families", "vecset", "ldm", "--name", "acme")
    assert result.returncode == 0, result.stderr
    return folder


def export(results, out, *arguments):
    return run_inside("export_models.py", "--models", results, "--out", out, *arguments)


def take(bundle, *arguments):
    return run_inside("import_models.py", "--bundle", bundle, *arguments)


def test_a_bundle_stands_alone(folder, tmp_path):
    made = folder / "acme"
    about = json.loads((made / "bundle.json").read_text())
    stages = json.loads((made / "stages.json").read_text())
    for section, options in STAGES.items():
        assert options.items() <= stages["stages"][section].items()
    assert stages["spacing_mm"] == [1.5]
    assert about["models"].keys() == {"vecset", "ldm/labels/autoencoder", "ldm/labels/diffusion"}
    assert not [p for p in made.rglob("*") if p.suffix in (".pt", ".txt") or p.name == ".cardiform"]
    for place in about["models"]:
        before = load_model(folder / "results" / "before" / place / "model.pt")
        after = load_model(made / place / "model.safetensors")
        assert after.kind == before.kind == about["models"][place]["kind"]
        assert all(torch.equal(after.weights[n], w) for n, w in before.weights.items())
        assert f"example/{place}.npz" in about["example"]
    assert about["example"][0] == "example/phantom.nii.gz"
    found = take(made, "--out", tmp_path / "mine", "--try-example")
    assert found.returncode == 0, found.stderr
    assert "acme is sound" in found.stderr and "vecset: vecset" in found.stderr
    assert (tmp_path / "mine" / "stages.json").read_bytes() == (made / "stages.json").read_bytes()


def test_a_zip_is_the_folder(folder, tmp_path):
    results = folder / "results" / "before"
    for name in ("a.zip", "b.zip"):
        assert export(results, tmp_path / name, "--families", "ldm").returncode == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert take(tmp_path / "a.zip").returncode == 0, "checked alone"
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip", "b.zip"}
    assert take(tmp_path / "a.zip", "--out", tmp_path / "out").returncode == 0
    model = tmp_path / "out" / "ldm" / "labels" / "diffusion" / "model.safetensors"
    assert load_model(model).kind == "ldm_diffusion"


def everything_in(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is an archive."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_no_case_and_no_machine_is_named(folder):
    words = [name.encode() for name in CASES] + [str(folder).encode(), b"/home/", b"/opt/"]
    for path in (folder / "acme").rglob("*"):
        if path.is_file():
            content = everything_in(path)
            assert not [word for word in words if word in content], path


def test_the_card_is_what_hubs_read(folder):
    text = (folder / "acme" / "README.md").read_text()
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    about = yaml.safe_load(front)
    assert about["library_name"] == "cardiform" and "FILL IN" in body
    [index] = about["model-index"]
    assert index["name"] == "acme"
    [result] = index["results"]
    assert result["task"] == {"type": "other", "name": "vecset"}
    assert result["dataset"] == {"type": "other", "name": "1 test cases, own grids"}
    assert result["metrics"] == [
        {"type": "dice", "name": "Dice, aorta", "value": 0.875},
        {"type": "assd_mm", "name": "ASSD mm, aorta", "value": 1.25},
    ]
    assert "| aorta | 0.875 | 1.250 | - | 0.875 |" in body and "1 test cases" in body
    assert "phantom_" not in text


def test_figures_of_other_weights_are_left_out(folder, tmp_path):
    model = folder / "results" / "before" / "vecset"
    other = tmp_path / "vecset"
    (other / "reconstructions").mkdir(parents=True)
    (other / "model.pt").write_bytes((model / "model.pt").read_bytes())
    metrics = json.loads((model / "reconstructions" / "metrics.json").read_text())
    metrics["model_sha256"] = "0" * 64
    (other / "reconstructions" / "metrics.json").write_text(json.dumps(metrics))
    assert export(tmp_path, tmp_path / "out").returncode == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "0.875" not in text and "model-index" not in text


def test_a_bundles_model_reconstructs_the_same_bits(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    results = Path("results/before")
    header = "case_id,patient_id,path\n"
    row = f"{CASES[0]},{CASES[0]},{results / 'points' / CASES[0]}.npz\n"
    for part, text in (("train", ""), ("validation", ""), ("test", row)):
        (tmp_path / f"{part}.csv").write_text(header + text)
    split = [w for p in ("train", "validation", "test") for w in (f"--{p}", tmp_path / f"{p}.csv")]
    models = {
        "pt": results / "vecset" / "model.pt",
        "safetensors": Path("acme") / "vecset" / "model.safetensors",
    }
    for name, model in models.items():
        out = tmp_path / name
        result = run_inside(
            "reconstruct_vecset.py", "--model", model, *split, "--cases", results / "cases.tsv",
            "--meshes", results / "meshes", "--out", out, "--metrics", out / "metrics.json",
            "--device", "cpu",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    for name in ("labels.nii.gz", "latents.npz", "figures.json"):
        first, second = (everything_in(tmp_path / n / CASES[0] / name) for n in models)
        assert first == second, name
    with np.load(tmp_path / "pt" / CASES[0] / "latents.npz") as stored:
        latents = torch.from_numpy(stored["latents"])[None]
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32)
    options, device = VecsetReconstructOptions(device="cpu"), torch.device("cpu")
    networks = [Reconstructor.load(model, options, device) for model in models.values()]
    first, second = (network.field(latents)(points) for network in networks)
    assert np.array_equal(first, second) and np.ptp(first) > 0 and latents.std() > 0


def test_what_cannot_be_exported(folder, tmp_path):
    refused(export(tmp_path / "none", tmp_path / "out"), "none: is no folder")
    refused(export(tmp_path, tmp_path / "out"), "has no trained model; name a results folder in")
    results = folder / "results" / "before"
    refused(export(results, tmp_path / "out", "--name", "a/b"), "--name 'a/b' is no name")
    (tmp_path / "vecset").mkdir()
    (tmp_path / "coronary" / "near").mkdir(parents=True)
    for place in ("vecset", "coronary/near"):
        (tmp_path / place / "model.pt").write_bytes(b"nothing")
    wrong = export(tmp_path, tmp_path / "out")
    refused(wrong, "vecset/model.pt: is damaged", "coronary/near/model.pt: is damaged")
    refused(export(tmp_path, tmp_path / "out", "--families", "ldm"), "has no trained model of ldm")
    assert not (tmp_path / "out").exists()


def test_models_of_two_label_tables_are_no_bundle(folder, tmp_path):
    results = folder / "results" / "before"
    for place in ("vecset", "ldm/labels/autoencoder"):
        content = torch.load(results / place / "model.pt", weights_only=True)
        if place == "vecset":
            content["labels"][0]["value"] = 77
        (tmp_path / place).mkdir(parents=True)
        torch.save(content, tmp_path / place / "model.pt")
    refused(
        export(tmp_path, tmp_path / "out"), "has another label table than", "export them separately"
    )


def test_nothing_of_the_users_is_written_over(folder, tmp_path):
    results = folder / "results" / "before"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file.zip").write_text("years")
    for out in (tmp_path / "mine", tmp_path / "file.zip"):
        refused(export(results, out), "is there already; name another, or add --force")
        refused(export(results, out, "--force"), "is there already and is no bundle")
    refused(take(folder / "acme", "--out", tmp_path / "mine", "--force"), "is no bundle")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert (tmp_path / "file.zip").read_text() == "years"
    assert take(folder / "acme", "--out", tmp_path / "out").returncode == 0
    refused(take(folder / "acme", "--out", tmp_path / "out"), "is there already")
    assert take(folder / "acme", "--out", tmp_path / "out", "--force").returncode == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refused(take(folder / "acme", "--out", tmp_path / "out", "--force"), "notes.txt: is on no list")
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_cannot_be_imported(folder, tmp_path):
    refused(take(tmp_path / "none"), "none: does not exist; correct --bundle")
    refused(take(folder / "results"), "is no bundle (no bundle.json)")
    refused(take(folder / "acme", "--out", folder / "acme", "--force"), "is the bundle itself")
    refused(take(folder / "acme", "--out", tmp_path / "a.zip"), "a.zip: is to be a folder")
    (tmp_path / "file").write_text("")
    refused(take(folder / "acme", "--out", tmp_path / "file" / "out"), "could not be written (")
    table = "value\tname\ttitle\tcolor\tcomponents\tpriority\n1\theart\tHeart\t#ffffff\t1\t1\n"
    (tmp_path / "labels.tsv").write_text(table)
    refused(
        take(folder / "acme", "--labels", tmp_path / "labels.tsv"),
        "acme: was trained with another label table (heart 1,",
    )
    copy = tmp_path / "copy"
    assert take(folder / "acme", "--out", copy).returncode == 0
    model = copy / "vecset" / "model.safetensors"
    raw = bytearray(model.read_bytes())
    raw[len(raw) // 2] ^= 1
    model.write_bytes(raw)
    refused(take(copy), "copy/vecset/model.safetensors: was changed")
    refused(take(copy, "--out", tmp_path / "out"), "was changed")
    assert not (tmp_path / "out").exists()


def test_an_example_that_comes_out_otherwise(folder, tmp_path):
    copy = tmp_path / "copy"
    assert take(folder / "acme", "--out", copy).returncode == 0
    path = copy / "example" / "vecset.npz"
    with np.load(path) as stored:
        np.savez(path, **{n: a[::-1] for n, a in stored.items()})
    about = json.loads((copy / "bundle.json").read_text())
    about["files"]["example/vecset.npz"] = {
        "bytes": path.stat().st_size, "sha256": sha256_file(path)
    }  # fmt: skip
    (copy / "bundle.json").write_text(json.dumps(about))
    assert take(copy).returncode == 0
    words = "example/vecset.npz: latents is different here (by "
    refused(take(copy, "--try-example"), words)
