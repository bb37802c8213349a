"""Label maps under any affine: places, files, boxes, surfaces, resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_files import write_nifti
from scipy import ndimage
from strategies import ORIENTATIONS, affines, blobs, label_maps, turned

from cardiform.anatomy.components import count_components, largest, without_small
from cardiform.errors import InputError
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.isotropic import mask_of
from cardiform.geometry.lookup import distances
from cardiform.geometry.resample import resample_mask
from cardiform.geometry.sdf import class_boxes, class_fields
from cardiform.geometry.surface import is_watertight, signed_volume
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import (
    LabelMap,
    axes_like,
    load_label_map,
    save_label_map,
    save_like,
    spacing_of,
)
from cardiform.volumes.affines import check_affine

TABLE = LabelTable()


@given(affines(0.9) | affines(0.9, 0.8), label_maps(values=(0, 1, 7, 255), most=12))
def test_a_file_keeps_voxels_and_places_under_any_affine(tmp_path, affine, data):
    path = tmp_path / "labels.nii.gz"
    save_label_map(path, data, affine)
    found = load_label_map(path)
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.affine, affine, rtol=1e-6, atol=1e-4)


@given(
    affines() | affines(0.9), label_maps(most=12), st.sampled_from([(1, 1e-3), (2, 1), (3, 1e3)])
)
def test_a_file_with_both_forms_in_any_unit_is_read_in_millimetres(tmp_path, affine, data, unit):
    """nibabel leaves a shear out of the qform."""
    code, factor = unit
    stored = affine.copy()
    stored[:3] *= factor
    path = write_nifti(tmp_path / "labels.nii", data, stored, xyzt_units=code)
    np.testing.assert_allclose(load_label_map(path).affine, affine, rtol=1e-6, atol=1e-4)
    save_like(tmp_path / "like.nii", data, path)
    np.testing.assert_allclose(
        load_label_map(tmp_path / "like.nii").affine, affine, rtol=1e-6, atol=1e-4
    )


@given(affines(max_shear_deg=0.9))
def test_from_voxel_to_millimetre_and_back_is_the_same_voxel(affine):
    voxels = np.indices((3, 4, 5)).reshape(3, -1).T.astype(np.float64)
    world = apply_affine(affine, voxels)
    np.testing.assert_allclose(apply_affine(np.linalg.inv(affine), world), voxels, atol=1e-8)
    # as the homogeneous product, axis by axis
    np.testing.assert_allclose(world, (affine @ np.c_[voxels, np.ones(60)].T).T[:, :3])
    steps = np.linalg.norm(world[1:] - world[:-1], axis=1)
    assert np.isclose(steps.min(), spacing_of(affine)[2]) or (steps >= 0.2 - 1e-9).all()


@given(st.one_of(affines(max_shear_deg=0.95), affines(1.05, 1.05), affines(60, 1.05)))
def test_an_affine_is_taken_up_to_a_shear_of_one_degree(affine):
    axes = affine[:3, :3] / spacing_of(affine)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if np.degrees(np.arcsin(min(cosine, 1.0))) <= 1:
        check_affine("x.nii", affine)
    else:
        with pytest.raises(InputError, match="sheared"):
            check_affine("x.nii", affine)


@given(label_maps(most=5), affines(0.9), st.sampled_from(ORIENTATIONS))
def test_the_axes_of_an_image_can_be_put_as_those_of_another(data, affine, axes):
    other_data, other_affine = turned(data, affine, axes)
    shape, found = axes_like(other_data.shape, other_affine, affine)
    assert shape == data.shape
    np.testing.assert_allclose(found, affine, atol=1e-9)
    shape, found = axes_like(data.shape, affine, affine)
    assert shape == data.shape and (found == affine).all()


@given(label_maps(values=(0, 1, 2, 9, 255)), st.sampled_from(ORIENTATIONS), st.booleans())
def test_a_box_holds_its_class_and_nothing_is_to_spare(data, axes, fortran):
    data, _ = turned(data, np.eye(4), axes)  # views in any memory order
    data = np.asfortranarray(data) if fortran else data
    boxes = class_boxes(data)
    assert set(boxes) == set(np.unique(data)) - {0}
    for value, box in boxes.items():
        index = np.argwhere(data == value)
        assert [s.start for s in box] == index.min(axis=0).tolist()
        assert [s.stop for s in box] == (index.max(axis=0) + 1).tolist()


@settings(max_examples=15)
@given(label_maps(most=5), affines())
def test_a_crop_puts_its_voxels_where_the_image_has_them(data, affine):
    fields = class_fields(LabelMap(data, affine), TABLE, MeshesOptions())
    for value, field in fields.items():
        inside = np.argwhere(field.mask())
        voxels = np.argwhere(data == value)
        np.testing.assert_array_equal(inside + field.origin, voxels)
        np.testing.assert_allclose(
            apply_affine(field.crop_affine, inside.astype(float)),
            apply_affine(affine, voxels.astype(float)),
            atol=1e-6,
        )
        assert field.voxels == len(voxels)
        volume = len(voxels) * abs(np.linalg.det(affine[:3, :3]))
        np.testing.assert_allclose(field.voxel_volume, volume)


@pytest.mark.parametrize("part", range(4))  # all 48 orientations, twelve at a time
@settings(max_examples=3)
@given(blobs(), affines())
def test_a_surface_faces_outward_and_lies_where_it_lay_under_any_orientation(part, mask, affine):
    data = mask.astype(np.uint8)
    first = class_fields(LabelMap(data, affine), TABLE, MeshesOptions())[1]
    volume = signed_volume(first.surface())
    places = apply_affine(affine, np.random.default_rng(0).uniform(0, 8, (50, 3)))
    truth = distances([first], places)
    for axes in ORIENTATIONS[part::4]:
        other_data, other_affine = turned(data, affine, axes)
        field = class_fields(LabelMap(other_data, other_affine), TABLE, MeshesOptions())[1]
        mesh = field.surface()
        assert is_watertight(mesh) and signed_volume(mesh) > 0
        # marching cubes cuts ambiguous cells another way when they are turned
        np.testing.assert_allclose(signed_volume(mesh), volume, rtol=0.04)
        tolerance = 0.02 * field.spacing.min()
        np.testing.assert_allclose(distances([field], places), truth, atol=tolerance)


@given(label_maps(), affines(), st.tuples(*[st.integers(-2, 2)] * 3))
def test_a_label_map_resampled_onto_itself_is_itself(data, affine, shift):
    label_map = LabelMap(data, affine)
    for value in class_boxes(data):
        here = mask_of(label_map, value, data.shape, affine)
        np.testing.assert_array_equal(here, data == value)
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, np.array(shift, float))
    there = resample_mask(LabelMap(data > 0, affine), data.shape, moved)
    index = np.argwhere(data) - shift
    index = index[((index >= 0) & (index < data.shape)).all(axis=1)]
    np.testing.assert_array_equal(np.argwhere(there), index[np.lexsort(index.T[::-1])])


@given(blobs(), affines(), st.sampled_from(ORIENTATIONS))
def test_a_mask_on_a_turned_grid_keeps_its_voxels(mask, affine, axes):
    """Where two voxels touch at an edge alone, those on the way between them may come along."""
    data, grid = turned(mask, affine, axes)
    found = resample_mask(LabelMap(mask, affine), data.shape, grid)
    assert (found | ~data).all(), "no voxel is lost"
    more = np.argwhere(found & ~data)
    assert len(more) <= 8
    for voxel in more:
        around = tuple(slice(max(v - 1, 0), v + 2) for v in voxel)
        assert data[around].sum() >= 2


@given(label_maps(values=(0, 1)), st.sampled_from(ORIENTATIONS), st.integers(1, 6))
def test_components_are_counted_alike_from_all_sides(data, axes, least):
    mask = data > 0
    other, _ = turned(mask, np.eye(4), axes)
    number = count_components(mask)
    numbers, found = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count_components(other) == number == found >= 1
    assert count_components(largest(mask, 1)) == 1
    np.testing.assert_array_equal(largest(mask, number), mask)
    cleaned = without_small(mask, least)
    np.testing.assert_array_equal(cleaned, mask & (np.bincount(numbers.ravel())[numbers] >= least))
    np.testing.assert_array_equal(without_small(cleaned, least), cleaned)
