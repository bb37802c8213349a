"""A k-fold: every case once, means and intervals over the folds."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from cardiform.errors import InputError
from cardiform.metrics.folds import case_rows, read_folds, summary_rows, table_of_folds
from cardiform.pictures.spread import plot_spread

RULE = "reconstruct_vecset"


def write_fold(path, cases, cut=(), **changes):
    """metrics.json of a fold: case -> class -> Dice."""
    figures = {
        name: {"model": {c: {"dice": value} for c, value in dice.items()}, "cut": list(cut)}
        for name, dice in cases.items()
    }
    content = {"format_version": 1, "kind": RULE, "source_sha256": "x", "model_sha256": "y"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"test": {"cases": figures}} | changes))
    return path


@pytest.fixture
def paths(tmp_path):
    dice = [(0.9, 0.8), (0.7, 0.6), (0.5, 0.1, 0.3)]
    made = []
    for number, values in enumerate(dice):
        cases = {f"c{number}{k}": {"aorta": v, "coronary": v / 2} for k, v in enumerate(values)}
        made.append((str(number), write_fold(tmp_path / str(number) / "metrics.json", cases)))
    return made


def test_means_and_intervals_are_those_of_the_folds(paths):
    rows = {(r["class"], r["figure"]): r for r in summary_rows(read_folds(paths, RULE))}
    means = np.array([0.85, 0.65, 0.3])
    found = rows["aorta", "dice"]
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert (found["mean"], found["low_95"], found["high_95"]) == pytest.approx(
        (means.mean(), low, high)
    )
    assert found["sd"] == pytest.approx(means.std(ddof=1))
    assert (found["folds"], found["cases"]) == (3, 7)
    together = rows["all_classes", "dice"]
    assert together["mean"] == pytest.approx(0.75 * means.mean()) and together["cases"] == 7
    assert rows["chambers_and_great_vessels", "dice"]["mean"] == pytest.approx(means.mean())
    assert "aorta                          0.600" in table_of_folds(list(rows.values()))


def test_every_case_comes_once_and_what_is_not_known_nowhere(paths, tmp_path):
    write_fold(paths[0][1], {"c00": {"aorta": 0.9, "coronary": 0.2}}, cut=["coronary"])
    write_fold(paths[1][1], {"c10": {"aorta": None, "coronary": 0.4}})
    folds = read_folds(paths, RULE)
    rows = case_rows(folds)
    assert len({r["case_id"] for r in rows}) == 5
    known = [(r["fold"], r["value"]) for r in rows if r["class"] == "coronary"]
    assert known[0] == ("1", 0.4)
    found = {r["class"]: r for r in summary_rows(folds)}
    assert (found["aorta"]["folds"], found["aorta"]["cases"]) == (2, 4)
    assert (found["coronary"]["folds"], found["coronary"]["cases"]) == (2, 4)


def test_one_fold_with_figures_has_no_interval(paths):
    (row,) = (r for r in summary_rows(read_folds(paths[:1], RULE)) if r["class"] == "aorta")
    assert row["low_95"] is row["sd"] is None and row["mean"] == pytest.approx(0.85)


def test_folds_of_several_splits_and_figures_of_other_rules_are_refused(paths):
    with pytest.raises(InputError, match="c00, c01 is tested by several folds"):
        read_folds([paths[0], ("1", paths[0][1])], RULE)
    with pytest.raises(InputError, match="holds the figures of reconstruct_vecset"):
        read_folds(paths, "reconstruct_vqvae")
    paths[2][1].write_text("{")
    with pytest.raises(InputError, match=r"2/metrics\.json"):
        read_folds(paths, RULE)


def test_the_script_writes_both_tables(paths, tmp_path, run_script):
    files = [path for _, path in paths]
    result = run_script(
        "collect_folds.py", "--rule", RULE, "--metrics", *files, "--out", tmp_path / "out"
    )
    assert result.returncode == 0, result.stderr
    assert "3 folds, 7 cases" in result.stderr
    with (tmp_path / "out" / "cases.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 14
    with (tmp_path / "out" / "summary.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} == {
            "aorta", "coronary", "chambers_and_great_vessels", "all_classes",
        }  # fmt: skip


def test_a_fold_of_completions_has_no_figures_of_cut_classes(tmp_path):
    def made(dice, error, **more):
        return {"model": {"dice": dice, "volume_error": error}, "mean_shape": {}, **more}

    content = {"format_version": 1, "kind": "complete_labels", "source_sha256": "x", "mean": {}}
    cases = {"c0": {"aorta": made(0.9, -0.2), "coronary": made(0.1, 0.5, cut=True)}, "c1": {}}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content | {"model_sha256": "y", "cases": cases}))
    (fold,) = read_folds([("0", path)], "complete_labels")
    assert fold.cases["c0"]["aorta"] == {"dice": 0.9, "volume_error": 0.2}
    assert fold.cases["c0"]["coronary"] == {"dice": None, "volume_error": None}
    assert [row["case_id"] for row in case_rows([fold])] == ["c0", "c0"]


def test_a_fold_of_refinements_has_its_test_cases_and_both_grids(tmp_path):
    folder = tmp_path / "veins" / "refined"
    folder.mkdir(parents=True)
    content = {"format_version": 1, "kind": "refine_coronary", "source_sha256": "x"}
    content["test"] = {"cases_missed": 2}
    (folder / "metrics.json").write_text(json.dumps(content | {"model_sha256": "y"}))
    figures = {
        "preset": "cardiform", "in_training": False, "against_label": {"dice": 0.8},
        "against_truth": {"dice": 0.7, "hd95_mm": 2.0}, "label_against_truth": {"dice": 0.6},
        "repair_against_truth": None, "own_grid": {"against_truth": {"dice": 0.5}},
    }  # fmt: skip
    for name in ("tested", "trained"):
        (folder / f"{name}.json").write_text(json.dumps(figures))
    tested = ["tested", "without_veins"]
    (fold,) = read_folds([("0", folder / "metrics.json")], "refine_coronary", [tested])
    assert fold.missed == 2
    assert fold.cases == {
        "tested": {
            "veins": {
                "dice_against_label": 0.8, "dice_against_truth": 0.7, "hd95_mm_against_truth": 2.0,
                "dice_label_against_truth": 0.6, "own_dice_against_truth": 0.5,
            }
        }
    }  # fmt: skip


def test_the_picture_shows_every_case(paths, tmp_path):
    folds = read_folds(paths, RULE)
    plot_spread(tmp_path / "folds.png", case_rows(folds), summary_rows(folds), "dice")
    assert (tmp_path / "folds.png").stat().st_size > 5000
    plot_spread(tmp_path / "none.png", [], [], "dice")
