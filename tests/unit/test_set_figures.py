"""Figures of generated hearts, on sets whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hearts import GRID, heart

from cardiform.ldm.evaluate import References, evaluate, memorisation, table_of_figures
from cardiform.ldm.set_figures import (
    Anatomy,
    SurfacePoints,
    chamfer,
    contacts,
    dice_distances,
    distances,
    set_figures,
    validity,
    volume_figures,
)
from cardiform.options.ldm import GenerationOptions


def points(data):
    return SurfacePoints.of(data, 3, 10.0, 200, 0)


def between(made, real):
    """Distance matrices of points on a line."""
    made, real = np.asarray(made, float), np.asarray(real, float)
    return tuple(np.abs(a[:, None] - b) for a, b in ((made, real), (made, made), (real, real)))


def test_chamfer_of_moved_and_missing_classes():
    same = chamfer(points(heart()), points(heart()), 99.0)
    assert same.max() < 0.5
    moved = chamfer(points(heart()), points(heart(1)), 99.0)
    assert ((moved > 1.0) & (moved < 10.0)).all()
    # two facing walls of a small box, moved by half its width
    assert moved[2] == pytest.approx(chamfer(points(heart(1)), points(heart()), 99.0)[2], rel=1e-6)
    without = np.where(heart() == 3, 0, heart())
    assert chamfer(points(heart()), points(without), 99.0)[2] == 99.0
    assert np.isnan(chamfer(points(without), points(without), 99.0)[2])
    assert distances([points(heart())] * 2, [points(heart(1))] * 3, 99.0).shape == (2, 3, 3)


def test_set_figures_of_equal_apart_and_collapsed_sets():
    real = np.arange(10.0)
    alike = set_figures(*between(real + 0.3, real))
    assert alike["cov"] == 1.0 and alike["mmd"] == pytest.approx(0.3) and alike["nna"] == 0.0
    apart = set_figures(*between(real + 100, real))
    assert apart["nna"] == 1.0 and apart["cov"] == 0.1 and apart["mmd"] > 90
    collapsed = set_figures(*between(np.full(10, 4.1), real))
    assert collapsed["cov"] == 0.1
    rng = np.random.default_rng(0)
    drawn = [
        set_figures(*between(rng.normal(size=60), rng.normal(size=60)))["nna"] for _ in range(5)
    ]
    assert 0.4 < np.mean(drawn) < 0.6


def test_volumes():
    real = np.array([90.0, 100, 110])
    same = volume_figures(real, real)
    assert same["w1"] == 0 and same["difference"] == 0
    more = volume_figures(real * 1.1, real)
    assert more["difference"] == pytest.approx(0.1)
    assert more["w1"] == pytest.approx(10 / real.std())
    assert volume_figures(np.array([0.0, 110.0]), real)["difference"] == pytest.approx(0.1)
    assert volume_figures(np.zeros(3), real) == {"w1": None, "difference": None}


def test_contacts_and_anatomy():
    touch = contacts(heart(), 3)
    assert touch[0, 1] and touch[1, 0] and touch[0, 2] and not touch[1, 2]
    anatomy = Anatomy.of([heart(), heart(1)], [1, 1, 1])
    good = anatomy.check(heart(2))
    assert all(good.values())
    split = heart()
    split[7, 7, 7] = 3
    assert not anatomy.check(split)["connected"]
    lost = np.where(heart() == 3, 0, heart())
    assert not anatomy.check(lost)["complete"] and not anatomy.check(lost)["touching"]
    leaking = heart()
    leaking[4, 2:4, 2:4] = 2  # the wall is open towards class 3
    assert not anatomy.check(leaking)["apart"]
    shares = validity([heart(), split, leaking, lost], anatomy)
    assert shares["valid"] == 0.25 and shares["connected"] == 0.75 and shares["apart"] == 0.75


def test_dice_distances():
    found = dice_distances([heart(), heart(2)], [heart(), np.zeros_like(heart())], 3)
    assert found[0, 0] == pytest.approx(0) and found[0, 1] == pytest.approx(1)
    assert 0.3 < found[1, 0] < 1


def random_hearts(number, seed):
    """Boxes of random size with the three classes."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        data = np.zeros((8, 8, 8), np.uint8)
        a, b = rng.integers(3, 6), rng.integers(3, 7)
        data[1 : 1 + a, 1:6, 1 : 1 + b] = 1
        data[2:a, 2:5, 2:b] = 2
        data[1 + a, 2:5, 2:b] = 3
        made.append(data)
    return made


def test_copies_of_training_hearts_are_found():
    train, test = random_hearts(8, 0), random_hearts(5, 1)
    blurred = [np.roll(h, 1, axis=1) for h in test]
    references = References(train, test, blurred)
    copied = memorisation(train[:4], references, test, 3)
    assert copied["copies"] == 1.0 and copied["generated"]["mean"] == 0
    moved = [np.roll(h, 2, axis=1) for h in train[:4]]
    assert memorisation(moved, references, test, 3)["copies"] == 0.0


def test_the_table_has_a_row_per_reference():
    train, test = random_hearts(8, 0), random_hearts(4, 1)
    figures = evaluate(
        random_hearts(6, 2), References(train, test, test), GRID, GenerationOptions(points=32)
    )
    assert figures["hearts"] == dict.fromkeys(
        ("generated", "train_subset", "warped_train", "autoencoder", "test"), 4
    )
    assert figures["autoencoder"]["all_classes"]["mmd"] < figures["generated"]["all_classes"]["mmd"]
    assert figures["train_subset"]["validity"]["valid"] == 1.0
    assert set(figures["generated"]["classes"]) == set(GRID.table.names)
    lines = table_of_figures(figures)
    assert len(lines) == 6 and "copies" in lines[-1]
    again = evaluate(
        random_hearts(6, 2), References(train, test, test), GRID, GenerationOptions(points=32)
    )
    assert again == figures
