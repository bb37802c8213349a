"""Surfaces of masks."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from cardiform.geometry.frame import apply_affine
from cardiform.geometry.mask_surface import blurred, class_surfaces, surface_of_mask
from cardiform.geometry.sdf import smooth_distance
from cardiform.geometry.surface import Mesh, is_watertight, signed_volume
from cardiform.labels import LabelClass
from cardiform.volumes import LabelMap

# mirrored, axes exchanged, uneven
AFFINE = np.array([[0, 0, -1.5, 9], [0.8, 0, 0, -4], [0, 1.1, 0, 2], [0, 0, 0, 1.0]])
VOXEL = 1.5 * 0.8 * 1.1
FIELDS = {
    "faces": functools.partial(blurred, sigma_vox=0),
    "blurred": functools.partial(blurred, sigma_vox=1.0),
    "smooth": functools.partial(smooth_distance, sigma_vox=1.0),
}


@pytest.fixture(scope="module")
def mask():
    """It reaches the border of the array on one side."""
    made = np.zeros((16, 12, 9), bool)
    made[0:10, 3:11, 2:8] = True
    return made


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_the_surface_is_closed_and_lies_where_the_mask_does(mask, field):
    mesh = surface_of_mask(mask, AFFINE, field, pad=3)
    assert is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(mask.sum() * VOXEL, rel=0.2)
    middle = apply_affine(AFFINE, np.argwhere(mask).mean(axis=0))
    box = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    np.testing.assert_allclose(box, middle, atol=0.1)


def test_pictures_show_vessels_of_two_voxels_and_chambers_alike():
    """A plain blur made the vessel a thirtieth as large."""
    data = np.zeros((40, 40, 60), np.uint8)
    data[4:24, 4:24, 10:30] = 1
    data[30, 30, 5:55] = data[31, 30, 5:55] = data[30, 31, 5:55] = data[29, 30, 5:55] = 2
    classes = [LabelClass(value=v, name=f"c{v}", title="", color="#000000") for v in (1, 2, 3)]
    block, vessel, absent = (
        Mesh(v, f) for v, f, _, _ in class_surfaces(LabelMap(data, np.eye(4)), classes)
    )
    for mesh, value in ((block, 1), (vessel, 2)):
        assert is_watertight(mesh)
        assert signed_volume(mesh) == pytest.approx((data == value).sum(), rel=0.25)
    assert not len(absent.faces)


def test_a_crop_and_every_second_voxel_lie_there_too(mask):
    crop = mask[0:16:2, 2:12:2, 1:9:2]
    mesh = surface_of_mask(crop, AFFINE, FIELDS["faces"], pad=1, start=(0, 2, 1), step=2)
    own = np.argwhere(crop).mean(axis=0) * 2 + (0, 2, 1)
    box = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    np.testing.assert_allclose(box, apply_affine(AFFINE, own), atol=1e-5)
    np.testing.assert_allclose(
        np.ptp(mesh.vertices, axis=0), 2 * np.array([1.5, 0.8, 1.1]) * (3, 5, 4), atol=1e-5
    )


def test_the_field_gets_the_rim_and_the_voxel_edges(mask):
    seen = []

    def field(padded, spacing):
        seen.append((padded, spacing))
        return FIELDS["faces"](padded, spacing)

    surface_of_mask(mask, AFFINE, field, pad=2, step=3)
    (padded, spacing), = seen  # fmt: skip
    np.testing.assert_array_equal(padded[2:-2, 2:-2, 2:-2], mask)
    assert padded.sum() == mask.sum()
    np.testing.assert_allclose(spacing, [2.4, 3.3, 4.5])


def test_nothing_has_no_surface(mask):
    mesh = surface_of_mask(np.zeros_like(mask), AFFINE, FIELDS["blurred"], pad=1)
    assert not len(mesh.faces) and not len(mesh.vertices)
    assert np.all(FIELDS["blurred"](mask, np.ones(3)) != 0)
