"""Where a heart lies whose whole box is not known, and what is written for it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hearts import GRID, TABLE, heart

from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.ldm.complete import ClassFrequencies, Completer, evaluate_case, summarise
from cardiform.ldm.cube import class_centroids
from cardiform.ldm.data import to_values
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
        made = mean.complete(completer, whole(), label.name)
        agree = (made == label.value) & (whole().data == label.value)
        total = (made == label.value).sum() + (whole().data == label.value).sum()
        assert 2 * agree.sum() / total > 0.95, label.name


def test_a_single_class_has_no_figures(completer, tmp_path):
    path = tmp_path / "one.nii.gz"
    save_label_map(path, np.where(heart() == 2, TABLE[1].value, 0), np.eye(4))
    case = Case(case_id="one", patient_id="one", labels=str(path))
    made = evaluate_case(case, completer=completer, mean_shape=None, out=tmp_path / "out")
    assert made == [tmp_path / "out" / "one.json"] and json.loads(made[0].read_text()) == {}
    found = summarise(["one"], tmp_path / "out", TABLE.names)
    assert found["mean"]["left_ventricle"]["model"]["dice"] is None
