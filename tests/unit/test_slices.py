"""Hearts of which only some slices are annotated: which these are, what a VecSet sees of them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from cardiform.completion.between import complete_between, joined_between
from cardiform.errors import InputError
from cardiform.geometry.between_slices import held_to_slices
from cardiform.geometry.frame import Frame, apply_affine
from cardiform.geometry.slices import Slices, annotated_slices, continued
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.vecset.inputs import Labelled
from cardiform.vecset.slices import HALF, NARROW, WIDE, sliced, sliced_at_random
from cardiform.volumes import LabelMap, load_label_map, save_label_map

TABLE = LabelTable(STACOM_2025[:3])
OBLIQUE = np.array(
    [[0.6, 0.8, 0.0, 5.0], [-0.8, 0.6, 0.0, -3.0], [0.0, 0.0, 1.5, 40.0], [0, 0, 0, 1.0]]
)
SHAPE = (30, 28, 40)


def ball(affine=OBLIQUE, shape=SHAPE, radius=12.0) -> LabelMap:
    """A ball of one class in a shell of another."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)
    middle = apply_affine(affine, (np.array(shape) - 1) / 2)
    away = np.linalg.norm(apply_affine(affine, index) - middle, axis=-1)
    return LabelMap(
        np.select([away < radius / 2, away < radius], [2, 1], 0).astype(np.uint8), affine
    )


def emptied(label_map: LabelMap, axis: int, kept) -> LabelMap:
    """All but some layers."""
    data = np.zeros_like(label_map.data)
    place = (slice(None),) * axis + (np.asarray(kept),)
    data[place] = label_map.data[place]
    return LabelMap(data, label_map.affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_annotated_layers_are_found_across_any_axis(axis):
    kept = np.arange(11, 30, 4)
    grid, slices = annotated_slices("a.nii.gz", emptied(ball(), axis, kept))
    whole = ball()
    there = kept[[np.take(whole.data, k, axis).any() for k in kept]]
    assert slices.axis == axis and np.array_equal(slices.layers, there) and slices.step == 4
    assert np.array_equal(grid.affine, OBLIQUE)
    for layer in range(there[0] - 2, there[-1] + 2):
        nearest = there[np.abs(there - layer).argmin()]
        assert np.array_equal(np.take(grid.data, layer, axis), np.take(whole.data, nearest, axis))
    beyond = np.delete(grid.data, np.arange(there[0] - 2, there[-1] + 3), axis)
    assert not beyond.any(), "farther than half the distance of the slices"


def test_thick_slices_become_thinner_about_the_same_places():
    thick = np.diag([1.0, 1.0, 7.0, 1.0])
    given = ball(thick, (30, 30, 9), radius=14.0)
    grid, slices = annotated_slices("a.nii.gz", given)
    assert grid.data.shape == (30, 30, 9 * 7) and np.allclose(grid.spacing, 1)
    assert np.array_equal(
        np.take(grid.data, slices.layers, 2), given.data[..., given.data.any((0, 1))]
    )
    before = apply_affine(thick, np.array([3.0, 4.0, 5.0]))
    assert np.allclose(apply_affine(grid.affine, np.array([3.0, 4.0, 5 * 7 + 3])), before)
    assert slices.step == 7


def test_what_has_no_slices_is_refused():
    with pytest.raises(InputError, match=r"a\.nii\.gz: has neither layers without labels"):
        annotated_slices("a.nii.gz", ball())
    one = ball(np.diag([1.0, 1.0, 8.0, 1.0]), (30, 30, 9), radius=14.0)
    one.data[..., :4] = one.data[..., 5:] = 0
    with pytest.raises(InputError, match="has a single annotated slice; annotate several"):
        annotated_slices("a.nii.gz", one)


def test_slices_may_lie_at_different_distances():
    """Nothing between two of them is left empty, and past the ends it goes as far as usually."""
    kept = np.array([9, 11, 13, 23, 25])
    given = emptied(ball(np.eye(4) * [1, 1, 1, 1], (30, 30, 40), 14.0), 2, kept)
    given.data[14, 14, kept] = 1
    grid, slices = annotated_slices("a.nii.gz", given)
    assert slices.axis == 2 and np.array_equal(slices.layers, kept) and slices.step == 2
    layers = np.flatnonzero(grid.data.any(axis=(0, 1)))
    assert np.array_equal(layers, np.arange(8, 27))
    made = joined_between(given.data, np.ones_like(given.data), slices)
    filled = np.flatnonzero((made == 1).all(axis=(0, 1)))
    assert np.array_equal(filled, np.setdiff1d(np.arange(8, 27), kept))


@pytest.mark.parametrize("spacing", [1.0, 7.0])
def test_structures_that_lie_apart_are_no_slices(spacing):
    data = np.zeros((60, 20, 20), np.uint8)
    data[5:15, 5:15, 5:15] = data[45:55, 5:15, 5:15] = 1
    given = LabelMap(data, np.diag([1.0, 1.0, spacing, 1.0]))
    if spacing == 1:
        with pytest.raises(InputError, match="has neither layers without labels"):
            annotated_slices("a.nii.gz", given)
        given.data[..., np.arange(20) % 3 > 0] = 0
    _, slices = annotated_slices("a.nii.gz", given)
    assert slices.axis == 2, "they are single"
    if spacing == 1:
        for kept in ([6, 12], [6, 9, 12]):
            three = np.zeros((60, 20, 20), np.uint8)
            three[5:12, 5:15, kept] = three[25:32, 5:15, kept] = three[45:52, 5:15, kept] = 1
            found = annotated_slices("a.nii.gz", LabelMap(three, given.affine))[1]
            assert found.axis == 2 and np.array_equal(found.layers, kept)
    one = LabelMap(np.where(np.arange(20) == 9, data, 0).astype(np.uint8), given.affine)
    with pytest.raises(InputError, match="has a single annotated slice"):
        annotated_slices("a.nii.gz", one)


def test_a_stack_of_which_every_second_slice_is_annotated_becomes_finer_too():
    thick = ball(np.diag([1.0, 1.0, 7.0, 1.0]), (40, 40, 13), radius=40.0)
    grid, slices = annotated_slices("a.nii.gz", emptied(thick, 2, np.arange(1, 13, 2)))
    sagittal = ball(np.diag([0.4, 0.4, 1.0, 1.0]), (60, 60, 30), radius=30.0)
    other, across = annotated_slices("a.nii.gz", emptied(sagittal, 0, np.arange(3, 60, 8)))
    assert across.axis == 0 and other.data.shape == (60, 60, 30), "single layers say more"
    assert grid.data.shape[2] == 13 * 7 and slices.step == 14
    assert np.array_equal(slices.layers, np.arange(1, 13, 2) * 7 + 3)


def test_slices_at_the_border_of_the_volume_are_continued_past_it():
    kept = np.arange(0, 40, 3)
    given = emptied(ball(radius=40.0), 2, kept)
    grid, slices = annotated_slices("a.nii.gz", given)
    more, their = continued(grid, slices)
    assert np.array_equal(their.layers, kept + 2) and more.data.shape == (30, 28, 44)
    for layer in (0, 1, 2):
        assert np.array_equal(more.data[..., layer], given.data[..., 0])
    before = apply_affine(OBLIQUE, np.array([4.0, 5, 6]))
    assert np.allclose(apply_affine(more.affine, np.array([4.0, 5, 8])), before)


def test_planes_pass_through_the_middles_of_their_layers():
    frame, slices = Frame(np.array([3.0, -2.0, 60.0]), 0.02), Slices(1, np.array([4, 10, 11]))
    direction, offsets = slices.planes(OBLIQUE, frame)
    for layer, offset in zip(slices.layers, offsets):
        places = frame.to_unit(apply_affine(OBLIQUE, np.array([[3.0, layer, 1], [9, layer, 20]])))
        assert np.allclose(places @ direction, offset)
    assert np.isclose(np.linalg.norm(direction), 1)


def sphere(number=200_000) -> Labelled:
    way = np.random.default_rng(0).normal(size=(number, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    channels = (way[:, 0] > 0).astype(np.uint8)
    points = (0.8 * way).astype(np.float32)
    return Labelled.of(points, channels, normals=way.astype(np.float32))


def test_slices_show_what_lies_in_their_planes():
    direction, offsets = np.array([0.0, 0.6, 0.8]), np.array([-0.5, 0.1, 0.3])
    seen = sliced(sphere(), direction, offsets, np.random.default_rng(0))
    away = np.abs((seen.points @ direction)[:, None] - offsets).min(axis=1)
    assert away.max() < HALF and set(seen.channels) == {0, 1}
    assert np.abs(seen.normals @ direction).max() < 1e-5
    assert np.allclose(np.linalg.norm(seen.normals, axis=1), 1, atol=1e-5)
    outward = (seen.normals * seen.points).sum(axis=1)
    assert (outward > 0).all()


def test_contours_have_as_many_points_for_each_millimetre():
    """However steeply the surface is cut: a plane near the pole shows more surface than contour."""
    direction, offsets = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.75])
    seen = sliced(sphere(), direction, offsets, np.random.default_rng(0))
    high = (seen.points[:, 2] > 0.5).mean()
    lengths = np.sqrt(0.8**2 - offsets**2)
    assert high == pytest.approx(lengths[1] / lengths.sum(), abs=0.03)


def test_slices_that_show_next_to_nothing_are_none():
    beside = sliced(sphere(), np.array([0.0, 0.0, 1.0]), np.array([0.95]), np.random.default_rng(0))
    assert beside is None
    few = sphere(5)
    assert sliced_at_random(few, np.random.default_rng(0)) is few


def test_random_slices_lie_in_all_directions_and_distances():
    counts = [
        len(sliced_at_random(sphere(20_000), np.random.default_rng(k)).points) for k in range(60)
    ]
    shares = np.array(counts) / 20_000
    thickest, thinnest = (2 * HALF / step for step in (NARROW, WIDE))
    assert shares.max() < 1.2 * thickest and shares.min() > thinnest / 3
    assert shares.max() > 3 * shares.min()


class Known:
    """Makes what it is told to."""

    table = TABLE

    def __init__(self, made: LabelMap):
        self.data = made.data

    def between(self, label_map, slices, missing=()):
        self.asked = label_map, slices, missing
        return self.data


def test_a_disc_in_one_slice_reaches_halfway_to_the_next():
    index = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"), axis=-1)
    disc = np.linalg.norm(index[..., :2] - 19.5, axis=-1) < 14
    given = np.where(disc & (index[..., 2] == 20), np.uint8(1), np.uint8(0))
    slices = Slices(2, np.array([0, 10, 20, 30, 39]))
    held = held_to_slices(np.zeros_like(given), given, slices, np.ones(3), believed_vox=0.0)
    assert np.array_equal(np.flatnonzero(held.any(axis=(0, 1))), np.arange(16, 25))
    assert held[..., 24].sum() > 100


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_a_wide_gap_among_narrow_ones_is_interpolated_all_through(spacing):
    """A cone, with slices two layers apart but for a gap of twenty."""
    shape = np.round(60 / np.array(spacing)).astype(int)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1) * spacing
    radius = 6 + at[..., 2] / 60 * 20
    truth = (np.linalg.norm(at[..., :2] - 29.5, axis=-1) < radius).astype(np.uint8)
    layers = np.array([2, 4, 6, 8, 28, 30, 32, 34])
    held = held_to_slices(
        np.zeros_like(truth), truth, Slices(2, layers), np.array(spacing), believed_vox=0.0
    )
    between = slice(9, 28)
    areas, wanted = ((x[..., between] == 1).sum(axis=(0, 1)) for x in (held, truth))
    assert np.abs(np.sqrt(areas / wanted) - 1).max() < 0.08


def test_a_network_that_is_wrong_is_held_to_the_slices_and_missing_classes_stay(tmp_path):
    truth = ball()
    kept = np.arange(13, 28, 3)
    save_label_map(tmp_path / "a.nii.gz", emptied(truth, 2, kept).data, OBLIQUE)
    moved = np.roll(truth.data, 4, 0)
    moved[:3, :3] = 3
    out, known = tmp_path / "out.nii.gz", Known(LabelMap(moved, OBLIQUE))
    complete_between(tmp_path / "a.nii.gz", out, missing=TABLE.names[2:], completer=known)
    found, between = load_label_map(out).data, slice(14, 25)
    before, after = (
        dice(x[..., between] == 1, truth.data[..., between] == 1) for x in (moved, found)
    )
    assert before < 0.7 and after > 0.9
    assert (found[:3, :3] == 3).all(), "no slice says anything of it"


def test_past_the_ends_what_slices_say_fades():
    truth = ball(np.eye(4), (34, 34, 40), 40.0).data
    truth = (truth > 0).astype(np.uint8)
    truth[:10] = 0  # a wall at 10
    made = np.roll(truth, 4, 0)
    made[:14] = 0
    slices = Slices(2, np.array([10, 20]))
    held = held_to_slices(made, truth, slices, np.ones(3))
    walls = np.argmax(held[:, 17] > 0, axis=0)
    assert abs(int(walls[15]) - 10) <= 1 and walls[0] == walls[39] == 14
    assert walls[10] <= walls[7] <= walls[4] <= walls[1]


def test_annotated_layers_stay_and_others_are_made(tmp_path):
    truth = ball()
    kept = np.arange(13, 28, 3)
    save_label_map(tmp_path / "a.nii.gz", emptied(truth, 2, kept).data, OBLIQUE)
    out = tmp_path / "out.nii.gz"
    complete_between(tmp_path / "a.nii.gz", out, missing=(), completer=Known(truth))
    found = load_label_map(out)
    assert np.array_equal(found.data[..., kept], truth.data[..., kept])
    between = [k for k in range(kept[0] - 2, kept[-1] + 3) if k not in kept]
    assert np.array_equal(found.data[..., between], truth.data[..., between])
    beyond = np.delete(found.data, np.arange(kept[0] - 2, kept[-1] + 3), 2)
    assert not beyond.any(), "the next slice would have shown it"
    assert nib.load(out).get_data_dtype() == nib.load(tmp_path / "a.nii.gz").get_data_dtype()


def test_a_class_that_no_slice_shows_is_made_where_background_is(tmp_path):
    given = np.zeros((6, 6, 12), np.uint8)
    given[2:4, 2:4, [3, 6, 9]] = 1
    made = np.full(given.shape, 3, np.uint8)
    data = joined_between(given, made, Slices(2, np.array([3, 6, 9])), missing=[3])
    assert (data[given == 1] == 1).all() and (data[given == 0] == 3).all()
    without = joined_between(given, made, Slices(2, np.array([3, 6, 9])))
    assert not without[..., 0].any() and (without[..., 4] == 3).all()
    assert np.array_equal(without[..., 3], given[..., 3])


def test_a_class_that_a_slice_shows_is_not_missing(tmp_path):
    path = tmp_path / "a.nii.gz"
    save_label_map(path, emptied(ball(), 2, np.arange(13, 28, 3)).data, OBLIQUE)
    names = TABLE.names
    with pytest.raises(InputError, match=f"has {names[0]} already"):
        complete_between(path, tmp_path / "out.nii.gz", missing=names[:1], completer=Known(ball()))
    known = Known(ball())
    complete_between(path, tmp_path / "out.nii.gz", missing=names[2:], completer=known)
    assert known.asked[2] == names[2:]


def test_what_agrees_with_its_slices_stays():
    truth = ball(np.diag([1.0, 1.0, 2.0, 1.0]), (30, 30, 24), 14.0)
    slices = Slices(2, np.array([6, 10, 14, 17]))
    assert np.array_equal(held_to_slices(truth.data, truth.data, slices, truth.spacing), truth.data)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_lies_beside_its_slices_is_moved_there(axis):
    """By nearly two voxels, in each layer between the first and the last slice."""
    truth = np.moveaxis(ball(np.eye(4), (34, 34, 30), 12.0).data, 2, axis)
    slices, spacing = Slices(axis, np.arange(4, 30, 5)), np.ones(3)
    across = (axis + 1) % 3
    made = np.roll(truth, 2, across)
    held = held_to_slices(made, truth, slices, spacing)
    between = (slice(None),) * axis + (np.arange(4, 25),)
    for value in (1, 2):
        before, after = (
            dice(found[between] == value, truth[between] == value) for found in (made, held)
        )
        assert before < 0.85 and after > 0.9, value


def test_without_a_model_it_is_interpolation():
    """A cylinder whose radius grows by a voxel from slice to slice."""
    index = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"), axis=-1)
    away = np.linalg.norm(index[..., :2] - 19.5, axis=-1)
    truth = (away < 6 + index[..., 2] / 5).astype(np.uint8)
    slices = Slices(2, np.arange(2, 40, 5))
    found = held_to_slices(np.zeros_like(truth), truth, slices, np.ones(3), believed_vox=0.0)
    between = slice(2, 38)
    assert dice(found[..., between] == 1, truth[..., between] == 1) > 0.98


def test_a_thin_class_that_one_layer_lacks_is_not_asked_for_far_and_wide():
    """Two vessels, of which the model makes one: near that one, nothing grows."""
    given = np.zeros((40, 40, 21), np.uint8)
    given[9:12, 9:12], given[29:32, 29:32] = 1, 1
    made = given.copy()
    made[29:32, 29:32] = 0
    slices = Slices(2, np.array([0, 10, 20]))
    held = held_to_slices(made, given, slices, np.ones(3))
    assert (held[:20, :20] == given[:20, :20]).all()
    assert (held[29:32, 29:32] == 1).mean() > 0.9 and (held == 1).sum() < 1.3 * (given == 1).sum()


def test_a_branch_between_slices_does_not_grow_where_a_vessel_elsewhere_is_missing():
    given = np.zeros((40, 40, 21), np.uint8)
    given[29:32, 17:20] = 1
    made = np.zeros_like(given)
    made[5:20, 17:20, 4:7] = 1
    held = held_to_slices(made, given, Slices(2, np.array([0, 10, 20])), np.ones(3))
    assert (held[:22] != made[:22]).sum() < 20


def test_rims_of_a_voxel_are_not_believed():
    """What a shaky hand draws does not spread to the layers between."""
    truth = (ball(np.eye(4), (34, 34, 41), 40.0).data > 0).astype(np.uint8)
    truth[:10] = truth[24:] = 0
    slices = Slices(2, np.arange(0, 41, 5))
    given = truth.copy()
    rim = np.random.default_rng(0).random((2, 34, 41)) < 0.5
    given[9], given[24] = rim
    shaky = held_to_slices(truth, given, slices, np.ones(3), believed_vox=0.0)
    believed = held_to_slices(truth, given, slices, np.ones(3))
    wrong = [(found != truth)[..., ~np.isin(np.arange(41), slices.layers)].sum()
             for found in (shaky, believed)]  # fmt: skip
    assert wrong[1] < 0.6 * wrong[0]


def dice(one, other) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())
