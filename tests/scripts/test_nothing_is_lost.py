"""No script writes over, moves or deletes what it did not make itself: a table of all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import refused
from inside import SCRIPTS, run_inside
from tiny_trainings import Trainings

from cardiform import labels
from cardiform.metrics.record import write_held_out_figures
from cardiform.search.rungs import write_trials
from cardiform.volumes import load_label_map, save_like

ONE = ("--select", "phantom_000")
# What lies in the output folder of a user who has other things there: names like those that a
# script makes, tidies up or moves aside, none of them one that it writes.
OTHERS = (
    "notes.txt", "data/sample_17.nii.gz", "data/sample_0017.nii.gz", "mri/sample_A/scan.txt",
    "nifti/sample_0099.nii.gz", "latents/sample_0099.npz", "pictures/sample_0099.png",
    "meshes/sample_0099/aorta.ply", "meshes/sample_0001/mine.ply", "pointcloud/sample_0099.csv",
    "tensorboard/notes.txt", "tensorboard/events.out.tfevents.1.mine", "previews/mine.png",
    "checkpoints/before.pt", "checkpoints/.tmp-mine", "checkpoints.1/notes.txt",
    "fast_dev_run/notes.txt", "phantom_000/mine.ply", "phantom_000/mine.npz",
    "phantom_002/mine.ply", "aorta/mine.npz", "cases/mine.json", "state/mine.json",
    "manifest/mine.tsv", "boxes/mine.json", "qc/cases/mine.json",
)  # fmt: skip
SHORT = {"steps": 2, "warmup_steps": 1, "validate_every": 2, "checkpoint_every": 1, "log_every": 1}
# Some write one file, or two; bundles are written to new folders alone (test_model_bundles.py).
NO_FOLDER = {"launch.py", "list_cases.py", "collect_applied.py", "write_report.py"}
NO_FOLDER |= {"export_models.py", "import_models.py", "import_vecsetx.py"}
NO_FOLDER |= {"propose_trials.py", "rank_trials.py"}


class Hearts(Trainings):
    """Every training, and the command line of every other script into a folder ``out``."""

    def __init__(self, folder: Path):
        super().__init__(folder, **SHORT)
        for name in self.NAMES:
            put(folder / name, OTHERS)
        self.make_models()
        self.make_balls()
        self.must(*self.other("sample_diffusion", folder / "samples"))
        self.must(*self.other("fuse_labels", folder / "fused"))
        self.make("trace_coronary.py", "coronary_trace")
        self.make("measure_shapes.py", "measures", *self.measured())
        figures = {"test": {"cases": {"phantom_000": {"model": {"aorta": {"dice": 0.5}}}}}}
        row = {"trial": 0, "options": {"vecset.lr": 1e-4}, "place": 0, "steps": 2, "figure": 0.5}
        write_trials(folder / "ranking.json", "vecset", [row])
        write_held_out_figures(folder / "fold.json", "reconstruct_vecset", figures, None)
        self.must(*self.command("vecset", folder / "vecset_parts", "--hidden-share", 0.5))
        (folder / "models").mkdir()
        (folder / "models" / "vecset").symlink_to(folder / "vecset")
        self.make_vessels(folder / "fine")
        self.must(*self.other("sample_set_diffusion", folder / "set_samples"))
        given = load_label_map(folder / "demo" / "labels" / "phantom_000.nii.gz")
        (folder / "dense").mkdir()
        np.save(folder / "dense" / "phantom_000.npy", given.data)
        (folder / "classes.tsv").write_text("value\tname\n1\tmyocardium\n3\tleft_atrium\n")
        lacking = np.where(given.data == 8, np.uint8(0), given.data)
        source = folder / "demo" / "labels" / "phantom_000.nii.gz"
        save_like(folder / "lacking.nii.gz", lacking, source)

    def make_vessels(self, fine: Path) -> None:
        """Trees, their training and drawn hearts, of hearts that are fine enough to have trees."""
        demo = ("--out", fine / "demo", "--cases", 4, "--spacing-mm", 3.0, "--coronary-noise", 0.0)
        self.must("make_demo_cohort.py", *demo)
        self.must("check_cohort.py", "--table", fine / "demo" / "cases.tsv", "--out", fine)
        files = ("--cases", fine / "cases.tsv", "--out", fine, "--manifest", fine / "all.tsv")
        self.must("resample_labels.py", *files, "--voxel-size", 16, "--drop-classes", "coronary")
        rows = ["case_id,patient_id,path", *(f"phantom_00{k},p{k},x" for k in (2, 3))]
        (fine / "test.csv").write_text("\n".join(rows) + "\n")
        for name in ("encode", "train", "draw"):
            self.must(*self.other(f"{name}_vessels", self.folder / f"{name}_vessels"))

    def measured(self) -> list:
        return ["--meshes", self.folder / "meshes", "--trees", self.folder / "coronary_trace"]

    def statistics_split(self) -> list:
        """All hearts to learn from."""
        names = ["phantom_000", "phantom_001", "phantom_002"]
        rows = {"train": names, "validation": [], "test": []}
        for part, own in rows.items():
            text = "".join(f"{name},{name},x\n" for name in own)
            (self.folder / f"all_{part}.csv").write_text("case_id,patient_id,path\n" + text)
        return [w for part in rows for w in (f"--{part}", self.folder / f"all_{part}.csv")]

    def per_case(self, out: Path, *more) -> list:
        return [*self.cases, *ONE, "--out", out, "--manifest", out / "all.tsv", *more]

    def other(self, name: str, out: Path) -> list:
        f, meshes = self.folder, ("--meshes", self.folder / "meshes")
        held_out = ("--validation", f / "val.csv", "--test", f / "test.csv")
        split = ("--train", f / "train.csv", *held_out)
        ldm = (f / "ldm", f / "latents", f / "samples")
        voxels = ("--voxels", self.manifest("ldm"))
        diffusion = ("--model", self.model("diffusion"), "--out", out)
        trees = f / "encode_vessels" / "all.tsv"
        arguments = {
            "make_demo_cohort": ["--out", out, "--cases", 3, "--spacing-mm", 5],
            "check_cases": ["--cases", f / "demo" / "cases.tsv", *self.per_case(out)[2:]],
            "check_cohort": ["--table", f / "demo" / "cases.tsv", "--out", out],
            "split_cohort": [
                *(*self.cases, "--points", f / "points", "--out", out),
                *("--validation", 0.33, "--test", 0.33, "--seed", 4),
            ],
            "extract_meshes": self.per_case(out, *self.flags("meshes")),
            "sample_sdf": self.per_case(out, *meshes, *self.flags("points")),
            "voxelize_labels": self.per_case(out, *meshes, *self.flags("voxels")),
            "window_ct": self.per_case(out, *self.flags("windows")),
            "voxelize_meshes": [
                *("--meshes", f / "meshes" / "phantom_000" / "aorta.ply", "--out", out),
                *("--manifest", out / "all.tsv", "--resolution", 64),
            ],
            "import_volumes": ["--volumes", f / "dense", "--spacing", 5, "--out", out],
            "import_labels": [
                *("--label-maps", f / "demo" / "labels", "--classes", f / "classes.tsv"),
                *("--out", out),
            ],
            "repair_coronary": self.per_case(out, *self.flags("coronary_repair")),
            "refine_coronary": [
                *(*self.cases, *ONE, "--model", self.model("coronary"), "--out", out),
                *("--manifest", self.manifest("coronary_repair")),
                *self.flags("coronary_refine", "coronary_repair"),
            ],
            "fuse_labels": self.per_case(out, *self.flags("fusion")),
            "trace_coronary": self.per_case(out, *self.flags("coronary_trace")),
            "trace_coronary of files": [
                *("--label-maps", f / "demo/labels/phantom_000.nii.gz", "--out", out),
                *("--manifest", out / "all.tsv", *self.flags("coronary_trace")),
            ],
            "collect_trees": [
                *(*self.cases, "--manifest", self.manifest("coronary_trace"), "--out", out),
            ],
            "export_shapes": self.per_case(out, *meshes, *self.flags("exports")),
            "measure_shapes": self.per_case(out, *self.measured(), *self.flags("measures")),
            "collect_measures": [
                *(*self.cases, "--manifest", self.manifest("measures"), "--out", out),
                *self.flags("norms"),
            ],
            "shape_statistics": [
                *(*self.cases, *meshes, *self.statistics_split(), "--out", out),
                *("--grid-mm", 12.0, "--mesh-mm", 12.0, "--pairs", 1, "--samples", 1),
                *("--most-modes", 1, "--classes", "left_ventricle,right_ventricle"),
            ],
            "collect_folds": [
                *("--rule", "reconstruct_vecset", "--out", out),
                *("--metrics", f / "fold.json"),
            ],
            "collect_search": [
                *("--training", "vecset", "--space", "lr=1e-5..1e-3", "--rungs", 2, "--out", out),
                *("--rankings", f / "ranking.json"),
            ],
            "collect_fused": [*self.cases, "--manifest", f / "fused" / "all.tsv", "--out", out],
            "resample_labels": self.per_case(out, *self.flags("ldm")),
            "convert_pointclouds": self.per_case(out, *self.flags("ldm", "pointclouds")),
            "encode_latents": [
                *("--autoencoder", self.model("autoencoder"), *voxels, *split, "--out", out),
                *("--manifest", out / "all.tsv", *self.flags("latents")),
            ],
            "sample_diffusion": [*diffusion, *self.flags("sampling")],
            "evaluate_samples": [
                *("--samples", ldm[2] / "metrics.json", *voxels, "--out", out / "figures.json"),
                *("--latents", self.manifest("latents"), "--grid", ldm[0] / "grid.json"),
                *("--train", f / "train.csv", "--test", f / "val.csv"),
                *self.flags("generation"),
            ],
            "encode_set_latents": self.encode_sets(out)[1:],
            "latent_statistics": self.latent_statistics(out)[1:],
            "sample_set_diffusion": [
                *("--model", self.model("set_diffusion"), "--out", out),
                *self.flags("set_sampling"),
            ],
            "draw_set_vessels": [
                *("--model", self.model("set_diffusion"), "--trees", trees),
                *("--samples", f / "set_samples" / "metrics.json", "--spacing-mm", 4.0),
                *("--latents", self.manifest("set_latents"), "--test", f / "val.csv"),
                *("--train", f / "fine" / "test.csv", "--out", out, "--device", "cpu"),
                *("--manifest", out / "all.tsv"),
            ],
            "complete_labels": [
                *(*diffusion, *voxels, *self.cases, *self.flags("completion")),
                *("--train", f / "train.csv", "--test", f / "val.csv"),
            ],
            "complete_labels of files": [
                *(*diffusion, "--label-maps", f / "lacking.nii.gz", *self.flags("completion")),
            ],
            "complete_vecset": [
                *("--model", self.model("vecset_parts"), "--out", out, *self.cases),
                *("--train", f / "train.csv", "--test", f / "val.csv"),
                *self.flags("vecset_reconstruct"),
            ],
            "complete_vecset of files": [
                *("--model", self.model("vecset_parts"), "--out", out),
                *("--label-maps", f / "lacking.nii.gz", *self.flags("vecset_reconstruct")),
            ],
            "encode_vessels": [
                *("--cases", f / "fine" / "cases.tsv", "--voxels", f / "fine" / "all.tsv"),
                *("--out", out, "--manifest", out / "all.tsv", "--spacing-mm", 1.0),
            ],
            "train_vessels": [
                *("--train", f / "train.csv", "--validation", f / "val.csv", "--manifest", trees),
                *("--voxels", f / "fine" / "all.tsv", "--grid", f / "fine" / "grid.json"),
                *("--out", out),
                *(*self.flags("vessels"), "--channels", "8,16", "--batch-size", 2, "--workers", 0),
                *("--attention-levels", "false,false", "--num-head-channels", 8),
                *("--norm-num-groups", 4, "--num-res-blocks", 1, "--device", "cpu"),
                *(word for k, v in SHORT.items() for word in (f"--{k.replace('_', '-')}", v)),
            ],
            "draw_vessels": [
                *("--model", f / "train_vessels" / "model.pt", "--trees", trees),
                *("--voxels", f / "fine" / "all.tsv"),
                *("--test", f / "fine/test.csv", "--out", out, "--manifest", out / "all.tsv"),
                *("--num-inference-steps", 2, "--spacing-mm", 4.0, "--gap-mm", 60.0),
            ],
            "evaluate_vessels": [
                *("--trees", trees, "--drawn", f / "draw_vessels" / "all.tsv"),
                *("--train", f / "train.csv", "--test", f / "fine" / "test.csv"),
                *("--out", out / "figures.json"),
            ],
            "apply_models": [
                *("--models", f / "models", "--labels", f / "demo/labels/phantom_000.nii.gz"),
                *("--out", out, "--tasks", "encode", "--device", "cpu"),
            ],
            "reconstruct_vecset": [
                *("--model", self.model("vecset"), *split, *self.cases, *meshes, "--out", out),
                *("--metrics", out / "metrics.json", *self.flags("vecset_reconstruct")),
            ],
            "reconstruct_vqvae": [
                *("--model", self.model("vqvae_joint"), "--stage1", self.model("vqvae_codebook")),
                *("--continuous", self.model("vqvae_pretrain"), *held_out, *self.cases, *meshes),
                *("--manifest", self.manifest("voxels"), "--out", out),
                *self.flags("vqvae_reconstruct"),
            ],
        }[name]
        return [f"{name.split()[0]}.py", *arguments]

    def line(self, name: str, out: Path) -> list:
        return self.command(name, out) if name in self.NAMES else self.other(name, out)


# Script -> what another call of it into the same folder changes.
OTHER_SCRIPTS = {
    "make_demo_cohort": ("--seed", 5),
    "check_cases": (),
    "check_cohort": (),
    "split_cohort": ("--seed", 8),
    "extract_meshes": ("--smoothing-vox", 0.6),
    "sample_sdf": ("--seed", 5),
    "voxelize_labels": ("--band-voxels", 3),
    "window_ct": ("--band-voxels", 3),
    "voxelize_meshes": ("--band-voxels", 3),
    "import_volumes": ("--axes", "SAR"),
    "import_labels": (),
    "repair_coronary": ("--fragment-mm3", 50),
    "refine_coronary": ("--resolution", 32),
    "fuse_labels": ("--hole-mm3", 5),
    "trace_coronary": ("--branch-mm", 20),
    "trace_coronary of files": ("--branch-mm", 20),
    "collect_trees": (),
    "export_shapes": ("--formats", "glb"),
    "measure_shapes": ("--vessels", "aorta"),
    "collect_measures": ("--least-cases", 2),
    "shape_statistics": ("--seed", 5),
    "collect_folds": (),
    "collect_search": (),
    "collect_fused": (),
    "resample_labels": ("--voxel-size", 24),
    "convert_pointclouds": ("--voxel-size", 24),
    "encode_latents": ("--seed", 5),
    "sample_diffusion": ("--num-samples", 1),
    "encode_set_latents": ("--seed", 5),
    "sample_set_diffusion": ("--num-samples", 1),
    "latent_statistics": ("--seed", 5),
    "evaluate_samples": ("--seed", 5),
    "complete_labels": ("--seed", 5),
    "complete_labels of files": ("--seed", 5),
    "complete_vecset": ("--seed", 5),
    "complete_vecset of files": ("--seed", 5),
    "encode_vessels": ("--branch-mm", 20),
    "train_vessels": ("--seed", 5),
    "draw_vessels": ("--seed", 5),
    "draw_set_vessels": ("--smooth-mm", 1.0),
    "evaluate_vessels": (),
    "apply_models": ("--tasks", "reconstruct"),
    "reconstruct_vecset": ("--seed", 5),
    "reconstruct_vqvae": (),
}
TRAININGS = dict.fromkeys(Trainings.NAMES, ("--seed", 5))
TABLE = OTHER_SCRIPTS | TRAININGS
# What Snakemake deletes before it calls a script again: the outputs that its rule declares
DECLARED = (
    "model.pt", "metrics.json", "all.tsv", "cases.tsv", "summary.json", "grid.json",
    "statistics.json", "train.csv", "val.csv", "test.csv", "figures.json", "qc/cohort.json",
    "branches.csv", "summary.csv", "cases.csv", "measures.csv", "norms.csv",
    "zscores.csv", "groups.csv", "best.yaml", "trials.tsv", "search.png", "study.log",
    "folds.png", "slots.npz", "model.npz", "template.npz", "scores.csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    return Hearts(tmp_path_factory.mktemp("hearts"))


def contents_of(folder: Path, names) -> dict[Path, bytes]:
    """What :func:`put` writes."""
    return {folder / name: f"mine: {name}".encode() for name in names}


def put(folder: Path, names) -> dict[Path, bytes]:
    """Files of somebody else's."""
    files = contents_of(folder, names)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


def untouched(files: dict[Path, bytes]) -> bool:
    return {path: path.read_bytes() for path in files if path.is_file()} == files


def contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module", params=TABLE)
def first(request, hearts, tmp_path_factory):
    """A script, a folder where it ran beside a user's files, and these."""
    out = tmp_path_factory.mktemp("out") / "out"
    if request.param in hearts.NAMES:  # done already
        shutil.copytree(hearts.folder / request.param, out)
        return request.param, out, contents_of(out, OTHERS)
    files = put(out, OTHERS)
    result = run_inside(*hearts.line(request.param, out))
    assert result.returncode == 0, result.stderr
    return request.param, out, files


def test_the_table_has_every_script(hearts):
    scripts = {path.name for path in SCRIPTS.glob("*.py")}
    assert scripts == {hearts.line(name, Path("out"))[0] for name in TABLE} | NO_FOLDER


def test_what_lies_beside_is_left_alone(first, hearts):
    name, out, files = first
    assert untouched(files)
    result = run_inside(*hearts.line(name, out), *TABLE[name])
    assert result.returncode == 0, result.stderr
    assert untouched(files)


def test_a_file_in_the_place_of_an_output_is_refused(first, hearts, tmp_path):
    name, out, files = first
    names = {n for n in contents(out) if out / n not in files and "tfevents" not in n}
    names -= {n for n in names if n.startswith(("checkpoints.1", ".cardiform"))}
    mine = put(tmp_path, names)
    result = run_inside(*hearts.line(name, tmp_path))
    assert untouched(mine)
    refused(result, "was not made by this script")
    assert all(len(line) < 400 for line in result.stderr.splitlines())


def test_a_folder_of_an_earlier_version_is_taken_over(first, hearts, tmp_path):
    name, out, files = first
    if name in ("complete_labels of files", "complete_vecset of files"):
        pytest.skip("nothing but the label maps, which may be anybody's")
    if name == "latent_statistics":
        pytest.skip("no earlier version has it: its folders always had a list")
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    for path in files:
        (folder / path.relative_to(out)).unlink()
    shutil.rmtree(folder / ".cardiform", ignore_errors=True)
    for gone in DECLARED if name != "make_demo_cohort" else ():
        (folder / gone).unlink(missing_ok=True)
    result = run_inside(*hearts.line(name, folder))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", TABLE)
def test_an_output_folder_that_is_a_file_is_one_line(hearts, name, tmp_path):
    mine = put(tmp_path, ["a_file"])
    for out in (tmp_path / "a_file", tmp_path / "a_file" / "below"):
        result = run_inside(*hearts.line(name, out))
        refused(result, "a_file: is a file", "out")
        assert len(result.stderr.splitlines()) == 1
    assert untouched(mine)


INTERRUPTING = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(10)
"""
LIGHT = {"split_cohort", "collect_fused"}  # import nothing that takes long


@pytest.mark.parametrize("name", sorted(set(TABLE) - LIGHT))
def test_ctrl_c_during_an_import_is_quiet(hearts, name, tmp_path):
    for module in ("numpy", "torch"):
        (tmp_path / f"{module}.py").write_text(INTERRUPTING)
    script, *arguments = hearts.line(name, tmp_path / "out")
    result = subprocess.run(
        [sys.executable, SCRIPTS / script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        # a shell that starts the tests in the background has Ctrl-C ignored, and this is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (result.returncode, result.stderr) == (130, "")


def test_samples_of_a_run_before_are_deleted_and_no_others(hearts, tmp_path):
    line = hearts.line("sample_diffusion", tmp_path)
    assert run_inside(*line, "--num-samples", 3).returncode == 0
    mine = put(tmp_path, ("nifti/sample_0007.nii.gz", "meshes/sample_0002/mine.ply"))
    assert run_inside(*line, "--num-samples", 1).returncode == 0
    assert untouched(mine)
    left = {p.name.split(".")[0] for p in tmp_path.glob("*/sample_*")}
    assert left == {"sample_0000", "sample_0002", "sample_0007"}
    assert [p.name for p in (tmp_path / "meshes" / "sample_0002").iterdir()] == ["mine.ply"]
    # what is deleted is off the list: another file of the name is somebody's
    mine |= put(tmp_path, ["nifti/sample_0001.nii.gz"])
    refused(run_inside(*line, "--num-samples", 2), "sample_0001.nii.gz: is there already")
    assert untouched(mine)


def test_figures_of_another_script_are_not_written_over(hearts, tmp_path):
    """A training's folder as --out of the samples, and the other way round."""
    for name, place in (("sample_diffusion", "diffusion"), ("diffusion", "samples")):
        out = tmp_path / name
        shutil.copytree(hearts.folder / place, out)
        before = (out / "metrics.json").read_bytes()
        refused(run_inside(*hearts.line(name, out)), "metrics.json: holds the figures of")
        assert (out / "metrics.json").read_bytes() == before


def completing(hearts, out, *paths):
    model, flags = hearts.model("diffusion"), hearts.flags("completion")
    return run_inside(
        "complete_labels.py", "--model", model, "--out", out, "--label-maps", *paths, *flags
    )


def test_two_label_maps_of_one_name_are_refused(hearts, tmp_path):
    paths = [tmp_path / patient / "seg.nii.gz" for patient in ("p1", "p2")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(hearts.folder / "lacking.nii.gz", path)
    before = {path: path.read_bytes() for path in paths}
    refused(completing(hearts, tmp_path / "out", *paths), "p2/seg.nii.gz: is called like")
    assert not (tmp_path / "out").exists()
    refused(completing(hearts, tmp_path / "p1", paths[0]), "is an input of this call")
    assert untouched(before)


def test_all_bad_label_maps_are_reported_and_the_good_one_is_completed(hearts, tmp_path):
    good, whole = hearts.folder / "lacking.nii.gz", hearts.folder / "demo/labels/phantom_000.nii.gz"
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    paths = (tmp_path / "bad.nii.gz", whole, tmp_path / "none.nii.gz", good)
    result = completing(hearts, tmp_path / "out", *paths)
    refused(result, "bad.nii.gz", "phantom_000.nii.gz: has every class", "none.nii.gz")
    assert "delete" not in result.stderr
    assert load_label_map(tmp_path / "out" / "lacking.nii.gz").data.any()


def test_a_wrong_model_is_to_be_corrected_and_nothing_to_be_deleted(hearts, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(hearts.model("diffusion").read_bytes()[:-100])
    nifti, none = hearts.folder / "lacking.nii.gz", tmp_path / "none.pt"
    for path in (tmp_path, tmp_path / "state.pt", damaged, nifti, none):
        for script in ("sample_diffusion.py", "complete_labels.py"):
            more = ("--label-maps", nifti) if script == "complete_labels.py" else ()
            result = run_inside(script, "--model", path, "--out", tmp_path / "out", *more)
            refused(result, "error: ")
            assert "delete" not in result.stderr and "--model" in result.stderr
            assert len(result.stderr) < 500


def test_weights_are_looked_at_before_the_samples_are_read(hearts, tmp_path):
    for name in ("vqvae_codebook", "vqvae_joint"):
        more = ("--weights", tmp_path / "none.pt", "--manifest", tmp_path / "none.tsv")
        result = run_inside(*hearts.line(name, tmp_path / "out"), *more)
        refused(result, "none.pt: does not exist; correct --weights")
        assert "none.tsv" not in result.stderr


def test_the_label_table_of_a_reconstruction_is_that_of_its_models(hearts, tmp_path):
    rows = labels.load_label_table("").as_dicts()
    rows[0]["name"] = "another"
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    (tmp_path / "labels.tsv").write_text("\n".join(lines) + "\n")
    line = hearts.line("reconstruct_vqvae", tmp_path / "out")
    result = run_inside(*line, "--labels", tmp_path / "labels.tsv")
    refused(result, "was trained with another label table", "give --labels")
    assert len([x for x in result.stderr.splitlines() if "another label table" in x]) == 3
