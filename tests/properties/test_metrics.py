"""Figures: equal is perfect, sides can be exchanged, motion changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ORIENTATIONS, blobs, label_maps, rotations, turned

from cardiform.geometry.surface import Mesh, extract_surface, signed_volume, surface_area
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.metrics.summary import mean, mean_over_cases
from cardiform.metrics.surface import distance_to_mesh, surface_figures
from cardiform.metrics.topology import topology_figures

TABLE = LabelTable(LabelTable().classes[:3])


@st.composite
def pairs(draw):
    """Two label maps of one shape."""
    one = draw(label_maps())
    other = one.copy()
    for _ in range(draw(st.integers(0, 12))):
        place = tuple(draw(st.integers(0, n - 1)) for n in one.shape)
        other[place] = draw(st.integers(0, 3))
    return one, other


@given(pairs(), st.sampled_from(ORIENTATIONS))
def test_overlap_is_one_where_equal_and_the_same_from_both_sides_and_under_motion(pair, axes):
    one, other = pair
    found, back = overlap(one, other, TABLE), overlap(other, one, TABLE)
    moved = overlap(*(turned(data, np.eye(4), axes)[0] for data in pair), TABLE)
    assert moved == found
    for label in TABLE:
        figures, a, b = found[label.name], one == label.value, other == label.value
        if not a.any():  # nobody annotated it
            assert set(figures.values()) == {None}
            continue
        dice, iou = figures["dice"], figures["iou"]
        if b.any():
            assert dice == back[label.name]["dice"] and iou == back[label.name]["iou"]
        assert 0 <= iou <= dice <= 1
        assert (dice == 1) == (iou == 1) == bool((a == b).all())
        assert (dice == 0) == (not (a & b).any())
        np.testing.assert_allclose(iou, dice / (2 - dice))
        assert (figures["volume_error"] == 0) == (a.sum() == b.sum())


def mesh_of(mask: np.ndarray, spacing: float = 2.0) -> Mesh:
    values = np.where(mask, -1.0, 1.0).astype(np.float32)
    return extract_surface(values, np.diag([spacing, spacing, spacing, 1.0]))


def moved(mesh: Mesh, rotation: np.ndarray, shift) -> Mesh:
    return Mesh((mesh.vertices @ rotation.T + shift).astype(np.float32), mesh.faces)


shifts = st.tuples(*[st.floats(-50, 50)] * 3)


@settings(max_examples=6)
@given(blobs(), blobs(), rotations(), shifts)
def test_surface_distances_are_zero_where_equal_swap_their_sides_and_ignore_motion(
    one, other, rotation, shift
):
    truth, predicted = mesh_of(one), mesh_of(other)
    same = surface_figures(truth, truth)
    assert max(same[name] for name in ("assd_mm", "hd95_mm", "chamfer_mm")) < 1e-6
    assert same["f_score"] == 1
    figures, back = surface_figures(truth, predicted), surface_figures(predicted, truth)
    if (one != other).any():
        assert figures["chamfer_mm"] > 0 and figures["assd_mm"] > 0
    elsewhere = surface_figures(moved(truth, rotation, shift), moved(predicted, rotation, shift))
    for name, value in figures.items():
        # each side draws points of its own
        assert back[name] == pytest.approx(value, rel=0.05, abs=0.05), name
        assert elsewhere[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    assert figures["assd_mm"] <= figures["chamfer_mm"] <= 2.3 * figures["assd_mm"] + 1e-9


@given(blobs(), rotations(), shifts, st.integers(0, 2**32 - 1))
def test_the_distance_to_a_mesh_is_that_of_the_nearest_of_its_points(mask, rotation, shift, seed):
    mesh = moved(mesh_of(mask), rotation, shift)
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), len(mesh.faces))
    on_it = np.einsum("nk,nkd->nd", weights, mesh.vertices[mesh.faces].astype(np.float64))
    assert distance_to_mesh(on_it, mesh).max() < 1e-4
    points = on_it + rng.normal(size=on_it.shape) * 3
    found = distance_to_mesh(points, mesh)
    assert (found <= np.linalg.norm(points - on_it, axis=1) + 1e-6).all()
    corners = np.linalg.norm(points[:, None] - mesh.vertices[None], axis=2).min(axis=1)
    assert (found <= corners + 1e-4).all() and (found >= corners - 3.5).all()


@given(blobs(), rotations(), shifts)
def test_volume_and_area_ignore_motion_and_a_mirror_turns_the_volume_over(mask, rotation, shift):
    mesh = mesh_of(mask)
    other = moved(mesh, rotation, shift)
    volume = signed_volume(mesh)
    assert volume > 0
    np.testing.assert_allclose(signed_volume(other), volume, rtol=1e-3)
    np.testing.assert_allclose(surface_area(other), surface_area(mesh), rtol=1e-3)
    mirrored = moved(mesh, np.diag([1, 1, -1]), 0)
    np.testing.assert_allclose(signed_volume(mirrored), -volume, rtol=1e-3)


@settings(max_examples=15)
@given(blobs(), blobs())
def test_a_thin_structure_meets_itself_and_dice_is_the_same_from_both_sides(one, other):
    same = topology_figures(one, one, 1.0)
    assert same["dice"] == 1 and same["component_error"] == 0
    assert same["cl_dice"] == same["centreline_overlap"] == 1
    found, back = topology_figures(one, other, 1.0), topology_figures(other, one, 1.0)
    for name in ("dice", "component_error"):
        assert found[name] == back[name]
    assert found["cl_dice"] == pytest.approx(back["cl_dice"])
    for name in ("cl_dice", "centreline_overlap"):
        assert found[name] is None or 0 <= found[name] <= 1


@given(st.lists(st.none() | st.just(0.0) | st.floats(-1e6, 1e6), max_size=8))
def test_a_mean_leaves_out_what_is_not_there(values):
    known = [value for value in values if value is not None]
    expected = pytest.approx(sum(known) / len(known)) if known else None
    assert mean(values) == expected
    assert mean(known[::-1]) == expected
    cases = [{"aorta": {"dice": value}} for value in values]
    assert mean_over_cases(cases) == ({"aorta": {"dice": mean(values)}} if cases else {})
