"""The scripts of the sparse VQ-VAE as a user calls them, on balls."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from answers import refused
from bands import write_cohort, write_part, write_windows
from inside import run_inside

from cardiform import volumes
from cardiform.artefact.model import load_model
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.table import Case, write_cases
from cardiform.files import load_npz
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.narrowband import NarrowBand

NETWORK = ("--channels", "8,8,8,16", "--blocks", "1,0,0,1", "--latent-dim", 8)
NETWORK += ("--max-voxels", 30000)
QUICK = ("--steps", 3, "--batch-size", 4, "--warmup-steps", 1, "--preview-every", 0)
QUICK += ("--workers", 0, "--device", "cpu", "--log-every", 1)
CODES = ("--codebook-size", 12, "--ema-batch", 50)
FIGURES = ("loss", "recon", "vq", "commitment", "usage", "perplexity")


class Stages:
    """The three trainings and the reconstruction in one folder."""

    def __init__(self, folder):
        self.folder, self.run_script = folder, run_inside
        self.radii = {f"c{i}": [0.3 + 0.05 * i, 0.6 - 0.03 * i] for i in range(4)}
        manifest = write_cohort(folder, self.radii)
        parts = {"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]}
        self.parts = {part: write_part(folder, part, names) for part, names in parts.items()}
        self.manifest = ("--manifest", manifest)

    def train(self, script, out, *arguments):
        places = ["--train", self.parts["train"], "--validation", self.parts["val"]]
        places += ["--out", self.folder / out, *self.manifest]
        return self.run_script(script, *places, *NETWORK, *QUICK, *arguments)

    def stage0(self, *arguments, out="stage0"):
        return self.train("pretrain_vqvae.py", out, *arguments)

    def stage1(self, *arguments, out="stage1"):
        weights = ("--weights", self.folder / "stage0" / "model.pt")
        return self.train("train_codebook.py", out, *weights, *CODES, *arguments)

    def stage2(self, *arguments, out="stage2"):
        weights = ("--weights", self.folder / "stage1" / "model.pt")
        return self.train("train_vqvae.py", out, *weights, *arguments)

    def reconstruct(self, *arguments):
        models = {"model": "stage2", "stage1": "stage1", "continuous": "stage0"}
        places = [a for k, v in models.items() for a in (f"--{k}", self.folder / v / "model.pt")]
        places += ["--validation", self.parts["val"], "--test", self.parts["test"]]
        places += ["--out", self.folder / "out", *self.manifest, "--device", "cpu"]
        return self.run_script("reconstruct_vqvae.py", *places, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All stages and the reconstruction are done; what each said."""
    stages = Stages(tmp_path_factory.mktemp("vqvae"))
    stages.said = {}
    for name in ("stage0", "stage1", "stage2", "reconstruct"):
        result = getattr(stages, name)()
        assert result.returncode == 0, result.stderr
        stages.said[name] = result.stderr
    return stages


def test_every_stage_says_what_it_trains(finished) -> None:
    counts = [line for text in finished.said.values() for line in text.splitlines()]
    counts = [line.split("parameters: ")[1] for line in counts if "parameters: " in line]
    codes = 12 * 8
    total = int(counts[0].split(" total")[0].replace(",", ""))
    whole = f"{total + codes:,}"
    assert counts == [
        f"{total:,} total, {total:,} trainable, 0 frozen",
        f"{whole} total, {codes} trainable, {total:,} frozen",
        f"{whole} total, {whole} trainable, 0 frozen",
    ]


def test_every_line_of_the_joint_training_has_the_figures(finished) -> None:
    lines = [line for line in finished.said["stage2"].splitlines() if " step " in line]
    lines = [line for line in lines if "/3 " in line]
    assert len(lines) == 3
    for line in lines:
        for name in FIGURES:
            assert f" {name} " in line


def test_metrics_hold_use_over_the_whole_split(finished) -> None:
    for stage in ("stage1", "stage2"):
        figures = json.loads((finished.folder / stage / "metrics.json").read_text())
        assert figures["samples"] == {"train": 4, "validation": 2}
        assert 0 < figures["train"]["usage"] <= 1
        assert 1 <= figures["train"]["perplexity"] <= 12
        assert (finished.folder / stage / "usage.png").stat().st_size > 0
    first = json.loads((finished.folder / "stage1" / "metrics.json").read_text())
    assert first["train"]["usage"] == 1.0
    assert first["validation"]["vq"] < first["before"]["vq"]


def test_a_stage_is_not_taken_for_another(finished) -> None:
    """A continuous autoencoder has no codes to reconstruct from."""
    for flag in ("--model", "--stage1"):
        result = finished.reconstruct(flag, finished.folder / "stage0" / "model.pt")
        refused(result, "is a model of kind vqvae_continuous, not a sparse VQ-VAE")


def test_reconstructions_without_label_maps(finished) -> None:
    folder = finished.folder / "out"
    metrics = json.loads((folder / "metrics.json").read_text())
    for part, case in (("validation", "c2"), ("test", "c3")):
        assert set(metrics[part]["cases"]) == {case}
        for method in ("model", "stage1", "continuous"):
            figures = metrics[part][method]["mean"]["ball0"]
            assert figures["l1_voxels"] > 0 and 0 <= figures["structure_recall"] <= 1
            assert {"dice", "sign_iou", "components", "l1_mm"} <= set(figures)
        assert (folder / case / "compare.png").stat().st_size > 0
        labels = volumes.load_label_map(folder / case / "labels.nii.gz")
        assert labels.data.shape == (32, 32, 32)
        codes = load_npz(folder / case / "codes.npz")
        assert len(codes["ball0_indices"]) == len(codes["ball0_coords"]) > 0
        assert codes["ball0_indices"].max() < 12
    assert "2 of 2 cases are finished already" in finished.reconstruct().stderr


def test_the_given_voxels_are_their_own_best_reconstruction(finished) -> None:
    """The truth of the route without label maps is the band itself: volume and place agree."""
    from cardiform.vqvae.reconstruct import Truth

    band = NarrowBand.load(finished.folder / "sparse" / "c3" / "ball0.npz")
    truth = Truth.of_bands({"ball0": band})
    voxel = np.prod(truth.labels.spacing)
    radius = 0.45 / band.frame.scale
    volume = 4 / 3 * np.pi * radius**3
    assert truth.labels.data.sum() * voxel == pytest.approx(volume, rel=0.03)
    np.testing.assert_allclose(truth.meshes["ball0"].vertices.mean(axis=0), [5, -10, 20], atol=0.1)


def test_a_case_that_lacks_a_structure_counts_in_the_means_of_the_others(
    finished, tmp_path
) -> None:
    """Without label maps a case has the structures, or CT windows, that it has voxels of."""
    rows = finished.manifest[1].read_text().splitlines(keepends=True)
    (tmp_path / "fewer.tsv").write_text("".join(r for r in rows if "c3/ball1.npz" not in r))
    both = write_part(tmp_path, "both", ["c2", "c3"])
    none = write_part(tmp_path, "none", [])
    result = finished.reconstruct(
        *("--manifest", tmp_path / "fewer.tsv", "--validation", none, "--test", both),
        *("--out", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]
    cases = [found["cases"][name]["model"] for name in ("c2", "c3")]
    means = found["model"]["mean"]
    assert [list(case) for case in cases] == [["ball0", "ball1"], ["ball0"]]
    assert means["ball1"]["l1_mm"] == cases[0]["ball1"]["l1_mm"]
    each = [case["ball0"]["l1_mm"] for case in cases]
    assert means["ball0"]["l1_mm"] == pytest.approx(sum(each) / 2)


def test_windows_in_one_training(tmp_path) -> None:
    """From the trainings to the figures of each window; what does not fit is refused."""
    stages = Stages(tmp_path)
    sizes = {"bone": 0.5, "soft": 0.35}
    radii = {w: {f"c{i}": r + 0.02 * i for i in range(4)} for w, r in sizes.items()}
    manifests = write_windows(tmp_path, radii)
    stages.manifest = ("--manifest", *manifests)
    windows = ("--windows", "bone=300/1500", "soft=50/400")
    for stage in (stages.stage0, stages.stage1, stages.stage2):
        result = stage(*windows)
        assert result.returncode == 0, result.stderr
    result = stages.reconstruct()
    assert result.returncode == 0, result.stderr
    stored = load_model(tmp_path / "stage2" / "model.pt")
    assert stored.extra == {"windows": ["bone=300/1500", "soft=50/400"]}
    figures = json.loads((tmp_path / "stage2" / "metrics.json").read_text())
    for window in sizes:
        assert 1 <= figures["train"][f"perplexity_{window}"] <= 12
        held_out = {f"{n}_{window}" for n in ("l1_voxels", "iou", "usage", "perplexity")}
        assert held_out <= figures["validation"].keys()
        found = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert found["test"]["model"]["mean"][window]["l1_voxels"] > 0
        labels = volumes.load_label_map(tmp_path / "out" / "c3" / window / "labels.nii.gz")
        assert set(np.unique(labels.data)) <= {0, 1}
        codes = load_npz(tmp_path / "out" / "c3" / window / "codes.npz")
        assert set(codes) == {f"{window}_coords", f"{window}_indices"}
    result = stages.stage2("--windows", "bone=300/1500", "soft=60/400", out="other")
    refused(result, "trained on bone=300/1500, soft=50/400, not on bone=300/1500, soft=60/400")
    refused(stages.stage1(out="other"), "soft=50/400, not on no windows together")
    result = stages.stage0("--windows", "bone=300/1500", out="other")
    refused(result, "soft.npz: is of none of the windows that are trained together (bone)")
    stages.manifest = ("--manifest", write_cohort(tmp_path / "hearts", stages.radii))
    refused(
        stages.reconstruct("--out", tmp_path / "hearts"), "ball0.npz: is of none of the windows"
    )


def test_pretrained_weights_of_another_network_are_refused(finished) -> None:
    result = finished.stage1("--channels", "8,8,16,16", out="other")
    refused(result, "stage0/model.pt: does not fit the model", "up.2.bias is (8,)")
    result = finished.train(
        "train_vqvae.py", "other", "--weights", finished.folder / "stage0" / "model.pt"
    )
    refused(result, "of kind vqvae_continuous, not a sparse VQ-VAE with a codebook")


def test_stage_0_from_a_coarser_resolution(finished, tmp_path) -> None:
    """At a rate of nothing it ships what it is given; another file is another training."""
    coarse = Stages(tmp_path)
    coarse.manifest = ("--manifest", write_cohort(tmp_path / "fine", coarse.radii, 40))
    weights = ("--weights", finished.folder / "stage0" / "model.pt")
    still = ("--lr", 0, "--final-lr", 0)
    result = coarse.stage0(*weights, *still)
    assert result.returncode == 0, result.stderr
    given, found = (load_model(f / "stage0" / "model.pt") for f in (finished.folder, tmp_path))
    assert all(torch.equal(given.weights[name], w) for name, w in found.weights.items())
    assert "the old run is in" in coarse.stage0(*still).stderr, "of random weights"
    result = finished.stage0(*weights, "--latent-dim", 4, out="narrow")
    refused(result, "stage0/model.pt: does not fit the model", "set vqvae.channels")
    assert finished.stage0("--coarser", "16", out="narrow").returncode == 2
    assert not (finished.folder / "narrow").exists()


def test_levels_that_would_never_be_trained(finished) -> None:
    result = finished.stage2("--unfreeze-steps", 1, out="frozen")
    refused(result, "vqvae_joint.unfreeze_steps is 1: the finest level would be trained after")


def test_a_collapsed_codebook_stops_the_run(finished) -> None:
    """Random codes and three steps of gradient: few of many codes are used."""
    arguments = ("--method", "gradient", "--codebook-size", 500, "--min-usage", 0.9)
    result = finished.stage1(*arguments, out="collapsed")
    refused(result, "of the codes, less than 90%", "set vqvae_codebook.method to kmeans_ema")
    assert not (finished.folder / "collapsed" / "model.pt").exists()


def test_more_codes_than_latents(finished) -> None:
    refused(finished.stage1("--codebook-size", 4000, out="many"), "latents for 4,000 codes")


@pytest.mark.parametrize("how", ["kmeans_ema", "gradient"])
def test_a_rehearsal_of_stage_1_has_few_latents_and_uses_few_codes(finished, how) -> None:
    few = ("--fast-dev-run", 1, "--batch-size", 1, "--codebook-size", 400, "--method", how)
    result = finished.stage1(*few, "--min-usage", 0.9, out=how)
    assert result.returncode == 0, result.stderr
    assert (finished.folder / how / "fast_dev_run" / "model.pt").exists()
    assert not (finished.folder / how / "model.pt").exists()


def test_cases_without_voxels_leave_nothing_to_train_on(finished) -> None:
    empty = write_part(finished.folder, "empty", ["elsewhere"])
    refused(finished.stage0("--train", empty, out="empty"), "empty.csv: has no case with sparse")


def test_finite_scalar_levels_through_both_stages(finished) -> None:
    levels = ("--quantizer", "fsq", "--fsq-levels", "3,3", "--min-usage", 0)
    result = finished.stage1(*levels, out="fsq1")
    assert result.returncode == 0, result.stderr
    weights = ("--weights", finished.folder / "fsq1" / "model.pt")
    result = finished.train("train_vqvae.py", "fsq2", *weights)
    assert result.returncode == 0, result.stderr


def test_window_ct(tmp_path, run_script) -> None:
    """One case without a CT, one not in HU, one whose region is empty, one that is fine."""
    index = np.stack(np.indices((30,) * 3), axis=-1) - 15.0
    hu = np.where(np.linalg.norm(index, axis=-1) < 9, 400.0, -1000.0).astype(np.float32)
    for name, values in (("fine", hu), ("empty", np.minimum(hu, -900)), ("raw", hu + 1000)):
        values = values if name != "empty" else np.where(index[..., 0] > 12, 2000, values)
        volumes.save_image(tmp_path / f"{name}.nii.gz", values.astype(np.float32), np.eye(4))

    def run(*names):
        cases = [
            Case(
                case_id=n,
                patient_id=n,
                labels="",
                image="" if n == "none" else str(tmp_path / f"{n}.nii.gz"),
            )
            for n in names
        ]
        write_cases(tmp_path / "cases.tsv", cases)
        places = ["--cases", tmp_path / "cases.tsv", "--out", tmp_path / "out"]
        places += ["--manifest", tmp_path / "out" / "manifest.tsv", "--resolution", 32]
        return run_script("window_ct.py", *places, "--windows", "bone=300/1500")

    refused(run("fine", "raw"), "raw.nii.gz: has no value below 0 (0 to 1400)")
    refused(run("none"), "cases.tsv: has no column image, which this target is made from")
    result = run("fine", "empty", "none")
    assert result.returncode == 0, result.stderr
    status = {row["case_id"]: row["status"] for row in read_manifest(tmp_path / "out/manifest.tsv")}
    assert status["fine"] == "ok" and status["none"] == "skipped: no image"
    assert status["empty"].startswith("filtered: 0 voxels")
    assert len(NarrowBand.load(tmp_path / "out" / "fine" / "bone.npz").coords) > 100
    refused(
        run_script(
            "window_ct.py", "--cases", tmp_path / "cases.tsv", "--out", tmp_path / "out",
            "--manifest", tmp_path / "m.tsv", "--windows", "a=1/2,b=3/4",
        ),
        "names several windows",
    )  # fmt: skip


def test_reconstruction_on_the_grid_of_a_label_map(finished, tmp_path) -> None:
    """With --cases and --meshes the figures are those of the label map."""
    from bands import FRAME, ball_band

    from cardiform.cohort.table import write_table
    from cardiform.files import sha256_file

    index = np.stack(np.indices((60,) * 3), axis=-1) - 30.0
    labels = np.where(np.linalg.norm(index, axis=-1) < 22.5, 3, 0).astype(np.uint8)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = FRAME.to_world(np.zeros(3)) - affine[:3, :3] @ [30, 30, 30]
    volumes.save_label_map(tmp_path / "c3.nii.gz", labels, affine)
    case = Case(case_id="c3", patient_id="c3", labels=str(tmp_path / "c3.nii.gz"))
    write_cases(tmp_path / "cases.tsv", [case])
    places = ["--cases", tmp_path / "cases.tsv", "--out", tmp_path / "meshes"]
    made = run_inside("extract_meshes.py", *places, "--manifest", tmp_path / "meshes/m.tsv")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "sparse" / "c3" / "left_ventricle.npz"
    ball_band(0.45).save(path)
    row = ["c3", path, path.stat().st_size, sha256_file(path), "ok"]
    write_table(tmp_path / "manifest.tsv", ("case_id", "path", "bytes", "sha256", "status"), [row])
    none = write_part(tmp_path, "none", [])
    result = finished.reconstruct(
        "--cases", tmp_path / "cases.tsv", "--meshes", tmp_path / "meshes",
        "--manifest", tmp_path / "manifest.tsv", "--validation", none, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    write_cases(tmp_path / "others.tsv", [])
    lacking = finished.reconstruct("--cases", tmp_path / "others.tsv", "--meshes", tmp_path)
    refused(lacking, "others.tsv: has no case c2, c3")
    found = volumes.load_label_map(tmp_path / "out" / "c3" / "labels.nii.gz")
    assert found.data.shape == labels.shape
    np.testing.assert_allclose(found.affine, affine)
    assert set(np.unique(found.data)) <= {0, 3}
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    told = figures["test"]["cases"]["c3"]["model"]["left_ventricle"]["dice"]
    both = ((found.data == 3) & (labels == 3)).sum()
    assert told == pytest.approx(2 * both / ((found.data == 3).sum() + (labels == 3).sum()))
    if (found.data == 3).any():
        mesh = read_mesh(tmp_path / "out" / "c3" / "left_ventricle.ply")
        assert len(mesh.faces) > 0


def test_a_second_run_goes_on_where_the_first_ended(finished) -> None:
    # the last test here: model.pt tells how long it took, so reconstructions would be redone
    for stage in (finished.stage0, finished.stage2):
        again = stage()
        assert again.returncode == 0, again.stderr
        assert "resuming from step 3" in again.stderr
