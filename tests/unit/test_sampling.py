"""The points of a case: shares of the classes, balance, reproducibility; and their check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardiform.errors import InputError
from cardiform.geometry.frame import Frame, apply_affine
from cardiform.geometry.points_check import check_points
from cardiform.geometry.sampling import (
    SurfaceSampler,
    area_quotas,
    case_points,
    inside_points,
    volume_points,
)
from cardiform.geometry.sdf import class_fields
from cardiform.geometry.surface import Mesh
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.volumes import LabelMap

TABLE = LabelTable()
OPTIONS = PointsOptions(
    surface_points=4000, min_class_points=300, near_points=6000, volume_points=3000
)


@pytest.fixture(scope="module")
def case():
    """A ball (3), a thin tube (9) and a single voxel (8): fields, meshes and frame."""
    index = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), axis=-1)
    data = np.zeros((40, 40, 40), np.uint8)
    data[np.linalg.norm(index - [15, 15, 20], axis=-1) < 11] = 3
    data[(np.linalg.norm(index[..., :2] - [33, 30], axis=-1) < 1.3) & (data == 0)] = 9
    data[2, 36, 4] = 8
    affine = np.diag([-0.8, 0.8, 1.0, 1.0])
    affine[:3, 3] = [100, -50, 7]
    fields = class_fields(LabelMap(data, affine), TABLE, MeshesOptions())
    meshes = {value: field.surface() for value, field in fields.items()}
    frame = Frame.around(np.concatenate([m.vertices for m in meshes.values()]))
    return fields, meshes, frame


def sampled(case, seed=0, options=OPTIONS):
    fields, meshes, frame = case
    return case_points(fields, meshes, frame, TABLE, options, np.random.default_rng(seed))


def test_what_is_drawn_passes_the_check(case):
    arrays, evidence = sampled(case)
    check_points(arrays, evidence, OPTIONS.near_sigma)
    assert arrays["near_sdf"].dtype == np.float16 and arrays["near_sdf"].shape == (6000, 10)
    annotated = np.isin(TABLE.values, (3, 8, 9))
    np.testing.assert_array_equal(arrays["annotated"], annotated)
    assert np.isnan(arrays["volume_sdf"][:, ~annotated]).all()
    assert np.isfinite(arrays["volume_sdf"][:, annotated]).all()


def test_small_classes_have_their_least_number(case):
    labels = sampled(case)[0]["surface_labels"]
    assert len(labels) == 4000
    assert (labels == 8).sum() == 300  # a voxel among thousands
    assert (labels == 9).sum() >= 300 and (labels == 3).sum() > 2000


def test_any_first_part_is_a_fair_sample(case):
    arrays = sampled(case)[0]
    for name in ("surface", "near"):
        labels = arrays[f"{name}_labels"]
        for value in (3, 8, 9):
            whole, first = (labels == value).mean(), (labels[: len(labels) // 5] == value).mean()
            assert first == pytest.approx(whole, abs=0.04)


def test_same_seed_same_points_other_seed_other_points(case):
    one, again, other = (sampled(case, seed)[0] for seed in (5, 5, 6))
    for name, array in one.items():
        np.testing.assert_array_equal(array, again[name])
    assert (one["surface_points"] != other["surface_points"]).any()


BALL = replace(OPTIONS, volume_radius=1.05)
WITHIN = replace(OPTIONS, volume_radius=1.05, volume_within=0.6)


def test_volume_points_fill_the_cube_the_ball_or_the_classes(case):
    for options, corners in ((OPTIONS, True), (BALL, False), (WITHIN, False)):
        arrays, evidence = sampled(case, options=options)
        check_points(arrays, evidence, options.near_sigma)
        points = arrays["volume_points"]
        radius = np.linalg.norm(points, axis=1)
        assert points.shape == (3000, 3) and points.dtype == np.float32
        assert (radius.max() > 1.5) == corners and radius.max() > 1
        assert corners or radius.max() <= 1.05 + 1e-6
    inside = {
        options: (sampled(case, options=options)[0]["volume_sdf"] < 0).sum(axis=0)
        for options in (BALL, WITHIN)
    }
    assert inside[BALL][8] < 60  # the tube, at random
    np.testing.assert_array_less([500, 500], inside[WITHIN][[2, 8]])  # a third of 1,800 each
    # and a voxel whose middle alone may be inside
    assert inside[WITHIN][7] > 300


def test_a_ball_is_filled_evenly(case):
    fields, _, frame = case
    points = volume_points(fields, frame, BALL, np.random.default_rng(0))
    radius = np.linalg.norm(points, axis=1)
    assert (radius < 1.05 / 2).mean() == pytest.approx(1 / 8, abs=0.02)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.05)


def test_any_first_part_of_the_volume_points_is_a_fair_sample(case):
    inside = sampled(case, options=WITHIN)[0]["volume_sdf"][:, [2, 8]] < 0
    np.testing.assert_allclose(inside[:600].mean(axis=0), inside.mean(axis=0), atol=0.05)


def test_points_within_a_class_fill_it_evenly(case):
    """Also its deep part, of which the fields keep no single voxels."""
    field = case[0][3]
    points = inside_points(field, 4000, np.random.default_rng(0))
    assert points.shape == (4000, 3) and (field.lookup(points) < 0).all()
    centre = apply_affine(field.affine, np.array([15.0, 15, 20]))
    away = np.linalg.norm((points - centre) / [0.8, 0.8, 1.0], axis=1)
    assert (away < 11 / 2).mean() == pytest.approx(1 / 8, abs=0.02)
    np.testing.assert_allclose(points.mean(axis=0), centre, atol=0.3)


def test_large_classes_are_filled_too():
    """Of a crop beyond a million voxels the blocks near the surface alone are kept."""
    index = np.stack(np.meshgrid(*[np.arange(112)] * 3, indexing="ij"), axis=-1)
    data = (3 * (np.linalg.norm(index - 55.5, axis=-1) < 52)).astype(np.uint8)
    field = class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())[3]
    assert (field.near.table < 0).any()
    points = inside_points(field, 2000, np.random.default_rng(0))
    away = np.linalg.norm(points - 55.5, axis=1)
    assert len(points) == 2000 and away.max() < 53
    assert (away < 26).mean() == pytest.approx(1 / 8, abs=0.03)


def test_quotas_follow_areas_above_the_least():
    assert area_quotas([10, 30, 60], 1000, 0).tolist() == [100, 300, 600]
    assert area_quotas([0.01, 30, 60], 1000, 100).tolist() == [100, 300, 600]
    assert area_quotas([1, 1, 1], 10, 100).sum() == 10  # more is wanted than there is
    assert area_quotas([0, 5], 10, 2).tolist() == [2, 8]


def test_draws_are_uniform_by_area():
    """Two triangles, one three times the other; the mean of a triangle's points is its centre."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]], float)
    mesh = Mesh(vertices.astype(np.float32), np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    points, normals = SurfaceSampler(mesh).draw(4000, np.random.default_rng(0))
    first = points[:, 2] < 1
    assert first.sum() == pytest.approx(1000, abs=1)
    np.testing.assert_allclose(points[first].mean(0), vertices[:3].mean(0), atol=0.02)
    np.testing.assert_allclose(points[~first].mean(0), vertices[3:].mean(0), atol=0.05)
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 4000, atol=1e-6)


def broken(name, change):
    def act(arrays, evidence):
        if name == "own":
            evidence.surface_sdf[3] = 0.5
        elif name == "slope":
            evidence.slopes[9] = 0.7
        else:
            arrays[name] = change(arrays[name].copy(), arrays)

    return act


def _one_side(sdf, arrays):
    rows = arrays["near_labels"] == 3
    sdf[rows, 2] = np.abs(sdf[rows, 2])
    return sdf


def _with(place, value):
    def change(array, arrays):
        array[place] = value
        return array

    return change


def _far(sdf):
    return np.sign(sdf) * np.float16(1.5)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (broken("near_points", _with((0, 0), 1.2)), "near points reach 1.2"),
        (broken("volume_points", _with((0, 0), np.nan)), "volume points reach nan"),
        (broken("near_sdf", _with((0, 2), np.nan)), "near distances of annotated classes"),
        (broken("near_sdf", _with((0, 2), 2.5)), "near distances reach 2.5"),
        (broken("volume_sdf", _with((0, 0), 0.1)), "not annotated are not NaN"),
        (broken("near_sdf", _one_side), "class 3: 0% of the near points lie inside"),
        (broken("near_sdf", lambda a, _: _far(a)), "near points are"),
        (
            broken("volume_sdf", lambda a, _: np.minimum(a * np.float16(1.3), 2.5)),
            "distances are 1.",
        ),
        (broken("volume_sdf", lambda a, _: (a * 0.01).astype(a.dtype)), "distances are 0.0"),
        (broken("slope", None), "the slope of the distances is 0.7"),
        (broken("near_labels", lambda a, _: np.where(a == 8, 3, a)), "class 8 has no near points"),
        (broken("own", None), "off their surface"),
    ],
)
def test_the_check_tells_what_is_wrong(case, act, words):
    arrays, evidence = sampled(case)
    act(arrays, evidence)
    with pytest.raises(InputError) as caught:
        check_points(arrays, evidence, OPTIONS.near_sigma, where="labels/a.nii.gz")
    assert words in str(caught.value) and "labels/a.nii.gz" in str(caught.value)


def test_an_offset_finer_than_the_distances_is_the_fault_of_the_option(case):
    arrays, evidence = sampled(case)
    with pytest.raises(InputError, match=r"near points are .* raise points\.near_sigma"):
        check_points(arrays, evidence, (1e-5,))


def test_specks_do_not_fail_a_case():
    """Lone voxels far from the rest, as automatic labels have them: few points lie on them."""
    rng = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(44)] * 3, indexing="ij"), axis=-1)
    data = np.zeros((44, 44, 44), np.uint8)
    data[np.linalg.norm(index - [12, 12, 12], axis=-1) < 9] = 10
    data[tuple(rng.integers(18, 43, (20, 3)).T)] = 10
    fields = class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())
    meshes = {value: field.surface() for value, field in fields.items()}
    frame = Frame.around(meshes[10].vertices)
    few = PointsOptions(surface_points=400, near_points=2000, volume_points=1000)
    arrays, evidence = sampled((fields, meshes, frame), options=few)
    check_points(arrays, evidence, few.near_sigma)


def test_near_points_of_a_voxel_are_balanced_at_any_offset():
    """The offset of 0.05 mm is far below the voxel: its field and mesh differ by more."""
    data = np.zeros((20, 20, 20), np.uint8)
    data[5:15, 5:15, 5:15] = 3
    data[8, 8, 8] = 1
    fields = class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())
    meshes = {value: field.surface() for value, field in fields.items()}
    frame = Frame.around(meshes[3].vertices)
    few = PointsOptions(surface_points=500, near_points=500, volume_points=500)
    arrays, evidence = sampled((fields, meshes, frame), options=few)
    check_points(arrays, evidence, few.near_sigma)
