"""Distances of masks are computed in a box, and are those of the whole grid."""

from __future__ import annotations

import edt
import numpy as np
import pytest
from scipy import ndimage

from cardiform.geometry.distances import box_about, depth_in, distance_to, signed_distance

SHAPE, EDGES = (14, 19, 23), (0.7, 0.5, 1.1)


def masks():
    """By name: a few odd ones."""
    rng = np.random.default_rng(0)
    one, border, block = (np.zeros(SHAPE, bool) for _ in range(3))
    one[6, 7, 8] = True
    border[0, :5, -4:] = True
    block[3:9, 4:12, 5:20] = rng.random((6, 8, 15)) < 0.6
    most = np.ones(SHAPE, bool)
    most[5, 5, 5] = False
    return {"voxel": one, "at the border": border, "block": block, "all but one": most}


def whole(mask, spacing):
    """mm to the nearest voxel of a mask, by scipy."""
    return ndimage.distance_transform_edt(~mask, sampling=np.broadcast_to(spacing, 3))


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("spacing", [0.6, EDGES])
def test_distances_equal_those_of_the_whole_grid(name, spacing):
    mask = masks()[name]
    np.testing.assert_allclose(distance_to(mask, spacing), whole(mask, spacing), rtol=1e-5)
    np.testing.assert_allclose(depth_in(mask, spacing), whole(~mask, spacing), rtol=1e-5)
    assert distance_to(mask, spacing).dtype == depth_in(mask, spacing).dtype == np.float32


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("reach", [0.0, 0.6, 1.3, 3.0])
def test_what_is_within_reach_is_exact_and_the_rest_is_beyond(name, reach):
    mask = masks()[name]
    found, expected = distance_to(mask, EDGES, reach), whole(mask, EDGES)
    near = expected <= reach
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-5)
    assert (found[~near] > reach).all()


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("limit", [0.3, 1.0, 2.5])
def test_signed_distances_are_clipped_ones_of_the_whole_grid(name, limit):
    mask = masks()[name]
    expected = np.where(mask, 0.3 - whole(~mask, 0.6), whole(mask, 0.6) - 0.3)
    found = signed_distance(mask, 0.6, limit)
    np.testing.assert_allclose(found, np.clip(expected, -limit, limit), rtol=1e-5, atol=1e-6)


def test_nothing_and_everything():
    nothing, everything = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert box_about(nothing, 2) is None
    assert np.isinf(distance_to(nothing, 0.6)).all() and not depth_in(nothing, 0.6).any()
    assert not distance_to(everything, 0.6).any() and np.isinf(depth_in(everything, 0.6)).all()
    assert (signed_distance(nothing, 0.6, 2.0) == 2.0).all()
    assert (signed_distance(everything, 0.6, 2.0) == -2.0).all()


def test_a_box_ends_at_the_array():
    assert box_about(masks()["at the border"], 3) == (slice(0, 4), slice(0, 8), slice(16, 23))


def test_the_order_of_the_axes_in_memory_is_kept():
    """In it depends how sums are rounded, and the grid that a vessel is measured on."""
    rng = np.random.default_rng(0)
    mask = np.asfortranarray(np.pad(rng.random((30, 9, 11)) < 0.9, 4))
    expected = edt.edt(mask, anisotropy=(0.37, 0.41, 0.53))
    np.testing.assert_array_equal(depth_in(mask, (0.37, 0.41, 0.53)), expected)
