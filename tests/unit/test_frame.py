"""World millimetres <-> unit frame."""

from __future__ import annotations

import numpy as np

from cardiform.geometry.frame import UNIT_RADIUS, Frame, apply_affine


def test_frame_fills_the_ball_and_inverts():
    points = np.random.default_rng(0).normal(size=(200, 3)) * [30, 50, 80] + [100, -20, 7]
    frame = Frame.around(points)
    unit = frame.to_unit(points)
    assert np.isclose(np.linalg.norm(unit, axis=1).max(), UNIT_RADIUS)
    assert np.allclose(frame.to_world(unit), points)
    assert np.isclose(frame.scale * np.linalg.norm(points[0] - points[1]),
                      np.linalg.norm(unit[0] - unit[1]))  # fmt: skip


def test_apply_affine_is_voxel_to_world():
    affine = np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    assert np.allclose(apply_affine(affine, np.array([[1, 2, 3]])), [[1, 9, 19]])
