"""Figures of two label maps, and their means."""

import numpy as np
import pytest

from cardiform.labels import STACOM_2025, LabelTable
from cardiform.metrics.overlap import dice_of, overlap
from cardiform.metrics.summary import mean_over_cases, mean_over_classes

TABLE = LabelTable(STACOM_2025[:3])
A, B, C = TABLE.names


def maps():
    truth, predicted = np.zeros((2, 10, 10, 10), np.uint8)
    truth[2:6, 2:6, 2:6] = 1  # 64 voxels
    predicted[3:7, 2:6, 2:6] = 1  # moved by one of four
    truth[8] = 2
    return truth, predicted


def test_moved_cube():
    found = overlap(*maps(), TABLE)[A]
    assert found == {
        "dice": pytest.approx(0.75),
        "iou": pytest.approx(48 / 80),
        "volume_error": 0.0,
    }


def test_classes_that_one_or_neither_map_has():
    found = overlap(*maps(), TABLE)
    assert found[B] == {"dice": 0.0, "iou": 0.0, "volume_error": -1.0}
    assert found[C] == {"dice": None, "iou": None, "volume_error": None}
    truth, predicted = maps()
    # nobody annotated B: that a model draws it is no fault
    assert set(overlap(predicted, truth, TABLE)[B].values()) == {None}


def test_dice_of_masks():
    truth, predicted = (m == 1 for m in maps())
    assert dice_of(truth, predicted) == pytest.approx(0.75)
    assert dice_of(truth, ~truth & False) == 0.0
    assert dice_of(truth & False, truth & False) is None


def test_maps_of_different_grids_are_refused():
    with pytest.raises(ValueError, match="predicted"):
        overlap(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), TABLE)


def test_means_leave_out_what_is_not_there():
    cases = [{A: {"dice": 0.8}, B: {"dice": None}}, {A: {"dice": 0.6}, B: {"dice": 0.5}}]
    means = mean_over_cases(cases)
    assert means == {A: {"dice": pytest.approx(0.7)}, B: {"dice": 0.5}}
    assert mean_over_classes(means, (A, B, "unknown")) == {"dice": pytest.approx(0.6)}
    assert mean_over_cases([{A: {"dice": None}}]) == {A: {"dice": None}}
    some = mean_over_cases([{A: {"dice": 0.8}}, {B: {"dice": 0.5}, A: {"dice": 0.6}}])
    assert some == {A: {"dice": pytest.approx(0.7)}, B: {"dice": 0.5}}
