"""Coarse-to-fine evaluation finds what the dense one finds."""

import numpy as np
import pytest

from cardiform.geometry.coarse_to_fine import sample_field
from cardiform.geometry.frame import Frame
from cardiform.geometry.surface import is_watertight, signed_volume

FRAME = Frame(np.array([3.0, -2.0, 5.0]), 1 / 80)
TUBE = 0.015  # unit frame: a coronary of 1.2 mm
CLIP = 0.1


def field(points):
    """A chamber, a shell about it and a thin helix, distances clipped as networks learn them."""
    points = np.asarray(points, np.float64)
    radius = np.linalg.norm(points, axis=1)
    t = np.linspace(0, 4 * np.pi, 1500)
    helix = np.stack([0.6 * np.cos(t), 0.6 * np.sin(t), t / 10 - 0.6], axis=1)
    from scipy.spatial import cKDTree

    tube = cKDTree(helix).query(points)[0] - TUBE
    return np.clip(np.stack([radius - 0.3, np.abs(radius - 0.4) - 0.04, tube], 1), -CLIP, CLIP)


def affine_of(spacing, shape):
    affine = np.diag([*spacing, 1.0])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = FRAME.center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@pytest.mark.parametrize(
    ("shape", "spacing", "share"),
    # the band about the surfaces is as wide as some voxels: a coarse grid is mostly band
    [((83, 90, 71), (2.0, 2.0, 2.0), 0.5), ((97, 64, 40), (1.7, 2.5, 4.0), 1.2)],
)
def test_equal_to_dense(shape, spacing, share):
    affine = affine_of(spacing, shape)
    dense = sample_field(field, shape, affine, FRAME.to_unit, start_stride=1)
    lean = sample_field(field, shape, affine, FRAME.to_unit)
    assert dense.evaluations == np.prod(shape)
    assert lean.evaluations < share * dense.evaluations
    np.testing.assert_array_equal(lean.labels((1, 2, 3)), dense.labels((1, 2, 3)))
    for channel in range(3):
        ours, theirs = lean.surface(channel), dense.surface(channel)
        assert len(ours.faces) == len(theirs.faces) > 0
        for a, b in ((ours, theirs), (theirs, ours)):
            gaps = np.abs(np.sort(a.vertices, axis=0) - np.sort(b.vertices, axis=0))
            assert gaps.max() < 1e-4
        assert is_watertight(ours) and signed_volume(ours) > 0


def test_volume_of_a_ball_in_millimetres():
    affine = affine_of((2.0, 2.0, 2.0), (64, 64, 64))
    mesh = sample_field(field, (64, 64, 64), affine, FRAME.to_unit).surface(0)
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.01)


def test_an_anatomy_that_the_grid_cuts_is_closed_there():
    affine = affine_of((2.0, 2.0, 2.0), (64, 64, 64))
    mesh = sample_field(field, (64, 64, 30), affine, FRAME.to_unit).surface(0)
    assert is_watertight(mesh) and 0 < signed_volume(mesh) < 4 / 3 * np.pi * 24**3


def test_a_class_that_is_nowhere_has_an_empty_surface():
    sampled = sample_field(
        lambda p: np.full((len(p), 2), 0.1, np.float32), (20, 9, 11), np.eye(4), FRAME.to_unit
    )
    assert not len(sampled.surface(1).faces)
    assert not sampled.labels((1, 2)).any()
    assert sampled.labels((1, 2)).shape == (20, 9, 11)


def test_the_channel_that_lies_deepest_wins():
    values = np.array([[-0.1, -0.3, 0.2]], np.float32)
    sampled = sample_field(
        lambda p: np.repeat(values, len(p), axis=0), (4, 4, 4), np.eye(4), lambda x: x / 1000
    )
    assert (sampled.labels((4, 7, 9)) == 7).all()
