"""Corners, crops and the voxels that two grids share, on turned, mirrored and uneven grids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cardiform.geometry.frame import apply_affine
from cardiform.geometry.grids import box_corners, covered, cropped_affine, lattice, planes, whole

SHAPE = (5, 7, 4)


def grid(turn=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), flips=(1, 1, 1), shift=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    affine[:3, :3] = axes * np.multiply(spacing, flips)
    affine[:3, 3] = shift
    return affine


AFFINES = {
    "straight": grid(shift=(3.0, -2.0, 10.0)),
    "mirrored": grid(spacing=(0.5, 0.8, 2.0), flips=(-1, -1, 1), shift=(40.0, 30.0, -9.0)),
    "swapped": grid(spacing=(0.7, 1.1, 0.4))[:, [2, 0, 1, 3]],
    "turned": grid((12.0, -8.0, 70.0), (0.4, 0.9, 1.7), (1, -1, 1), (-5.0, 6.0, 7.0)),
}
each_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)


def test_a_lattice_runs_like_an_array():
    points = lattice([0, 1], [5, 6, 7], [2, 4])
    assert points.tolist() == [list(p) for p in itertools.product((0, 1), (5, 6, 7), (2, 4))]
    assert lattice(*map(np.arange, SHAPE)).tolist() == list(map(list, np.ndindex(*SHAPE)))
    assert lattice(*[np.zeros(2, np.int32)] * 3).dtype == np.int32


def test_a_box_has_eight_corners():
    corners = box_corners((-1, 2, 0), (3, 9, 0.5))
    assert corners.shape == (8, 3)
    assert {tuple(c) for c in corners} == set(itertools.product((-1, 3), (2, 9), (0, 0.5)))
    assert (box_corners(np.array([1, 2, 3]), np.array([4, 5, 6])).dtype.kind) == "i"


@each_affine
@pytest.mark.parametrize("start", [(0, 0, 0), (2, 1, 3), (-3, 0.5, 1)])
@pytest.mark.parametrize("step", [1, 2, np.array([0.5, 3.0, 2.0])])
def test_voxels_of_a_crop_lie_where_they_lay(affine, start, step):
    before = affine.copy()
    made = cropped_affine(affine, start, step)
    index = lattice(*map(np.arange, (3, 2, 4)))
    there = apply_affine(affine, np.asarray(start) + index * step)
    np.testing.assert_allclose(apply_affine(made, index), there, atol=1e-12)
    np.testing.assert_array_equal(affine, before)


def test_a_whole_crop_is_the_grid_itself():
    for affine in AFFINES.values():
        np.testing.assert_array_equal(cropped_affine(affine, np.zeros(3)), affine)


@each_affine
@pytest.mark.parametrize("other", AFFINES.values(), ids=AFFINES)
def test_no_voxel_within_a_box_is_left_out(affine, other):
    low, high = np.array([1.0, 0.0, 2.0]), np.array([4.0, 5.5, 2.5])
    far = other.copy()  # its middle voxel lies in the middle of the box
    middle = apply_affine(affine, (low + high) / 2)
    far[:3, 3] = middle - far[:3, :3] @ np.array([6, 8, 7])
    shape = (13, 17, 15)
    into = np.linalg.inv(far) @ affine
    box = covered(low, high, into, shape)
    voxels = lattice(*map(np.arange, shape))
    back = apply_affine(np.linalg.inv(into), voxels)
    inside = voxels[((back >= low) & (back <= high)).all(axis=1)]
    assert len(inside)
    for axis, (part, size) in enumerate(zip(box, shape)):
        assert 0 <= part.start <= inside[:, axis].min()
        assert inside[:, axis].max() < part.stop <= size
        corners = apply_affine(into, box_corners(low, high))[:, axis]
        first, last = np.clip([corners.min(), corners.max()], 0, size - 1)
        assert first - 1 < part.start <= first, "the voxel before it too, and no other"
        assert last <= part.stop - 1 < last + 1, "the voxel behind it too, and no other"


def test_a_box_beside_the_grid_covers_nothing():
    for shift in (-40.0, 40.0):
        for axis in range(3):
            into = grid(shift=np.eye(3)[axis] * shift)
            box = covered((0, 0, 0), (3, 4, 2), into, SHAPE)
            assert box[axis].stop == box[axis].start
            assert all(0 <= s.start <= s.stop <= n for s, n in zip(box, SHAPE))


def test_planes_go_through_a_box_once_in_order():
    box = (slice(2, 4), slice(1, 4), slice(3, 5))
    found = list(planes(box))
    assert [p.shape for p in found] == [(6, 3)] * 2 and found[0].dtype == np.float64
    expected = lattice(*(np.arange(s.start, s.stop) for s in box))
    np.testing.assert_array_equal(np.concatenate(found), expected)
    np.testing.assert_array_equal(
        np.concatenate(list(planes(whole(SHAPE)))), list(np.ndindex(*SHAPE))
    )
    assert list(planes((slice(3, 3), slice(0, 2), slice(0, 2)))) == []
    assert next(planes((slice(0, 1), slice(2, 2), slice(0, 2)))).shape == (0, 3)
