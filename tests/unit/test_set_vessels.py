"""Whole trees from fields that hold vessels in pieces, and how wide they are drawn."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiform.errors import InputError
from cardiform.files import save_npz, sha256_file
from cardiform.geometry.coarse_to_fine import sample_field
from cardiform.labels import LabelTable
from cardiform.ldm.cube import Cube
from cardiform.ldm.vessels.calibre import Calibre
from cardiform.ldm.vessels.draw_case import is_connected
from cardiform.ldm.vessels.field import Votes
from cardiform.ldm.vessels.figures import compare, lines
from cardiform.ldm.vessels.fine import dense, draw, fine_cube
from cardiform.ldm.vessels.growth import Limits, grow
from cardiform.ldm.vessels.surroundings import HeartWalls
from cardiform.ldm.vessels.tree import VesselTree
from cardiform.phantom.heart import draw_phantom
from cardiform.set_diffusion import vessels
from cardiform.set_diffusion.vessels import SPACING_MM, valleys, without

TABLE = without(LabelTable(), "coronary")
LIMITS = Limits(gap_mm=15.0, branch_mm=8.0, smooth_mm=2.0)


def faint(tree: VesselTree, gaps: float):
    """A field that knows little of a tree: hardly below zero in it, above zero in gaps of it.

    gaps : share of the vessel that lies in gaps.
    """
    points, _ = dense(tree, 0.5)
    near = cKDTree(points)
    rough = np.sin(points @ np.array([0.31, 0.23, 0.17]))
    missing = rough > np.quantile(rough, 1 - gaps)

    def field(places: np.ndarray) -> np.ndarray:
        away, nearest = near.query(places)
        return np.maximum(0.8 * (away - 1.8), -0.3) + 0.9 * missing[nearest]

    return field


@pytest.fixture(scope="module")
def heart():
    """A heart without its vessels on a fine grid about its middle, and their true tree."""
    phantom = draw_phantom(5, least_vessel_radius=0.75)
    low, high = phantom.bounds()
    middle, size = (low + high) / 2, int(np.ceil((high - low).max() / 1.25)) + 8
    cube = Cube(middle, 1.25, size)
    labels = phantom.label_map((size,) * 3, cube.affine)
    labels[labels == 9] = 0
    branches = [(b.points - middle, b.radii, -1) for b in phantom.coronary_branches()]
    walls = HeartWalls(labels, Cube(np.zeros(3), 1.25, size).affine, TABLE)
    return walls, VesselTree.of_branches(branches)


def votes_of(field, size: int):
    """As of a network's field, in mm."""
    cube = fine_cube(size, 1.0)
    shifted = lambda p: (field(p) - vessels.REACH_MM)[:, None]  # noqa: E731
    sampled = sample_field(shifted, (cube.size,) * 3, cube.affine, lambda p: p)
    index, distance = sampled.places_inside(0)
    places = index @ cube.affine[:3, :3].T + cube.affine[:3, 3]
    return valleys(places, distance + vessels.REACH_MM)


def test_a_faint_field_in_pieces_becomes_a_whole_tree(heart):
    walls, true = heart
    field = faint(true, gaps=0.4)
    course = dense(true, 0.5)[0]
    assert (field(course) > 0).mean() > 0.3, "its surface is in pieces"
    edge = round(walls.labels.shape[0] * 1.25)
    votes = votes_of(field, edge)
    grown = grow(votes, walls, SPACING_MM, LIMITS)
    near = cKDTree(course)
    away = near.query(grown.tree.points)[0]
    assert np.median(away) < 0.8 and np.quantile(away, 0.95) < 3.0
    back = cKDTree(dense(grown.tree, 0.5)[0]).query(course)[0]
    assert (back < 2.5).mean() > 0.9
    assert grown.lost < 0.1
    tree = Calibre.fitted([true]).of(grown.tree)
    mask = draw(tree, fine_cube(walls.labels.shape[0] * 1.25, 1.25))
    assert is_connected(mask, walls.aorta & ~mask)


def test_the_bottom_of_a_valley_is_the_middle_of_a_vessel():
    line = VesselTree.of_branches(
        [(np.array([[-20.0, 0.3, 0.2], [20.0, 0.3, 0.2]]), np.full(2, 1.5), -1)]
    )
    votes = votes_of(faint(line, gaps=0.3), 60)
    inner = votes.points[np.abs(votes.points[:, 0]) < 18]
    weights = votes.weights[np.abs(votes.points[:, 0]) < 18]
    away = np.linalg.norm(inner[:, 1:] - [0.3, 0.2], axis=1)
    assert np.average(away, weights=weights) < 0.7
    gaps = np.diff(np.sort(inner[:, 0]))
    assert gaps.max() < SPACING_MM, "across gaps there are neighbours, too"
    assert len(valleys(np.zeros((0, 3)), np.zeros(0)).points) == 0


def test_what_joins_two_origins_along_the_wall_is_no_vessel(heart):
    """A field that is not sure where a vessel springs from has a valley all along the wall."""
    walls, true = heart
    roots = true.points[true.roots]
    first, second = roots[walls.to_root(roots) < 5][:2]
    between = np.linalg.norm(first - second)
    assert between > 14, "of this phantom"
    along = walls.nearest_in_root(np.linspace(first, second, 30))
    points = np.concatenate([dense(true, 0.5)[0], along])
    votes = Votes(points, np.ones(len(points)), np.ones(len(points)))
    assert len(grow(votes, walls, SPACING_MM, LIMITS).tree.roots) == 2


def test_a_field_without_vessels_has_no_votes_and_no_tree(heart):
    walls, _ = heart
    votes = votes_of(lambda p: np.full(len(p), 5.0), 60)
    assert len(votes.points) == 0
    grown = grow(votes, walls, SPACING_MM, LIMITS)
    assert len(grown.tree) == 0
    assert len(Calibre(np.array([0.5, 0.0, 0.0]), 1.0, 2.0).of(grown.tree)) == 0


def test_radii_follow_the_law_of_the_trees_that_they_are_learned_from():
    rng = np.random.default_rng(0)

    def tree(scale: float) -> VesselTree:
        trunk = np.array([[0.0, 0, 0], [60.0 * scale, 0, 0]])
        side = np.array([[60.0 * scale, 0, 0], [60.0 * scale, 40, 0]])
        made = VesselTree.of_branches(
            [(trunk, np.ones(2), -1), (side, np.ones(2), 0), (side * [1, -1, 1], np.ones(2), 0)]
        )
        way = np.linalg.norm(made.points, axis=1)
        return VesselTree(made.points, 2.5 * np.exp(-0.008 * way), made.before)

    calibre = Calibre.fitted([tree(s) for s in rng.uniform(0.7, 1.3, 6)])
    new = tree(1.0)
    blind = VesselTree(new.points, np.ones(len(new)), new.before)
    made = calibre.of(blind).radii
    assert np.abs(made / new.radii - 1).max() < 0.25
    assert made[0] > 1.5 * made[new.children == 0].max(), "ends are thinner than the root"
    far = VesselTree(new.points * 50, np.ones(len(new)), new.before)
    assert calibre.of(far).radii.min() >= calibre.low, "none is thinner than those learned from"


def test_inside_places_are_those_of_a_dense_grid():
    cube = Cube(np.array([1.0, 2.0, 3.0]), 1.0, 37)
    ball = lambda p: (np.linalg.norm(p - [2.0, 1.0, 4.0], axis=1) - 12.3)[:, None]  # noqa: E731
    index, value = sample_field(ball, (37,) * 3, cube.affine, lambda p: p).places_inside(0)
    every = np.argwhere(np.ones((37,) * 3, bool))
    places = every @ cube.affine[:3, :3].T + cube.affine[:3, 3]
    inside = ball(places)[:, 0] < 0
    assert {tuple(i) for i in index.tolist()} == {tuple(i) for i in every[inside].tolist()}
    assert (value < 0).all()


def test_samples_of_another_model_are_refused(tmp_path):
    model, other, samples = (tmp_path / n for n in ("model.pt", "other.pt", "metrics.json"))
    model.write_bytes(b"one")
    other.write_bytes(b"two")
    samples.write_text(json.dumps({"samples": ["a"], "model_sha256": sha256_file(model)}))
    vessels.check_samples_of(samples, model)
    with pytest.raises(InputError, match="lists samples of another model than"):
        vessels.check_samples_of(samples, other)


def test_a_field_that_is_near_zero_everywhere_has_no_more_places_than_memory_holds(heart):
    walls, _ = heart
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (100_000, 3))
    votes = Votes(points, np.ones(len(points)), np.ones(len(points)))
    assert grow(votes, walls, SPACING_MM, LIMITS).places <= 5000


def test_hearts_of_which_none_has_a_vessel_are_compared(heart):
    _, true = heart
    none = {"a": VesselTree.nothing()}
    figures = {"generated": {"a": {"connected": 0.0, "parts": 0, "trees": 0, "length_mm": 0.0}}}
    trees = {"b": true, "c": true.moved(np.eye(3) * 1.1, np.zeros(3))}
    found = compare({"generated": none}, figures, trees, {}, trees)
    assert found["generated"]["empty"] == 1 and "sizes" not in found["generated"]
    assert any("generated" in line for line in lines(found))


def test_latents_of_another_model_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    frame, key = np.zeros(4), np.array("k")
    save_npz(path, latents=np.zeros((4, 7), np.float32), frame=frame, key=key)

    generator = SimpleNamespace(statistics=SimpleNamespace(shape=(5, 7)))
    asked = vessels.Asked(generator, "coronary", frozenset("a"), None)
    with pytest.raises(InputError, match=r"latents of shape \(4, 7\), the model \(5, 7\)"):
        asked._heart(path, generated=True)
