"""Masks from one grid to another, and the isotropic grid of a thin structure."""

import numpy as np
import pytest
from tubes import SPACING, broken_tube

from cardiform.anatomy.components import count_components
from cardiform.geometry.distances import signed_distance
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.isotropic import (
    distance_on_grid,
    isotropic_mask,
    mask_of,
    voxels_near,
)
from cardiform.geometry.resample import resample_mask
from cardiform.volumes import LabelMap, load_label_map, spacing_of

AFFINE = np.diag([SPACING] * 3 + [1.0])


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def turned(degrees=20.0, spacing=(0.6, 0.5, 0.8), shift=(-7.0, 3.0, 2.0)):
    """An oblique, left-handed affine with unequal voxels."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-c, s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = shift
    return affine


def translation(voxels):
    """An affine that moves by so many voxels."""
    moved = np.eye(4)
    moved[:3, 3] = voxels
    return moved


def test_between_lattices_that_coincide_voxels_are_moved():
    rng = np.random.default_rng(0)
    mask = rng.random((9, 11, 7)) < 0.3
    other = AFFINE.copy()
    other[:3, 3] = apply_affine(AFFINE, np.array([2.0, -3.0, 1.0]))
    found = resample_mask(LabelMap(mask, AFFINE), (20, 20, 20), other)
    expected = np.zeros((20, 20, 20), bool)
    expected[:7, 3:14, :6] = mask[2:, :, 1:]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "axes, ways",
    [((0, 1, 2), (-1, -1, 1)), ((0, 1, 2), (1, 1, -1)), ((2, 0, 1), (1, 1, 1)),
     ((1, 0, 2), (1, -1, -1)), ((2, 1, 0), (-1, 1, -1))],
)  # fmt: skip
@pytest.mark.parametrize("base", [AFFINE, turned()], ids=["straight", "oblique"])
def test_the_same_lattice_in_another_order_of_axes_is_exact(axes, ways, base):
    mask = np.random.default_rng(0).random((9, 11, 7)) < 0.3
    into = np.eye(4)  # index of the other way of storing it to index of the mask
    into[:3, :3] = np.eye(3)[:, list(axes)] * ways
    stored = mask.transpose(axes)[tuple(slice(None, None, way) for way in ways)]
    last = np.array(stored.shape) - 1
    into[:3, 3] = -into[:3, :3] @ np.where(np.array(ways) < 0, last, 0)
    other = base @ into
    found = resample_mask(LabelMap(mask, base), stored.shape, other)
    np.testing.assert_array_equal(found, stored)
    np.testing.assert_array_equal(resample_mask(LabelMap(stored, other), mask.shape, base), mask)
    # a part of it, and room around it
    part = resample_mask(LabelMap(mask, base), (4, 5, 3), other @ translation((2, 1, 1)))
    np.testing.assert_array_equal(part, stored[2:6, 1:6, 1:4])
    wide = tuple(int(n) for n in last + 6)
    room = resample_mask(LabelMap(mask, base), wide, other @ translation((-2, -3, -1)))
    expected = np.pad(stored, [(2, 3), (3, 2), (1, 4)])
    np.testing.assert_array_equal(room, expected)


def test_voxels_twice_as_large_are_another_lattice():
    mask = np.zeros((20, 20, 20), bool)
    mask[4:16, 4:16, 4:16] = True
    coarse = AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0])
    found = resample_mask(LabelMap(mask, AFFINE), (10, 10, 10), coarse)
    assert abs(found.sum() * 8 / mask.sum() - 1) < 0.3


def test_there_and_back_over_an_oblique_grid():
    whole, _ = broken_tube(radius=1.5)
    far = turned()
    corners = np.array(np.meshgrid(*[(0, n) for n in whole.shape])).reshape(3, -1).T
    index = apply_affine(np.linalg.inv(far) @ AFFINE, corners)
    far[:3, 3] = apply_affine(far, index.min(axis=0) - 2)
    shape = tuple(int(n) for n in np.ceil(np.ptp(index, axis=0)) + 4)
    there = resample_mask(LabelMap(whole, AFFINE), shape, far)
    assert there.sum() * abs(np.linalg.det(far)) == pytest.approx(
        whole.sum() * SPACING**3, rel=0.05
    )
    back = resample_mask(LabelMap(there, far), whole.shape, AFFINE)
    assert dice(back, whole) > 0.9 and count_components(back) == 1


@pytest.mark.parametrize("step", [(1, 1, 0), (1, 0, -1), (1, 1, 1), (1, -1, 1)])
def test_voxels_that_touch_at_an_edge_or_a_corner_stay_connected(step):
    mask = np.zeros((20, 40, 40), bool)
    for k in range(10):
        mask[tuple(np.array([4, 20, 20]) + k * np.array(step))] = True
    fine = AFFINE.copy()
    fine[:3, :3] *= 0.37
    found = resample_mask(LabelMap(mask, AFFINE), (54, 108, 108), fine)
    assert count_components(mask) == 1 and count_components(found) == 1
    two = mask.copy()
    two[tuple(np.array([4, 20, 20]) + 5 * np.array(step))] = False
    assert count_components(resample_mask(LabelMap(two, AFFINE), (54, 108, 108), fine)) == 2


def test_an_empty_mask_and_one_that_lies_elsewhere():
    empty = np.zeros((5, 5, 5), bool)
    assert not resample_mask(LabelMap(empty, AFFINE), (4, 4, 4), turned()).any()
    empty[2, 2, 2] = True
    away = turned(shift=(900.0, 0, 0))
    assert not resample_mask(LabelMap(empty, AFFINE), (4, 4, 4), away).any()


def test_the_real_pair_of_grids_is_placed_by_its_affines(real_data):
    base = load_label_map(real_data / "chest_heart1_aorta6_pa7.nii.gz")
    other = load_label_map(real_data / "chest_pulmonary_artery_other_grid.nii.gz")
    found = resample_mask(other, base.data.shape, base.affine)
    assert dice(found, base.data == 7) > 0.9
    shifted = base.affine.copy()
    shifted[:3, 3] += 0.4 * base.spacing
    between = resample_mask(other, base.data.shape, shifted)
    assert dice(between, base.data == 7) > 0.85


def test_a_class_on_its_isotropic_grid():
    data = np.zeros((40, 30, 12), np.uint8)
    data[10:30, 12:16, 4:7] = 9
    data[:, 20:, :] = 1
    label_map = LabelMap(data, turned(spacing=(0.5, 0.5, 1.5)))
    mask, affine = isotropic_mask(label_map, 9, 0.5, 4.0)
    np.testing.assert_allclose(spacing_of(affine), 0.5)
    assert mask.sum() * 0.125 == pytest.approx((data == 9).sum() * 0.375, rel=0.1)
    centre = apply_affine(affine, np.argwhere(mask).mean(axis=0))
    expected = apply_affine(label_map.affine, np.argwhere(data == 9).mean(axis=0))
    assert np.linalg.norm(centre - expected) < 0.3
    assert isotropic_mask(label_map, 3, 0.5, 4.0) is None
    back = mask_of(LabelMap(mask.astype(np.uint8), affine), 1, data.shape, label_map.affine)
    assert dice(back, data == 9) > 0.85
    distance = distance_on_grid(label_map, [1], mask.shape, affine)
    assert distance[tuple(np.argwhere(mask).T)].min() == pytest.approx(2.5, abs=0.6)
    assert distance_on_grid(label_map, [5], mask.shape, affine) is None


def test_signed_distances_count_from_the_faces():
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15] = True
    distance = signed_distance(mask, 0.5, 2.0)
    assert distance[4, 9, 9] == pytest.approx(0.25) and distance[5, 9, 9] == pytest.approx(-0.25)
    assert distance[7, 9, 9] == pytest.approx(-1.25) and distance[0, 9, 9] == 2.0
    assert signed_distance(np.zeros_like(mask), 0.5, 2.0).min() == 2.0


def test_no_voxel_near_the_active_cells_is_passed_over():
    """Coarse to fine against asking every voxel."""
    rng = np.random.default_rng(1)
    active = np.zeros((33, 21, 27), bool)
    active[tuple(rng.integers(0, active.shape, (120, 3)).T)] = True
    shape, wanted = (61, 45, 38), turned(spacing=(0.3, 0.4, 0.5), shift=(9.0, -1.0, 0.5))
    voxels, places = voxels_near(active, AFFINE, shape, wanted)
    every = np.indices(shape).reshape(3, -1).T
    index = apply_affine(np.linalg.inv(AFFINE) @ wanted, every.astype(float))
    cell = np.rint(index).astype(int)
    inside = ((cell >= 0) & (cell < active.shape)).all(axis=1)
    inside[inside] = active[tuple(cell[inside].T)]
    assert 50 < inside.sum() < len(every) / 20
    order = np.lexsort(voxels.T[::-1])
    np.testing.assert_array_equal(voxels[order], every[inside])
    np.testing.assert_allclose(places[order], index[inside], atol=1e-4)
