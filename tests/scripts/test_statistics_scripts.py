"""shape_statistics as a user calls it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from answers import refused
from inside import run_inside

from cardiform import cli
from cardiform.apply.case import add_scores
from cardiform.apply.models import Models
from cardiform.apply.record import Record
from cardiform.cohort.table import read_checked_cases
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.labels import LabelTable
from cardiform.options.statistics import ShapeStatisticsOptions
from cardiform.statistics import make
from cardiform.statistics.scoring import Scorer
from cardiform.volumes import load_label_map, save_label_map

HEARTS, HELD_OUT = 11, 2
QUICK = ShapeStatisticsOptions(
    grid_mm=5, mesh_mm=5, smoothing_mm=6, samples=2, pairs=2, variance=0.999
)  # fmt: skip
EDGE = 2.5


def draw(size: float, long: float) -> np.ndarray:
    """A ventricle in its muscle and an atrium above it, of known size and length."""
    x, y, z = (np.indices((44, 44, 56)).T * EDGE - [54, 54, 62]).T / size
    labels = np.zeros(x.shape, np.uint8)
    labels[(x**2 + y**2) / 27**2 + z**2 / (36 * long) ** 2 < 1] = 1
    labels[(x**2 + y**2) / 18**2 + z**2 / (27 * long) ** 2 < 1] = 3
    labels[(x + 6) ** 2 + y**2 + (z - 36 * long - 4) ** 2 < 18**2] = 2
    return labels


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Hearts whose size and length vary; one lacks the atrium, one is cut."""
    folder = tmp_path_factory.mktemp("statistics")
    rng = np.random.default_rng(4)
    learned = HEARTS - HELD_OUT - 2
    design = np.column_stack([np.ones(learned), rng.normal(size=(learned, 2))])
    values = np.linalg.qr(design)[0][:, 1:] * np.sqrt(learned)  # one says nothing of the other
    values = np.concatenate([[[-1, 1], [1, 0.5]], values, [[0.5, 0.5], [-0.5, 0.5]]])
    rows = ["case_id\tlabels\tx_size\tx_long"]
    for k, (a, b) in enumerate(values):
        size, long = float(np.exp(0.10 * a)), float(np.exp(0.035 * b))
        labels, affine = draw(size, long), np.diag([EDGE, EDGE, EDGE, 1.0])
        if k == HEARTS - 2:
            labels[labels == 2] = 0
        if k == HEARTS - 1:
            labels = labels[:, :, 12:]
        save_label_map(folder / f"h{k:02d}.nii.gz", labels, affine)
        rows.append(f"h{k:02d}\th{k:02d}.nii.gz\t{size}\t{long}")
    (folder / "cohort.tsv").write_text("\n".join(rows) + "\n")
    names = [f"h{k:02d}" for k in range(HEARTS)]
    parts = {"train": names[HELD_OUT:], "val": names[:1], "test": names[1:HELD_OUT]}
    for part, own in parts.items():
        lines = ["case_id,patient_id,path", *(f"{name},{name},-" for name in own)]
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    must("check_cohort.py", "--table", folder / "cohort.tsv", "--out", folder)
    meshes = folder / "meshes"
    files = ("--out", meshes, "--manifest", meshes / "all.tsv")
    must("extract_meshes.py", "--cases", folder / "cases.tsv", *files)
    said = must(*learn(folder), "--path", "h02,h03", "--path-steps", 3, "--columns", "x_size",
                "--table", folder / "cohort.tsv")  # fmt: skip
    return folder, said


def must(*line) -> str:
    result = run_inside(*line)
    assert result.returncode == 0, result.stderr
    return result.stderr


def learn(folder, out: str = "statistics") -> list:
    parts = {"train": "train", "validation": "val", "test": "test"}
    flags = shlex.split(cli.flags(QUICK))  # all of them, as the rule gives them
    split = [w for flag, name in parts.items() for w in (f"--{flag}", folder / f"{name}.csv")]
    return ["shape_statistics.py", *hearts(folder), *split, "--out", folder / out, *flags]


def hearts(folder) -> list:
    return ["--cases", folder / "cases.tsv", "--meshes", folder / "meshes"]


def scores_of(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"case_id": str}).set_index("case_id")


def test_scores_go_along_with_what_made_the_hearts(cohort):
    folder, _ = cohort
    scores = scores_of(folder / "statistics" / "scores.csv")
    table = pd.read_csv(folder / "cohort.tsv", sep="\t").set_index("case_id")
    whole = scores[scores.part != "partial"]
    size, long = (np.log(table.loc[whole.index, name]) for name in ("x_size", "x_long"))
    r = np.abs(np.corrcoef(np.stack([whole.mode_1, whole.mode_2, size, long]))[:2, 2:])
    assert r[0, 0] > 0.95 and r[1, 1] > 0.95, "each has a mode of its own"
    rows = np.column_stack([np.ones(len(whole)), whole.filter(like="mode_")])
    told = rows @ np.linalg.lstsq(rows[2:], long[2:])[0]  # by the training hearts
    assert np.corrcoef(told, long)[0, 1] > 0.95
    assert scores.loc["h00", "part"] == "val" and scores.loc["h01", "part"] == "test"


def test_hearts_that_are_not_whole_teach_nothing_and_have_scores_all_the_same(cohort):
    folder, said = cohort
    assert "h09: no part of the model (without left_atrium)" in said
    assert "h10: no part of the model (the scan cuts myocardium" in said
    record = json.loads((folder / "statistics" / "statistics.json").read_text())
    assert record["hearts"] == {"train": HEARTS - HELD_OUT - 2, "val": 1, "test": 1, "partial": 2}
    assert list(record["left_out"]) == ["h09", "h10"]
    scores = scores_of(folder / "statistics" / "scores.csv")
    assert scores.loc["h09", "part"] == "partial" and np.isfinite(scores.iloc[:, 1:]).all().all()
    table = pd.read_csv(folder / "cohort.tsv", sep="\t").set_index("case_id")
    rows = np.column_stack([np.ones(HEARTS), np.log(table[["x_size", "x_long"]])])
    slopes = np.linalg.lstsq(rows[:-2], scores.mode_1[:-2])[0]
    np.testing.assert_allclose(rows[-2:] @ slopes, scores.mode_1[-2:], atol=0.3)


def test_files_and_figures(cohort):
    folder, _ = cohort
    out = folder / "statistics"
    model = load_npz(out / "model.npz")
    assert set(np.unique(model["labels"])) == {1, 2, 3}
    record = json.loads((out / "statistics.json").read_text())
    assert record["explained"] == pytest.approx(model["explained"].tolist())
    assert record["registration"]["mean_mm"] < 0.8 and record["registration"]["folded_share"] == 0
    for name in ("correspondences", "signed_distances"):
        rows = record["by_modes"][name]
        assert [row["modes"] for row in rows][-1] >= 2
        compactness = [row["compactness"] for row in rows]
        assert compactness == sorted(compactness)
        # with size and length known, hearts that were left out are met
        assert rows[-1]["generalisation_mm"] < 1.2 and rows[-1]["specificity_mm"] > 0
    assert rows[0]["training_mm"] > rows[-1]["training_mm"]
    assert record["valid_training"] == 1
    held_out = sum(record["compared_hearts"][part] for part in ("val", "test"))
    assert (record["valid_held_out"] is None) == (not held_out)
    assert not held_out or 0 <= record["valid_held_out"] <= 1
    assert record["interpolated"]["correspondences"]["valid"] == 1
    modes = len(model["explained"])
    assert len(list((out / "modes").glob("mode_*.vtp"))) == 7 * modes
    assert (out / "modes" / "modes.gif").exists() and (out / "modes" / "modes.png").exists()


def test_the_path_leads_from_one_heart_to_the_other(cohort):
    folder, _ = cohort
    out = folder / "statistics"
    record = json.loads((out / "statistics.json").read_text())
    assert record["path"] == {"cases": ["h02", "h03"], "steps": 3, "valid": [True] * 3}
    volumes = []
    for step in range(3):
        found = load_label_map(out / "path" / f"step_{step:02d}.nii.gz")
        volumes.append((found.data == 3).sum() * np.prod(found.spacing))
        assert (out / "path" / f"step_{step:02d}.vtp").exists()
    for step, name in ((0, "h02"), (2, "h03")):
        given = load_label_map(folder / f"{name}.nii.gz")
        truth = (given.data == 3).sum() * np.prod(given.spacing)
        assert abs(volumes[step] / truth - 1) < 0.08
    assert min(volumes) < volumes[1] < max(volumes)


def test_a_column_is_held_against_the_shape(cohort):
    folder, _ = cohort
    out = folder / "statistics"
    found = json.loads((out / "statistics.json").read_text())["columns"]["x_size"]
    assert found["p"] < 0.01 and found["r2_of_column"] > 0.8 and found["hearts"] == HEARTS
    assert {path.name for path in (out / "columns").iterdir()} == {
        f"x_size_p{share}.vtp" for share in ("05", "50", "95")
    }


def test_new_hearts_are_scored_as_the_same_hearts_were(cohort, tmp_path):
    folder, _ = cohort
    line = ["shape_statistics.py", *hearts(folder), "--out", tmp_path / "new"]
    must(*line, "--model", folder / "statistics" / "model.npz")
    before = scores_of(folder / "statistics" / "scores.csv")
    after = scores_of(tmp_path / "new" / "scores.csv").loc[before.index]
    assert set(after.part) == {"new"}
    pd.testing.assert_frame_equal(
        after.drop(columns="part"), before.drop(columns="part"), atol=1e-4
    )


def test_apply_gives_the_scores_of_the_table(cohort, monkeypatch):
    """A results folder with modes: what apply puts into figures and summary of a case."""
    folder, _ = cohort
    results = SimpleNamespace(folder=folder / "results", table=LabelTable())
    (results.folder / "folds" / "fold0").mkdir(parents=True)
    shutil.copytree(folder / "statistics", results.folder / "shape_statistics")
    path = Models(results.folder / "folds" / "fold0").shapes
    assert path == Models(results.folder).shapes and Models(folder).shapes is None
    assert [p.name for p in Models(results.folder).helpers] == ["model.npz", "template.npz"]
    monkeypatch.chdir(results.folder / "folds" / "fold0")
    assert Models(Path(".")).shapes == path, "also by a relative path"
    scorer = Scorer.load(path, results.table)
    known = {case.case_id: case for case in read_checked_cases(folder / "cases.tsv")}
    ready = SimpleNamespace(case=known["h01"], meshes=folder / "meshes")
    record = Record()
    work = SimpleNamespace(ready=ready, networks=results, record=record)
    add_scores(work, scorer)
    found = {row["figure"]: row["value"] for row in record.rows}
    wanted = scores_of(folder / "statistics" / "scores.csv").loc["h01"].drop("part")
    assert found == pytest.approx(wanted.to_dict(), abs=1e-4)
    assert {(r["family"], r["class"], r["reference"]) for r in record.rows} == {
        ("shape_statistics", "heart", "cohort")
    }
    strange = LabelTable(tuple(c for c in LabelTable() if c.name != "left_atrium"))
    with pytest.raises(InputError, match="does not have: 2 left_atrium"):
        Scorer.load(path, strange)


def test_finished_hearts_are_not_registered_again(cohort):
    folder, _ = cohort
    kept = {p: p.stat().st_mtime_ns for p in (folder / "statistics/registered").glob("*.npz")}
    stale = folder / "statistics" / "path" / "step_02.vtp"
    assert stale.exists()
    mine = folder / "statistics" / "columns" / "x_mine.vtp"
    mine.write_text("mine")
    said = must(*learn(folder), "--most-modes", 1)
    assert f"{HEARTS} of {HEARTS} cases are finished already" in said
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert not stale.exists() and mine.exists()
    assert len(list((folder / "statistics" / "modes").glob("mode_*.vtp"))) == 7


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (["--classes", "aorta"], "aorta is whole in no training heart"),
        (["--classes", "liver"], "shape_statistics.classes names liver"),
        (["--path", "h02,h99"], "h99 is no heart with all classes"),
        (["--path", "h02"], "name two different cases"),
        (["--columns", "x_size"], "give --table"),
        (["--model", "m.npz"], "or --model to score"),
    ],
)
def test_bad_options_are_refused_in_one_line(cohort, tmp_path, more, fact):
    folder, _ = cohort
    line = learn(folder)
    line[line.index("--out") + 1] = tmp_path / "out"
    refused(run_inside(*line, *more), fact)


def test_bad_inputs_are_refused_in_one_line(cohort, tmp_path):
    folder, _ = cohort
    few = tmp_path / "few"
    few.mkdir()
    for name in ("train", "val", "test"):
        shutil.copy(folder / f"{name}.csv", few)
    rows = (few / "train.csv").read_text().splitlines()
    (few / "train.csv").write_text("\n".join(rows[:3]) + "\n")
    split = ["--train", few / "train.csv", "--validation", few / "val.csv"]
    split += ["--test", few / "test.csv", "--out", tmp_path / "out"]
    refused(run_inside(*learn(folder), *split), "2 of 2 training hearts have")
    other = tmp_path / "labels.tsv"
    other.write_text(
        "value\tname\ttitle\tcolor\tcomponents\tpriority\n1\tliver\tL\t#aa2200\t1\t1\n"
    )
    line = [*learn(folder), "--labels", other, "--out", tmp_path / "out"]
    refused(run_inside(*line), "was made for another label table")
    model = tmp_path / "model.npz"
    score = ["shape_statistics.py", *hearts(folder), "--out", tmp_path / "new", "--model", model]
    shutil.copy(folder / "statistics" / "model.npz", model)
    refused(run_inside(*score), "template.npz: does not exist")
    content = (folder / "statistics" / "template.npz").read_bytes()
    (tmp_path / "template.npz").write_bytes(content[: len(content) // 2])
    refused(run_inside(*score), "cannot be read")
    (tmp_path / "template.npz").write_bytes(content)
    model.write_bytes(model.read_bytes()[:500])
    refused(run_inside(*score), "model.npz: cannot be read")


@pytest.fixture
def pair(cohort, tmp_path):
    """A folder with the model and the template of the cohort."""
    for name in ("model.npz", "template.npz"):
        shutil.copy(cohort[0] / "statistics" / name, tmp_path)
    return tmp_path


def score(folder, model, *more) -> list:
    line = ["shape_statistics.py", *hearts(folder), "--model", model]
    return [*line, "--out", model.parent / "new", *more]


def test_a_template_of_another_run_is_refused_whatever_its_triangles(cohort, pair):
    """As a run leaves it that is killed before its model: other options, the same triangles."""
    template = load_npz(pair / "template.npz")
    save_npz(pair / "template.npz", **{**template, "remove_size": np.bool_(True)})
    result = run_inside(*score(cohort[0], pair / "model.npz"))
    refused(result, f"model.npz: is not the model of {pair / 'template.npz'}; keep both files")
    assert not (pair / "new" / "scores.csv").exists()


def test_another_class_of_the_same_value_is_refused(cohort, pair):
    table = pair / "labels.tsv"
    rows = ["value\tname\ttitle\tcolor\tcomponents\tpriority"]
    for value, name in ((1, "myocardium"), (2, "lung"), (3, "left_ventricle")):
        rows.append(f"{value}\t{name}\tT\t#aa2200\t1\t{value}")
    table.write_text("\n".join(rows) + "\n")
    result = run_inside(*score(cohort[0], pair / "model.npz", "--labels", table))
    refused(result, "does not have: 2 left_atrium (lung there); ")


@pytest.mark.parametrize("flag", ["--columns=x_size", "--path=", "--grid-mm=3.0", "--table=t.tsv"])
def test_scoring_takes_no_options_of_learning(cohort, pair, flag):
    result = run_inside(*score(cohort[0], pair / "model.npz", flag, "--seed", 0))
    refused(result, f"{flag.partition('=')[0]}, --seed: --model learns nothing")


def test_scoring_leaves_the_scores_of_a_model_alone(cohort, pair):
    folder, _ = cohort
    scores = pair / "scores.csv"
    scores.write_text("mine")
    for model in (pair / "model.npz", folder / "statistics" / "model.npz"):
        line = score(folder, model)
        line[line.index("--out") + 1] = pair
        refused(run_inside(*line), f"{pair}: has a model of its own, whose scores.csv would be")
    (pair / "model.npz").rename(pair / "m.npz")
    line = score(folder, pair / "m.npz")
    line[line.index("--out") + 1] = pair / "." / "sub" / ".."
    refused(run_inside(*line), "has a model of its own")
    assert scores.read_text() == "mine"


def test_hearts_without_a_whole_class_are_no_table_of_scores(pair):
    work = make.Work([], LabelTable(), pair / "meshes", pair / "new")
    with pytest.raises(InputError, match="none of 0 hearts has one of myocardium, left_atrium"):
        make.score_new(work, pair / "model.npz")
    assert not (pair / "new" / "scores.csv").exists()
