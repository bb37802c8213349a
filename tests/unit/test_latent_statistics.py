"""Modes of variation of latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiform.errors import InputError
from cardiform.geometry.frame import Frame
from cardiform.geometry.surface import extract_surface
from cardiform.labels import LabelTable
from cardiform.latent_statistics.hearts import (
    PosedHeart,
    StoredHeart,
    SurfaceTruth,
    reasons,
    turned,
)
from cardiform.latent_statistics.model import LatentModel, in_mm
from cardiform.options.statistics import LatentStatisticsOptions
from cardiform.set_diffusion.encode import surface_of
from cardiform.set_diffusion.latents import frame_of, numbers_of
from cardiform.set_diffusion.slots import Slots
from cardiform.vecset.inputs import moved
from cardiform.vecset.similarity import Similarity


def sphere(number: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.normal(size=(number, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def ball_heart(radius: float, slide: float, rng: np.random.Generator) -> PosedHeart:
    """A ball of a radius in mm, whose slots lie anywhere about their places; its code is the
    radius."""
    normals = sphere(60, np.random.default_rng(1))
    along = np.cross(normals, rng.normal(size=normals.shape))
    places = radius * normals + slide * along
    frame = Frame(np.array([1.0, 2, 3]), 0.95 / radius)
    codes = np.full((60, 2), radius / 10)
    latents = np.concatenate([frame.to_unit(places), codes], axis=1)
    return PosedHeart(latents.astype(np.float32), frame, places, normals)


RADII = np.array([30.0, 32.0, 35.0, 36.0, 41.0])


def test_what_slides_along_the_surface_is_no_mode():
    rng = np.random.default_rng(0)
    hearts = [ball_heart(radius, 4.0, rng) for radius in RADII]
    model = LatentModel.fit(hearts, LatentStatisticsOptions(variance=0.99))
    assert model.modes == 1 and model.explained[0] > 0.99
    scores = np.array([model.scores(heart)[0] for heart in hearts])
    assert abs(np.corrcoef(scores, RADII)[0, 1]) > 0.999
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    assert scores.std(ddof=1) == pytest.approx(1, abs=1e-4)
    assert model.residual_mm(hearts[0], np.zeros(1)) == pytest.approx(34.8 - 30, abs=0.3)
    assert model.residual_mm(hearts[0], scores[:1]) < 0.3


def test_latents_and_frames_go_along_with_the_modes():
    rng = np.random.default_rng(0)
    hearts = [ball_heart(radius, 0.0, rng) for radius in RADII]
    model = LatentModel.fit(hearts, LatentStatisticsOptions())
    heart = ball_heart(38.0, 0.0, rng)  # held out
    latents, frame = model.heart(model.scores(heart))
    np.testing.assert_allclose(latents[:, 3:], 3.8, atol=0.01)
    np.testing.assert_allclose(frame.scale, heart.frame.scale, rtol=0.01)
    np.testing.assert_allclose(frame.to_world(latents[:, :3]), in_mm(heart)[:, :3], atol=0.05)
    latents, _ = model.heart(np.zeros(0))
    np.testing.assert_allclose(latents[:, 3:], RADII.mean() / 10, rtol=1e-5)


def test_hearts_that_are_all_the_same_have_no_modes():
    hearts = [ball_heart(30.0, 0.0, np.random.default_rng(0))] * 3
    with pytest.raises(InputError, match="the 3 training hearts are all the same"):
        LatentModel.fit(hearts, LatentStatisticsOptions())


def test_means_of_slots_turn_with_the_heart_and_do_not_hop():
    """Two draws of one surface: the means differ by less than the points that are chosen."""
    rng = np.random.default_rng(2)
    slots = Slots(sphere(20, rng).astype(np.float32), np.repeat([0, 2], 10).astype(np.uint8))
    draws = [(sphere(1500, rng), rng.permutation(np.repeat([0, 2], 750))) for _ in range(2)]
    means = [slots.means(points, channels, points) for points, channels in draws]
    chosen = [points[slots.rows(points, channels)] for points, channels in draws]
    apart = [np.linalg.norm(a - b, axis=1).mean() for a, b in (means, chosen)]
    assert apart[0] < 0.7 * apart[1]
    points, channels = draws[0]
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = Slots((slots.places @ turn.T).astype(np.float32), slots.channels)
    found = turned.means(points @ turn.T, channels, points @ turn.T)
    np.testing.assert_allclose(found, means[0] @ turn.T, atol=1e-5)
    lacking = slots.means(points[channels == 0], channels[channels == 0], points[channels == 0])
    assert np.isnan(lacking[10:]).all() and np.isfinite(lacking[:10]).all()


def test_distances_are_between_surfaces_and_a_lost_class_counts_half_its_edge():
    normals = sphere(4000, np.random.default_rng(3))
    truth = SurfaceTruth({3: 20 * normals}, {3: normals})
    index = np.indices((53, 53, 53)) - 26.0
    field = (np.sqrt((index**2).sum(axis=0)) - 22.3).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = -26
    mesh = extract_surface(field, affine)
    assert truth.distance({3: mesh}) == pytest.approx(2.3, abs=0.1)
    empty = replace(mesh, vertices=mesh.vertices[:0], faces=mesh.faces[:0])
    assert truth.distance({3: empty}) == pytest.approx(20, abs=0.5)


def test_hearts_say_why_they_take_no_part():
    table = LabelTable(LabelTable().classes[:3])
    frame, latents = Frame(np.zeros(3), 1.0), np.zeros((1, 4), np.float32)

    def heart(name, present, whole):
        masks = np.array(whole, bool), np.array(present, bool)
        return StoredHeart(name, name, latents, frame, *masks)

    found = [heart("a", [1, 1, 1], [1, 1, 0]), heart("b", [1, 0, 1], [1, 0, 0])]
    assert reasons(found, [0, 1], table) == {"b": "without left_atrium"}
    cut = {"a": "the scan cuts left_ventricle", "b": "the scan cuts left_ventricle"}
    assert reasons(found, [0, 2], table) == cut


def test_a_frame_is_what_its_numbers_say():
    frame = Frame(np.array([1.0, -2, 3]), 0.02)
    found = frame_of(numbers_of(frame))
    np.testing.assert_allclose([*found.center, found.scale], [1, -2, 3, 0.02])


@pytest.mark.parametrize("normals", [0, 3])
def test_normals_turn_with_the_heart_that_is_encoded(normals):
    drawn = torch.randn(1, 20, 3 + 4 + normals, generator=torch.Generator().manual_seed(0))
    move = Similarity.draw(np.random.default_rng(0), 90.0, 0.0, 0.0)
    found = turned(drawn, torch.from_numpy(move.rotation.astype(np.float32)), classes=4)
    np.testing.assert_allclose(found[0].numpy(), moved(drawn[0].numpy(), move, 4), atol=1e-5)
    places, channels = surface_of(found, 4)
    assert places.shape == (20, 3) and channels.max() < 4
