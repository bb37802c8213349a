"""Figures of thin structures against cases whose answers are known."""

import numpy as np
import pytest
from tubes import SPACING, broken_tube, tube

from cardiform.metrics.topology import topology_figures


def test_a_structure_against_itself():
    whole, _ = broken_tube()
    assert topology_figures(whole, whole, SPACING) == {
        "dice": 1.0, "cl_dice": 1.0, "component_error": 0, "components": 1,
        "centreline_overlap": 1.0,
    }  # fmt: skip


def test_a_half_that_is_missing_and_a_break():
    shape = (90, 30, 30)
    whole = tube(shape, (4, 7, 7), (40, 7, 7), 1.2)
    half = whole.copy()
    half[44:] = False
    figures = topology_figures(whole, half, SPACING)
    # all of the half lies within the whole, half of the whole within the half
    assert figures["cl_dice"] == pytest.approx(2 / 3, abs=0.05)
    assert figures["dice"] == pytest.approx(2 / 3, abs=0.05)
    assert figures["centreline_overlap"] == pytest.approx(2 / 3, abs=0.08)
    broken = whole.copy()
    broken[44:47] = False
    assert topology_figures(whole, broken, SPACING)["component_error"] == 1
    assert topology_figures(broken, whole, SPACING)["component_error"] == 1


def test_nothing_against_something_and_against_nothing():
    whole, _ = broken_tube()
    empty = np.zeros_like(whole)
    found = topology_figures(whole, empty, SPACING)
    assert found["dice"] == found["cl_dice"] == 0.0 and found["component_error"] == 1


def test_a_truth_without_a_voxel_judges_nothing():
    whole, _ = broken_tube()
    empty = np.zeros_like(whole)
    for predicted, parts in ((whole, 1), (empty, 0)):
        found = topology_figures(empty, predicted, SPACING)
        assert found.pop("components") == parts
        assert found == dict.fromkeys(("dice", "component_error", "cl_dice", "centreline_overlap"))


def test_a_block_of_which_thinning_leaves_nothing_has_centreline_figures_too():
    mask = np.zeros((9, 9, 9), bool)
    mask[1:3, 1:3, 1:6] = True
    figures = topology_figures(mask, mask, 1.0)
    assert figures["dice"] == figures["cl_dice"] == figures["centreline_overlap"] == 1
