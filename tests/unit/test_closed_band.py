"""Bands closed to solids: one wall, the right volume, the same place on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from bands import FRAME, ball_band
from scipy import ndimage

from cardiform.geometry.closed_band import Solid, fill_sign, voxel_affine
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.surface import is_watertight, signed_volume

RADIUS = 0.5
CENTER = np.array([0.1, -0.2, 0.05])


@pytest.fixture(scope="module")
def solid() -> Solid:
    band = ball_band(RADIUS, 64, CENTER)
    return Solid.of_band(band.coords, band.sdf.astype(np.float32), 64, band.frame)


def test_the_surface_is_one_wall_of_the_right_size_and_place(solid) -> None:
    """Filling the inside with +1 would give a second wall and take its volume away."""
    mesh = solid.surface()
    assert is_watertight(mesh)
    radius = RADIUS / FRAME.scale
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    distance = np.linalg.norm(mesh.vertices - FRAME.to_world(CENTER), axis=1)
    assert np.abs(distance - radius).max() < 0.1 * 2 / 64 / FRAME.scale


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_on_another_grid_it_is_the_same_ball(solid, mirror) -> None:
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, mirror]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.5, 2.0, 2.5]
    affine[:3, 3] = FRAME.to_world(CENTER) - affine[:3, :3] @ np.array([40, 30, 25])
    shape = (90, 60, 50)
    where, values = solid.on_grid(shape, affine)
    inside = np.zeros(shape, bool)
    inside[where] = values < 0
    index = np.indices(shape).reshape(3, -1).T
    world = apply_affine(affine, index.astype(float))
    truth = np.linalg.norm(FRAME.to_unit(world) - CENTER, axis=1) < RADIUS
    wrong = inside.ravel() != truth
    assert truth.sum() > 8_000
    assert wrong.mean() < 1e-4


def test_a_grid_elsewhere_gets_nothing(solid) -> None:
    affine = np.eye(4)
    affine[:3, 3] = 1000
    where, values = solid.on_grid((5, 6, 7), affine)
    assert values.size == 0 and np.zeros((5, 6, 7))[where].size == 0


def test_lookup_gives_the_stored_values_and_the_sides(solid) -> None:
    band = ball_band(RADIUS, 64, CENTER)
    found = solid.lookup(band.coords, 64, band.frame)
    np.testing.assert_allclose(found, band.sdf, atol=2e-4)
    middle = np.rint((CENTER + 1) * 32 - 0.5).astype(int)
    corner = np.zeros(3, int)
    assert solid.lookup(np.stack([middle, corner]), 64, band.frame).tolist() == [-1, 1]


def test_no_voxels_make_no_surface() -> None:
    empty = Solid.of_band(np.zeros((0, 3), np.uint16), np.zeros(0, np.float32), 64, FRAME)
    assert len(empty.surface().faces) == 0


def test_a_value_of_zero_makes_no_triangle_without_area() -> None:
    band = ball_band(RADIUS, 32)
    sdf = np.where(np.abs(band.sdf) < 0.05, 0, band.sdf).astype(np.float32)
    mesh = Solid.of_band(band.coords, sdf, 32, band.frame).surface()
    assert is_watertight(mesh)
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)


def test_voxel_centres_are_where_the_band_says() -> None:
    affine = voxel_affine(64, FRAME)
    np.testing.assert_allclose(
        FRAME.to_unit(apply_affine(affine, np.array([[0.0, 0, 0], [63, 63, 63]]))),
        [[-63 / 64] * 3, [63 / 64] * 3],
    )


def shell(radius=20, thickness=2.0, size=56):
    index = np.stack(np.indices((size,) * 3), axis=-1) - size / 2
    distance = np.linalg.norm(index, axis=-1) - radius
    coords = np.argwhere(np.abs(distance) < thickness)
    return coords, distance[tuple(coords.T)] < 0, distance < 0


def test_fill_gives_the_solid_without_a_second_wall():
    coords, inside, truth = shell()
    np.testing.assert_array_equal(fill_sign(coords, inside, truth.shape), truth)


def test_fill_does_not_leak_through_holes():
    coords, inside, truth = shell()
    rng = np.random.default_rng(0)
    pole = np.linalg.norm(coords - np.array([28, 28, 48]), axis=1) < 4
    kept = (rng.random(len(coords)) > 0.02) & ~pole
    filled = fill_sign(coords[kept], inside[kept], truth.shape)
    assert 2 * (filled & truth).sum() / (filled.sum() + truth.sum()) > 0.99
    assert ndimage.label(filled)[1] < 4


def test_a_gap_between_two_solids_is_outside_although_one_direction_says_inside():
    """Two slabs whose facing outer walls were not predicted."""
    truth = np.zeros((40, 20, 20), bool)
    truth[5:15, 5:15, 5:15] = truth[25:35, 5:15, 5:15] = True
    band = ndimage.binary_dilation(truth, iterations=2) & ~ndimage.binary_erosion(
        truth, iterations=2
    )
    band[15:25] = False
    coords = np.argwhere(band)
    np.testing.assert_array_equal(fill_sign(coords, truth[tuple(coords.T)], truth.shape), truth)


def test_fill_of_nothing():
    assert not fill_sign(np.zeros((0, 3), int), np.zeros(0, bool), (4, 4, 4)).any()
