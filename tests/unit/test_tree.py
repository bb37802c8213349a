"""Centrelines with radii: against tubes of known course, and masks that thinning would lose."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_trees import CORONARY, TABLE, VALUES, tubes

from cardiform.anatomy.tree import Forest, trace
from cardiform.coronary.surroundings import Surroundings
from cardiform.coronary.trace_case import traced
from cardiform.options.coronary import CoronaryTraceOptions
from cardiform.volumes import LabelMap

SPACINGS = [0.4, 0.5, 0.7, 1.0, (0.4, 0.4, 1.0), (0.8, 0.5, 0.6)]
START, END = np.array([3.3, 2.1, 1.7]), np.array([47.0, 22.0, 15.0])


def forest_of(label_map: LabelMap, **options) -> Forest:
    around = Surroundings(label_map, TABLE)
    return traced(label_map, CORONARY, around, CoronaryTraceOptions(**options))


def voxel(spacing) -> float:
    """Edge of a cube of the volume of a voxel, mm."""
    return float(np.prod(np.broadcast_to(spacing, 3)) ** (1 / 3))


def on_grid(mask: np.ndarray, spacing: float = 0.5, branch_mm: float = 4.0, **origins) -> Forest:
    """A mask traced on its own grid."""
    affine = np.diag([spacing] * 3 + [1.0])
    return trace(mask, affine, origins, branch_mm=branch_mm, smooth_mm=1.5, ostium_mm=2.0)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("radius", [1.3, 2.0])
def test_a_straight_tube(spacing, radius):
    forest = forest_of(tubes([((START, END), radius)], spacing))
    [branch] = forest.branches
    assert branch.length == pytest.approx(np.linalg.norm(END - START), rel=0.02)
    assert np.abs(branch.radii - radius).max() < 0.2 * voxel(spacing)
    way = (END - START) / np.linalg.norm(END - START)
    away = branch.points - START
    away -= np.outer(away @ way, way)
    assert np.linalg.norm(away, axis=1).max() < 0.5 * voxel(spacing)
    assert forest.specks == 0 and not branch.forks


@pytest.mark.parametrize("spacing", [0.4, 0.7, 1.0])
def test_a_bend_keeps_its_length(spacing):
    """Smoothing alone would cut the corner."""
    angle = np.linspace(0.1, 3.0, 60)
    bend = 16 * np.stack([np.cos(angle), np.sin(angle), 0.3 * angle], axis=1)
    length = np.linalg.norm(np.diff(bend, axis=0), axis=1).sum()
    [branch] = forest_of(tubes([(bend, 1.5)], spacing)).branches
    assert branch.length == pytest.approx(length, rel=0.02)
    assert np.abs(branch.radii - 1.5).max() < 0.2 * spacing


def test_a_taper_is_followed():
    [branch] = forest_of(tubes([((START, END), (2.4, 0.9))], 0.5)).branches
    away = [np.linalg.norm(branch.points - p, axis=1) for p in (START, END)]
    expected = 2.4 - 1.5 * away[0] / (away[0] + away[1])
    assert np.abs(branch.radii - expected).max() < 0.2 * 0.5


@pytest.mark.parametrize("wide", [1, 2, 3, 4])
def test_bars_of_any_number_of_voxels_are_found(wide):
    """Thinning leaves nothing of a bar of 2 x 2 voxels."""
    mask = np.zeros((70, 12, 12), bool)
    mask[5:65, 4 : 4 + wide, 4 : 4 + wide] = True
    [branch] = on_grid(mask).branches
    radius = 0.5 * wide / np.sqrt(np.pi)
    assert branch.radii.mean() == pytest.approx(radius, rel=0.1)
    assert branch.length == pytest.approx(30 - 2 * radius, abs=0.5), "to the last ball within"


def test_a_fork_makes_three_branches():
    middle, tips = np.array([20.0, 0, 0]), ([38.0, 9, 3], [37.0, -10, -2])
    pieces = [(([0.0, 0, 0], middle), 2.0), *(((middle, tip), 1.2) for tip in tips)]
    forest = forest_of(tubes(pieces, 0.5))
    assert len(forest.branches) == 3
    trunk = next(b for b in forest.branches if b.parent == -1)
    others = [b for b in forest.branches if b is not trunk]
    assert trunk.forks and not any(b.forks for b in others)
    for branch in others:
        assert forest.branches[branch.parent] is trunk
        assert np.array_equal(branch.points[0], trunk.points[-1]), "it begins at the fork"
        assert branch.radii[len(branch.radii) // 2 :].mean() == pytest.approx(1.2, abs=0.1)
    assert trunk.radii.mean() == pytest.approx(2.0, abs=0.1), "loose parts begin at the thick end"
    total = sum(b.length for b in forest.branches)
    assert total == pytest.approx(
        20 + sum(np.linalg.norm(np.subtract(t, middle)) for t in tips), rel=0.03
    )


def test_a_speck_is_no_branch_and_a_lump_on_a_vessel_neither():
    vessel = (([0.0, 0, 0], [30.0, 0, 0]), 1.5)
    speck = (([10.0, 8, 0], [12.0, 8, 0]), 1.0)
    lump = (([15.0, 0, 0], [15.0, 3.5, 0]), 1.2)
    forest = forest_of(tubes([vessel, speck, lump], 0.5))
    assert len(forest.branches) == 1 and forest.specks == 1
    assert forest.speck_mm3 == pytest.approx(2 * np.pi + 4 / 3 * np.pi, rel=0.15)
    whole = forest_of(tubes([vessel, speck, lump], 0.5), branch_mm=1.0)
    assert len(whole.origins) == 2 and len(whole.branches) == 4


def test_parts_are_trees_of_their_own():
    pieces = [(([x, 0.0, 0], [x + 12, 0, 0]), 1.3) for x in (0.0, 18.0, 36.0)]
    forest = forest_of(tubes(pieces, 0.6))
    assert len(forest.origins) == len(forest.branches) == 3
    assert set(forest.origins) == {""} and {b.parent for b in forest.branches} == {-1}


@pytest.mark.parametrize("slices", [1.0, 3.5, 5.0])
def test_a_tree_springs_from_the_aorta_through_thick_slices(slices):
    """The first slice of the vessel lies on the last one of the aorta."""
    labels = np.zeros((60, 60, round(56 / slices)), np.uint8)
    first = round(8 / slices)
    labels[25:32, 25:32, first:-2] = CORONARY
    labels[20:40, 20:40, :first] = VALUES["aorta"]
    affine = np.diag([0.4, 0.4, slices, 1.0])
    forest = forest_of(LabelMap(labels, affine))
    assert forest.origins == ("aorta",)
    around = Surroundings(LabelMap(labels, affine), TABLE)
    top = (first - 0.5) * slices
    places = np.array([[11.0, 11.0, top + 2.0], [20.0, 11.0, 0.0]])
    away = around.distance(places, "aorta")
    np.testing.assert_allclose(away, [2.0, 20.0 - 39.5 * 0.4], atol=0.2)


def test_nothing_is_traced_as_nothing():
    empty = on_grid(np.zeros((5, 5, 5), bool))
    assert (empty.branches, empty.origins, empty.specks) == ((), (), 0)
    dust = np.zeros((9, 9, 9), bool)
    dust[2, 2, 2] = dust[6, 6, 6] = True
    assert on_grid(dust).branches == () and on_grid(dust).specks == 2


def plane(axis: int, at: float):
    """Distance to a wall at a place along an axis."""
    return lambda points: np.abs(points[:, axis] - at)


def test_a_tree_begins_where_it_springs_from():
    label_map = tubes([(([0.0, 0, 0], [30.0, 0, 0]), (1.0, 2.0))], 0.5)
    mask, affine = label_map.data > 0, label_map.affine
    limits = {"branch_mm": 4.0, "smooth_mm": 1.5, "ostium_mm": 2.0}
    for at, first in ((-1.0, 0.0), (32.0, 30.0)):
        forest = trace(mask, affine, {"aorta": plane(0, at)}, **limits)
        assert forest.origins == ("aorta",)
        assert forest.branches[0].points[0, 0] == pytest.approx(first, abs=0.5)
    forest = trace(mask, affine, {"aorta": plane(0, -9.0)}, **limits)
    assert forest.origins == ("",) and forest.branches[0].points[0, 0] < 1


def test_two_origins_of_one_part_are_two_trees_cut_where_it_is_thin():
    """Two vessels that meet at their ends, as round the apex."""
    angle = np.linspace(0, np.pi, 80)
    arch = 20 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    radii = 0.9 + 1.0 * np.abs(np.cos(angle + 0.4))
    label_map = tubes([(arch, radii)], 0.5)
    forest = trace(
        label_map.data > 0, label_map.affine, {"aorta": plane(1, -1.0)},
        branch_mm=4.0, smooth_mm=1.5, ostium_mm=2.0,
    )  # fmt: skip
    assert forest.origins == ("aorta", "aorta") and len(forest.branches) == 2
    for branch in forest.branches:
        assert branch.points[0, 1] < 2 and branch.parent == -1
    assert sum(b.length for b in forest.branches) == pytest.approx(20 * np.pi, rel=0.04)


def test_a_ring_is_opened():
    angle = np.linspace(0, 2 * np.pi, 120)
    ring = 10 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    forest = forest_of(tubes([(ring, 1.2)], 0.5))
    assert len(forest.origins) == 1
    parents = [b.parent for b in forest.branches]
    assert parents.count(-1) == 1 and all(p < k for k, p in enumerate(parents))
    assert sum(b.length for b in forest.branches) == pytest.approx(20 * np.pi, rel=0.06)
