"""The law of every rule: it takes more that is false than true, and no structure gets worse."""

from __future__ import annotations

import itertools

import edt
import numpy as np
import pytest

from cardiform.anatomy.components import count_components, without_small
from cardiform.fusion.merge import fused
from cardiform.fusion.rules import RULES, consistent
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.options.fusion import FusionOptions
from cardiform.phantom.faults import FAULTS, faulty
from cardiform.phantom.scans import draw_scan, noisy_coronaries
from cardiform.volumes import LabelMap, spacing_of

TABLE = LabelTable()
MYO, LA, RA, AORTA, PA, LAA, CORONARY, PV = 1, 2, 4, 6, 7, 8, 9, 10
NUMBERS = (0, 3, 5, 9)  # ordinary, thick slices, no appendage, cut by the border
SPACING_MM = 3.0
BOUND = 0.005  # of Dice


@pytest.fixture(scope="module")
def hearts():
    """Number of the scan -> the truth, an (X, Y, Z) uint8 label map, and its spacing."""
    scans = {number: draw_scan(number, SPACING_MM, 0) for number in NUMBERS}
    return {number: (data, spacing_of(affine)) for number, (data, affine) in scans.items()}


def ran(given, spacing, *, truth=None, mask=None, rules=tuple(RULES)):
    """The label map after fusion with a mask of the coronaries, and rules; what they did."""
    masks = {} if mask is None else {CORONARY: LabelMap(mask, np.diag([*spacing, 1.0]))}
    merged = fused(LabelMap(given, np.diag([*spacing, 1.0])), masks, TABLE)
    options = FusionOptions(rules=rules)
    keywords = {"given": given, "replaced": tuple(masks), "truth": truth}
    return consistent(merged, spacing, TABLE, options, **keywords)


def dice(truth, found):
    return {name: figures["dice"] for name, figures in overlap(truth, found, TABLE).items()}


def total(entry, what):
    return sum(entry[what].values())


@pytest.mark.parametrize("number", NUMBERS)
def test_rules_leave_the_truth_as_it_is(hearts, number):
    truth, spacing = hearts[number]
    np.testing.assert_array_equal(ran(truth, spacing)[0], truth)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_rule_takes_more_true_than_false_voxels(hearts, number):
    truth, spacing = hearts[number]
    noisy = noisy_coronaries(truth, spacing, 1.0, np.random.default_rng(number))
    _, together = ran(noisy, spacing, truth=truth)
    alone = [ran(noisy, spacing, truth=truth, rules=(rule,))[1][0] for rule in RULES]
    for entry in (*together, *alone):
        assert total(entry, "taken_true") <= 0.1 * total(entry, "taken_false"), entry
        assert total(entry, "added_false") <= total(entry, "added_true"), entry
    coronary = together[2]
    assert coronary["rule"] == "coronary_on_heart" and coronary["taken_false"]["coronary"] > 10


def test_pieces_of_the_right_coronary_stay_on_the_right_heart(hearts):
    truth, spacing = hearts[0]
    labels = truth.copy()
    away = edt.edt((labels != MYO) & (labels != AORTA), anisotropy=tuple(spacing))
    tree = labels == CORONARY
    labels[tree & (away > 8) & (away < 14)] = 0
    assert (labels[tree & (away > 14)] == CORONARY).sum() > 30
    assert count_components(labels == CORONARY) > count_components(tree)
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


def test_short_pieces_of_a_broken_vessel_stay_and_specks_go():
    labels = np.zeros((60, 40, 40), np.uint8)
    labels[2:58, 5:30, 5:20] = MYO
    labels[2:30, 14:17, 21:23] = CORONARY
    labels[39:43, 14:17, 21:23] = CORONARY  # 24 mm^3, 9 mm from the end
    expected = labels.copy()
    labels[56:58, 6, 21] = CORONARY  # a speck on the heart, 15 mm from any vessel
    labels[25, 36:39, 36:39] = CORONARY  # and a piece apart from it
    np.testing.assert_array_equal(ran(labels, np.ones(3))[0], expected)


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_pieces_that_a_repair_leaves_are_kept(hearts, strength):
    truth, spacing = hearts[3]
    noisy = noisy_coronaries(truth, spacing, strength, np.random.default_rng(1))
    mask = without_small(noisy == CORONARY, 2.1)
    _, rules = ran(noisy, spacing, truth=truth, mask=mask.view(np.uint8))
    assert total(rules[2], "taken_true") <= total(rules[2], "taken_false"), rules[2]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("number", NUMBERS)
def test_no_structure_gets_worse_whatever_the_fault(hearts, number, kind):
    truth, spacing = hearts[number]
    given = faulty(truth, kind, spacing, np.random.default_rng(number))
    mask = (truth == CORONARY).view(np.uint8) if kind == "blobs" else None
    result, rules = ran(given, spacing, truth=truth, mask=mask)
    before, after = dice(truth, given), dice(truth, result)
    for name in TABLE.names:
        if before[name] is not None:
            assert after[name] >= before[name] - BOUND, name
    for entry in rules:
        assert total(entry, "taken_true") <= total(entry, "taken_false") + 2, entry


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_mask_gives_up_is_filled_by_what_was_there(hearts, number):
    truth, spacing = hearts[number]
    given = faulty(truth, "blobs", spacing, np.random.default_rng(number))
    lost = (given == CORONARY) & (truth != CORONARY)
    inside = lost & (truth > 0)
    assert inside.sum() > 400
    mask = (truth == CORONARY).view(np.uint8)
    left, _ = ran(given, spacing, mask=mask, rules=("largest_components",))
    assert not left[lost].any(), "without the rule they stay empty"
    result, rules = ran(given, spacing, truth=truth, mask=mask)
    assert (result[inside] == truth[inside]).mean() > 0.8
    assert total(rules[-1], "added_true") > 5 * total(rules[-1], "added_false")
    np.testing.assert_array_equal(result[~lost], given[~lost])


def test_islands_go_and_leave_no_hole(hearts):
    truth, spacing = hearts[0]
    given = faulty(truth, "islands", spacing, np.random.default_rng(1))
    result, rules = ran(given, spacing, truth=truth)
    assert (result != truth).sum() < 0.4 * (given != truth).sum()
    assert total(rules[-1], "added_true") > 5 * total(rules[-1], "added_false")


# --- hearts that are made otherwise ------------------------------------------------------------


def tube(labels, spacing, points, radius, value):
    """Paint a tube along (K, 3) mm over the background."""
    way = np.concatenate([np.linspace(a, b, 60) for a, b in itertools.pairwise(points)])
    line = np.ones(labels.shape, bool)
    index = np.rint(way / spacing).astype(int)
    index = index[((index >= 0) & (index < labels.shape)).all(axis=1)]
    line[tuple(index.T)] = False
    near = edt.edt(line, anisotropy=tuple(spacing)) <= radius
    painted = near & (labels == 0)
    labels[painted] = value
    return painted


def nearest_to(mask, spacing, place):
    """The voxel of a mask that is nearest to a place, mm."""
    places = np.argwhere(mask) * spacing
    return places[np.linalg.norm(places - place, axis=1).argmin()]


@pytest.fixture
def grafted(hearts):
    """A bypass from the aorta to the wall of the left ventricle, far from the heart between."""
    truth, spacing = hearts[0]
    labels = np.pad(truth, ((12, 12), (12, 12), (0, 0)))
    aorta = np.argwhere(labels == AORTA) * spacing
    chest = np.argwhere(labels > 0).mean(axis=0) * spacing
    front = aorta[aorta[:, 1] > chest[1]]
    start = front[front[:, 2].argmax()]
    outwards = start + np.array([-50.0, 60.0, -10.0])
    end = nearest_to(labels == MYO, spacing, outwards + np.array([0.0, -10.0, -30.0]))
    painted = tube(labels, spacing, [start, outwards, end], 3.2, CORONARY)
    others = (labels == 0) | (labels == CORONARY)
    away = edt.edt(others, anisotropy=tuple(spacing))[painted]
    assert (away > 15).sum() > 30, "its middle lies far from everything"
    return labels, painted, spacing


def test_a_bypass_graft_is_kept(grafted):
    labels, painted, spacing = grafted
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)
    rng = np.random.default_rng(0)
    noisy = noisy_coronaries(labels, spacing, 1.0, rng)
    result, _ = ran(noisy, spacing)
    graft = painted & (noisy == CORONARY)
    assert (result[graft] == CORONARY).mean() > 0.98


def test_a_broken_graft_is_kept(grafted):
    labels, painted, spacing = grafted
    before = count_components(labels == CORONARY)
    for height in (32, 38):
        labels[..., height : height + 2][painted[..., height : height + 2]] = 0
    assert count_components(labels == CORONARY) >= before + 2
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


@pytest.mark.parametrize("origin", ["pulmonary_artery", "high_aorta", "none"])
def test_a_coronary_of_another_origin_is_kept(hearts, origin):
    truth, spacing = hearts[0]
    labels = truth.copy()
    near = edt.edt(labels != AORTA, anisotropy=tuple(spacing)) < 12
    labels[near & (labels == CORONARY)] = 0
    places = np.argwhere(labels == CORONARY) * spacing
    if origin != "none":
        vessel = np.argwhere(labels == (PA if origin == "pulmonary_artery" else AORTA)) * spacing
        front = vessel[vessel[:, 1] > np.median(vessel[:, 1])]
        start = front[front[:, 2].argmax()]
        first = nearest_to(labels == CORONARY, spacing, start)
        assert tube(labels, spacing, [start, first], 2.7, CORONARY).any()
    assert len(places)
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


def test_branches_that_are_not_there_are_not_missed(hearts):
    truth, spacing = hearts[0]
    labels = truth.copy()
    half = np.argwhere(truth == CORONARY)
    labels[tuple(half[half[:, 0] > np.median(half[:, 0])].T)] = 0
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


def test_a_mirrored_heart_is_treated_as_its_mirror_image(hearts):
    truth, spacing = hearts[0]
    noisy = noisy_coronaries(truth, spacing, 1.0, np.random.default_rng(0))
    noisy = faulty(noisy, "islands", spacing, np.random.default_rng(0))
    expected, _ = ran(noisy, spacing)
    assert (expected != noisy).sum() > 100
    np.testing.assert_array_equal(ran(noisy[::-1], spacing)[0][::-1], expected)


@pytest.mark.parametrize("missing", TABLE.names)
def test_a_missing_structure_harms_no_other(hearts, missing):
    truth, spacing = hearts[0]
    labels = truth.copy()
    labels[labels == TABLE[TABLE.channel(missing)].value] = 0
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


def test_a_vein_that_enters_the_right_atrium_is_kept(hearts):
    truth, spacing = hearts[0]
    labels = truth.copy()
    right = np.argwhere(labels == RA) * spacing
    start = right[right[:, 0].argmax()]
    painted = tube(labels, spacing, [start, start + np.array([12.0, 0.0, 0.0])], 5.0, PV)
    assert painted.sum() > 10
    np.testing.assert_array_equal(ran(labels, spacing)[0], labels)


def test_structures_that_the_field_of_view_cuts_in_two_are_kept(hearts):
    truth, spacing = hearts[0]
    pulmonary = np.argwhere(truth == PA)
    for top in range(pulmonary[:, 2].max(), pulmonary[:, 2].min(), -1):
        cut = truth[:, :, :top]
        if count_components(cut == PA) > 1:
            break
    assert count_components(cut == PA) > 1, "trunk and branch"
    np.testing.assert_array_equal(ran(cut, spacing)[0], cut)
