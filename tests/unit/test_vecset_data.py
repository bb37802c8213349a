"""Point files to items: determinism, class balance, farthest points, augmentation."""

import sys

import numpy as np
import pytest
from points_files import write_points_file

from cardiform.errors import InputError
from cardiform.files import save_npz
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.vecset import inputs
from cardiform.vecset.data import (
    Draw,
    PointDataset,
    Similarity,
    load_case_points,
)
from cardiform.vecset.inputs import Labelled, draw_input, farthest_points, labelled_points

TABLE = LabelTable(STACOM_2025[:3])

RADII = (0.3, 0.5, 0.8)


def write_spheres(path, seed=0, radii=RADII, absent=(), **changes):
    """A points file of concentric spheres, one class each; ``absent`` channels unknown."""
    rng = np.random.default_rng(seed)

    def on_spheres(count):
        kinds = rng.choice([c for c in range(len(radii)) if c not in absent], size=count)
        way = rng.normal(size=(count, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        return way * np.array(radii)[kinds, None], kinds

    def distances(points):
        sdf = np.linalg.norm(points, axis=1, keepdims=True) - np.array(radii)
        sdf[:, list(absent)] = np.nan
        return sdf.astype(np.float16)

    surface, surface_kinds = on_spheres(600)
    near, near_kinds = on_spheres(500)
    near = near + rng.normal(scale=0.02, size=near.shape)
    volume = rng.uniform(-1, 1, size=(500, 3))
    values = np.array(TABLE.values[: len(radii)], np.uint8)
    arrays = {
        "surface_points": surface.astype(np.float32),
        "surface_labels": values[surface_kinds],
        "near_points": near.astype(np.float32),
        "near_sdf": distances(near),
        "near_labels": values[near_kinds],
        "volume_points": volume.astype(np.float32),
        "volume_sdf": distances(volume),
        "annotated": np.array([c not in absent for c in range(len(radii))]),
        "class_values": values,
    }
    arrays.update(changes)
    return write_points_file(path, **arrays)


def dataset(tmp_path, **changes) -> PointDataset:
    cases = [
        load_case_points(write_spheres(tmp_path / f"{i}.npz", seed=i), f"case{i}", TABLE)
        for i in range(2)
    ]
    sizes = {
        "input_points": 64,
        "volume_queries": 40,
        "near_queries": 30,
        "surface_queries": 20,
        "balanced": 0.5,
        "latents": 16,
    }
    return PointDataset(cases, Draw(**(sizes | changes)))


def same(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in a)


def test_an_item_is_decided_by_seed_and_draw(tmp_path):
    first, again = (dataset(tmp_path, augment_rotation_deg=20.0) for _ in range(2))
    assert same(first[0, 7], again[0, 7])
    assert not np.array_equal(first[0, 7]["near"], first[0, 8]["near"])
    other = dataset(tmp_path, augment_rotation_deg=20.0, seed=1)
    assert not np.array_equal(first[0, 7]["near"], other[0, 7]["near"])
    assert first[1, 7]["case_id"] == "case1"


def test_no_farthest_points_where_latents_are_learned(tmp_path, monkeypatch):
    with_starts, without = dataset(tmp_path)[0, 3], dataset(tmp_path, latents=0, input_points=64)
    monkeypatch.setattr(inputs, "farthest_points", None)
    item = without[0, 3]
    assert item["fps"].shape == (0,) and item["fps"].dtype == np.int64
    assert same({**item, "fps": 0}, {**with_starts, "fps": 0})


def test_item_shapes_and_types(tmp_path):
    item = dataset(tmp_path)[0, 0]
    shapes = {k: (v.shape, v.dtype.name) for k, v in item.items() if k != "case_id"}
    assert shapes == {
        "points": ((64, 6), "float32"),
        "fps": ((16,), "int64"),
        "volume": ((40, 3), "float32"),
        "volume_sdf": ((40, 3), "float32"),
        "near": ((30, 3), "float32"),
        "near_sdf": ((30, 3), "float32"),
        "surface": ((20, 3), "float32"),
        "surface_channel": ((20,), "int64"),
        "annotated": ((3,), "bool"),
    }


def test_augmented_distances_are_distances_of_the_moved_spheres(tmp_path):
    data = dataset(
        tmp_path, augment_rotation_deg=30.0, augment_scale=0.3, augment_shift=0.2, seed=3
    )
    plain = dataset(tmp_path, seed=3)
    draw = data.draw
    for number in range(5):
        item = data[0, number]
        rng = np.random.default_rng((3, number))
        move = Similarity.draw(
            rng, draw.augment_rotation_deg, draw.augment_scale, draw.augment_shift
        )
        centre = move.apply(np.zeros((1, 3)))
        for name in ("volume", "near"):
            reach = np.linalg.norm(item[name] - centre, axis=1, keepdims=True)
            truth = reach - np.array(RADII) * move.scale
            np.testing.assert_allclose(item[name + "_sdf"], truth, atol=2e-3)
        radius = np.linalg.norm(item["surface"] - centre, axis=1) / move.scale
        np.testing.assert_allclose(radius, np.array(RADII)[item["surface_channel"]], atol=1e-5)
        assert not np.allclose(item["points"][:, :3], plain[0, number]["points"][:, :3])


def test_similarities_never_mirror_and_stay_within_bounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        move = Similarity.draw(rng, 25.0, 0.1, 0.05)
        np.testing.assert_allclose(move.rotation @ move.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(move.rotation) == pytest.approx(1.0)
        assert np.trace(move.rotation) >= 1 + 2 * np.cos(np.deg2rad(25.0)) - 1e-12
        assert 0.9 <= move.scale <= 1.1
        assert np.abs(move.shift).max() <= 0.05


def test_a_share_of_the_rows_is_even_over_the_classes():
    channels = np.repeat(np.array([0, 1, 2], np.uint8), [9_800, 100, 100])
    labelled = Labelled.of(np.zeros((10_000, 3), np.float32), channels)
    rng = np.random.default_rng(0)
    even = np.bincount(channels[labelled.draw(6_000, 1.0, rng)]) / 6_000
    np.testing.assert_allclose(even, 1 / 3, atol=0.03)
    fair = np.bincount(channels[labelled.draw(6_000, 0.0, rng)]) / 6_000
    np.testing.assert_allclose(fair, [0.98, 0.01, 0.01], atol=0.01)


def test_farthest_points_are_distinct_spread_and_shared_by_class():
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1], [300, 100])
    points = labelled_points(rng.uniform(-1, 1, size=(400, 3)), kinds, 2)
    rows = farthest_points(points, 40)
    assert rows.dtype == np.int64
    assert len(set(rows.tolist())) == 40
    assert np.bincount(kinds[rows]).tolist() == [30, 10]
    np.testing.assert_array_equal(rows, farthest_points(points, 40))

    def covering(chosen):
        gaps = np.linalg.norm(points[:300, None, :3] - points[None, chosen, :3], axis=2)
        return gaps.min(axis=1).max()

    assert covering(rows[:30]) < covering(np.arange(30))


def test_farthest_points_refuse_more_than_there_are():
    with pytest.raises(InputError, match="4 input points are too few for 5 latents"):
        farthest_points(np.zeros((4, 3), np.float32), 5)


def test_missing_fpsample_is_an_error_with_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "fpsample", None)
    with pytest.raises(InputError, match="pip install fpsample"):
        farthest_points(np.zeros((4, 3), np.float32), 2)


def test_input_carries_the_label_of_each_point(tmp_path):
    case = load_case_points(write_spheres(tmp_path / "a.npz"), "a", TABLE)
    points, fps = draw_input(
        case.surface,
        3,
        input_points=50,
        latents=9,
        balanced=0.5,
        rng=np.random.default_rng(0),
    )
    radius = np.linalg.norm(points[:, :3], axis=1)
    np.testing.assert_allclose(radius, np.array(RADII)[points[:, 3:].argmax(1)], atol=1e-5)
    assert (points[:, 3:].sum(1) == 1).all()
    assert fps.shape == (9,)


def test_only_the_first_points_are_kept(tmp_path):
    path = write_spheres(tmp_path / "a.npz")
    case = load_case_points(path, "a", TABLE, keep=10)
    assert len(case.near.points) == len(case.near_sdf) == len(case.volume.points) == 10
    assert case.near.channels.shape == (10,)
    assert case.volume_sdf.base is None  # a copy: the rest of the file is let go


def test_volume_points_are_balanced_over_inside_and_outside(tmp_path):
    item = dataset(tmp_path, volume_queries=2_000, balanced=1.0)[0, 0]
    inside = np.where(item["volume_sdf"].min(1) < 0, item["volume_sdf"].argmin(1), 3)
    # the largest of concentric spheres is the deepest everywhere within it
    np.testing.assert_allclose(
        np.bincount(inside, minlength=4) / 2_000, [0, 0, 0.5, 0.5], atol=0.05
    )


def test_absent_classes_stay_unknown(tmp_path):
    case = load_case_points(write_spheres(tmp_path / "a.npz", absent=(1,)), "a", TABLE)
    assert case.annotated.tolist() == [True, False, True]
    assert np.isnan(case.near_sdf[:, 1]).all()


def test_files_that_do_not_fit_are_named(tmp_path):
    path = write_spheres(tmp_path / "a.npz", class_values=np.array([1, 2, 5], np.uint8))
    with pytest.raises(InputError, match=r"a\.npz.*classes \(1, 2, 5\)"):
        load_case_points(path, "a", TABLE)
    none = {"near_points": np.zeros((0, 3), np.float32), "near_sdf": np.zeros((0, 3), np.float16)}
    path = write_spheres(tmp_path / "b.npz", **none, near_labels=np.zeros(0, np.uint8))
    with pytest.raises(InputError, match="near_points is empty"):
        load_case_points(path, "b", TABLE)
    save_npz(tmp_path / "c.npz", surface_points=np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"is no points file \(no surface_normals, surf"):
        load_case_points(tmp_path / "c.npz", "c", TABLE)


def test_thin_classes_have_more_of_the_input(tmp_path):
    """Depths 0.3, 0.5 and 0.8 of three balls: shares of a balanced draw go as 1 over them."""
    case = load_case_points(write_spheres(tmp_path / "a.npz"), "a", TABLE)
    depth = [-case.volume_sdf[:, c].astype(float).min() for c in range(3)]
    shares = 1 / np.array(depth)
    np.testing.assert_allclose(case.surface.shares, shares / shares.sum(), rtol=0.1)
    rng = np.random.default_rng(0)
    drawn = case.surface.channels[case.surface.draw(20_000, 1.0, rng)]
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, case.surface.shares, atol=0.02)
    even = case.near.channels[case.near.draw(20_000, 1.0, rng)]
    np.testing.assert_allclose(np.bincount(even) / 20_000, np.full(3, 1 / 3), atol=0.02)
