"""Deformed bands: distances stay distances, nothing is lost, the draw decides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bands import FRAME, ball_band, write_cohort
from scipy.spatial import cKDTree

from cardiform.errors import InputError
from cardiform.geometry.narrowband import NarrowBand, narrow_band, voxel_keys
from cardiform.options.field import said
from cardiform.options.vqvae import VqvaeOptions, VqvaePretrainOptions
from cardiform.training.engine import train
from cardiform.vqvae.augmentation import GROWTH, Warp, deformed, warped
from cardiform.vqvae.data import VoxelDataset, collate, find_instances
from cardiform.vqvae.model import SparseVQVAE
from cardiform.vqvae.task import VqvaeTask

KINDS = ("rotation", "scaling", "elastic")
EDGE, BAND = 48, 3.0
MIDDLE, RADIUS = np.array([0.1, -0.2, 0.05]), 0.4
STILL = np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32), np.zeros(3, np.float32)


def arrays(band: NarrowBand) -> tuple[np.ndarray, np.ndarray]:
    coords, sdf = band.coords.astype(np.int32), band.sdf.astype(np.float32)
    return coords, np.stack([sdf, np.ones_like(sdf)], axis=1)


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    return arrays(ball_band(RADIUS, EDGE, MIDDLE))


def places_of(ball_points: np.ndarray) -> np.ndarray:
    """Unit frame to voxels."""
    return (ball_points + 1) * EDGE / 2 - 0.5


def drawn(coords: np.ndarray, kinds, draw: int) -> Warp:
    centre = (coords.min(axis=0) + coords.max(axis=0)) / 2
    return Warp.drawn(kinds, centre, EDGE, np.random.default_rng(draw))


@pytest.mark.parametrize(("offset", "error"), [(0.0, 1e-5), (0.25, 0.06)])
def test_a_right_angle_is_the_symmetry_of_the_cube(ball, offset: float, error: float) -> None:
    """Exactly where voxels fall on voxels, and to 0.06 voxels between them."""
    coords, values = ball
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    centre = np.full(3, (EDGE - 1) / 2 + offset, np.float32)
    moved, made = warped(coords, values, EDGE, BAND, Warp(centre, turn, *STILL))
    if offset:
        middle = (places_of(MIDDLE) - centre) @ turn + centre
        truth = np.linalg.norm(moved - middle, axis=1) - RADIUS * EDGE / 2
        np.testing.assert_allclose(made[:, 0] * BAND, truth, atol=error)
    else:
        exact = np.rint((coords - centre) @ turn + centre).astype(int)
        expected = dict(zip(map(tuple, exact.tolist()), values[:, 0]))
        found = dict(zip(map(tuple, moved.tolist()), made[:, 0]))
        assert not set(expected) - set(found)
        # those just past the band may come in, as their values are guessed from it to 0.1 voxels
        assert len(found) <= (1 + 0.1 / (2 * BAND)) * len(expected)
        np.testing.assert_allclose([found[e] for e in expected], [*expected.values()], atol=error)


@pytest.mark.parametrize("kinds", [("rotation",), ("scaling",), ("elastic",), KINDS])
def test_distances_stay_distances(ball, kinds) -> None:
    """To a fifth of a voxel, 0.03 on average; the slope near the surface is 1 to a tenth."""
    coords, values = ball
    points = np.random.default_rng(0).normal(size=(60_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    surface = places_of(MIDDLE + RADIUS * points)
    sizes = []
    for draw in range(4):
        warp = drawn(coords, kinds, draw)
        moved, made = warped(coords, values, EDGE, BAND, warp)
        sdf = made[:, 0] * BAND
        tree = cKDTree(warp.target(surface.astype(np.float32)))
        inside = np.linalg.norm(warp.source(moved) - places_of(MIDDLE), axis=1) < RADIUS * EDGE / 2
        truth = tree.query(moved)[0] * np.where(inside, -1, 1)
        error = np.abs(sdf - truth)
        assert error.max() < 0.2 and error.mean() < 0.03

        low = moved.min(axis=0) - 2
        box = np.indices(moved.max(axis=0) + 3 - low).reshape(3, -1).T + low
        band = box[tree.query(box, distance_upper_bound=BAND - 0.2)[0] < BAND - 0.2]
        assert set(map(tuple, band)) <= set(map(tuple, moved)), "the band has no holes"
        assert np.abs(sdf).max() <= BAND and np.abs(truth).max() < BAND + 0.2

        grid = np.full(moved.max(axis=0) + 2 - low, np.nan)
        grid[tuple((moved - low).T)] = sdf
        slope = np.linalg.norm(np.gradient(grid), axis=0)[tuple((moved - low).T)]
        near = np.abs(sdf) < 1.5
        assert np.abs(slope[near] - 1).max() < 0.1
        sizes.append(len(moved) / len(coords))
    assert (np.ptp(sizes) > 0.05) == ("scaling" in kinds), "only scaling changes how many"


def test_the_way_there_and_back(ball) -> None:
    coords = ball[0].astype(np.float32)
    for draw in range(5):
        warp = drawn(coords, KINDS, draw)
        np.testing.assert_allclose(warp.target(warp.source(coords)), coords, atol=0.05)
        step = np.eye(3, dtype=np.float32)[draw % 3]
        rise = np.linalg.norm(warp.source(coords + step) - warp.source(coords), axis=1)
        assert rise.max() < warp.steepest and rise.min() > 0.5, "nothing folds"


def test_what_is_known_stays_with_its_surface(ball) -> None:
    coords, values = ball[0], ball[1].copy()
    middle = coords[:, 2].mean()
    values[:, 1] = coords[:, 2] < middle
    for draw in range(4):
        warp = drawn(coords, KINDS, draw)
        moved, made = warped(coords, values, EDGE, BAND, warp)
        height = warp.source(moved)[:, 2] - middle
        clear = np.abs(height) > 1
        assert set(made[:, 1]) == {0.0, 1.0}
        np.testing.assert_array_equal(made[clear, 1] > 0, height[clear] < 0)


def test_nothing_leaves_the_cube(ball) -> None:
    """A ball near the wall is moved off it; a plate that has no room turned stays as it is."""
    coords, values = arrays(ball_band(0.4, EDGE, (0.45, 0.45, -0.45)))
    for draw in range(10):
        rng = np.random.default_rng(draw)
        moved, made = deformed(coords, values, EDGE, BAND, KINDS, rng)
        assert moved.min() >= 0 and moved.max() < EDGE
        assert 0.7 * len(coords) < len(moved) == len(made) <= GROWTH * len(coords)
        assert (np.diff(voxel_keys(moved, EDGE)) > 0).all()

    def plate(points: np.ndarray) -> np.ndarray:
        return np.abs(points) @ np.eye(3)[2] - 0.05

    high = np.array([0.99, 0.99, 0.05])
    coords, values = arrays(narrow_band(plate, -high, high, FRAME, EDGE, BAND))
    kept = 0
    for draw in range(10):
        moved, made = deformed(
            coords, values, EDGE, BAND, ["rotation"], np.random.default_rng(draw)
        )
        assert moved.min() >= 0 and moved.max() < EDGE
        kept += moved is coords and made is values
    assert kept >= 5


def test_the_draw_decides_the_deformation(tmp_path) -> None:
    instances = find_instances([write_cohort(tmp_path, {"a": [0.4]})], ["a"])
    data = VoxelDataset(instances, 10**5, augment=True, deformations=KINDS, seed=1)
    one, same, other = (data[0, draw] for draw in (5, 5, 6))
    assert torch.equal(one["coords"], same["coords"]) and torch.equal(one["sdf"], same["sdf"])
    assert not torch.equal(one["coords"], other["coords"])
    assert all(len(data[0, draw]["sdf"]) <= data.costs[0] for draw in range(10))
    plain = VoxelDataset(instances, 10**5, augment=False, deformations=KINDS, seed=1)
    assert {data[0, 5]["coords"].dtype, plain[0, 5]["coords"].dtype} == {torch.int32}
    with pytest.raises(InputError, match=r"has [\d,]+ voxels when deformed, more than .*max_voxel"):
        VoxelDataset(instances, instances[0].voxels, augment=True, deformations=["scaling"])
    VoxelDataset(instances, instances[0].voxels, augment=True)


def test_a_resumed_training_sees_the_same_deformations(tmp_path) -> None:
    instances = find_instances([write_cohort(tmp_path, {"a": [0.4, 0.3], "b": [0.5]})], ["a", "b"])
    network = VqvaeOptions(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0), latent_dim=4)
    stage = VqvaePretrainOptions(
        steps=4, batch_size=2, warmup_steps=1, validate_every=0, checkpoint_every=1,
        preview_every=0, workers=0, device="cpu", lr=0.01,
    )  # fmt: skip
    data = VoxelDataset(instances, 20_000, augment=True, deformations=KINDS)

    def run(out, **changes):
        torch.manual_seed(0)
        task = VqvaeTask(SparseVQVAE.from_options(network), network, stage)
        options = dataclasses.replace(stage, **changes)
        parts = {"options": options, "out": tmp_path / out, "identity": {}, "collate": collate}
        return train(task, data, VoxelDataset(instances[:1], 20_000, augment=False), **parts)

    whole = run("whole")
    with pytest.raises(SystemExit):
        run("parts", max_minutes=1e-9)
    parts = run("parts")
    assert parts.steps == whole.steps == 4
    assert all(torch.equal(whole.weights[name], parts.weights[name]) for name in whole.weights)


def test_trainings_without_deformations_stay_finished() -> None:
    """The key takes no part in what tells a finished training until it is set."""
    assert "deformations" not in dict(said(VqvaeOptions()))
    assert dict(said(VqvaeOptions(deformations=("elastic",))))["deformations"] == ("elastic",)
