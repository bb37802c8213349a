"""Figures of generated hearts, on sets whose answers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hearts import FIELD_GRID, GRID, heart

from cardiform.anatomy.validity import Anatomy
from cardiform.labels import STORED, LabelClass, LabelTable, load_label_table
from cardiform.ldm import set_figures as module
from cardiform.ldm.evaluate import References, evaluate, table_of_figures
from cardiform.ldm.hearts_on_grid import LABELS, Grid
from cardiform.ldm.set_figures import (
    HeartSet,
    SurfacePoints,
    chamfer,
    dice_distances,
    distances,
    mean_over_classes,
    nearest_distances,
    set_figures,
    validity,
    volume_figures,
)
from cardiform.options.ldm import GenerationOptions

ONE_PART = [range(1, 2)] * 3
ALL = np.ones(3, bool)


def real(hearts, cut=()):
    return HeartSet.real(hearts, 3, cut)


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
    assert chamfer(points(without), points(without), 99.0)[2] == 0, "alike in what both lack"
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


def test_hearts_of_which_no_class_is_known_in_both_have_no_distance():
    """They were infinitely far away, and so was the mean; and the first heart was their nearest."""
    made, among, real = between([0.0, 1.0], [5.0, 6.0, 7.0])
    made[:, 0], real[0], real[:, 0] = np.inf, np.inf, np.inf  # a test heart unlike all others
    found = set_figures(made, among, real)
    assert found == set_figures(*between([0.0, 1.0], [6.0, 7.0]))
    made[:] = np.inf
    assert set_figures(made, among, real) == {"mmd": None, "cov": None, "nna": None}


def test_figures_of_hearts_that_are_annotated_in_part_are_finite():
    def only(channel, shift=0):
        return np.where(heart(shift) == channel, heart(shift), 0).astype(np.uint8)

    train, test = [only(2), only(3), only(2, 1)], [only(2), only(2, 1), only(3)]
    made, references = [heart(k) for k in range(3)], References(train, test, test, (), (), train)
    found = evaluate(made, references, GRID, GenerationOptions(points=16))
    json.dumps(found, allow_nan=False)
    assert found["autoencoder"]["all_classes"] == {"mmd": 0, "cov": 1, "nna": 0}
    assert found["train_subset"]["all_classes"]["mmd"] is not None


def test_volumes():
    real = np.array([90.0, 100, 110])
    same = volume_figures(real, real)
    assert same["w1"] == 0 and same["difference"] == 0
    more = volume_figures(real * 1.1, real)
    assert more["difference"] == pytest.approx(0.1)
    assert more["w1"] == pytest.approx(10 / real.std())
    assert volume_figures(np.array([0.0, 110.0]), real)["difference"] == pytest.approx(0.1)
    assert volume_figures(np.zeros(3), real) == {"w1": None, "difference": None}


def test_anatomy_of_generated_hearts():
    anatomy = Anatomy.of(zip([heart(), heart(1)], [ALL, ALL]), ONE_PART)
    split = heart()
    split[7, 7, 7] = 3
    lost = np.where(heart() == 3, 0, heart())
    leaking = heart()
    leaking[4, 2:4, 2:4] = 2  # the wall is open towards class 3
    shares = validity(HeartSet.generated([heart(2), split, leaking, lost], 3), anatomy)
    assert shares["valid"] == 0.25 and shares["connected"] == 0.75 and shares["apart"] == 0.75


def test_dice_distances():
    made = HeartSet.generated([heart(), heart(2)], 3)
    found = dice_distances(made, HeartSet.generated([heart(), np.zeros_like(heart())], 3))
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


def test_figures_name_a_class_that_training_hearts_have_in_pieces():
    train = random_hearts(8, 0)
    for data in train[:3]:
        data[7, 7, 7] = 3
    test = random_hearts(4, 1)
    figures = evaluate(train[:4], References(train, test, test), GRID, GenerationOptions(points=32))
    last = figures["notes"][-1]
    assert last.startswith(f"{GRID.table.names[2]}: more than a tenth") and "no rule" in last
    assert figures["train_subset"]["validity"]["connected"] == 1.0


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
    assert len(lines) == 10 and "copies" in lines[-1] and "Z_U" in lines[-2]
    assert "no reconstructions of training hearts" in figures["notes"][0]
    assert len(figures["notes"]) == 1
    again = evaluate(
        random_hearts(6, 2), References(train, test, test), GRID, GenerationOptions(points=32)
    )
    assert again == figures


# --- speed: what decides a figure is exact -------------------------------------------------


def test_screened_distances_decide_as_all_of_them_do(monkeypatch):
    """Every entry that may be the least of its row or column is measured with all points."""
    hearts = random_hearts(24, 3)
    sets = [[SurfacePoints.of(h, 3, 10.0, 512, 0) for h in part] for part in (hearts[:12], hearts)]
    common = np.ones((12, 24, 3), bool)
    blocks = [[(np.arange(12), np.arange(24))]] * 4
    measured = []
    query = module._toward

    def counted(rows, columns, wanted, every, threads):
        measured.append(wanted.sum() / every)
        return query(rows, columns, wanted, every, threads)

    monkeypatch.setattr(module, "_toward", counted)
    found = nearest_distances(*sets, 99.0, common, blocks, threads=2)
    screened, measured[:] = sum(measured), []
    full = distances(*sets, 99.0)
    assert screened < sum(measured), "less work than all pairs with all points"
    for d, e in ((found, full), (found.mean(-1, keepdims=True), full.mean(-1, keepdims=True))):
        for axis in (0, 1):
            np.testing.assert_array_equal(d.argmin(axis), e.argmin(axis))
            np.testing.assert_allclose(d.min(axis), e.min(axis), atol=1e-9)
    assert (found != full).any(), "the others are estimates"


def test_each_pair_is_measured_once(monkeypatch):
    """Of a set with itself one direction is the other's transpose."""
    calls = []
    query = module._toward
    monkeypatch.setattr(module, "_toward", lambda *a: calls.append(1) or query(*a))
    made = [points(heart(k)) for k in range(3)]
    found = distances(made, made, 99.0)
    assert len(calls) == 1 and np.allclose(found, found.transpose(1, 0, 2))
    others = [points(heart(k)) for k in range(3)]
    np.testing.assert_allclose(distances(made, others, 99.0), found, atol=1e-9)


def test_figures_do_not_depend_on_threads_or_screening(monkeypatch):
    train, test, made = (random_hearts(9, seed) for seed in range(3))
    references = References(train, test, test, reconstructed_train=train)
    options = GenerationOptions(points=512)
    found = evaluate(made, references, GRID, options)
    assert evaluate(made, references, GRID, options, threads=3) == found
    monkeypatch.setattr(module, "SCREENS", ())
    every = evaluate(made, references, GRID, options)
    for name in every["hearts"]:
        if name != "test":
            assert every[name]["all_classes"] == pytest.approx(found[name]["all_classes"], abs=1e-6)
            for label, row in every[name]["classes"].items():
                assert row == pytest.approx(found[name]["classes"][label], abs=1e-6)


# --- equal sets ------------------------------------------------------------------------------


def varied(number, seed):
    """Hearts whose middles are drawn from one distribution."""
    rng = np.random.default_rng(seed)
    return [np.roll(h, rng.integers(0, 2, 3), (0, 1, 2)) for h in random_hearts(number, seed)]


@pytest.mark.parametrize("numbers", [(6, 20, 40), (40, 6, 40), (40, 20, 6)])
def test_sets_are_of_one_size(numbers):
    made, test, train = (varied(n, k) for k, n in enumerate(numbers))
    references = References(train, test, test, reconstructed_train=train)
    figures = evaluate(made, references, GRID, GenerationOptions(points=32))
    assert set(figures["hearts"].values()) == {6}, "the smallest of the three"
    assert figures["hearts_of"] == dict(zip(("generated", "test", "train"), numbers))
    assert figures["draws"] == 10
    spread = figures["generated"]["spread"]
    assert {"mmd", "cov", "nna", "mean_w1"} == set(spread)
    assert max(spread.values()) > 0, "several draws"
    text = "\n".join(table_of_figures(figures))
    assert "sets of 6 hearts" in text and "means of 10 draws" in text and "±" in text
    assert ("sampling.num_samples=20" in "\n".join(figures.get("notes", []))) == (numbers[0] == 6)
    again = evaluate(made, references, GRID, GenerationOptions(points=32))
    assert again == figures, "seeded"


def test_few_samples_of_a_perfect_generator_look_perfect():
    """16 hearts of the same distribution against 40: 1-NNA was 0.7 and more, COV 0.2."""
    made, test, train = (varied(n, 10 + k) for k, n in enumerate((16, 40, 40)))
    figures = evaluate(made, References(train, test, test), GRID, GenerationOptions(points=32))
    row = figures["generated"]["all_classes"]
    assert 0.35 < row["nna"] < 0.65 and row["cov"] > 0.35


# --- what is not annotated -------------------------------------------------------------------


def without(hearts, classes, numbers):
    return [np.where(h == classes, 0, h) if i in numbers else h for i, h in enumerate(hearts)]


@pytest.mark.parametrize("label", [1, 2, 3])
@pytest.mark.parametrize("how", ["not annotated", "cut"])
def test_what_is_not_known_of_real_hearts_counts_nowhere(label, how):
    """A class that 4 of 12 test and training hearts lack changes little, and has a row."""
    made, test, train = (varied(12, 20 + k) for k in range(3))
    options = GenerationOptions(points=32)
    whole = evaluate(made, References(train, test, test), GRID, options)
    if how == "cut":
        hidden = np.arange(1, 4) == label
        cut = [hidden if i < 4 else None for i in range(12)]
        # what is shown of a cut class is a few voxels at the border
        test, train = (
            [_cut_off(h, label) if i < 4 else h for i, h in enumerate(s)] for s in (test, train)
        )
        references = References(train, test, test, cut, cut)
    else:
        test, train = without(test, label, range(4)), without(train, label, range(4))
        references = References(train, test, test)
    found = evaluate(made, references, GRID, options)
    for row in ("generated", "train_subset", "autoencoder"):
        a, b = found[row]["all_classes"], whole[row]["all_classes"]
        assert a["mmd"] == pytest.approx(b["mmd"], rel=0.2, abs=0.05), row
        assert set(found[row]["classes"]) == set(GRID.table.names), row
        name = GRID.table.names[label - 1]
        assert found[row]["classes"][name]["mmd"] < 1.5 * whole[row]["classes"][name]["mmd"] + 0.1
    assert found["train_subset"]["validity"]["valid"] == 1.0
    assert found["memorisation"]["test"]["mean"] == pytest.approx(
        whole["memorisation"]["test"]["mean"], abs=0.05
    )
    key = "cut" if how == "cut" else "not_annotated"
    assert found[key]["test"][GRID.table.names[label - 1]] == 4
    assert "counted nowhere: test hearts" in "\n".join(table_of_figures(found))


def _cut_off(heart_, label):
    data = np.where(heart_ == label, 0, heart_)
    data[0, 0, 0] = label
    return data


def test_a_class_that_a_generated_heart_lacks_is_a_fault():
    test, train = varied(8, 30), varied(8, 31)
    good = evaluate(test, References(train, test, test), GRID, GenerationOptions(points=32))
    lacking = evaluate(
        without(test, 3, range(8)),
        References(train, test, test),
        GRID,
        GenerationOptions(points=32),
    )
    row, name = lacking["generated"], GRID.table.names[2]
    assert row["classes"][name]["mmd"] == GRID.edge_mm / 8 and row["classes"][name]["nna"] > 0.9
    assert row["validity"]["complete"] == 0.0
    assert row["all_classes"]["mmd"] > good["generated"]["all_classes"]["mmd"] + 2


def test_a_mean_over_fewer_classes_is_no_smaller():
    """Hearts that lack the class which varies most are not nearer to all others for it."""
    found = np.full((2, 2, 3), [1.0, 1.0, 10.0])
    found[0, 0, 2] = np.nan
    typical = np.array([1.0, 1.0, 10.0])
    np.testing.assert_allclose(mean_over_classes(found, typical), 4.0)
    assert np.isinf(mean_over_classes(np.full((1, 1, 3), np.nan), typical)).all()


# --- numbers of parts ------------------------------------------------------------------------


def test_parts_are_judged_by_the_range_of_the_label_table(tmp_path):
    path = tmp_path / "labels.tsv"
    rows = [f"{k}\tc{k}\t\t#000000\t{n}\t{k}" for k, n in enumerate(("1", "1-3", "2-3"), start=1)]
    path.write_text("\n".join(["\t".join(STORED), *rows]))
    table = load_label_table(path)
    grid = Grid.from_dict(Grid(LABELS, 8, 80.0, table).stored())
    assert grid.table.usual_parts == [range(1, 2), range(1, 4), range(2, 4)]
    parts = {n: heart() for n in range(1, 5)}
    for n, data in parts.items():
        data[data == 3] = 0
        for place in range(n):
            data[6, 6, 2 * place] = 3
    anatomy = Anatomy.of(zip([parts[2], parts[3]], [ALL, ALL]), grid.table.usual_parts)
    kept = [anatomy.check(parts[n])["connected"] for n in range(1, 5)]
    assert kept == [False, True, True, False]


def test_grid_files_without_ranges_have_those_of_built_in_classes():
    plain = Grid(LABELS, 8, 80.0, LabelTable())
    earlier = Grid.from_dict(plain.as_dict())
    found = dict(zip(earlier.table.names, earlier.table.usual_parts))
    assert found["pulmonary_veins"] == range(2, 6) and found["aorta"] == range(1, 3)
    assert Grid.from_dict(plain.stored()).table.usual_parts == earlier.table.usual_parts
    own = LabelTable((LabelClass(value=1, name="own", title="", color="#000000", components=4),))
    assert own.usual_parts == [range(1, 5)], "of others the upper end alone"


# --- ends of the range -----------------------------------------------------------------------


def test_fields_and_a_single_sample_have_figures():
    """Hearts without classes, one sample, one training heart: figures, however little they say."""
    inside = [(h > 0).astype(np.uint8) for h in varied(5, 40)]
    figures = evaluate(
        inside[:1],
        References(inside[1:2], inside[2:], inside[2:], reconstructed_train=inside[1:2]),
        FIELD_GRID,
        GenerationOptions(points=32),
    )
    assert set(figures["hearts"].values()) == {1} and figures["generated"]["classes"] == {}
    assert figures["generated"]["validity"]["connected"] == 1.0, "of as many parts as there are"
    assert np.isfinite(list(figures["generated"]["all_classes"].values())).all()
    assert table_of_figures(figures)


def test_where_nothing_is_known_there_are_no_figures():
    hearts = varied(3, 60)
    cut = [np.ones(3, bool)] * 3
    figures = evaluate(
        hearts, References(hearts, hearts, hearts, (), cut), GRID, GenerationOptions(points=32)
    )
    assert set(figures["generated"]["all_classes"].values()) == {None}
    assert figures["generated"]["volumes"]["mean_w1"] is None and table_of_figures(figures)


def test_a_heart_of_which_nothing_is_known_is_near_to_none():
    test, train = varied(6, 50), varied(6, 51)
    cut = [np.ones(3, bool), *[None] * 5]
    figures = evaluate(
        varied(6, 52), References(train, test, test, cut, cut), GRID, GenerationOptions(points=32)
    )
    for row in ("generated", "autoencoder", "train_subset"):
        assert np.isfinite(list(figures[row]["all_classes"].values())).all(), row
        assert np.isfinite(figures[row]["all_classes"]["mmd"]), row
