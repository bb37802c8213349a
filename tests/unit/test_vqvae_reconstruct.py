"""Fused label maps and the figures of decoded bands, on balls whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from bands import FRAME, ball_band

from cardiform.geometry.closed_band import Solid, voxel_affine
from cardiform.geometry.narrowband import NarrowBand
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.volumes import LabelMap
from cardiform.vqvae.reconstruct import band_figures, fused, solid_of

TABLE = LabelTable(STACOM_2025[:2])
RESOLUTION = 64


def solid(band: NarrowBand) -> Solid:
    return solid_of(band.coords, band.sdf, band)


def test_where_structures_overlap_the_deeper_one_wins() -> None:
    balls = {"myocardium": (-0.25, 0.4), "left_atrium": (0.25, 0.4)}
    bands = {n: ball_band(r, RESOLUTION, (x, 0.0, 0.0)) for n, (x, r) in balls.items()}
    grid = LabelMap(np.zeros((64,) * 3, np.uint8), voxel_affine(RESOLUTION, FRAME))
    # the order of the structures is not what decides
    for names in (list(balls), list(balls)[::-1]):
        labels = fused({n: solid(bands[n]) for n in names}, TABLE, grid)
        index = np.indices(labels.shape).reshape(3, -1).T
        unit = (index + 0.5) * 2 / RESOLUTION - 1
        depth = [np.linalg.norm(unit - [x, 0, 0], axis=1) - r for x, r in balls.values()]
        nearest = np.where(np.min(depth, axis=0) < 0, np.argmin(depth, axis=0) + 1, 0)
        clear = np.abs(depth[0] - depth[1]) > 2 / RESOLUTION
        clear &= np.abs(np.min(depth, axis=0)) > 0.5 / RESOLUTION
        # deeper than a half-band both have the same depth, and the first one stays
        clear &= (np.max(depth, axis=0) > -2.5 * 2 / RESOLUTION) | (nearest == 0)
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(labels.reshape(-1)[clear], nearest[clear])


def test_a_perfect_band_has_perfect_figures() -> None:
    band = ball_band(0.5, RESOLUTION)
    figures = band_figures(band, band.coords, solid(band))
    assert figures["l1_voxels"] == pytest.approx(0, abs=1e-4)
    assert figures["sign_iou"] == figures["structure_recall"] == 1
    assert figures["structure_precision"] == figures["components"] == 1


def test_a_smaller_ball_has_the_error_of_its_radius() -> None:
    """Half a voxel smaller: every distance is wrong by half a voxel, in voxels and in mm."""
    band, other = ball_band(0.5, RESOLUTION), ball_band(0.5 - 0.5 * 2 / RESOLUTION, RESOLUTION)
    figures = band_figures(band, other.coords, solid(other))
    assert figures["l1_voxels"] == pytest.approx(0.46, abs=0.05)  # less where the band ends
    assert figures["l1_mm"] == pytest.approx(figures["l1_voxels"] * 2 / RESOLUTION / FRAME.scale)
    assert 0.5 < figures["sign_iou"] < 0.95
    assert figures["structure_recall"] < 1 and figures["structure_precision"] < 1


def test_parts_that_touch_at_a_corner_are_one() -> None:
    band = ball_band(0.3, RESOLUTION)
    values = np.ones((8, 8, 8), np.float32)
    values[1:3, 1:3, 1:3] = values[3:5, 3:5, 3:5] = -1
    touching = Solid(values, voxel_affine(RESOLUTION, FRAME))
    assert band_figures(band, band.coords, touching)["components"] == 1
    values[5:7, 1:2, 6:7] = -1
    assert band_figures(band, band.coords, touching)["components"] == 2
