"""Label maps on the coarse grid: volumes, places, no gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cardiform.ldm.cube import (
    WITH_VESSELS,
    Cube,
    class_centroids,
    edge_mm,
    heart_centers,
    labelled_box,
    on_cube,
    reach_mm,
)
from cardiform.volumes import LabelMap

TURN = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()


def ball(affine, shape=(64, 64, 64), center=(3.0, -2.0, 5.0), radius=18.0, split=False):
    """A ball of class 2; its lower half of class 1 where ``split``."""
    index = np.stack(np.indices(shape), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(world - center, axis=-1) < radius
    data = np.where(inside, 2, 0).astype(np.uint8)
    if split:
        data[inside & (world[..., 2] < center[2])] = 1
    return LabelMap(data, affine)


def grid(axes=None, spacing=0.8, shape=(64, 64, 64)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


@pytest.mark.parametrize(
    "axes", [None, TURN, TURN @ np.diag([-1, 1, 1])], ids=["ras", "turned", "mirrored"]
)
def test_volume_and_place_stay_whatever_the_grid(axes):
    given = ball(grid(axes))
    cube = Cube(np.array([3.7, -2.9, 5.4]), 2.5, 24)
    coarse = on_cube(given, cube, [1, 2])
    true = 4 / 3 * np.pi * 18**3
    assert (coarse == 2).sum() * 2.5**3 == pytest.approx(true, rel=0.02)
    index = np.argwhere(coarse == 2).mean(axis=0)
    middle = index @ cube.affine[:3, :3].T + cube.affine[:3, 3]
    assert np.abs(middle - (3, -2, 5)).max() < 0.3


def test_touching_classes_leave_no_gap_and_others_are_background():
    given = ball(grid(), split=True)
    cube = Cube(np.array([3.0, -2.0, 5.7]), 4.0, 16)  # the border runs through voxels
    both = on_cube(given, cube, [1, 2])
    whole = on_cube(ball(grid()), cube, [2]) > 0
    assert (both > 0).sum() == whole.sum()
    inner = ndimage.binary_erosion(whole)
    assert (both[inner] > 0).all(), "no gap where they touch"
    assert not both[~ndimage.binary_dilation(whole)].any()
    assert set(np.unique(both)) == {0, 1, 2}
    assert set(np.unique(on_cube(given, cube, [1]))) == {0, 1}


SHAPES = [1, 2, 3, 4]  # a ball in a shell, and two boxes side by side


def shapes(spacing, axes, rng):
    """Their label map, the middle anywhere within a voxel."""
    shape = np.array([96, 66, 66]) // spacing
    affine = grid(axes, spacing, shape.astype(int))
    affine[:3, 3] += rng.uniform(-spacing, spacing, 3)
    x, y, z = (np.indices(shape.astype(int)).T * spacing + rng.uniform(0, spacing, 3)).T
    away = np.sqrt((x - 33) ** 2 + (y - 33) ** 2 + (z - 33) ** 2)
    data = np.where(away < 20, 1, np.where(away < 30, 2, 0)).astype(np.uint8)
    data[(x > 66) & (x < 90) & (y > 6) & (z > 8) & (y < 60) & (z < 58)] = 3
    data[(data == 3) & (y > 33)] = 4
    return LabelMap(data, affine)


def volume_ratios(spacing, edge, turned, placements=6):
    """(4,) mean volume on the cube over the volume in the label map, of each of SHAPES."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(placements):
        given = shapes(
            spacing, Rotation.random(random_state=rng).as_matrix() if turned else None, rng
        )
        cube = Cube(rng.uniform(-edge, edge, 3), edge, int(150 / edge))
        made, true = (
            np.bincount(x.ravel(), minlength=5)[1:]
            for x in (on_cube(given, cube, SHAPES), given.data)
        )
        found.append(made * edge**3 / (true * spacing**3))
    return np.mean(found, axis=0)


@pytest.mark.parametrize(("spacing", "edge"), [(3.0, 4.5), (3.0, 6.0), (2.0, 6.7)])
def test_classes_neither_grow_nor_shrink(spacing, edge):
    """By a rule that fills where half of the points are inside, surfaces on both sides of a class
    win the ties of an even number: shells grew by 4 %, boxes by 12 to 20 %."""
    assert volume_ratios(spacing, edge, turned=True) == pytest.approx(1.0, abs=0.01)
    assert volume_ratios(spacing, edge, turned=False)[:2] == pytest.approx(1.0, abs=0.01)


def test_of_two_ends_that_halve_a_voxel_one_is_won():
    data = np.zeros((16, 16, 16), np.uint8)
    data[3:13, 3:13, 3:13] = 1
    cube = Cube(np.zeros(3), 2.0, 8)
    made = on_cube(LabelMap(data, grid(spacing=1.0, shape=(16,) * 3)), cube, [1]) > 0
    assert made.sum() == pytest.approx(5**3, abs=2)
    assert np.ptp(np.argwhere(made), axis=0).tolist() == [4, 4, 4]


def test_boxes_along_the_axes_neither_grow_nor_shrink():
    """A whole side of a box is won or lost at once; on average over the placements neither."""
    ratios = volume_ratios(3.0, 4.5, turned=False, placements=24)
    assert ratios[2:] == pytest.approx(1.0, abs=0.03)


def test_shares_are_counted_not_one_point():
    # a plate of one fine voxel in eight: nearest neighbour would see it or miss it whole
    data = np.zeros((32, 32, 32), np.uint8)
    data[:, :, ::8] = 1
    cube = Cube(np.zeros(3), 4.0, 8)
    assert not on_cube(LabelMap(data, grid(spacing=1.0, shape=(32,) * 3)), cube, [1]).any()
    data[:, :, :] = 1
    data[:, :, ::8] = 0
    assert on_cube(LabelMap(data, grid(spacing=1.0, shape=(32,) * 3)), cube, [1]).all()


def test_box_of_a_turned_grid_is_tight():
    box = labelled_box(ball(grid(TURN)), [2])
    assert np.abs(box.mean(axis=0) - (3, -2, 5)).max() < 0.5
    assert np.abs(box[1] - box[0] - 36).max() < 2.5
    assert labelled_box(ball(grid()), [7]) is None


def test_edge_holds_the_largest_heart_with_a_rim():
    edge = edge_mm(np.array([[100.0, 80, 90], [60, 110.5, 70]]), 32)
    assert edge >= 110.5 * 32 / 28 and edge - 110.5 * 32 / 28 <= 1.0
    assert edge == int(edge)


def test_centroids():
    found = class_centroids(ball(grid(TURN), split=True), {"low": 1, "high": 2, "none": 9})
    assert set(found) == {"low", "high"}
    assert found["low"][2] < 5 < found["high"][2]
    assert np.abs((found["low"] + found["high"]) / 2 - (3, -2, 5)).max() < 0.2


def test_one_heart_far_larger_than_all_others_is_not_what_the_grid_is_made_for():
    usual = np.full((40, 3), 150.0)
    assert edge_mm(usual, 32) == 172.0
    largest = usual.copy()
    largest[3, 1] = 1.15 * 150
    assert edge_mm(largest, 32) >= 1.15 * 150 * 32 / 28, "what is a little larger is held"
    largest[3, 1] = 400.0
    assert edge_mm(largest, 32) == edge_mm(np.full((1, 3), 1.15 * 150.0), 32)


def test_reach_is_what_a_cube_about_the_middle_needs():
    box = np.array([[-10.0, 0, 5], [30, 20, 9]])
    assert reach_mm(box, np.array([0.0, 10, 0])).tolist() == [60.0, 20.0, 18.0]


PLACES = {
    "left_ventricle": (-40.0, 0, 0), "right_ventricle": (10.0, 30, 0),
    "left_atrium": (0.0, -20, 30), "right_atrium": (30.0, -10, 20),
}  # fmt: skip


def at(shift=(0, 0, 0), **more):
    places = {**PLACES, **more}
    return {n: np.array(p, float) + shift for n, p in places.items() if p is not None}


def test_the_middle_follows_from_the_chambers_whatever_else_is_seen():
    middle = np.mean(list(PLACES.values()), axis=0)
    plain = heart_centers([at(), at((5, 6, 7))], PLACES)
    assert np.allclose(plain, [middle, middle + (5, 6, 7)])
    seen = heart_centers([at(aorta=(0, -40, 90.0)), at(aorta=(0, -40, -60.0))], [*PLACES, "aorta"])
    assert (seen[0] == seen[1]).all() and np.allclose(seen[0], middle + WITH_VESSELS)


def test_a_heart_that_lacks_chambers_is_placed_by_the_others():
    whole = [at((k, 2 * k, 0)) for k in range(3)]
    lacking = at((9, 9, 9), left_ventricle=None, right_ventricle=None)
    vessel = {"aorta": np.array((0, -40, 90.0)) + (4, 4, 4)}
    found = heart_centers([*whole, lacking, at(aorta=(0, -40, 90.0)), vessel], PLACES)
    middle = np.mean(list(PLACES.values()), axis=0)
    assert np.allclose(found[3], middle + 9, atol=1e-3)
    assert np.allclose(found[5], middle + 4, atol=1e-3), "by its vessels alone"
    alone = heart_centers([{"lung": np.array([1.0, 2, 3]), "liver": np.array([3.0, 2, 1])}], [])
    assert alone.tolist() == [[2.0, 2.0, 2.0]], "a table without chambers"
