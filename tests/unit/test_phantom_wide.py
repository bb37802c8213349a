"""Varied procedural hearts (demo.variety: wide)."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest

from cardiform.geometry.frame import apply_affine
from cardiform.labels import LabelTable
from cardiform.phantom.scans import draw_scan
from cardiform.phantom.waves import Waves
from cardiform.phantom.wide import LABELLED, SPACE_BANDS, WideHeart, _lacking, draw_wide

TABLE = LabelTable()
SPACING = 4.0
SEEDS = (0, 1)
ONE_PART = ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle", "pulmonary_artery")


def image_of(heart: WideHeart):
    low, high = heart.bounds()
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = low - 4
    shape = tuple(np.ceil((high - low + 8) / SPACING).astype(int))
    return heart.label_map(shape, affine), affine


@pytest.fixture(scope="module")
def hearts():
    return {s: draw_wide(s, least_vessel_radius=SPACING * 0.87, missing=()) for s in SEEDS}


@pytest.fixture(scope="module")
def images(hearts):
    return {seed: image_of(heart) for seed, heart in hearts.items()}


@pytest.mark.parametrize(
    ("number", "origin", "voxels"),
    [(0, (-74.858083, -84.939336, -74.484212),
      (28155, 673, 477, 742, 668, 1042, 817, 396, 81, 383, 166)),
     (5, (-90.644771, -79.114437, -80.377377),
      (35478, 939, 501, 869, 844, 900, 710, 373, 0, 352, 326))],
)  # fmt: skip
def test_the_usual_hearts_are_what_they_were(number, origin, voxels):
    """But for the last bits of sines, which processors compute differently."""
    labels, affine = draw_scan(number, 5.0, seed=3)
    assert affine[:3, 3] == pytest.approx(origin, abs=1e-5)
    assert np.bincount(labels.ravel(), minlength=11) == pytest.approx(voxels, abs=2)


def test_all_asked_classes_are_there_and_hang_together(images):
    for seed, (labels, _) in images.items():
        assert set(np.unique(labels)) == {0, *TABLE.values}, seed
        for name in ONE_PART:
            mask = labels == TABLE[TABLE.channel(name)].value
            assert cc3d.largest_k(mask, k=1).astype(bool).sum() > 0.9 * mask.sum(), (seed, name)


def test_a_seed_is_a_heart(images):
    again, affine = image_of(draw_wide(1, least_vessel_radius=SPACING * 0.87, missing=()))
    np.testing.assert_array_equal(again, images[1][0])
    np.testing.assert_array_equal(affine, images[1][1])
    volumes = [np.bincount(i.ravel(), minlength=11)[1:] for i, _ in images.values()]
    assert np.median(np.abs(np.diff(np.log(volumes), axis=0))) > 0.15


def test_no_block_is_painted_as_a_whole_that_is_mixed(hearts, images):
    """Bent space disturbs distances: the map is what a look at each voxel alone gives."""
    for seed, heart in hearts.items():
        labels, affine = images[seed]
        voxels = np.indices(labels.shape).reshape(3, -1).T
        voxels = voxels[np.random.default_rng(0).permutation(len(voxels))[:60_000]]
        world = apply_affine(affine, voxels.astype(float))
        expected = np.zeros(len(voxels), np.uint8)
        seen = (world[:, 2] > heart.scan_range[0]) & (world[:, 2] < heart.scan_range[1])
        at = heart._to_heart(world)
        for label in sorted(TABLE, key=lambda c: -c.priority):
            solid = heart.solids[TABLE.channel(label.name)]
            expected[seen & (solid.evaluate(at)[0] < 0)] = label.value
        assert (expected != labels[tuple(voxels.T)]).mean() < 2e-4, seed


def test_what_is_lacking_is_drawn_or_asked_for():
    drawn = [_lacking(np.random.default_rng(seed)) for seed in range(60)]
    assert any(drawn) and not all(drawn)
    names = set(TABLE.names)
    few = {tuple(n for n in TABLE.names if n not in there) for _, there in LABELLED if there}
    assert {("coronary",), *few} <= set(drawn)
    assert all(set(lacking) < names for lacking in drawn)
    for missing in (("aorta", "coronary"), None):
        heart = draw_wide(16, least_vessel_radius=4.0, missing=missing)
        gone = {TABLE[TABLE.channel(name)].value for name in heart.missing}
        assert set(np.unique(image_of(heart)[0])) == {0, *TABLE.values} - gone


def test_waves_are_undone_and_fold_nothing():
    waves = Waves.draw(np.random.default_rng(0), [(6, 20.0, 60.0, 50.0), *SPACE_BANDS])
    points = np.random.default_rng(1).uniform(-100, 100, (500, 3))
    np.testing.assert_allclose(waves.move(waves.undo(points)), points, atol=1e-6)
    assert np.linalg.norm(waves.at(points), axis=1).max() <= waves.most
    step = np.array([0.01, 0.0, 0.0])
    along = (waves.move(points + step) - waves.move(points))[:, 0] / 0.01
    assert along.min() > 0.3
