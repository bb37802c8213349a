"""Label maps on the coarse grid: volumes, places, no gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cardiform.ldm.cube import Cube, class_centroids, edge_mm, labelled_box, on_cube
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
    assert ((both > 0) == (on_cube(ball(grid()), cube, [2]) > 0)).all()
    assert set(np.unique(both)) == {0, 1, 2}
    assert set(np.unique(on_cube(given, cube, [1]))) == {0, 1}


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
