"""Where a heart lies whose whole box is not known, and what is written for it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hearts import GRID, TABLE, heart

from cardiform.cohort.table import Case
from cardiform.completion.figures import summarise, table_of_figures
from cardiform.completion.files import complete_file
from cardiform.errors import InputError
from cardiform.files import write_json
from cardiform.geometry.field_of_view import cuts_of
from cardiform.ldm.complete import ClassFrequencies, Completer, evaluate_case
from cardiform.ldm.cube import Cube, class_centroids
from cardiform.ldm.data import to_values
from cardiform.ldm.together import MeanCompleter
from cardiform.volumes import LabelMap, save_label_map

CENTER = np.array([30.0, -20.0, 7.0])


@pytest.fixture
def completer():
    """Without a network: its statistics are those of the one heart."""
    made = object.__new__(Completer)
    usual = {n: (m - CENTER).tolist() for n, m in class_centroids(whole(), names()).items()}
    made.generator = SimpleNamespace(grid=GRID, statistics=SimpleNamespace(centroids=usual))
    return made


def names():
    return {c.name: c.value for c in TABLE}


def whole():
    return LabelMap(to_values(heart(), GRID), GRID.cube(CENTER).affine)


@pytest.mark.parametrize("missing", [(), ("myocardium",), ("myocardium", "left_ventricle")])
def test_the_cube_lies_where_it_would_for_the_whole_heart(completer, missing):
    known = [name for name in TABLE.names if name not in missing]
    assert np.allclose(completer.place(whole(), known).center, CENTER, atol=1e-6)


def test_classes_that_the_scan_cuts_place_no_cube_that_others_can(completer):
    """The middle of what is left of them is not where the middle of the class is."""
    cut = names()["left_ventricle"]
    last = np.argwhere(whole().data == cut)[:, 0].max()
    seen = LabelMap(whole().data[:last], whole().affine)  # without its last plane
    assert list(cuts_of(seen, TABLE)) == [cut]
    assert np.allclose(completer.place(seen, TABLE.names).center, CENTER, atol=1e-6)
    alone = completer.place(seen, ["left_ventricle"]).center - CENTER
    assert np.abs(alone).max() > 0.1, "where it is all that is known, it counts"


@pytest.mark.parametrize(("said", "counts"), [("", False), ("none", True)])
def test_the_case_table_says_that_a_tightly_cropped_heart_is_whole(
    completer, tmp_path, said, counts
):
    """All that reaches the border places its cube then, in figures and in what is made."""
    cut = names()["left_ventricle"]
    last = np.argwhere(whole().data == cut)[:, 0].max()
    seen = LabelMap(whole().data[:last], whole().affine)
    path, lacking, out = (tmp_path / f"{name}.nii.gz" for name in ("a", "lacking", "made"))
    save_label_map(path, seen.data, seen.affine)
    save_label_map(lacking, np.where(seen.data == TABLE[0].value, 0, seen.data), seen.affine)
    case = Case(case_id="a", patient_id="a", labels=str(path), cut=said)
    cubes = []

    def shares(label_map, requests, found):
        cubes.extend(zip(requests, found))
        return [torch.full((1, len(TABLE) + 1, *(GRID.size,) * 3), 0.25)] * len(requests)

    completer.shares = shares
    nothing = ClassFrequencies(np.zeros((len(TABLE), *(GRID.size,) * 3), np.float32))
    evaluate_case(case, completer=completer, mean_shape=nothing, out=tmp_path / "out")
    for model in (completer, MeanCompleter([completer] * 2)):
        complete_file(lacking, out, missing=(), completer=model, case=case)
    # those that are made from others beside the left ventricle
    found = [cube.center for made, cube in cubes if "left_ventricle" not in made]
    assert len(found) == 5
    for center in found:
        assert (np.abs(center - CENTER).max() > 0.01) == counts


def test_nothing_known_is_refused(completer):
    with pytest.raises(InputError, match="without any known class"):
        completer.place(whole(), [])


def test_what_is_made_fills_background_alone(completer):
    label_map = whole()
    share = np.zeros((4, 8, 8, 8), np.float32)
    share[1] = 1.0  # the class would be everywhere
    made = completer.filled(label_map, ["myocardium"], GRID.cube(CENTER), share)
    others = (label_map.data != 0) & (label_map.data != TABLE[0].value)
    assert (made[others] == label_map.data[others]).all()
    assert (made[~others] == TABLE[0].value).all()
    share[1], share[0] = 0.4, 0.6
    made = completer.filled(label_map, ["myocardium"], GRID.cube(CENTER), share)
    assert not (made == TABLE[0].value).any(), "the old one is gone, and no new one likely"


def test_the_mean_of_equal_hearts_is_the_heart(completer, tmp_path):
    paths = [tmp_path / f"{k}.nii.gz" for k in range(3)]
    for path in paths:
        save_label_map(path, whole().data, whole().affine)
    mean = ClassFrequencies.of(paths, completer)
    for label in TABLE:
        made = mean.complete(completer, whole(), label.name, GRID.cube(CENTER))
        agree = (made == label.value) & (whole().data == label.value)
        total = (made == label.value).sum() + (whole().data == label.value).sum()
        assert 2 * agree.sum() / total > 0.95, label.name


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_mean_shape_of_a_few_is_as_large_as_they_are(completer, tmp_path, number):
    """On a finer grid, too, where it ended at the middles of the coarse voxels."""
    paths = [tmp_path / f"{k}.nii.gz" for k in range(number)]
    for k, path in enumerate(paths):
        save_label_map(path, to_values(heart(k), GRID), whole().affine)
    mean = ClassFrequencies.of(paths, completer)
    cube = Cube(CENTER, GRID.spacing / 5, 5 * GRID.size)
    fine = LabelMap(np.zeros((cube.size,) * 3, np.uint8), cube.affine)
    for channel, label in enumerate(TABLE, start=1):
        made = mean.complete(completer, fine, label.name, GRID.cube(CENTER)) == label.value
        made = made.sum() / 5**3
        assert made == pytest.approx((heart() == channel).sum(), rel=0.2), label.name


def test_a_single_class_has_no_figures(completer, tmp_path):
    path = tmp_path / "one.nii.gz"
    save_label_map(path, np.where(heart() == 2, TABLE[1].value, 0), np.eye(4))
    case = Case(case_id="one", patient_id="one", labels=str(path))
    made = evaluate_case(case, completer=completer, mean_shape=None, out=tmp_path / "out")
    assert made == [tmp_path / "out" / "one.json"] and json.loads(made[0].read_text()) == {}
    found = summarise(["one"], tmp_path / "out", TABLE.names)
    assert found["mean"]["left_ventricle"]["model"]["dice"] is None


def test_several_draws_have_figures_and_a_spread(completer, tmp_path):
    """Two draws, one right and one that makes nothing: the mean of both and each alone."""
    path = tmp_path / "a.nii.gz"
    save_label_map(path, whole().data, whole().affine)
    right = torch.nn.functional.one_hot(torch.from_numpy(heart()).long(), 4).movedim(-1, 0).float()
    nothing = torch.zeros_like(right)
    nothing[0] = 1.0
    draws = torch.stack([right * 0.9 + nothing * 0.1, nothing])
    completer.shares = lambda label_map, requests, cubes: [draws] * len(requests)
    mean_shape = ClassFrequencies((torch.stack([right[k] for k in (1, 2, 3)]) * 0.5).numpy())
    case = Case(case_id="a", patient_id="a", labels=str(path))
    evaluate_case(case, completer=completer, mean_shape=mean_shape, out=tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "a.json").read_text())
    for name in TABLE.names:
        assert [row["dice"] for row in figures[name]["draws"]] == [pytest.approx(1, abs=0.01), 0]
    found = summarise(["a"], tmp_path / "out", TABLE.names)["mean"]["left_ventricle"]["draws"]
    assert found["number"] == 2 and found["dice"] == pytest.approx(0.5, abs=0.01)
    assert found["dice_spread"] == pytest.approx(0.5, abs=0.01)
    assert found["dice_spread_in_a_case"] == pytest.approx(0.5, abs=0.01)
    line = table_of_figures({"left_ventricle": {**_row(), "draws": found}})[1]
    assert "0.500 ±0.500" in line


def _row():
    return {m: {"dice": 0.5, "volume_error": 0.1} for m in ("model", "mean_shape")}


def test_the_spread_over_draws_is_that_of_their_means(tmp_path):
    """Draws that err in turn, case by case, are equally good: a case alone spreads."""
    for name, dice in (("a", (0.8, 0.6)), ("b", (0.6, 0.8))):
        draws = [{"dice": d, "volume_error": d - 0.7} for d in dice]
        write_json(tmp_path / f"{name}.json", {"aorta": _row() | {"draws": draws}})
    found = summarise(["a", "b"], tmp_path, ["aorta"])["mean"]["aorta"]["draws"]
    assert found["dice_spread"] == pytest.approx(0) and found["dice"] == pytest.approx(0.7)
    assert found["dice_spread_in_a_case"] == pytest.approx(0.1)
    assert found["volume_error"] == pytest.approx(0.1), "its size counts"


def test_cases_that_an_earlier_version_measured_are_read(tmp_path):
    write_json(tmp_path / "a.json", {"aorta": _row()})
    found = summarise(["a"], tmp_path, ["aorta"])
    assert "draws" not in found["mean"]["aorta"]
    assert len(table_of_figures(found["mean"])) == 2
    write_json(tmp_path / "b.json", {"aorta": _row() | {"draws": [_row()["model"]] * 2}})
    found = summarise(["a", "b"], tmp_path, ["aorta"])["mean"]["aorta"]
    assert found["draws"]["dice"] == 0.5 and found["model"]["dice"] == 0.5
