"""encode_set_latents, train_set_diffusion and sample_set_diffusion, one after another."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from answers import refused
from inside import run_inside
from scipy.spatial.transform import Rotation
from tiny_trainings import Trainings

from cardiform import labels
from cardiform.artefact.model import load_model
from cardiform.cohort import splits
from cardiform.files import load_npz, save_npz
from cardiform.geometry.frame import Frame
from cardiform.latent_statistics.hearts import SurfaceTruth, stored_hearts
from cardiform.latent_statistics.make import Files, Posed, load_network
from cardiform.latent_statistics.model import LATENT_MODEL
from cardiform.options.statistics import LatentStatisticsOptions
from cardiform.set_diffusion.latents import SetLatents
from cardiform.set_diffusion.slots import Slots, load_slots
from cardiform.volumes import load_label_map

QUICK = {"steps": 2, "warmup_steps": 1, "validate_every": 2, "checkpoint_every": 1}


class Stages(Trainings):
    """Three coarse hearts, a VecSet of theirs, and the stages of set-latent diffusion."""

    def make(self, script, section, *arguments):
        if section in ("voxels", "coronary_repair"):  # of other trainings
            return
        super().make(script, section, *arguments)

    def encoding(self, *more) -> list:
        return [*self.encode_sets(self.folder / "set_latents"), *more]

    def sampling(self, out, *more) -> list:
        files = ("--model", self.model("set_diffusion"), "--out", self.folder / out)
        return ["sample_set_diffusion.py", *files, *self.flags("set_sampling"), *more]

    def evaluation(self, out) -> list:
        f = self.folder
        return [
            *("evaluate_samples.py", "--samples", f / out / "metrics.json"),
            *("--voxels", self.manifest("ldm"), "--latents", self.manifest("set_latents")),
            *("--grid", f / "ldm" / "grid.json", "--train", f / "train.csv"),
            *("--test", f / "train.csv", "--out", f / out / "figures.json"),
            *self.flags("generation"),
        ]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    made = Stages(tmp_path_factory.mktemp("sets"), **QUICK)
    rows = [f"phantom_00{k}\tpatient_{k}\tx.nii.gz\t{age}" for k, age in enumerate((50, "", 70))]
    made.table = made.folder / "ages.tsv"
    made.table.write_text("\n".join(["case_id\tpatient_id\tlabels\tx_age", *rows]) + "\n")
    made.must(*made.command("vecset", made.folder / "vecset"))
    made.must(*made.encoding("--columns", "x_age", "--table", made.table))
    made.must(*made.command("set_diffusion", made.folder / "set_diffusion"))
    made.must(*made.sampling("samples"))
    made.make_balls()
    return made


def test_latents_lie_in_slots_and_say_where_the_heart_lies(stages):
    slots, columns, _ = load_slots(stages.folder / "set_latents" / "slots.npz")
    assert columns == ("x_age",) and len(slots.places) == 512
    for name, age in (("phantom_000", 50), ("phantom_001", np.nan)):
        heart = SetLatents.load(stages.folder / "set_latents" / f"{name}.npz")
        assert heart.latents.shape == (512, 35) and heart.present.all()
        np.testing.assert_equal(heart.columns, [age])
        away = np.linalg.norm(heart.latents[:, :3] - slots.places, axis=1)
        assert np.median(away) < 0.15, "about where they lie in the mean heart"
        made = load_label_map(stages.folder / "set_latents" / "reconstructions" / f"{name}.nii.gz")
        assert made.data.shape == (16,) * 3
        # the grid leaves the coronaries out: nothing is known of their volume
        known = dict(zip(labels.LabelTable().names, heart.volumes))
        assert np.isnan(known["coronary"]) and 20 < known["left_ventricle"] < 300


def test_samples_have_the_layout_of_sample_diffusion_and_are_evaluated_alike(stages):
    folder = stages.folder / "samples"
    found = json.loads((folder / "metrics.json").read_text())
    assert found["samples"] == ["sample_0000", "sample_0001"]
    for name in found["samples"]:
        assert load_label_map(folder / "nifti" / f"{name}.nii.gz").data.shape == (16,) * 3
        for path in ("latents/{}.npz", "pictures/{}.png", "pointcloud/{}.csv"):
            assert (folder / path.format(name)).is_file()
    stages.must(*stages.evaluation("samples"))
    figures = json.loads((folder / "figures.json").read_text())
    assert {"generated", "reconstructed_train", "train_subset"} <= set(figures)
    assert set(figures["memorisation"]["z_u"]) >= {"generated", "reconstructed_train"}


def test_a_sample_follows_from_its_number_alone_and_is_made_once(stages):
    stages.must(*stages.sampling("alone", "--batch-size", 1, "--num-samples", 1))
    one, two = (
        np.load(stages.folder / out / "latents" / "sample_0000.npz") for out in ("alone", "samples")
    )
    np.testing.assert_allclose(one["latents"], two["latents"], atol=1e-4)
    path = stages.folder / "alone" / "latents" / "sample_0000.npz"
    before = path.stat().st_mtime_ns
    stages.must(*stages.sampling("alone", "--batch-size", 1, "--num-samples", 1))
    assert path.stat().st_mtime_ns == before


def test_samples_that_do_not_fit_are_drawn_again(stages):
    """And counted as those that judge the samples count them; a finished one is not made again."""
    rules = ("--voxels", stages.manifest("ldm"), "--train", stages.folder / "train.csv")
    asked = ("redrawn", "--redraw", 1, *rules, "--num-samples", 4)
    stages.must(*stages.sampling(*asked))
    folder = stages.folder / "redrawn"
    files = [folder / "latents" / f"sample_000{k}.npz" for k in range(4)]
    made = [dict(np.load(path)) for path in files]
    found = json.loads((folder / "metrics.json").read_text())["redrawn"]
    assert found["draws"] == sum(int(one["draws"]) for one in made) > 4
    assert found["unfit"] == [p.stem for p, one in zip(files, made) if not one["fits"]]
    assert all(one["fits"] or one["draws"] == 2 for one in made)
    stages.must(*stages.evaluation("redrawn"))
    judged = json.loads((folder / "figures.json").read_text())["generated"]["validity_of_all"]
    assert judged["valid"] == pytest.approx(1 - len(found["unfit"]) / 4)
    plain = stages.folder / "samples" / "latents"
    for one, path in zip(made, sorted(plain.glob("*.npz"))):
        same = np.allclose(one["latents"], np.load(path)["latents"], atol=1e-4)
        assert same == (one["draws"] == 1)
    before = [path.stat().st_mtime_ns for path in files]
    stages.must(*stages.sampling(*asked))
    assert [path.stat().st_mtime_ns for path in files] == before
    assert json.loads((folder / "metrics.json").read_text())["redrawn"] == found
    refused(
        run_inside(*map(str, stages.sampling("none", "--redraw", 1))),
        "--redraw needs --voxels and --train",
    )


def test_a_finer_grid_shows_the_same_heart(stages):
    stages.must(*stages.sampling("fine", "--num-samples", 1, "--voxel-size", 24))
    one, two = (
        np.load(stages.folder / out / "latents" / "sample_0000.npz") for out in ("fine", "samples")
    )
    np.testing.assert_allclose(one["latents"], two["latents"], atol=1e-4)
    fine, coarse = (
        load_label_map(stages.folder / out / "nifti" / "sample_0000.nii.gz")
        for out in ("fine", "samples")
    )
    assert fine.data.shape == (24,) * 3
    np.testing.assert_allclose(fine.spacing * 24, coarse.spacing * 16)


def test_asked_volumes_stand_beside_those_that_came_out(stages):
    stages.must(
        *stages.sampling("asked", "--volumes", "left_ventricle=90", "--columns", "x_age=60")
    )
    found = json.loads((stages.folder / "asked" / "metrics.json").read_text())
    row = found["asked"]["left_ventricle"]
    assert (
        row["asked_ml"] == 90 and row["mean_error"] >= 0 and found["asked_columns"] == {"x_age": 60}
    )
    got = found["volume_ml"]["left_ventricle"]["mean"]
    assert row["mean_ml"] == pytest.approx(got)


def test_known_classes_are_taken_as_they_are(stages):
    heart = stages.folder / "set_latents" / "phantom_002.npz"
    stages.must(*stages.sampling("known", "--known", "left_ventricle", "--heart", heart))
    made = np.load(stages.folder / "known" / "latents" / "sample_0000.npz")["latents"]
    slots, _, _ = load_slots(stages.folder / "set_latents" / "slots.npz")
    own = slots.channels == labels.LabelTable().channel("left_ventricle")
    given = SetLatents.load(heart).latents
    np.testing.assert_allclose(made[own], given[own], atol=1e-3)
    assert np.abs(made[~own] - given[~own]).max() > 0.01
    for name in ("sample_0000", "sample_0001"):  # in its place, of its size
        frame = np.load(stages.folder / "known" / "latents" / f"{name}.npz")["frame"]
        np.testing.assert_allclose(frame, SetLatents.load(heart).frame, atol=1e-4)


def test_finished_latents_are_kept_and_a_stopped_training_resumes(stages):
    more = ("--columns", "x_age", "--table", stages.table)
    path = stages.folder / "set_latents" / "phantom_000.npz"
    before = path.stat().st_mtime_ns
    stages.must(*stages.encoding(*more))
    assert path.stat().st_mtime_ns == before
    filled = stages.folder / "filled.tsv"
    filled.write_text(stages.table.read_text().replace("x.nii.gz\t\n", "x.nii.gz\t60\n"))
    stages.must(*stages.encoding("--columns", "x_age", "--table", filled))
    assert path.stat().st_mtime_ns == before, "another case's number changes nothing here"
    other = path.with_name("phantom_001.npz")
    assert SetLatents.load(other).columns == [60]
    stages.must(*stages.encoding(*more))
    assert np.isnan(SetLatents.load(other).columns).all()
    out = stages.folder / "resumed"
    stopped = run_inside(*stages.command("set_diffusion", out, "--max-minutes", 0.000001))
    assert stopped.returncode == 75
    stages.must(*stages.command("set_diffusion", out))
    one, two = (load_model(f / "model.pt").weights for f in (out, stages.folder / "set_diffusion"))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_bad_input_is_named_in_one_line_each(stages, tmp_path):
    f = stages.folder
    refused(
        run_inside(*stages.encoding("--columns", "x_height,labels", "--table", stages.table)),
        "no column x_height", "no column labels",
    )  # fmt: skip
    refused(run_inside(*stages.encoding("--columns", "x_age")), "give --table")
    stages.table.with_name("wrong.tsv").write_text("case_id\tlabels\tx_age\nphantom_000\tx\told\n")
    wrong = ("--columns", "x_age", "--table", stages.table.with_name("wrong.tsv"))
    refused(run_inside(*stages.encoding(*wrong)), "x_age is 'old', no number")
    other = tmp_path / "other.pt"
    content = torch.load(stages.model("vecset"), weights_only=True)
    content["figures"] = {}
    torch.save(content, other)
    command = stages.command("set_diffusion", tmp_path / "out", "--vecset", other)
    refused(run_inside(*command), "slots.npz: is of another VecSet than --vecset")
    shutil.copy(f / "set_latents" / "phantom_000.npz", tmp_path / "short.npz")
    refused(run_inside(*stages.sampling("no", "--volumes", "liver=3")), "liver is no class")
    refused(
        run_inside(*stages.sampling("no", "--volumes", "coronary=3")), "the grid has no coronary"
    )
    refused(
        run_inside(*stages.sampling("no", "--columns", "x_size=3")),
        "no column x_size (it knows x_age)",
    )
    refused(run_inside(*stages.sampling("no", "--known", "aorta")), "belong together")
    refused(
        run_inside(*stages.sampling("no", "--model", stages.model("vecset"))),
        "not a set-latent diffusion",
    )
    shutil.copy(f / "set_latents" / "phantom_000.npz", tmp_path / "a.npz")
    slots, columns, _ = load_slots(f / "set_latents" / "slots.npz")
    Slots(slots.places + 0.1, slots.channels).save(tmp_path / "slots.npz", columns, "0" * 64)
    known = ("--known", "aorta", "--heart", tmp_path / "a.npz")
    refused(run_inside(*stages.sampling("no", *known)), "a.npz: is in other slots than the model")
    alone = ["--train", f / "val.csv"]
    command = stages.command("set_diffusion", tmp_path / "out", *alone)
    refused(run_inside(*command), "has 1 whole cases")


def test_a_vecset_whose_latents_have_no_places_is_refused(stages, tmp_path):
    content = torch.load(stages.model("vecset"), weights_only=True)
    from cardiform.options.vecset import VecsetOptions
    from cardiform.vecset.model import VecSet

    options = VecsetOptions(preset="small", input_points=512, latent_dim=8)
    network = VecSet.from_options(options, len(labels.LabelTable()))
    content["weights"] = network.state_dict()
    content["options"]["vecset"] |= {"preset": "small", "latent_dim": 8}
    torch.save(content, tmp_path / "small.pt")
    result = run_inside(*stages.encoding("--vecset", tmp_path / "small.pt"))
    refused(result, "keeps its latents at no places (preset small)")


def test_modes_of_latents_have_scores_figures_and_meshes(stages, tmp_path):
    """Of a VecSet that makes a ball of every class, as large as the heart."""
    stages.must(*stages.latent_statistics(tmp_path / "modes", "--pairs", 1))
    scores = pd.read_csv(tmp_path / "modes" / "scores.csv")
    assert list(scores) == ["case_id", "part", "mode_1", "residual_mm"]
    assert scores["mode_1"].mean() == pytest.approx(0, abs=1e-3)
    assert scores["mode_1"].std() == pytest.approx(1, abs=1e-3)
    model = LATENT_MODEL.load(tmp_path / "modes" / "model.npz")
    assert set(model["channels"].tolist()) == {2, 4}, "of the slots of two classes"
    found = json.loads((tmp_path / "modes" / "statistics.json").read_text())
    assert found["hearts"] == {"train": 3, "val": 0, "test": 0}
    assert found["explained"] == pytest.approx(model["explained"].tolist())
    assert found["ceiling"]["held_out_mm"] is None and found["ceiling"]["training_mm"] > 1
    [row] = found["by_modes"]["latents"]
    assert row["modes"] == 1 and 0.3 < row["compactness"] < 1
    assert found["interpolated"]["latents"]["hearts"] == 3
    ends = []
    for step in ("-3", "+3"):
        text = (tmp_path / "modes" / "modes" / f"mode_01_{step}.vtp").read_bytes()
        assert b"3 left_ventricle, 5 right_ventricle" in text
        ends.append(text)
    assert ends[0] != ends[1]
    for name in ("modes.png", "modes.gif"):
        assert (tmp_path / "modes" / "modes" / name).is_file()


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (lambda s: ["--vecset", s.model("vecset")], "slots.npz: is of another VecSet than"),
        (lambda s: ["--classes", "coronary"], "coronary is whole in no training heart"),
        (lambda s: ["--train", s.folder / "train.csv"], "2 of 2 training hearts have left_ventric"),
    ],
)
def test_what_latent_statistics_cannot_do_is_one_line(stages, tmp_path, more, fact):
    result = run_inside(*stages.latent_statistics(tmp_path / "no", *more(stages)))
    refused(result, fact)
    assert not (tmp_path / "no").exists()


def test_a_vecset_that_makes_no_surface_is_named(stages, tmp_path):
    latents = stages.folder / "set_latents"
    files = ("--vecset", stages.model("vecset"), "--latents", latents / "manifest.tsv")
    files += ("--slots", latents / "slots.npz")
    result = run_inside(*stages.latent_statistics(tmp_path / "no", *files))
    refused(result, "makes no left_ventricle, right_ventricle of the mean heart")


def test_a_heart_that_lies_turned_is_the_same_heart(stages, tmp_path):
    """Turned by 25 degrees, with its points file: the same latents in the pose of the mean."""
    place = stages.folder / "balls"
    files = Files(place / "latents" / "manifest.tsv", place / "latents" / "slots.npz",
                  place / "model.pt", tmp_path)  # fmt: skip
    network, slots, columns = load_network(files, LatentStatisticsOptions(device="cpu"))
    rows = splits.read_splits({"train": place / "train.csv"})
    hearts = stored_hearts(files.latents, rows, slots, columns, len(network.table))["train"]
    turn = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    content = load_npz(hearts[0].points)
    for key in ("surface_points", "surface_normals"):
        content[key] = (content[key] @ turn.T).astype(np.float32)
    save_npz(tmp_path / "turned.npz", **content)
    latents = hearts[0].latents.copy()
    latents[:, :3] = latents[:, :3] @ turn.T
    frame = Frame(hearts[0].frame.center + 5, hearts[0].frame.scale)
    turned = replace(hearts[0], points=tmp_path / "turned.npz", latents=latents, frame=frame)
    posed = Posed.of({"train": [*hearts, turned]}, slots, network, with_scale=False)
    first, last = posed.hearts["train"][0], posed.hearts["train"][-1]
    np.testing.assert_allclose(last.places, first.places, atol=0.01)
    np.testing.assert_allclose(last.frame.center, first.frame.center, atol=0.01)
    np.testing.assert_allclose(last.normals, first.normals, atol=1e-3)
    np.testing.assert_allclose(last.latents, first.latents, atol=0.01)
    truths = [SurfaceTruth.of(h, p, (3,)) for h, p in zip([*hearts, turned], posed.poses["train"])]
    np.testing.assert_allclose(truths[-1].points[3], truths[0].points[3], atol=0.02)
