"""Masks on the grid of their label map: what nothing changed stays as it was."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tubes import SPACING, broken_tube, tube

from cardiform.anatomy.components import count_components
from cardiform.anatomy.corruption import corrupt
from cardiform.anatomy.repair import repair
from cardiform.cohort.table import Case
from cardiform.coronary import own_label
from cardiform.coronary.field import CaseField, repaired_field
from cardiform.coronary.figures import fine_figures, own_figures
from cardiform.coronary.links import joined_as, without_lost
from cardiform.coronary.own_label import OwnLabel
from cardiform.coronary.repair_case import repair_case, thin_structure
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.coronary.wall_noise import roughness
from cardiform.labels import LabelTable
from cardiform.metrics.own_grid import own_grid_figures
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.volumes import LabelMap, load_label_map, save_label_map

TABLE = LabelTable()
CORONARY = TABLE[TABLE.channel("coronary")].value
DEFAULTS = CoronaryRepairOptions()
EDGES = [(1.5, 1.5, 1.5), (0.98, 0.98, 3.0), (0.8, 0.8, 2.0), (0.5, 0.5, 0.7), (2.0, 1.0, 1.0)]


BRANCHES = [  # start and end, mm, and radius
    ((4, 4, 5), (18, 11, 11), 1.5), ((18, 11, 11), (30, 9, 22), 1.3),
    ((18, 11, 11), (33, 20, 13), 1.2), ((4, 21, 24), (20, 21, 19), 1.4),
]  # fmt: skip


def drawn_tree(edges, turn=0):
    """Two trees on a grid with these voxel edges; ``turn`` rolls the axes that they follow."""
    edges = np.array(edges, float)
    size = np.roll((38.0, 26.0, 28.0), turn)
    shape = tuple(int(n) for n in np.ceil(size / edges))
    points = np.indices(shape).reshape(3, -1).T * edges
    inside = np.zeros(len(points), bool)
    for start, end, radius in BRANCHES:
        start, end = np.roll(start, turn), np.roll(end, turn)
        way = (end - start).astype(float)
        along = np.clip((points - start) @ way / (way @ way), 0, 1)
        inside |= np.linalg.norm(points - start - along[:, None] * way, axis=1) <= radius
    labels = np.where(inside, CORONARY, 0).astype(np.uint8).reshape(shape)
    return LabelMap(labels, np.diag([*edges, 1.0]))


def thin_of(label_map) -> ThinStructure:
    thin = thin_structure(label_map, TABLE, DEFAULTS)
    assert thin is not None
    return thin


def mask_moved_by(given, label_map, voxels: float) -> np.ndarray:
    """The mask on its own grid where a field moves every wall in, by voxels of the fine one."""
    thin = thin_of(label_map)
    still = repaired_field(thin)
    distances = lambda places: still.distances(places) + voxels * thin.spacing  # noqa: E731
    moved = replace(still, distances=distances)
    return OwnLabel(given, label_map.affine, thin, DEFAULTS).mask(moved)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_a_label_that_nothing_changes_keeps_every_voxel(edges):
    """There and back through the isotropic grid, voxels of the wall would change."""
    label_map = drawn_tree(edges)
    given = label_map.data == CORONARY
    thin = thin_of(label_map)
    made = OwnLabel(given, label_map.affine, thin, DEFAULTS).mask(repaired_field(thin))
    np.testing.assert_array_equal(made, given)


def test_voxels_change_where_the_field_does_and_nowhere_else():
    whole, broken = broken_tube(gap=4.0)
    affine = np.diag([SPACING] * 3 + [1.0])
    labels = np.where(broken, CORONARY, 0).astype(np.uint8)[::2, ::2, ::2]
    label_map = LabelMap(labels, np.diag([2 * SPACING] * 3 + [1.0]))
    thin = ThinStructure(broken, whole, np.ones_like(broken), affine)
    given = label_map.data == CORONARY
    made = OwnLabel(given, label_map.affine, thin, DEFAULTS).mask(repaired_field(thin))
    changed = np.argwhere(made != given) * 2 * SPACING
    assert len(changed) > 3 and np.abs(changed[:, 0] - 27).max() <= 3.0
    assert count_components(given) == 2 and count_components(made) == 1


@pytest.mark.parametrize("jagged, moved", [(0.0, False), (1.2, True)])
def test_a_smooth_wall_that_moves_by_less_than_a_voxel_has_not_been_changed(jagged, moved):
    """Of the isotropic grid; else every refinement would cost the label its voxels. A rough wall
    moves as the field says."""
    drawn = drawn_tree((0.5, 0.5, 0.7))
    given = drawn.data == CORONARY
    given = corrupt(given, drawn.spacing, {"jagged": jagged}, np.random.default_rng(0))
    label_map = LabelMap(np.where(given, CORONARY, 0).astype(np.uint8), drawn.affine)
    moved_by = partial(mask_moved_by, given, label_map)
    assert (moved_by(0.4).sum() < 0.9 * given.sum()) == moved
    assert (moved_by(0.9).sum() < 0.8 * given.sum()) == moved
    assert moved or (moved_by(0.9) == given).all()
    assert moved_by(1.8).sum() < 0.8 * given.sum()


@pytest.mark.parametrize("edges", [e for e in EDGES if max(e) > 1], ids=str)
def test_the_thicker_the_slices_the_farther_a_wall_has_to_move(edges):
    """In slices of 3 mm a label does not say to half a millimetre where its wall is."""
    label_map = drawn_tree(edges)
    given = label_map.data == CORONARY
    longest = max(edges) / DEFAULTS.spacing_mm
    made = mask_moved_by(given, label_map, 0.24 * longest)
    assert abs(made.sum() / given.sum() - 1) < 0.03, made.sum() / given.sum()
    assert mask_moved_by(given, label_map, 0.6 * longest).sum() < 0.8 * given.sum()


@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_how_rough_a_wall_is_does_not_depend_on_the_grid(edges):
    """Steps of voxels and slices are no noise."""
    drawn = drawn_tree(edges)
    smooth = drawn.data == CORONARY
    found = {}
    for kinds in ({}, {"breaks": 2.0}, {"jagged": 1.2}):
        given = corrupt(smooth, drawn.spacing, kinds, np.random.default_rng(0))
        label_map = LabelMap(np.where(given, CORONARY, 0).astype(np.uint8), drawn.affine)
        found[str(kinds)] = roughness(given, drawn.affine, thin_of(label_map))
    clean, broken, ragged = found.values()
    assert 0.9 < clean < 1.05 and broken < 1.05, found
    assert ragged > max(clean, broken) + (0.08 if max(edges) < 1.5 else 0.01), found
    least = OwnLabel(given, drawn.affine, thin_of(label_map), DEFAULTS).least_change  # ragged
    coarse = max(edges) / DEFAULTS.spacing_mm / 4
    assert least == 0.0 if max(edges) < 1 else coarse <= least <= max(1.25, coarse), least


@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("radius", [0.5, 0.6, 0.75, 1.0, 1.5])
def test_a_gap_in_a_smooth_vessel_is_filled_to_its_rim(slices, radius, monkeypatch):
    """Beside the ends of a gap the wall moves little; left out, it would be a stenosis."""
    monkeypatch.setattr(own_label, "roughness", lambda *_: 1.0)
    whole = tube((80, 24, 24), (6, 6, 6), (34, 6, 6), radius)
    broken = whole.copy()
    broken[40 : 40 + slices] = False
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    thin = ThinStructure(broken, whole, np.ones_like(broken), affine)
    assert OwnLabel(broken, affine, thin, DEFAULTS).least_change > 1
    made = OwnLabel(broken, affine, thin, DEFAULTS).mask(repaired_field(thin))
    np.testing.assert_array_equal(made, whole)


def test_what_the_repair_takes_from_a_smooth_label_goes(monkeypatch):
    """A bridge of a voxel between two vessels: its wall moves by no more than a voxel."""
    monkeypatch.setattr(own_label, "roughness", lambda *_: 1.0)
    apart = np.zeros((40, 24, 24), bool)
    apart[5:35, 5:8, 10:13] = apart[5:35, 9:12, 10:13] = True
    joined = apart.copy()
    joined[20:22, 8, 11] = True
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    thin = ThinStructure(joined, apart, np.ones_like(apart), affine)
    made = OwnLabel(joined, affine, thin, DEFAULTS).mask(repaired_field(thin))
    np.testing.assert_array_equal(made, apart)


def test_nothing_is_not_rough():
    none = np.zeros((20, 20, 20), bool)
    thin = ThinStructure(none, none, none, np.eye(4))
    assert roughness(none, np.eye(4), thin) == 1
    some = none.copy()
    some[8:11, 8:11, 8:11] = True
    assert roughness(some, np.eye(4), replace(thin, label=some)) == 1
    assert roughness(some, np.eye(4), replace(thin, repaired=some)) == 1
    full = ~none
    assert np.isfinite(roughness(full, np.eye(4), replace(thin, label=full, repaired=full)))


@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("turn", [0, 1])
def test_the_repair_of_a_clean_tree_keeps_it(tmp_path, edges, turn):
    """Slices of up to 3 mm: the volume stays within 3 %, but for bridges, and no part is added."""
    label_map = drawn_tree(edges, turn)
    save_label_map(tmp_path / "labels.nii.gz", label_map.data, label_map.affine)
    case = Case(case_id="a", patient_id="a", labels=str(tmp_path / "labels.nii.gz"))
    repair_case(case, table=TABLE, options=DEFAULTS, out=tmp_path)
    given = label_map.data == CORONARY
    made = load_label_map(tmp_path / "a.nii.gz").data > 0
    changed = json.loads((tmp_path / "a.json").read_text())
    assert changed["components_after"] <= count_components(made) <= count_components(given)
    grown = changed["voxels_after"] / changed["voxels_before"] if changed["bridges"] else 1
    assert made.sum() == pytest.approx(grown * given.sum(), rel=0.03)
    assert dice(made, given) > 0.95


def test_parts_are_joined_through_thick_slices():
    """A thin vessel that crosses thick slices aslant: no voxel centre lies within some of it."""
    fine = tube((60, 40, 40), (4, 4, 4), (24, 10, 15), 0.6)
    fine |= tube((60, 40, 40), (20, 3, 12), (26, 3, 12), 0.6)
    coarse = np.diag([1.0, 1.0, 3.0, 1.0])
    own = np.diag([SPACING] * 3 + [1.0])
    mask = fine[::2, ::2, ::6].copy()
    assert count_components(mask) > count_components(fine) == 2
    made = joined_as(mask, coarse, fine, own)
    assert count_components(made) == 2 and made[mask].all()
    added = np.argwhere(made & ~mask) * [1.0, 1.0, 3.0]
    inside = np.argwhere(fine) * SPACING
    for place in added:
        assert (np.abs(inside - place) <= [0.5, 0.5, 1.5]).all(axis=1).any(), "within its voxel"
    np.testing.assert_array_equal(joined_as(made, coarse, fine, own), made)


def test_a_finer_own_grid_is_joined_too():
    coarse = tube((40, 20, 20), (3, 5, 5), (16, 5, 5), 1.0)
    shape = tuple(3 * n for n in coarse.shape)
    affine = np.diag([SPACING / 3] * 3 + [1.0])
    affine[:3, 3] = -SPACING / 3
    mask = np.zeros(shape, bool)
    filled = np.kron(coarse, np.ones((3, 3, 3))) > 0
    mask[:50] = filled[:50]
    mask[60:] = filled[60:]
    made = joined_as(mask, affine, coarse, np.diag([SPACING] * 3 + [1.0]))
    assert count_components(mask) == 2 and count_components(made) == 1


def test_specks_without_a_part_of_the_field_go_by_their_volume():
    fine = tube((60, 30, 30), (4, 7, 7), (24, 7, 7), 1.2)
    affine = np.diag([SPACING] * 3 + [1.0])
    mask = fine.copy()
    mask[50, 25, 25] = True
    assert count_components(without_lost(mask, affine, fine, affine, 20.0)) == 1
    np.testing.assert_array_equal(without_lost(mask, affine, fine, affine, 0.0), mask)


def test_an_empty_field_leaves_nothing_of_its_structure():
    label = tube((40, 30, 30), (4, 7, 7), (14, 7, 7), 1.2)
    affine = np.diag([SPACING] * 3 + [1.0])
    none = np.zeros_like(label)
    field = CaseField(lambda p: np.ones(len(p), np.float32), none, ThinStructure(
        label, none, none, affine), none)  # fmt: skip
    assert not OwnLabel(label, affine, field.thin, DEFAULTS).mask(field).any()


def cut_tube():
    """The truth of a tube, and a label of which the distal two thirds are missing."""
    truth = tube((160, 30, 30), (5, 7, 7), (72, 7, 7), 1.5)
    label = truth.copy()
    label[55:] = False
    return truth, label


def test_what_the_label_missed_counts():
    """The box of the label alone would have shown 0.91 of a Dice of 0.5."""
    truth, label = cut_tube()
    affine = np.diag([SPACING] * 3 + [1.0])
    label_map = LabelMap(np.where(label, CORONARY, 0).astype(np.uint8), affine)
    thin = thin_of(label_map)
    true_map = LabelMap(np.where(truth, CORONARY, 0).astype(np.uint8), affine)
    real = dice(truth, label)
    assert real < 0.6
    masks = {"given": thin.label, "repaired": repair(thin.label, thin.spacing, DEFAULTS)[0]}
    found = fine_figures(true_map, CORONARY, masks, thin)
    for column in masks:
        assert found[column]["dice"] == pytest.approx(real, abs=0.01)
        assert found[column]["centreline_overlap"] < 0.6 and found[column]["hd95_mm"] > 20
    own = own_figures(true_map, CORONARY, {"given": label}, affine)
    assert own["given"]["dice"] == pytest.approx(real) and own["given"]["hd95_mm"] > 20


@pytest.mark.parametrize("side", [1, -1])
def test_what_lies_beyond_the_label_map_counts(side):
    """The truth is on another grid that reaches farther, before or behind the label map's."""
    truth, label = (m[::side] for m in cut_tube())
    near = slice(0, 70) if side > 0 else slice(90, None)
    affine = np.diag([SPACING] * 3 + [1.0])
    shifted = affine.copy()
    shifted[0, 3] = 0 if side > 0 else 90 * SPACING
    label_map = LabelMap(np.where(label, CORONARY, 0).astype(np.uint8)[near], shifted)
    true_map = LabelMap(np.where(truth, CORONARY, 0).astype(np.uint8), affine)
    thin = thin_of(label_map)
    found = fine_figures(true_map, CORONARY, {"given": thin.label}, thin)["given"]
    own = own_figures(true_map, CORONARY, {"given": label[near]}, shifted)["given"]
    for figures in (found, own):
        assert figures["dice"] == pytest.approx(dice(truth, label), abs=0.01)


def test_figures_of_the_own_grid():
    truth = tube((60, 30, 15), (5, 7, 3), (24, 7, 3), 1.5)
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])
    same = own_grid_figures(truth, truth, affine)
    assert same["dice"] == same["cl_dice"] == 1.0 and same["hd95_mm"] < 1e-9
    moved = own_grid_figures(truth, np.roll(truth, 1, 2), affine)
    assert moved["component_error"] == 0 and 1.5 < moved["hd95_mm"] <= 3.0, "a slice is 3 mm"
    none = own_grid_figures(truth, np.zeros_like(truth), affine)
    assert none["dice"] == 0 and none["hd95_mm"] is None
    nothing = own_grid_figures(np.zeros_like(truth), np.zeros_like(truth), affine)
    assert nothing["dice"] is nothing["component_error"] is None


def test_noise_is_repaired_on_the_own_grid_without_loss():
    """A broken and frayed label: the repaired mask is nearer to the truth than what was given."""
    truth_map = drawn_tree((0.8, 0.8, 0.8))
    truth = truth_map.data == CORONARY
    kinds = {"jagged": 1.0, "breaks": 2.0, "blobs": 0.7, "speckle": 4.0}
    gained: dict[str, float] = dict.fromkeys(("dice", "cl_dice", "component_error"), 0)
    for seed in range(3):
        given = corrupt(truth, np.full(3, 0.8), kinds, np.random.default_rng(seed))
        label_map = LabelMap(np.where(given, CORONARY, 0).astype(np.uint8), truth_map.affine)
        thin = thin_of(label_map)
        thin = replace(thin, repaired=repair(thin.label, thin.spacing, DEFAULTS)[0])
        made = OwnLabel(given, label_map.affine, thin, DEFAULTS).mask(repaired_field(thin))
        before, after = (own_grid_figures(truth, m, label_map.affine) for m in (given, made))
        for name in gained:
            gained[name] += after[name] - before[name]
    assert gained["dice"] > 0 and gained["cl_dice"] > 0.03 and gained["component_error"] < -6, (
        gained
    )
