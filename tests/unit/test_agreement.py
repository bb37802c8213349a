"""A truth is about the structures of its label map: place and numbers of the classes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.phantom.scans import draw_scan, noisy_coronaries
from cardiform.volumes import LabelMap, check_mask, check_truth, spacing_of

TABLE = LabelTable()
NAMES = dict(zip(TABLE.values, TABLE.names))
CORONARY = 9


@functools.cache
def heart() -> LabelMap:
    return LabelMap(*draw_scan(0, 2.0, 0))


@functools.cache
def noisy() -> LabelMap:
    """The label map of the case: its coronaries are as an automatic segmentation has them."""
    data, affine = heart().data, heart().affine
    rng = np.random.default_rng(0)
    return LabelMap(noisy_coronaries(data, spacing_of(affine), 1.0, rng), affine)


def alone(value: int = CORONARY, new: int = CORONARY) -> LabelMap:
    """One class of the truth, with a number of its own."""
    return LabelMap((heart().data == value).astype(np.uint8) * np.uint8(new), heart().affine)


def moved(label_map: LabelMap, mm) -> LabelMap:
    affine = label_map.affine.copy()
    affine[:3, 3] += mm
    return LabelMap(label_map.data, affine)


def finer(label_map: LabelMap) -> LabelMap:
    """Every voxel as eight, stored in another order of axes and mirrored."""
    data = label_map.data.repeat(2, 0).repeat(2, 1).repeat(2, 2).transpose(2, 0, 1)[::-1]
    old = np.diag([0.5, 0.5, 0.5, 1.0])
    old[:3, 3] = -0.25
    turn = np.zeros((4, 4))
    turn[0, 1] = turn[1, 2] = turn[3, 3] = 1
    turn[2, 0], turn[2, 3] = -1, data.shape[0] - 1
    return LabelMap(data, label_map.affine @ old @ turn)


def problem_of(truth, labels) -> str:
    with pytest.raises(InputError) as caught:
        check_truth("truth.nii.gz", truth, labels, NAMES)
    (line,) = caught.value.problems
    assert line.startswith("truth.nii.gz: ")
    return line


@pytest.mark.parametrize("shape", [lambda x: x, finer, lambda x: moved(x, (1.0, 0, 1.0))])
@pytest.mark.parametrize("truth", [heart, alone])
def test_a_truth_on_any_grid_is_accepted(truth, shape) -> None:
    assert check_truth("truth.nii.gz", shape(truth()), noisy(), NAMES) == []


@pytest.mark.parametrize("mm", [(500, 0, 0), (0, -300, 0), (0, 0, 1e4)])
@pytest.mark.parametrize("truth", [heart, alone, finer])
def test_a_truth_in_another_place_is_refused(truth, mm) -> None:
    truth = truth(heart()) if truth is finer else truth()
    line = problem_of(moved(truth, mm), noisy())
    assert "mm beside all structures of the label map; give the truth the place" in line


@pytest.mark.parametrize("mm", [(20, 0, 0), (0, 12, 12)])
def test_a_thin_truth_beside_its_label_is_refused(mm) -> None:
    labels = LabelMap(np.where(noisy().data == CORONARY, noisy().data, 0), noisy().affine)
    line = problem_of(moved(alone(), mm), labels)
    assert "coronary (9) is not where the label map has it (Dice 0.0" in line


@pytest.mark.parametrize("labels", [noisy, alone])
@pytest.mark.parametrize("new", [1, 3])
def test_a_binary_truth_is_refused_with_the_class_that_it_lies_in(labels, new) -> None:
    """ImageCAS has 0 and 1: the first class of the table is the myocardium here."""
    line = problem_of(alone(new=new), labels())
    assert f"{NAMES[new]} ({new}) lies in coronary of the label map; give the structures" in line


def test_a_binary_truth_is_refused_where_the_label_map_lacks_the_structure() -> None:
    without = LabelMap(np.where(noisy().data == CORONARY, 0, noisy().data), noisy().affine)
    assert "myocardium (1) is not where the label map has it" in problem_of(alone(new=1), without)
    assert check_truth("truth.nii.gz", alone(), without, NAMES) == [], "nothing to compare with"


def test_one_number_for_the_whole_heart_is_refused() -> None:
    whole = LabelMap((heart().data > 0).astype(np.uint8), heart().affine)
    assert "myocardium (1) lies in " in problem_of(whole, noisy())


@pytest.mark.parametrize("new", [255, 11])
def test_numbers_beside_the_label_table_are_refused(new) -> None:
    line = problem_of(alone(new=new), noisy())
    assert f"has label {new}, no class of the label table; give" in line
    assert line == problem_of(alone(new=new), None), "whether there is a label map or not"


def test_an_empty_truth_is_refused() -> None:
    assert "holds no class" in problem_of(alone(value=77), noisy())


def test_what_concerns_some_classes_alone_is_a_warning() -> None:
    data = heart().data.copy()
    data[data == 4] = 11
    found = check_truth("truth.nii.gz", LabelMap(data, heart().affine), noisy(), NAMES)
    assert found == ["truth: label 11 is not in the label table"]
    data[data == 5] = 4
    found = check_truth("truth.nii.gz", LabelMap(data, heart().affine), noisy(), NAMES)
    assert "truth: right_atrium (4) lies in right_ventricle of the label map" in found


def test_a_class_that_the_label_map_counts_to_another_is_a_warning() -> None:
    """Appendage and atrium are one in some label maps."""
    data = np.where(noisy().data == 8, 2, noisy().data)
    found = check_truth("truth.nii.gz", heart(), LabelMap(data, noisy().affine), NAMES)
    assert found == ["truth: left_atrial_appendage (8) lies in left_atrium of the label map"]


def mask_doubts(mask, labels=None):
    return check_mask("mask.nii.gz", mask, labels or noisy(), CORONARY, "coronary")


@pytest.mark.parametrize("value", [1, 9, 255])
def test_a_mask_of_a_structure_is_accepted_on_any_grid(value) -> None:
    assert mask_doubts(alone(new=value)) == []
    assert mask_doubts(finer(alone(new=value))) == []
    without = LabelMap(noisy().data * (noisy().data != CORONARY), noisy().affine)
    assert mask_doubts(alone(new=value), without) == [], "there was none"


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (lambda: moved(alone(new=1), (500, 0, 0)), "mm beside all structures of the label map"),
        (lambda: moved(alone(new=1), (0, 0, -900)), "give the mask the place in space"),
        (heart, "holds labels 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, not one structure"),
    ],
)
def test_a_mask_that_would_take_the_class_away_or_all_others_is_refused(mask, words) -> None:
    with pytest.raises(InputError) as caught:
        mask_doubts(mask())
    (line,) = caught.value.problems
    assert line.startswith("mask.nii.gz: ") and words in line


def test_an_empty_mask_and_one_beside_the_label_are_doubtful() -> None:
    empty = LabelMap(np.zeros_like(heart().data), heart().affine)
    assert mask_doubts(empty) == ["holds nothing: the case is left without coronary"]
    *_, line = mask_doubts(moved(alone(new=1), (0, 25, 0)))
    assert line.startswith("coronary is not where the label map has it (Dice 0.0")


def test_a_mask_that_reaches_but_a_part_of_the_class_is_doubtful() -> None:
    whole = alone(new=1)
    (box,) = whole.boxes.values()
    start = (box[2].start + box[2].stop) // 2
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, 2] * start
    half = LabelMap(whole.data[:, :, start:], affine)
    missed = (noisy().data[:, :, :start] == CORONARY).sum()
    assert missed > 100
    assert mask_doubts(half) == [
        f"does not reach {missed:,} voxels of coronary, which stay as they are"
    ]
    empty = LabelMap(np.zeros_like(half.data), affine)
    assert mask_doubts(empty) == mask_doubts(half)
