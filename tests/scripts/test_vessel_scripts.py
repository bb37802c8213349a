"""The scripts of vessels in generated hearts as a user calls them, on coarse hearts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from answers import refused
from inside import run_inside

from cardiform.anatomy.components import count_components
from cardiform.artefact.model import load_model
from cardiform.cohort.manifest import read_manifest
from cardiform.coronary.tree_files import read_branches
from cardiform.ldm.vessels.draw_case import is_connected
from cardiform.ldm.vessels.tree import load_tree
from cardiform.volumes import load_label_map, save_label_map

QUICK = ("--steps", 4, "--batch-size", 2, "--warmup-steps", 1, "--workers", 0, "--device", "cpu")
QUICK += ("--log-every", 1, "--checkpoint-every", 1, "--validate-every", 2)
QUICK += ("--channels", "8,16", "--attention-levels", "false,false", "--num-head-channels", 8)
QUICK += ("--norm-num-groups", 4, "--num-res-blocks", 1)
DRAWING = ("--num-inference-steps", 2, "--device", "cpu", "--spacing-mm", 2.0, "--gap-mm", 60.0)


class Stages:
    """A demo cohort in a folder and the scripts on it."""

    def __init__(self, folder):
        self.folder = folder
        self.names = [f"phantom_{i:03d}" for i in range(5)]
        demo = ("--out", folder / "demo", "--cases", 5, "--spacing-mm", 3.0)
        self.must("make_demo_cohort.py", *demo, "--coronary-noise", 0.0)
        self.must("check_cohort.py", "--table", folder / "demo" / "cases.tsv", "--out", folder)
        parts = {"train": self.names[:2], "val": self.names[2:3], "test": self.names[3:]}
        for part, names in parts.items():
            lines = ["case_id,patient_id,path", *(f"{n},{n},unused" for n in names)]
            (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
        voxels = folder / "voxels"
        files = ("--cases", folder / "cases.tsv", "--out", voxels)
        grid = ("--voxel-size", 16, "--drop-classes", "coronary")
        self.must("resample_labels.py", *files, "--manifest", voxels / "manifest.tsv", *grid)
        self.must("encode_vessels.py", *self.encoding())
        self.must("train_vessels.py", *self.training("model"))
        self.samples = folder / "samples"
        (self.samples / "nifti").mkdir(parents=True)
        shutil.copy(voxels / "phantom_000.nii.gz", self.samples / "nifti" / "sample_0000.nii.gz")
        (self.samples / "metrics.json").write_text(json.dumps({"samples": ["sample_0000"]}))
        self.must("draw_vessels.py", *self.drawing("hearts"))

    def must(self, *arguments):
        result = run_inside(*arguments)
        assert result.returncode == 0, result.stderr
        return result

    def encoding(self, *arguments):
        out = self.folder / "trees"
        files = ("--cases", self.folder / "cases.tsv", "--out", out)
        files += ("--voxels", self.folder / "voxels" / "manifest.tsv")
        return (*files, "--manifest", out / "manifest.tsv", "--spacing-mm", 1.0, *arguments)

    def training(self, out, *arguments):
        files = ("--train", self.folder / "train.csv", "--validation", self.folder / "val.csv")
        files += ("--manifest", self.folder / "trees" / "manifest.tsv")
        files += ("--voxels", self.folder / "voxels" / "manifest.tsv")
        files += ("--grid", self.folder / "voxels" / "grid.json", "--out", self.folder / out)
        return (*files, *QUICK, *arguments)

    def drawing(self, out, *arguments):
        files = ("--model", self.folder / "model" / "model.pt")
        files += ("--samples", self.samples / "metrics.json")
        files += ("--voxels", self.folder / "voxels" / "manifest.tsv")
        files += ("--test", self.folder / "test.csv")
        files += ("--trees", self.folder / "trees" / "manifest.tsv", "--out", self.folder / out)
        return (*files, "--manifest", self.folder / out / "manifest.tsv", *DRAWING, *arguments)

    def evaluation(self, *arguments):
        files = ("--trees", self.folder / "trees" / "manifest.tsv")
        files += ("--drawn", self.folder / "hearts" / "manifest.tsv")
        files += ("--train", self.folder / "train.csv", "--test", self.folder / "test.csv")
        return (*files, "--out", self.folder / "figures.json", *arguments)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("vessels"))


def test_every_case_has_its_tree_about_the_middle_of_its_cube(stages):
    rows = read_manifest(stages.folder / "trees" / "manifest.tsv")
    assert [row["case_id"] for row in rows] == stages.names
    for row in rows:
        stored = load_tree(row["path"])
        tree = stored.tree
        assert stored.structure == "coronary" and tree.length > 200
        assert np.abs(tree.points).max() < 110
    again = stages.must("encode_vessels.py", *stages.encoding())
    assert "5 of 5 cases are finished already" in again.stderr


def test_hearts_have_ten_classes_and_trees_that_people_can_read(stages):
    rows = read_manifest(stages.folder / "hearts" / "manifest.tsv")
    names = list(dict.fromkeys(row["case_id"] for row in rows))
    assert names == ["sample_0000", *stages.names[3:]]
    for name in names:
        found = load_label_map(stages.folder / "hearts" / "nifti" / f"{name}.nii.gz")
        assert found.spacing == pytest.approx([2.0, 2.0, 2.0])
        figures = json.loads((stages.folder / f"hearts/figures/{name}.json").read_text())
        report = figures["vessels"]
        mask = found.data == 9
        assert count_components(mask) == report["parts"]
        assert is_connected(mask, found.data == 6) == bool(report["connected"])
        folder = stages.folder / "hearts" / "trees" / name
        tree = load_tree(folder / "tree.npz").tree
        assert tree.length == pytest.approx(report["length_mm"], rel=1e-3)
        branches = read_branches(folder / "branches.csv")
        length = sum(float(row["length_mm"]) for row in branches)
        assert length == pytest.approx(tree.length, rel=0.01, abs=0.5)
        assert (folder / "tree.swc").read_text().startswith("#")
        assert (folder / "coded.npz").is_file() == (name in stages.names)
    # all other classes lie where they lay
    coarse = load_label_map(stages.folder / "voxels" / "phantom_003.nii.gz")
    fine = load_label_map(stages.folder / "hearts" / "nifti" / "phantom_003.nii.gz")
    for value in (1, 3, 5):
        there, here = (
            (m.affine @ [*np.argwhere(m.data == value).mean(axis=0), 1])[:3] for m in (coarse, fine)
        )
        assert np.linalg.norm(there - here) < 2.0


def test_what_the_coarse_grid_keeps_of_a_true_tree_is_connected(stages):
    """Though its voxels have edges of more than a centimetre."""
    tree = load_tree(stages.folder / "hearts" / "trees" / "phantom_003" / "coded.npz").tree
    true = load_tree(stages.folder / "trees" / "phantom_003.npz").tree
    assert 1 <= len(tree.roots) <= 3 and tree.length > 0.5 * true.length


def test_a_heart_is_drawn_otherwise_without_the_network(stages):
    before = (stages.folder / "hearts" / "votes" / "sample_0000.npz").read_bytes()
    again = stages.must("draw_vessels.py", *stages.drawing("hearts", "--smooth-mm", 1.0))
    assert "3 of 3 cases are finished already" in again.stderr
    assert "sample_0000 done (1 of 3)" in again.stderr
    assert (stages.folder / "hearts" / "votes" / "sample_0000.npz").read_bytes() == before
    stages.must("draw_vessels.py", *stages.drawing("hearts"))


def test_the_same_seed_draws_the_same_vessels_in_any_order(stages):
    alone = ("--model", stages.folder / "model" / "model.pt", *DRAWING)
    alone += ("--voxels", stages.folder / "voxels" / "manifest.tsv")
    alone += ("--test", stages.folder / "test.csv", "--out", stages.folder / "alone")
    stages.must("draw_vessels.py", *alone, "--manifest", stages.folder / "alone" / "m.tsv")
    for name in stages.names[3:]:
        a, b = (
            load_label_map(stages.folder / out / "nifti" / f"{name}.nii.gz").data
            for out in ("hearts", "alone")
        )
        assert np.array_equal(a, b)


def test_a_training_that_was_interrupted_is_resumed(stages):
    stopped = run_inside("train_vessels.py", *stages.training("resumed", "--max-minutes", 0.000001))
    assert stopped.returncode == 75, stopped.stderr
    again = stages.must("train_vessels.py", *stages.training("resumed"))
    assert "resum" in again.stderr
    whole, resumed = (
        load_model(stages.folder / out / "model.pt").weights for out in ("model", "resumed")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_reconstructions_serve_as_hearts_too(stages):
    """The latents' manifest lists what the autoencoder makes of the training hearts."""
    folder = stages.folder / "latents"
    (folder / "reconstructions").mkdir(parents=True)
    lines = ["case_id\tpath\tbytes\tsha256\tstatus"]
    for name in stages.names[:2]:
        path = folder / "reconstructions" / f"{name}.nii.gz"
        shutil.copy(stages.folder / "voxels" / "phantom_004.nii.gz", path)
        lines.append(f"{name}\t{path}\t1\t{'0' * 64}\tok")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    latents = ("--latents", folder / "manifest.tsv")
    stages.must("train_vessels.py", *stages.training("with_latents", *latents))
    plain, other = (
        load_model(stages.folder / out / "model.pt").weights for out in ("model", "with_latents")
    )
    assert not all(torch.equal(plain[name], other[name]) for name in plain)


def test_figures_stand_beside_true_trees(stages):
    stages.must("evaluate_vessels.py", *stages.evaluation())
    found = json.loads((stages.folder / "figures.json").read_text())
    assert found["kind"] == "evaluate_vessels"
    assert found["generated"]["hearts"] == 1 and found["test"]["hearts"] == 2
    assert 0 <= found["test"]["connected"] <= 1
    assert found["coded"]["own_mm"] < found["true"]["nearest_train_mm"]
    assert found["train"]["sizes"]["length_mm"]["w1"] is not None


def test_faults_are_told_in_one_line_each(stages, tmp_path):
    folder = stages.folder
    other = ("--num-head-channels", 7, "--channels", "8,16,16,16,16,16")
    refused(
        run_inside("train_vessels.py", *stages.training("no", *other)),
        "vessels.num_head_channels is 7",
        "vessels.attention_levels has 2 entries",
        "cannot be halved 5 times",
    )
    gone = stages.drawing("no", "--model", folder / "no.pt")
    refused(run_inside("draw_vessels.py", *gone), "no.pt: does not exist")
    alone = ("--model", folder / "model" / "model.pt", "--out", tmp_path / "o")
    alone += ("--manifest", tmp_path / "o" / "m.tsv", *DRAWING)
    refused(run_inside("draw_vessels.py", *alone), "name --samples")
    given = ("--samples", tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text(json.dumps({"samples": 3}))
    refused(run_inside("draw_vessels.py", *alone, *given), "lists no samples")
    (tmp_path / "metrics.json").write_text(json.dumps({"samples": ["gone"]}))
    refused(run_inside("draw_vessels.py", *alone, *given), "gone.nii.gz: does not exist")
    wrong = stages.evaluation("--drawn", folder / "voxels" / "grid.json")
    refused(run_inside("evaluate_vessels.py", *wrong), "grid.json")
    unknown = stages.encoding("--structure", "nothing")
    refused(run_inside("encode_vessels.py", *unknown), "nothing")
    (tmp_path / "train.csv").write_text("case_id,patient_id,path\nnobody,nobody,x\n")
    nobody = ("--train", tmp_path / "train.csv")
    result = run_inside("train_vessels.py", *stages.training("no", *nobody))
    refused(result, "train.csv: has no case with a tree")
    result = run_inside("evaluate_vessels.py", *stages.evaluation(*nobody))
    refused(result, "train.csv: has fewer than two cases with a tree")
    (tmp_path / "test.csv").write_text("case_id,patient_id,path\nnobody,nobody,x\n")
    result = run_inside("draw_vessels.py", *stages.drawing("no", "--test", tmp_path / "test.csv"))
    refused(result, "test.csv: has no case in")


def test_a_heart_of_another_grid_is_refused(stages, tmp_path):
    found = load_label_map(stages.folder / "hearts" / "nifti" / "phantom_003.nii.gz")
    (tmp_path / "nifti").mkdir()
    save_label_map(tmp_path / "nifti" / "sample_0000.nii.gz", found.data, found.affine)
    (tmp_path / "metrics.json").write_text(json.dumps({"samples": ["sample_0000"]}))
    given = ("--model", stages.folder / "model" / "model.pt", "--out", tmp_path / "o", *DRAWING)
    given += ("--samples", tmp_path / "metrics.json", "--manifest", tmp_path / "o" / "m.tsv")
    refused(run_inside("draw_vessels.py", *given), "the grid 16 voxels along each edge")
