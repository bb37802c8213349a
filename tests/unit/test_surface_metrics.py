"""Distances between surfaces against closed forms and another library."""

import numpy as np
import pytest
import trimesh

from cardiform.geometry.surface import Mesh
from cardiform.metrics.surface import distance_to_mesh, surface_figures


def mesh_of(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(shape.vertices, np.float32), np.asarray(shape.faces, np.int32))


def sphere(radius, subdivisions=4, shift=(0, 0, 0)):
    shape = trimesh.creation.icosphere(subdivisions, radius)
    return mesh_of(shape.apply_translation(shift))


def ball_above_a_triangle():
    """One huge triangle among small ones: the nearest middle is not the nearest triangle."""
    ball = trimesh.creation.icosphere(2, 3.0)
    corners = np.array([[-40.0, -40, -5], [40, -40, -5], [0, 60, -5]])
    vertices = np.concatenate([ball.vertices, corners])
    faces = np.concatenate([ball.faces, [np.arange(3) + len(ball.vertices)]])
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


EMPTY = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def test_concentric_spheres():
    found = surface_figures(sphere(20.0), sphere(22.0))
    assert found["assd_mm"] == pytest.approx(2.0, abs=0.03)
    assert found["hd95_mm"] == pytest.approx(2.0, abs=0.05)
    assert found["chamfer_mm"] == pytest.approx(4.0, abs=0.06)
    assert found["f_score"] == 0.0
    assert surface_figures(sphere(20.0), sphere(20.5))["f_score"] == 1.0


def test_the_same_surface_has_no_distance_to_itself():
    found = surface_figures(sphere(20.0), sphere(20.0))
    assert found["assd_mm"] < 1e-5 and found["f_score"] == 1.0


def test_the_95th_percentile_sees_a_bump_that_the_mean_hides():
    flat = trimesh.creation.box((40, 40, 1))
    bumped = trimesh.util.concatenate(
        [flat, trimesh.creation.box((12, 12, 8)).apply_translation((0, 0, 4.5))]
    )
    found = surface_figures(mesh_of(flat), mesh_of(bumped))
    assert found["hd95_mm"] > 3 * found["assd_mm"]


def test_the_f_score_weighs_what_is_missing_and_what_is_too_much():
    """Two equal balls far apart, one of them found: precision 1, recall 1/2."""
    one, other = sphere(10.0, 3), sphere(10.0, 3, (50, 0, 0))
    both = Mesh(
        np.concatenate([one.vertices, other.vertices]),
        np.concatenate([one.faces, other.faces + len(one.vertices)]),
    )
    for truth, found in ((both, one), (one, both)):
        assert surface_figures(truth, found)["f_score"] == pytest.approx(2 / 3, abs=0.02)


def test_distances_equal_those_of_an_exact_library():
    igl = pytest.importorskip("igl")
    mesh = ball_above_a_triangle()
    points = np.random.default_rng(0).uniform(-12, 12, (400, 3))
    vertices, faces = mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
    exact = np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces)[0])
    np.testing.assert_allclose(distance_to_mesh(points, mesh), exact, atol=1e-5)


def square(z):
    corners = np.array([[0, 0, z], [8, 0, z], [8, 8, z], [0, 8, z]], np.float32)
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32))


def test_the_f_score_counts_what_lies_a_millimetre_away():
    assert surface_figures(square(0), square(1))["f_score"] > 0.99
    assert surface_figures(square(0), square(1.001))["f_score"] == 0.0


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_distances_grow_with_the_scale(scale):
    """No bound on the way to the nearest triangle is a length."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(0, 1, (60, 1, 1)))
    corners = rng.uniform(-10, 10, (60, 1, 3)) + sizes * rng.normal(0, 1, (60, 3, 3))
    mesh = Mesh(
        corners.reshape(-1, 3).astype(np.float32), np.arange(180, dtype=np.int32).reshape(-1, 3)
    )
    points = rng.uniform(-12, 12, (400, 3))
    scaled = Mesh(mesh.vertices * np.float32(scale), mesh.faces)
    expected = scale * distance_to_mesh(points, mesh)
    np.testing.assert_allclose(distance_to_mesh(scale * points, scaled), expected, rtol=1e-3)


def test_empty_surfaces():
    assert set(surface_figures(EMPTY, EMPTY).values()) == {None}
    assert set(surface_figures(EMPTY, sphere(3.0, 2)).values()) == {None}  # nobody annotated it
    assert surface_figures(sphere(3.0, 2), EMPTY) == {
        "assd_mm": None,
        "hd95_mm": None,
        "chamfer_mm": None,
        "f_score": 0.0,
        "missed": 1.0,
    }
    assert surface_figures(sphere(3.0, 2), sphere(3.0, 2))["missed"] == 0.0
