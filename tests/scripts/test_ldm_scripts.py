"""The scripts of latent diffusion as a user calls them, on coarse hearts."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from answers import refused
from inside import run_inside

from cardiform import labels
from cardiform.artefact.model import load_model
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.table import read_checked_cases
from cardiform.files import load_npz
from cardiform.ldm.data import load_shape, moved, to_values
from cardiform.ldm.hearts_on_grid import load_grid
from cardiform.options.ldm import AutoencoderOptions
from cardiform.volumes import load_label_map, save_label_map

GRID = ("--voxel-size", 16, "--drop-classes", "coronary")
QUICK = ("--steps", 4, "--batch-size", 2, "--warmup-steps", 1, "--workers", 0, "--device", "cpu")
QUICK += ("--log-every", 1, "--checkpoint-every", 1, "--validate-every", 2)
AUTOENCODER = (*QUICK, "--channels", "8,8", "--norm-num-groups", 4, "--latent-channels", 2)
AUTOENCODER += ("--discriminator-channels", 4, "--discriminator-layers", 1, "--preview-every", 2)
DIFFUSION = (*QUICK, "--channels", "8,16", "--attention-levels", "false,true")
DIFFUSION += ("--num-head-channels", 8, "--norm-num-groups", 4, "--num-res-blocks", 1)
DIFFUSION += ("--preview-every", 2, "--complete-cases", "false", "--volumes-share", 0.3)
DIFFUSION += ("--volume-hearts", 2)
SAMPLES = ("--num-samples", 3, "--num-inference-steps", 3, "--device", "cpu", "--num-points", 300)


class Stages:
    """A demo cohort in a folder and the scripts on it."""

    def __init__(self, folder):
        self.folder, self.run_script = folder, run_inside
        self.names = [f"phantom_{i:03d}" for i in range(5)]
        self.must(
            "make_demo_cohort.py", "--out", folder / "demo", "--cases", 5, "--spacing-mm", 4.0
        )
        self.must("check_cohort.py", "--table", folder / "demo" / "cases.tsv", "--out", folder)
        parts = {"train": self.names[:2], "val": self.names[2:3], "test": self.names[3:]}
        for part, names in parts.items():
            lines = ["case_id,patient_id,path", *(f"{n},{n},unused" for n in names)]
            (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
        self.split = ("--train", folder / "train.csv", "--validation", folder / "val.csv")

    def must(self, *arguments):
        result = self.run_script(*arguments)
        assert result.returncode == 0, result.stderr
        return result

    def resample(self, *arguments):
        out = self.folder / "voxels"
        files = ("--cases", self.folder / "cases.tsv", "--out", out)
        return self.run_script(
            "resample_labels.py", *files, "--manifest", out / "manifest.tsv", *GRID, *arguments
        )

    def autoencoder(self, out, *arguments):
        voxels = self.folder / "voxels"
        files = ("--manifest", voxels / "manifest.tsv", "--grid", voxels / "grid.json")
        where = ("--out", self.folder / out)
        return self.run_script(
            "train_autoencoder.py", *self.split, *files, *where, *AUTOENCODER, *arguments
        )

    def encode(self, *arguments):
        out = self.folder / "latents"
        files = ("--autoencoder", self.folder / "autoencoder" / "model.pt", "--out", out)
        files += ("--voxels", self.folder / "voxels" / "manifest.tsv")
        files += ("--test", self.folder / "test.csv", "--manifest", out / "manifest.tsv")
        more = ("--variants", 1, "--device", "cpu")
        return self.run_script("encode_latents.py", *self.split, *files, *more, *arguments)

    def diffusion(self, out, *arguments):
        latents = self.folder / "latents"
        files = ("--manifest", latents / "manifest.tsv", "--out", self.folder / out)
        files += ("--statistics", latents / "statistics.json")
        files += ("--autoencoder", self.folder / "autoencoder" / "model.pt")
        return self.run_script("train_diffusion.py", *self.split, *files, *DIFFUSION, *arguments)

    def sample(self, out, *arguments, model="diffusion"):
        files = ("--model", self.folder / model / "model.pt", "--out", self.folder / out)
        return self.run_script("sample_diffusion.py", *files, *SAMPLES, *arguments)

    def complete(self, *arguments, model="diffusion"):
        model = ("--model", self.folder / model / "model.pt", "--device", "cpu")
        steps = ("--num-inference-steps", 2, "--draws", 1)
        return self.run_script("complete_labels.py", *model, *steps, *arguments)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    made = Stages(tmp_path_factory.mktemp("ldm"))
    for result in (
        made.resample(),
        made.autoencoder("autoencoder"),
        made.encode(),
        made.diffusion("diffusion"),
        made.sample("samples"),
    ):
        assert result.returncode == 0, result.stderr
    return made


def weights_of(path):
    return load_model(path).weights


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_voxels_lie_on_one_grid_in_the_world(stages):
    grid = json.loads((stages.folder / "voxels" / "grid.json").read_text())
    assert grid["voxel_size"] == 16 and len(grid["classes"]) == 9
    for row in read_manifest(stages.folder / "voxels" / "manifest.tsv"):
        coarse = load_label_map(row["path"])
        given = load_label_map(stages.folder / "demo" / "labels" / f"{row['case_id']}.nii.gz")
        assert coarse.data.shape == (16, 16, 16) and not (coarse.data == 9).any()
        assert np.allclose(coarse.spacing, grid["spacing_mm"])
        chosen = (given.data > 0) & (given.data != 9)
        volume = chosen.sum() * abs(np.linalg.det(given.affine[:3, :3]))
        made = (coarse.data > 0).sum() * grid["spacing_mm"] ** 3
        assert made == pytest.approx(volume, rel=0.1)
        middles = [
            np.argwhere(mask).mean(0) @ affine[:3, :3].T + affine[:3, 3]
            for mask, affine in ((chosen, given.affine), (coarse.data > 0, coarse.affine))
        ]
        assert np.abs(middles[0] - middles[1]).max() < 2.5
    again = stages.resample()
    assert again.stderr.count("5 of 5 cases are finished already") == 2


def test_a_class_that_the_table_lacks(stages):
    refused(stages.resample("--drop-classes", "spleen"), "no class 'spleen'")


def test_grid_sizes_that_cannot_be_halved(stages):
    result = stages.autoencoder("odd", "--channels", "8,8,8,8,8,8")
    refused(result, "ldm.voxel_size is 16", "take 32")
    result = stages.diffusion(
        "odd", "--channels", "8,8,8,8,8", "--attention-levels", ",".join(["false"] * 5)
    )
    refused(result, "take 32")


def test_latents_hold_all_variants_and_statistics_the_training_cases(stages):
    folder = stages.folder / "latents"
    found = json.loads((folder / "statistics.json").read_text())
    assert found["shape"] == [2, 8, 8, 8]
    stored = {n: load_npz(folder / f"{n}.npz") for n in stages.names}
    assert len(stored["phantom_000"]["mu"]) == 2 and len(stored["phantom_003"]["mu"]) == 1
    mu = np.concatenate([stored[n]["mu"] for n in stages.names[:2]]).astype(np.float64)
    assert np.allclose(mu.mean((0, 2, 3, 4)), found["mean"], atol=1e-5)
    assert np.allclose(mu.std((0, 2, 3, 4)), found["std"], rtol=1e-4)
    for name in stages.names:
        assert load_label_map(folder / "reconstructions" / f"{name}.nii.gz").data.shape == (16,) * 3
    again = stages.encode()
    assert "5 of 5 cases are finished already" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoencoder", "diffusion"])
def test_an_interrupted_training_ends_with_the_same_weights(stages, kind):
    more = ("--adversarial-weight", 0.1, "--autoencoder-warm-up-n-epochs", 1)
    more = more if kind == "autoencoder" else ()
    train = getattr(stages, kind)
    whole = train(f"{kind}_whole", *more)
    assert whole.returncode == 0, whole.stderr
    stopped = train(f"{kind}_parts", *more, "--max-minutes", 0.00001)
    assert stopped.returncode == 75, stopped.stderr
    # in another folder, from the checkpoint of the first
    last = stages.folder / f"{kind}_parts" / "checkpoints" / "last.pt"
    resumed = train(f"{kind}_resumed", *more, "--resume-from", last)
    assert resumed.returncode == 0 and "resuming from step 1" in resumed.stderr, resumed.stderr
    again = train(f"{kind}_parts", *more)
    assert again.returncode == 0, again.stderr
    expected = weights_of(stages.folder / f"{kind}_whole" / "model.pt")
    for name in ("parts", "resumed"):
        assert same(expected, weights_of(stages.folder / f"{kind}_{name}" / "model.pt")), name
    refused(train(f"{kind}_other", "--lr", 0.5, "--resume-from", last), "another training", "lr")


def test_hearts_are_drawn_with_the_stored_bonus(stages, tmp_path):
    """It grows a class in samples, but not in what is completed or has volumes asked for."""
    folder = stages.folder
    content = torch.load(folder / "diffusion" / "model.pt", weights_only=True)
    content["extra"]["volume_bonus"] = [0.0, 0.0, 0.0, 5.0, *[0.0] * 6]
    (folder / "larger").mkdir()
    torch.save(content, folder / "larger" / "model.pt")
    given = load_label_map(folder / "demo" / "labels" / "phantom_003.nii.gz")
    heart = tmp_path / "lacking.nii.gz"
    save_label_map(heart, np.where(given.data == 3, 0, given.data).astype(np.uint8), given.affine)
    asked = ("--volumes", "left_ventricle=120")
    volumes, completed = [], []
    for model in ("diffusion", "larger"):
        for name, more in (("any", ()), ("asked", asked)):
            out = tmp_path / name / model
            assert stages.sample(out, *more, model=model).returncode == 0
            volumes.append(json.loads((out / "metrics.json").read_text())["volume_ml"])
        out = tmp_path / "completed" / model
        result = stages.complete("--label-maps", heart, "--out", out, model=model)
        assert result.returncode == 0, result.stderr
        completed.append(load_label_map(out / heart.name).data)
    assert (completed[0] == 3).any()
    before, asked_before, after, asked_after = (v["left_ventricle"]["mean"] for v in volumes)
    assert after > before + 1 and asked_after == asked_before
    np.testing.assert_array_equal(*completed)


def test_the_model_is_all_that_sampling_needs(stages):
    stored = load_model(stages.folder / "diffusion" / "model.pt")
    assert stored.kind == "ldm_diffusion" and set(stored.options) == {"diffusion", "autoencoder"}
    assert stored.extra["statistics"]["shape"] == [2, 8, 8, 8]
    assert len(stored.extra["volume_bonus"]) == 10, "background and nine classes"
    assert any(n.startswith("autoencoder.") for n in stored.weights)
    assert stored.figures["validation"]["mean_loss"] > 0
    assert list((stages.folder / "diffusion" / "previews").glob("*.png"))
    # latents of one autoencoder, and another one
    other = stages.autoencoder("other", "--seed", 3)
    assert other.returncode == 0
    result = stages.diffusion("mixed", "--autoencoder", stages.folder / "other" / "model.pt")
    refused(result, "statistics.json", "another autoencoder")
    refused(
        stages.sample("none", model="autoencoder"), "kind ldm_autoencoder, not a latent diffusion"
    )


def test_files_of_a_sample(stages):
    out = stages.folder / "samples"
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["samples"] == ["sample_0000", "sample_0001", "sample_0002"]
    grid = json.loads((stages.folder / "voxels" / "grid.json").read_text())
    heart = load_label_map(out / "nifti" / "sample_0001.nii.gz")
    middle = heart.affine[:3, :3] @ np.full(3, 7.5) + heart.affine[:3, 3]
    assert np.allclose(middle, 0, atol=1e-4) and np.allclose(heart.spacing, grid["spacing_mm"])
    assert set(np.unique(heart.data)) <= {0, *(c["value"] for c in grid["classes"])}
    rows = np.loadtxt(out / "pointcloud" / "sample_0001.csv", delimiter=",", skiprows=1, ndmin=2)
    if len(rows):
        assert len(rows) == 300 and np.abs(rows[:, :3]).max() <= grid["edge_mm"] / 2 + 10
        assert set(rows[:, 3]) <= set(np.unique(heart.data).astype(float))
    assert (out / "overview.png").stat().st_size > 0


def test_hearts_of_an_untrained_network_do_not_fit_and_are_drawn_again(stages):
    rules = ("--voxels", stages.folder / "voxels" / "manifest.tsv", *stages.split[:2])
    result = stages.sample("redrawn", "--redraw", 2, *rules)
    assert result.returncode == 0, result.stderr
    found = json.loads((stages.folder / "redrawn" / "metrics.json").read_text())
    names = ["sample_0000", "sample_0001", "sample_0002"]
    assert found["redrawn"] == {"draws": 9, "fit_at_once": 0, "unfit": names}
    assert "3 of 3 hearts do not fit after 3 draws" in result.stderr
    last, first = (
        np.load(stages.folder / out / "latents" / "sample_0000.npz")["latents"]
        for out in ("redrawn", "samples")
    )
    assert not np.allclose(last, first, atol=0.1)
    again = stages.sample("redrawn", "--redraw", 2, *rules)
    assert again.returncode == 0, again.stderr
    assert "drawn again" in result.stderr and "drawn again" not in again.stderr


def test_a_sample_is_the_same_whatever_the_batch_and_is_not_made_twice(stages):
    assert stages.sample("alone", "--batch-size", 1).returncode == 0
    for number in range(3):
        a, b = (
            load_npz(stages.folder / name / "latents" / f"sample_{number:04d}.npz")["latents"]
            for name in ("samples", "alone")
        )
        assert np.allclose(a, b, atol=1e-4)
    path = stages.folder / "alone" / "latents" / "sample_0000.npz"
    before = path.stat().st_mtime_ns
    assert stages.sample("alone", "--num-samples", 4).returncode == 0
    assert path.stat().st_mtime_ns == before, "a finished sample is kept"
    assert (stages.folder / "alone" / "latents" / "sample_0003.npz").exists()
    assert stages.sample("alone", "--seed", 1).returncode == 0
    left = {p.name.split(".")[0] for p in (stages.folder / "alone").glob("*/sample_*")}
    assert left == {f"sample_{n:04d}" for n in range(3)}, "a fourth one is no sample any more"
    assert path.stat().st_mtime_ns != before, "another seed makes another one"


def test_guards_of_sampling(stages):
    refused(stages.sample("x", "--sampler", "ddim"), "objective flow", "take flow")
    refused(stages.sample("x", "--volumes", "aorta"), "class=ml")
    refused(stages.sample("x", "--volumes", "spleen=3"), "no class 'spleen'")
    assert stages.sample("volumes", "--volumes", "aorta=30", "--guidance", 2).returncode == 0
    a, b = (
        load_npz(stages.folder / name / "latents" / "sample_0000.npz")["latents"]
        for name in ("samples", "volumes")
    )
    assert not np.allclose(a, b)


@pytest.mark.slow
def test_denoising_diffusion_from_end_to_end(stages):
    trained = stages.diffusion(
        "ddpm", "--objective", "ddpm", "--num-train-timesteps", 20, "--known-share", 0
    )
    assert trained.returncode == 0, trained.stderr
    result = stages.sample("ddim", "--num-inference-steps", 5, model="ddpm")
    assert result.returncode == 0, result.stderr
    refused(stages.sample("x", "--sampler", "ddpm", model="ddpm"), "ddpm needs all 20")
    full = stages.sample("full", "--sampler", "ddpm", "--num-inference-steps", 20, model="ddpm")
    assert full.returncode == 0, full.stderr
    model = stages.folder / "ddpm" / "model.pt"
    given = stages.folder / "demo" / "labels" / "phantom_003.nii.gz"
    completing = ("--label-maps", given, "--out", stages.folder / "y")
    refused(
        stages.run_script("complete_labels.py", "--model", model, *completing),
        "was not trained to complete",
    )


def test_figures_beside_their_references(stages):
    folder = stages.folder
    arguments = (
        "--voxels", folder / "voxels" / "manifest.tsv", "--grid", folder / "voxels" / "grid.json",
        "--latents", folder / "latents" / "manifest.tsv", "--train", folder / "train.csv",
        "--test", folder / "test.csv", "--out", folder / "samples" / "figures.json", "--points", 64,
    )  # fmt: skip

    def evaluate(samples):
        return stages.run_script("evaluate_samples.py", "--samples", samples, *arguments)

    result = evaluate(folder / "samples" / "metrics.json")
    assert result.returncode == 0, result.stderr
    other = evaluate(folder / "diffusion" / "metrics.json")
    refused(other, "lists no samples", "give the metrics.json of sample_diffusion")
    figures = json.loads((folder / "samples" / "figures.json").read_text())
    rows = {"generated", "train_subset", "reconstructed_train", "warped_train", "autoencoder"}
    assert rows < set(figures) and "notes" not in figures
    assert figures["hearts"] == dict.fromkeys([*rows, "test"], 2)
    assert figures["memorisation"]["test"]["mean"] > 0
    assert figures["memorisation"]["generated"]["latent"]["mean"] > 0
    # what the latents of the samples are deviations of
    own = load_model(folder / "diffusion" / "model.pt").extra["statistics"]
    space = json.loads((folder / "samples" / "metrics.json").read_text())["latent_space"]
    assert space == {name: own[name] for name in ("mean", "std", "autoencoder_sha256")}


def test_figures_of_an_earlier_run_are_made_without_the_new_row(stages, tmp_path):
    """Latents of an earlier version have no reconstructions of training hearts, samples of another
    model no comparable latents."""
    folder = stages.folder
    manifest = tmp_path / "manifest.tsv"
    lines = (folder / "latents" / "manifest.tsv").read_text().splitlines()
    training = stages.names[:2]
    manifest.write_text(
        "".join(
            f"{line}\n"
            for line in lines
            if not (line.split("\t")[0] in training and "reconstructions" in line)
        )
    )
    result = stages.run_script(
        "evaluate_samples.py", "--samples", folder / "samples" / "metrics.json",
        "--voxels", folder / "voxels" / "manifest.tsv", "--grid", folder / "voxels" / "grid.json",
        "--latents", manifest, "--train", folder / "train.csv", "--test", folder / "test.csv",
        "--out", tmp_path / "figures.json", "--points", 32,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "reconstructed_train" not in figures and "encode_latents" in figures["notes"][0]
    assert "latent" not in figures["memorisation"]["generated"]


def test_generators_of_training_hearts_and_of_others_by_the_script(stages, tmp_path):
    """Augmented training hearts in the place of samples are copies."""
    folder = stages.folder
    (tmp_path / "nifti").mkdir()
    for number, name in enumerate(stages.names[:2]):
        grid = load_grid(folder / "voxels" / "grid.json")
        shape = load_shape(folder / "voxels" / f"{name}.nii.gz", grid)
        found = moved(shape, AutoencoderOptions(), np.random.default_rng(number)).numpy()
        path = tmp_path / "nifti" / f"sample_{number:04d}.nii.gz"
        save_label_map(path, to_values(found, grid), grid.cube(np.zeros(3)).affine)
    record = {"kind": "sample_diffusion", "samples": ["sample_0000", "sample_0001"]}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    result = stages.run_script(
        "evaluate_samples.py", "--samples", tmp_path / "metrics.json",
        "--voxels", folder / "voxels" / "manifest.tsv", "--grid", folder / "voxels" / "grid.json",
        "--latents", folder / "latents" / "manifest.tsv", "--train", folder / "train.csv",
        "--test", folder / "test.csv", "--out", tmp_path / "figures.json", "--points", 32,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "figures.json").read_text())["memorisation"]
    assert found["copies"] == 1.0
    nearest = [found["nearest"][name]["case_id"] for name in record["samples"]]
    assert nearest == stages.names[:2], "the training hearts that they were made from"
    assert found["generated"]["aligned"]["mean"] < found["test"]["aligned"]["mean"]


def test_known_voxels_stay_and_the_missing_class_is_made(stages):
    table = labels.LabelTable()
    given = load_label_map(stages.folder / "demo" / "labels" / "phantom_003.nii.gz")
    aorta = table[table.channel("aorta")].value
    lacking = np.where(given.data == aorta, 0, given.data).astype(np.uint8)
    source = stages.folder / "lacking.nii.gz"
    save_label_map(source, lacking, given.affine)
    out = stages.folder / "completed"
    result = stages.complete("--label-maps", source, "--out", out)
    assert result.returncode == 0, result.stderr
    made = load_label_map(out / "lacking.nii.gz")
    assert (made.data[lacking > 0] == lacking[lacking > 0]).all()
    assert set(np.unique(made.data[lacking == 0])) <= {0, aorta}
    assert np.allclose(made.affine, given.affine, atol=1e-4)
    whole = stages.folder / "demo" / "labels" / "phantom_003.nii.gz"
    refused(stages.complete("--label-maps", whole, "--out", out), "has every class")
    refused(
        stages.complete("--label-maps", source, "--missing", "left_atrium", "--out", out),
        "has left_atrium already",
    )
    refused(stages.complete("--out", out), "name --label-maps")
    empty = stages.folder / "empty.nii.gz"
    save_label_map(empty, np.zeros_like(lacking), given.affine)
    refused(stages.complete("--label-maps", empty, "--out", out), "empty.nii.gz: has none")


def test_what_the_border_cuts_is_completed_past_it(stages):
    given = load_label_map(stages.folder / "demo" / "labels" / "phantom_003.nii.gz")
    shown = np.ascontiguousarray(given.data[..., : round(0.8 * given.data.shape[2])])
    source, out = stages.folder / "cut.nii.gz", stages.folder / "beyond"
    save_label_map(source, shown, given.affine)
    result = stages.complete("--label-maps", source, "--beyond-mm", "20", "--out", out)
    assert result.returncode == 0, result.stderr
    made = load_label_map(out / "cut.nii.gz")
    layers = int(np.ceil(20 / given.spacing[2]))
    assert made.data.shape == (*shown.shape[:2], shown.shape[2] + layers)
    assert (made.data[..., : shown.shape[2]] == shown).all(), "what the scan shows stays"
    cut = set(np.unique(shown[..., -1])) - {0}
    assert cut and set(np.unique(made.data[..., shown.shape[2] :])) <= {0, *cut}
    whole = stages.folder / "demo" / "labels" / "phantom_003.nii.gz"
    refused(
        stages.complete("--label-maps", whole, "--beyond-mm", "20", "--out", out),
        "has no class that the border of the volume cuts",
    )
    for value in ("-1", "nan", "1e9"):
        refused(
            stages.complete("--label-maps", source, "--beyond-mm", value, "--out", out),
            "is no length; give 0 to 200 mm",
        )
    refused(
        stages.complete(
            "--label-maps", source, "--beyond-mm", "20", "--missing", "aorta", "--out", out
        ),
        "--beyond-mm needs --label-maps",
    )


def test_completion_is_measured_on_test_cases(stages):
    folder = stages.folder

    def complete(train):
        return stages.complete(
            "--cases", folder / "cases.tsv", "--voxels", folder / "voxels" / "manifest.tsv",
            "--train", train, "--test", folder / "test.csv", "--out", folder / "completion",
        )  # fmt: skip

    (folder / "one.csv").write_text(
        "\n".join((folder / "train.csv").read_text().split()[:2]) + "\n"
    )
    for train in (folder / "one.csv", folder / "train.csv"):  # other hearts, another mean shape
        result = complete(train)
        assert result.returncode == 0 and "done (2 of 2)" in result.stderr, result.stderr
    figures = json.loads((folder / "completion" / "metrics.json").read_text())
    assert set(figures["cases"]) == {"phantom_003", "phantom_004"}
    # a mean shape of two hearts is near; the model has learned nothing in four steps
    shape = figures["mean"]["left_ventricle"]["mean_shape"]
    assert shape["dice"] > 0.6 and abs(shape["volume_error"]) < 0.5
    assert set(figures["mean"]) == {c.name for c in labels.LabelTable() if c.name != "coronary"}
    assert (folder / "completion" / "phantom_003.png").stat().st_size > 0


def test_without_test_cases_none_is_completed(stages):
    folder = stages.folder
    (folder / "none.csv").write_text("case_id,patient_id,path\n")
    result = stages.complete(
        "--cases", folder / "cases.tsv", "--voxels", folder / "voxels" / "manifest.tsv",
        "--train", folder / "train.csv", "--test", folder / "none.csv",
        "--out", folder / "no_completion",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert " done (" not in result.stderr
    assert json.loads((folder / "no_completion" / "metrics.json").read_text())["cases"] == {}


def test_clouds_of_a_case_table_and_of_one_file(stages, tmp_path):
    def convert(out, *arguments):
        where = ("--out", tmp_path / out, "--manifest", tmp_path / out / "manifest.tsv")
        return run_inside("convert_pointclouds.py", *where, *GRID, *arguments)

    result = convert("cases", "--cases", stages.folder / "cases.tsv", "--voxel-size", 32)
    assert result.returncode == 0, result.stderr
    grid = json.loads((tmp_path / "cases" / "grid.json").read_text())
    assert grid["kind"] == "labels"
    made = load_label_map(tmp_path / "cases" / "phantom_003.nii.gz")
    given = load_label_map(stages.folder / "demo" / "labels" / "phantom_003.nii.gz")
    given.data[given.data == 9] = 0
    volumes = [(m.data > 0).sum() * np.prod(m.spacing) for m in (made, given)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15)

    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "many.h5", "w") as archive:
        archive["point_clouds"] = rng.normal(size=(4, 500, 3)) * 20
    many = ("--file", tmp_path / "many.h5", "--key", "point_clouds")
    result = convert("file", *many)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "file" / "grid.json").read_text())["kind"] == "field"
    cases = read_checked_cases(tmp_path / "file" / "cases.tsv")
    assert [c.case_id for c in cases] == [f"sample_{i:05d}" for i in range(4)]
    assert "4 of 4 cases are finished already" in convert("file", *many).stderr
    refused(convert("x", *many[:2], "--key", "nothing"), "no dataset nothing (it has point_clouds)")
    refused(convert("x"), "name --cases")
