"""The scripts of coronary refinement as a user calls them, on coarse hearts."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from answers import refused
from inside import run_inside

from cardiform.artefact.model import load_model
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.table import Case, read_checked_cases, write_cases
from cardiform.coronary.level import LEVELS_MM
from cardiform.volumes import load_label_map, save_label_map

GRID = ("--spacing-mm", 2.0)
QUICK = ("--steps", 4, "--batch-size", 2, "--warmup-steps", 1, "--preview-every", 0)
QUICK += ("--workers", 0, "--device", "cpu", "--log-every", 1, "--checkpoint-every", 1)
SMALL = ("--channels", "8,8", "--blocks", "1,0", "--patch", 24, "--points", 128)
SMALL += ("--reach-mm", 6, "--truncation-mm", 5, "--scales-mm", 2)
NEAR = ("--preset", "near", "--latent-dim", 8, "--points", 256, "--accumulate", 1)


class Stages:
    """A demo cohort in a folder and the scripts on it."""

    def __init__(self, folder):
        self.folder, self.run_script = folder, run_inside
        made = run_inside(
            "make_demo_cohort.py", "--out", folder / "demo", "--cases", 3, "--spacing-mm", 4.0
        )
        assert made.returncode == 0, made.stderr
        checked = run_inside(
            "check_cohort.py", "--table", folder / "demo" / "cases.tsv", "--out", folder
        )
        assert checked.returncode == 0, checked.stderr
        self.cases = ("--cases", folder / "cases.tsv")
        self.names = [f"phantom_{i:03d}" for i in range(3)]
        for part, name in zip(("train", "val", "test"), self.names):
            line = f"case_id,patient_id,path\n{name},{name},unused\n"
            (folder / f"{part}.csv").write_text(line)
        self.manifest = folder / "repaired" / "manifest.tsv"

    def repair(self, *arguments):
        places = ("--out", self.folder / "repaired", "--manifest", self.manifest)
        return self.run_script("repair_coronary.py", *self.cases, *places, *GRID, *arguments)

    def train(self, out, *arguments):
        files = ("--train", self.folder / "train.csv", "--validation", self.folder / "val.csv")
        files += ("--manifest", self.manifest, "--out", self.folder / out)
        preset = NEAR if "near" in out else (*SMALL, *GRID)
        return self.run_script("train_coronary.py", *files, *preset, *QUICK, *arguments)

    def refine(self, *arguments, out="refined"):
        files = ("--manifest", self.manifest, "--out", self.folder / out)
        for flag, part in (("train", "train"), ("validation", "val"), ("test", "test")):
            files += (f"--{flag}", self.folder / f"{part}.csv")
        more = ("--device", "cpu", "--resolution", 48, *GRID)
        return self.run_script("refine_coronary.py", *self.cases, *files, *more, *arguments)

    def fuse(self, *arguments):
        out = self.folder / "fused"
        places = ("--out", out, "--manifest", out / "manifest.tsv")
        return self.run_script("fuse_labels.py", *self.cases, *places, *arguments)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    made = Stages(tmp_path_factory.mktemp("coronary"))
    assert made.repair().returncode == 0
    trained = made.train("model")
    assert trained.returncode == 0, trained.stderr
    refined = made.refine("--model", made.folder / "model" / "model.pt")
    assert refined.returncode == 0, refined.stderr
    fused = made.fuse("--masks", f"coronary={made.folder / 'refined'}")
    assert fused.returncode == 0, fused.stderr
    return made


def test_repair_leaves_masks_reports_and_a_manifest(stages):
    rows = read_manifest(stages.manifest)
    assert len(rows) == 9 and {r["status"] for r in rows} == {"ok"}
    report = json.loads((stages.folder / "repaired" / "phantom_000.json").read_text())
    assert report["components_after"] <= report["components_before"]
    given = load_label_map(stages.folder / "demo" / "labels" / "phantom_000.nii.gz")
    mask = load_label_map(stages.folder / "repaired" / "phantom_000.nii.gz")
    assert mask.data.shape == given.data.shape and mask.data.max() == 1
    again = stages.repair()
    assert "3 of 3 cases are finished already" in again.stderr


def test_a_class_that_the_table_lacks(stages):
    result = stages.repair("--structure", "spleen")
    refused(result, "coronary_repair.structure names spleen", "has myocardium, ")


def test_a_structure_that_the_label_table_lacks_is_not_trained(stages, tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("value\tname\ttitle\tcolor\tcomponents\tpriority\n1\ta\tA\t#ff0000\t1\t1\n")
    refused(stages.train("other", "--labels", table), "no class 'coronary'")


def test_the_model_says_what_it_is(stages):
    stored = load_model(stages.folder / "model" / "model.pt")
    assert stored.kind == "coronary_denoiser"
    assert set(stored.options) == {"coronary", "coronary_repair"}
    assert stored.extra["level_mm"] in LEVELS_MM
    assert stored.trained_on("phantom_000") and not stored.trained_on("phantom_001")
    metrics = json.loads((stages.folder / "model" / "metrics.json").read_text())
    assert metrics["kind"] == "coronary_denoiser" and metrics["steps"] == 4
    assert {"dice_points", "dice_start", "loss"} <= set(metrics["validation"])
    logged = (stages.folder / "model" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in logged]
    last = [s for s in steps if s["event"] == "log"][-1]
    assert metrics["train"] == last["figures"] and last["step"] == 4
    assert (stages.folder / "model" / "curves.png").stat().st_size > 0


def test_an_interrupted_training_ends_with_the_same_weights(stages):
    stopped = stages.train("again", "--max-minutes", 1e-6)
    assert stopped.returncode == 75 and "the same command resumes" in stopped.stderr
    resumed = stages.train("again")
    assert resumed.returncode == 0, resumed.stderr
    whole, again = (
        load_model(stages.folder / out / "model.pt").weights for out in ("model", "again")
    )
    for name, weight in whole.items():
        np.testing.assert_array_equal(again[name].numpy(), weight.numpy(), err_msg=name)


def test_refined_masks_figures_and_pictures(stages):
    out = stages.folder / "refined"
    for name in stages.names:
        given = load_label_map(stages.folder / "demo" / "labels" / f"{name}.nii.gz")
        mask = load_label_map(out / f"{name}.nii.gz")
        assert mask.data.shape == given.data.shape
        np.testing.assert_allclose(mask.affine, given.affine)
        assert (out / f"{name}.png").stat().st_size > 0
        assert max(load_label_map(out / "fine" / f"{name}.nii.gz").data.shape) == 48
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["dice_training_points"] <= 1
    for part in ("train", "validation", "test"):
        assert metrics[part]["cases_with_truth"] == 1
        assert metrics[part]["against_truth"]["cl_dice"] is not None
        own = metrics[part]["own_grid"]
        assert list(own) == ["label_against_truth", "repair_against_truth", "against_truth"]
        for column in own.values():
            assert column["dice"] > 0 and column["cl_dice"] > 0 and column["hd95_mm"] is not None
    model = stages.folder / "model" / "model.pt"
    assert "3 of 3 cases are finished already" in stages.refine("--model", model).stderr


def test_near_through_the_same_scripts(stages):
    trained = stages.train("near")
    assert trained.returncode == 0, trained.stderr
    model = stages.folder / "near" / "model.pt"
    refined = stages.refine(
        "--preset", "near", "--model", model, "--latent-steps", 2, out="by_near"
    )
    assert refined.returncode == 0, refined.stderr
    refused(
        stages.refine("--preset", "near", "--model", model, out="same"),
        "--latent-steps is 0: preset near would give every new case the same mask",
    )
    refused(
        stages.refine("--preset", "near", out="same"), "--latent-steps is 0", "do not go together"
    )
    wrong = stages.refine("--model", model, out="wrong")
    refused(wrong, "is a model of kind coronary_near, not a refinement of preset cardiform")


def test_the_repair_alone_needs_no_model(stages):
    refused(stages.refine(out="none"), "--preset cardiform and --model do not go together")
    made = stages.refine("--preset", "repair", "--select", "phantom_001", out="plain")
    assert made.returncode == 0, made.stderr
    assert (stages.folder / "plain" / "phantom_001.nii.gz").is_file()


def test_the_refinement_of_a_fold_is_of_its_test_cases(stages):
    made = stages.refine("--preset", "repair", "--held-out", out="fold/coronary/refined")
    assert made.returncode == 0, made.stderr
    folder = stages.folder / "fold" / "coronary" / "refined"
    assert sorted(p.name for p in folder.glob("*.nii.gz")) == ["phantom_002.nii.gz"]
    out = stages.folder / "fold" / "summary"
    files = ("--metrics", folder / "metrics.json", "--out", out)
    summed = run_inside(
        "collect_folds.py",
        "--rule",
        "refine_coronary",
        *files,
        "--test",
        stages.folder / "test.csv",
    )
    assert summed.returncode == 0, summed.stderr
    rows = [line.split(",") for line in (out / "summary.csv").read_text().splitlines()]
    found = {row[1]: float(row[2]) for row in rows[1:] if row[0] == "coronary"}
    metrics = json.loads((folder / "metrics.json").read_text())["test"]
    assert found["dice_against_truth"] == metrics["against_truth"]["dice"]
    assert found["own_dice_against_truth"] == metrics["own_grid"]["against_truth"]["dice"]
    refused(run_inside("collect_folds.py", "--rule", "refine_coronary", *files), "give test.csv")
    more = ("--preset", "repair", "--manifest", stages.manifest, "--out", out, "--held-out")
    refused(run_inside("refine_coronary.py", *stages.cases, *more), "give that, too")
    stages.folder.joinpath("none.csv").write_text("case_id,patient_id,path\n")
    none = ("--test", stages.folder / "none.csv", "--out", stages.folder / "fold" / "none")
    made = run_inside("refine_coronary.py", *stages.cases, *more, *none)
    assert made.returncode == 0, made.stderr
    assert " done (" not in made.stderr, "without test cases none is refined"


def test_fusion_reports_the_usual_numbers_of_parts_of_its_label_table(tmp_path):
    """Also where their upper end, which all stages go by, is the same as before."""
    save_label_map(tmp_path / "a.nii.gz", np.pad(np.ones((4, 4, 4), np.uint8), 1), np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(tmp_path / "a.nii.gz"))
    write_cases(tmp_path / "cases.tsv", [case])
    out, table = tmp_path / "fused", tmp_path / "labels.tsv"
    call = ["fuse_labels.py", "--cases", tmp_path / "cases.tsv", "--labels", table, "--out", out]
    for parts, fewest in (("2", 2), ("1-2", 1), ("2-3", 2)):
        rows = ["value name title color components priority", f"1 lv LV #112233 {parts} 1"]
        table.write_text("\n".join(rows).replace(" ", "\t"))
        result = run_inside(*call, "--manifest", out / "manifest.tsv")
        assert result.returncode == 0, result.stderr
        found = json.loads((out / "a.json").read_text())["classes"]["lv"]
        assert found["components_fewest"] == fewest
    assert "finished already" in run_inside(*call, "--manifest", out / "manifest.tsv").stderr


def test_fused_label_maps_and_the_table_of_them(stages):
    out = stages.folder / "fused"
    given = load_label_map(stages.folder / "demo" / "labels" / "phantom_001.nii.gz")
    fused = load_label_map(out / "phantom_001.nii.gz")
    mask = load_label_map(stages.folder / "refined" / "phantom_001.nii.gz")
    assert fused.data.shape == given.data.shape
    assert not ((fused.data == 9) & (mask.data == 0)).any()
    assert (fused.data[(mask.data == 0) & (given.data > 0) & (given.data != 9)] > 0).mean() > 0.99
    report = json.loads((out / "phantom_001.json").read_text())
    assert [r["rule"] for r in report["rules"]][:2] == [
        "appendage_touches_atrium", "veins_touch_atrium"
    ]  # fmt: skip
    assert report["classes"]["coronary"]["dice_before_after"] < 1
    assert {"dice_given", "dice_fused"} <= report["classes"]["coronary"].keys()
    collected = run_inside(
        "collect_fused.py", *stages.cases, "--manifest", out / "manifest.tsv", "--out", out
    )
    assert collected.returncode == 0, collected.stderr
    assert "coronary_on_heart" in collected.stderr
    cases = read_checked_cases(out / "cases.tsv")
    assert [c.labels for c in cases] == [str(out / f"{n}.nii.gz") for n in stages.names]
    assert cases[0].image and cases[0].truth
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == 3
    rule = summary["rules"]["coronary_on_heart"]
    assert rule["cases_with_truth"] == 3
    assert sum(rule["taken_true"].values()) <= sum(rule["taken_false"].values())
    for name, found in summary["classes"].items():
        figures = found["against_truth"]
        assert figures["cases"] == found["cases"]
        if name != "coronary":
            assert figures["dice_given"] == 1, name
            assert figures["dice_fused"] > 0.95, name
    assert "cl_dice_fused" in summary["classes"]["coronary"]["against_truth"]
    assert "against the truth" in collected.stderr and "stays" not in collected.stderr
    lines = (out / "manifest.tsv").read_text().splitlines(keepends=True)
    (out / "two.tsv").write_text("".join(line for line in lines if "phantom_001" not in line))
    collected = run_inside(
        "collect_fused.py", *stages.cases, "--manifest", out / "two.tsv", "--out", out / "two"
    )
    assert collected.returncode == 0, collected.stderr
    assert "the given label map stays in cases.tsv: phantom_001" in collected.stderr


def test_a_label_that_loses_the_structure_gets_no_older_mask_back(tmp_path):
    made = Stages(tmp_path)
    plain = ("--preset", "repair", "--resolution", 0)
    masks = ("--masks", f"coronary={tmp_path / 'refined'}")
    assert made.repair().returncode == made.refine(*plain).returncode == 0
    figures = tmp_path / "refined" / "metrics.json"
    assert json.loads(figures.read_text())["validation"]["cases_missed"] == 0
    older = (tmp_path / "refined" / "phantom_001.nii.gz").read_bytes()
    path = tmp_path / "demo" / "labels" / "phantom_001.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.where(data == 9, 0, data), image.affine), path)
    assert made.repair().returncode == made.refine(*plain).returncode == 0
    left = [p.name for p in tmp_path.glob("re*/**/phantom_001*")]
    assert sorted(left) == ["phantom_001.json"] * 2, "report and record of the repair"
    assert json.loads(figures.read_text())["validation"]["cases_missed"] == 1, "the truth has it"
    (tmp_path / "refined" / "phantom_001.nii.gz").write_bytes(older)
    fused = made.fuse(*masks)
    assert fused.returncode == 0, fused.stderr
    assert "the manifest there does not list their masks: phantom_001" in fused.stderr
    assert not (load_label_map(tmp_path / "fused" / "phantom_001.nii.gz").data == 9).any()
    report = json.loads((tmp_path / "fused" / "phantom_000.json").read_text())
    assert list(report["replaced"]) == ["coronary"]


def test_masks_and_rules_that_are_none(stages):
    refused(stages.fuse("--masks", "coronary"), "write class=folder")
    refused(stages.fuse("--masks", "spleen=x"), "no class 'spleen'")
    refused(stages.fuse("--rules", "tidy"), "--rules is 'tidy'; one of appendage_touches_atrium")
