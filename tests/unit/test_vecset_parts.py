"""Hearts with hidden classes: what is drawn, where it is put, and what is made of the rest."""

from __future__ import annotations

import dataclasses
import json
import types

import numpy as np
import pytest
import torch
from points_files import write_points_file

from cardiform.artefact.model import Model
from cardiform.cohort.table import Case
from cardiform.completion.between import complete_between
from cardiform.completion.figures import summarise
from cardiform.completion.files import complete_beyond, complete_file
from cardiform.errors import InputError
from cardiform.geometry.frame import UNIT_RADIUS, Frame, apply_affine
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.vecset.complete import PartCompleter, UsualShapes, evaluate_case
from cardiform.vecset.data import CasePoints, Draw, PointDataset
from cardiform.vecset.inputs import Labelled
from cardiform.vecset.levels import chosen_levels
from cardiform.vecset.parts import (
    GUESS,
    GUESSES,
    PartDataset,
    Usual,
    hidden_at_random,
    placed,
    without,
)
from cardiform.vecset.reconstruct import Reconstructor
from cardiform.vecset.similarity import Similarity
from cardiform.vecset.task import VecsetTask, counting
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable(STACOM_2025[:3])
# Balls, one class each: middle and radius in the unit frame; they fill the ball of radius 0.95.
MIDDLES = np.array([[-0.65, 0.0, 0.0], [0.0, 0.2, -0.1], [0.65, 0.0, 0.0]])
RADII = np.array([0.3, 0.25, 0.3])


def surface(number=900, seed=0) -> Labelled:
    rng = np.random.default_rng(seed)
    channels = rng.integers(3, size=number).astype(np.uint8)
    way = rng.normal(size=(number, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    points = MIDDLES[channels] + RADII[channels, None] * way
    return Labelled.of(points.astype(np.float32), channels)


def with_normals(heart: Labelled) -> Labelled:
    outward = (heart.points - MIDDLES[heart.channels]) / RADII[heart.channels, None]
    return dataclasses.replace(heart, normals=outward.astype(np.float32))


def distances(points: np.ndarray) -> np.ndarray:
    """(N, 3) to (N, 3 classes), of the balls."""
    return np.linalg.norm(points[:, None] - MIDDLES, axis=2) - RADII


def case_points(seed=0, number=400) -> CasePoints:
    points = np.random.default_rng(seed).uniform(-1, 1, (number, 3)).astype(np.float32)
    sdf = distances(points).astype(np.float16)
    volume = Labelled.of(points, np.zeros(number, np.uint8))
    return CasePoints("a", surface(seed=seed), volume, sdf, volume, sdf, np.ones(3, bool))


def usual() -> Usual:
    return Usual.of([case_points(), case_points(1)])


def items(share=0.0, most=1, slices=0.0, heart=None, **changes) -> PointDataset:
    draw = {
        "input_points": 300, "volume_queries": 40, "near_queries": 30, "surface_queries": 20,
        "balanced": 0.5, "latents": 16, "augment_rotation_deg": 20.0, "augment_shift": 0.05,
    }  # fmt: skip
    drawn = Draw(**(draw | changes))
    cases = [dataclasses.replace(case_points(), surface=heart or surface())]
    if not (share or slices):
        return PointDataset(cases, drawn)
    return PartDataset(cases, drawn, usual=usual(), share=share, most=most, slices=slices)


def seen(item) -> set[int]:
    """The channels of the points that are no guesses."""
    return set(np.flatnonzero((item["points"][:, 3:6] == 1).any(axis=0)).tolist())


@pytest.mark.parametrize("hidden", [[], [0], [2], [1, 2]])
def test_a_part_is_put_where_the_whole_heart_lies(hidden):
    """Wherever it comes from, and however large: within what random points make of a middle."""
    part = without(surface(4000), hidden) if hidden else surface(4000)
    moved = part.points * 0.31 + (5.0, -2.0, 1.0)
    back = usual().placing(moved, part.channels).apply(moved)
    assert np.abs(back - part.points).max() < 0.03


def test_guesses_lie_where_the_class_usually_is():
    for middle, radius, shape in zip(MIDDLES, RADII, usual().shapes):
        assert shape.shape == (GUESSES, 3)
        assert np.abs(np.linalg.norm(shape - middle, axis=1) - radius).max() < 0.05


def test_what_is_hidden_says_nothing_of_the_place():
    whole, far = surface(), surface()
    far.points[far.channels == 2] += 3.0
    parts = [without(heart, [2]) for heart in (whole, far)]
    one, other = (usual().placing(part.points, part.channels) for part in parts)
    assert (one.scale, *one.shift) == (other.scale, *other.shift)


def test_nothing_known_is_refused():
    with pytest.raises(InputError, match="without any known class"):
        without(surface(), [0, 1, 2])
    nobody = Usual(np.full((3, 3), np.nan), np.full(3, np.nan), usual().shapes, np.zeros(3))
    with pytest.raises(InputError, match="without any known class"):
        nobody.placing(surface().points, surface().channels)


def test_hearts_that_the_scan_cuts_do_not_say_where_classes_lie():
    cut = case_points()
    cut = CasePoints(**{**vars(cut), "planes": np.zeros((1, 4)), "surface": surface(10)})
    assert np.array_equal(Usual.of([case_points(), cut]).middles, Usual.of([case_points()]).middles)
    assert np.isfinite(Usual.of([cut]).radii).all(), "unless there are no others"


def test_one_to_so_many_classes_are_hidden_and_one_is_left():
    rng = np.random.default_rng(0)
    left = {len(hidden_at_random(surface(), 2, rng).rows) for _ in range(40)}
    assert left == {1, 2}
    assert {len(hidden_at_random(surface(), 9, rng).rows) for _ in range(40)} == {1, 2}
    single = without(surface(), [1, 2])
    assert hidden_at_random(single, 5, rng) is single


def test_hidden_classes_are_not_encoded_and_are_asked_for():
    data = items(1.0, 2)
    for number in range(8):
        item = data[0, number]
        assert len(seen(item)) in (1, 2) and item["points"].shape == (300, 6)
        guessed = (item["points"][:, 3:] == GUESS).any(axis=0)
        assert seen(item) | set(np.flatnonzero(guessed)) == {0, 1, 2}
        assert np.isfinite(item["near_sdf"]).all() and item["annotated"].all()
        assert set(item["surface_channel"]) == {0, 1, 2}


def test_learned_queries_start_at_no_point_of_a_part_either():
    item = items(share=1.0, latents=0)[0, 3]
    assert len(item["fps"]) == 0 and len(item["points"]) == 300


def test_distances_are_those_of_the_heart_where_it_is_put():
    """Without augmentation the heart lies where its part usually does: near where it was."""
    item = items(1.0, augment_rotation_deg=0.0, augment_shift=0.0)[0, 3]
    for name in ("near", "volume"):
        assert np.abs(item[f"{name}_sdf"] - distances(item[name])).max() < 0.1
    points = item["points"][(item["points"][:, 3:] == 1).any(axis=1)]
    again = usual().placing(points[:, :3], points[:, 3:].argmax(axis=1))
    assert np.allclose([again.scale - 1, *again.shift], 0, atol=1e-4), "it lies there already"


def test_samples_are_decided_by_the_draw_and_others_stay_as_they_were():
    hiding, plain = items(0.5, 2), items()
    again = items(0.5, 2)
    same = []
    for number in range(20):
        item, other = hiding[0, number], plain[0, number]
        assert all(np.array_equal(item[k], again[0, number][k]) for k in item)
        same.append(all(np.array_equal(item[k], other[k]) for k in other))
        assert same[-1] == (len(seen(item)) == 3)
    assert 4 < sum(same) < 16


def test_a_share_of_the_samples_is_of_slices_and_the_rest_stays_as_it_was():
    """Slices show so few of the points that they are drawn several times."""
    ways = {"plain": {}, "hiding": {"share": 0.5}, "slicing": {"slices": 0.5}}
    ways["both"] = ways["hiding"] | ways["slicing"]
    heart = with_normals(surface(9000))
    made = {way: items(most=2, heart=heart, **shares) for way, shares in ways.items()}
    sliced = 0
    for number in range(24):
        item = {way: data[0, number] for way, data in made.items()}
        if len(np.unique(item["slicing"]["points"][:, 0])) > 285:
            for one, other in (("plain", "slicing"), ("hiding", "both")):
                assert all(np.array_equal(item[one][k], item[other][k]) for k in item[one])
            continue
        sliced += 1
        assert not item["slicing"]["hidden"].any(), "slices show something of every ball"
        assert seen(item["both"]) == seen(item["hiding"]), "classes are hidden of slices, too"
    assert 5 < sliced < 19


def one_ball_elsewhere(place: int) -> CasePoints:
    """A heart whose third ball lies at one of four places, which its other classes do not tell."""
    rng = np.random.default_rng(place)
    points = rng.uniform(-1, 1, (6000, 3)).astype(np.float32)
    turned = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[place]
    middles = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, *(0.6 * turned)]])
    sdf = np.linalg.norm(points[:, None] - middles, axis=2) - 0.25
    kinds = np.where(sdf.min(1) < 0, sdf.argmin(1), 3).astype(np.uint8)
    volume = Labelled.of(points, kinds)
    way = rng.normal(size=(300, 3))
    seen = np.arange(300) % 3
    surface = middles[seen] + 0.25 * way / np.linalg.norm(way, axis=1, keepdims=True)
    drawn = Labelled.of(surface.astype(np.float32), seen.astype(np.uint8))
    near_sdf = np.linalg.norm(drawn.points[:, None] - middles, axis=2) - 0.25
    return CasePoints("a", drawn, drawn, near_sdf, volume, sdf, np.ones(3, bool))


def test_a_place_is_asked_for_as_often_where_the_hidden_class_is_not():
    """Else the network learns to answer yes wherever a hidden class might be."""
    cases = [one_ball_elsewhere(k) for k in range(4)]
    draw = Draw(input_points=200, volume_queries=400, near_queries=90, surface_queries=20,
                balanced=0.8, latents=16)  # fmt: skip
    data = PartDataset(cases, draw, usual=Usual.of(cases), share=1.0, most=1)
    inside, asked, about = 0.0, 0.0, []
    for number in range(160):
        item = data[number % 4, number]
        if not item["hidden"][2]:
            continue
        assert item["near_hidden"].any() and not item["near_hidden"].all()
        batch = {k: torch.from_numpy(v)[None] for k, v in item.items() if k != "case_id"}
        counts = counting(batch, torch.ones(1, 490, 3, dtype=torch.bool))[0].numpy()
        assert (counts[:, :2] == 1).all(), "what is seen counts everywhere"
        assert np.array_equal(counts[400:, 2] == 0, item["near_hidden"])
        at = item["volume"] - (0, 0.6, 0)  # the place of the first heart
        there = np.linalg.norm(at, axis=1) < 0.2
        yes = item["volume_sdf"][there, 2] < 0
        inside += (counts[:400, 2][there] * yes).sum()
        asked += counts[:400, 2][there].sum()
        guesses = item["points"][item["points"][:, 5] == GUESS, :3]
        about.append((np.linalg.norm(guesses[:, None] - item["volume"], axis=2) < 0.1).any(axis=0))
    assert inside / asked == pytest.approx(0.25, abs=0.08), "one heart in four has it there"
    evenly = len(guesses) * 4 / 3 * np.pi * 0.1**3 / 8  # at most: balls overlap
    assert np.mean(about) > 4 * evenly, "where it may be is asked for more often than elsewhere"


def test_a_hidden_class_without_guesses_is_not_asked_for_more_often():
    """Only cases that the scan cuts have it: where it usually lies is not known."""
    cases = [one_ball_elsewhere(k) for k in range(4)]
    draw = Draw(input_points=200, volume_queries=400, near_queries=90, surface_queries=20,
                balanced=0.8, latents=16)  # fmt: skip
    known = Usual.of(cases)
    known.radii[2] = np.nan
    data = PartDataset(cases, draw, usual=known, share=1.0, most=1)
    drawn = [item for k in range(60) if (item := data[k % 4, k])["hidden"][2]]
    inside = np.mean([item["volume_sdf"][:, 2] < 0 for item in drawn])
    assert inside < 0.02, "as much of it as of the cube"


def test_hidden_surfaces_ask_for_no_zero():
    """The surface term, and the slope, are of the classes that are seen."""
    options = VecsetOptions(preset="demo", volume_queries=40, near_queries=30, surface_queries=20)
    task = VecsetTask(options, TABLE)
    item = items(1.0, 2)[0, 3]
    batch = {k: torch.from_numpy(v)[None] for k, v in item.items() if k != "case_id"}
    hidden = batch["hidden"][0]
    assert hidden.any() and not hidden.all()
    wild = torch.where(hidden, 7.0, 0.0).expand(1, 90, 3)
    assert task.data_terms(batch, wild)["surface"] == 0
    wild = torch.where(hidden, 0.0, 7.0).expand(1, 90, 3)
    assert task.data_terms(batch, wild)["surface"] == 7
    for _ in range(5):
        _, channels, counts = task.eikonal_points(batch)
        assert not (hidden[channels] & counts).any()


def test_maps_behind_each_other():
    rng = np.random.default_rng(0)
    one, other = (Similarity.draw(rng, 30.0, 0.2, 0.3) for _ in range(2))
    points = rng.normal(size=(50, 3))
    assert np.allclose(one.after(other).apply(points), one.apply(other.apply(points)), atol=1e-5)


def test_a_placed_frame_is_the_map_behind_the_frame():
    frame = Frame(np.array([3.0, 4.0, 5.0]), 0.02)
    move = Similarity(np.eye(3), 1.3, np.array([0.1, 0.0, -0.2]))
    points = np.random.default_rng(0).normal(size=(20, 3)) * 50
    found = placed(frame, move).to_unit(points)
    assert np.allclose(found, move.apply(frame.to_unit(points)), atol=1e-5)


def stored(extra) -> Model:
    return Model(
        kind="vecset", weights={}, options={}, labels=[], figures={}, training_cases=[], extra=extra
    )


def test_the_model_says_where_classes_lie():
    found = Usual.of_model(stored({"usual": usual().as_dict(TABLE)}), TABLE)
    assert np.array_equal(found.middles, usual().middles)
    assert np.array_equal(found.shapes, usual().shapes)
    lacking = usual()
    lacking.middles[2], lacking.radii[2], lacking.shapes[2] = np.nan, np.nan, np.nan
    again = Usual.of_model(stored({"usual": json.loads(json.dumps(lacking.as_dict(TABLE)))}), TABLE)
    assert np.array_equal(again.radii, lacking.radii, equal_nan=True)
    assert np.array_equal(again.shapes, lacking.shapes, equal_nan=True)
    assert Usual.of_model(stored({}), TABLE) is None
    leveled = stored({"usual": usual().as_dict(TABLE), "levels": {"left_atrium": 0.02}})
    assert Usual.of_model(leveled, TABLE).levels.tolist() == [0, 0.02, 0]
    for wrong in (None, {"nobody": 0.1}, {"myocardium": "x"}, {"myocardium": float("nan")}):
        with pytest.raises(InputError, match="not valid"):
            Usual.of_model(stored({"usual": {}, "levels": wrong}), TABLE)


@pytest.mark.parametrize(
    "found",
    [
        None,
        3,
        {"unheard_of": {"middle": [0, 0, 0], "radius": 1}},
        {"myocardium": {"middle": [0, 0, 0]}},
        {"myocardium": {"middle": [0, 0], "radius": 1, "shape": [[0, 0, 0]] * GUESSES}},
        {"myocardium": {"middle": [0, 0, 0], "radius": "x", "shape": [[0, 0, 0]] * GUESSES}},
        {"myocardium": {"middle": [0, 0, 0], "radius": 1, "shape": [[0, 0, 0]] * 3}},
    ],
)
def test_a_damaged_model_is_one_line(found):
    with pytest.raises(InputError, match=r"model\.pt: says in a way that is not valid"):
        Usual.of_model(stored({"usual": found}), TABLE)


class Oracle(torch.nn.Module):
    """Answers with the true distances of the balls, whatever it was given; notes what that was."""

    shape = type("Shape", (), {"latents": 4})
    starts = 4
    too_small = 0.0  # what balls are made smaller by

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(1, 1)

    def encode(self, points, fps):
        self.seen = points
        return torch.zeros(1, 4, 5)

    def expand(self, latents):
        return latents

    def query(self, tokens, queries):
        return torch.from_numpy(distances(queries[0].numpy()))[None].float() + self.too_small


@pytest.mark.parametrize("too_small", [0.0, 0.02])
def test_the_level_is_that_at_which_hidden_classes_come_out_right(too_small):
    network, cases = Oracle(), [case_points(k, 20_000) for k in range(2)]
    network.too_small = too_small
    draw = items().draw
    found = chosen_levels(network, cases, usual(), draw, TABLE)
    assert found == dict.fromkeys(TABLE.names, too_small)
    assert chosen_levels(network, [], usual(), draw, TABLE) == {}
    lacking = [CasePoints(**{**vars(c), "surface": without(c.surface, [1])}) for c in cases]
    assert chosen_levels(network, lacking, usual(), draw, TABLE).keys() == {
        n for n in TABLE.names if n != TABLE.names[1]
    }


def test_what_is_made_is_cut_at_its_level(tmp_path, completer):
    """Balls that come out too small by 0.03, and a level that makes up for it."""
    whole = load_label_map(heart(tmp_path, "whole")[0].labels)
    heart(tmp_path, "given", without_value=3)
    completer.network.model.too_small = 0.03
    volumes = []
    for level in (0.0, 0.03):
        completer.usual.levels[2] = level
        out = tmp_path / f"{level}.nii.gz"
        complete_file(tmp_path / "given.nii.gz", out, missing=(), completer=completer)
        volumes.append((load_label_map(out).data == 3).sum() / (whole.data == 3).sum())
    assert volumes[0] < 0.85 and volumes[1] == pytest.approx(1, abs=0.07)


AFFINE = np.diag([-3.0, 3.0, 4.0, 1.0])
AFFINE[:3, 3] = [100, -80, 30]
SHAPE = (48, 44, 34)


def heart(folder, name="a", size=60.0, without_value=0):
    """Label map and points file of the balls; ``size`` mm is the radius of the heart."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    middle = apply_affine(AFFINE, np.array(SHAPE) / 2)
    frame = Frame(middle, UNIT_RADIUS / size)
    sdf = distances(frame.to_unit(apply_affine(AFFINE, index)).reshape(-1, 3)).reshape(*SHAPE, 3)
    data = np.where(sdf.min(-1) < 0, np.array(TABLE.values)[sdf.argmin(-1)], 0).astype(np.uint8)
    data[data == without_value] = 0
    path = folder / f"{name}.nii.gz"
    save_label_map(path, data, AFFINE)
    drawn, near = surface(), case_points()
    values = np.array(TABLE.values, np.uint8)
    write_points_file(
        folder / f"{name}.npz",
        surface_points=drawn.points, surface_labels=values[drawn.channels],
        near_points=near.near.points, near_labels=values[near.near.channels],
        near_sdf=near.near_sdf, volume_points=near.volume.points, volume_sdf=near.volume_sdf,
        annotated=np.ones(3, bool), class_values=values, center=middle,
        scale=np.float64(frame.scale),
    )  # fmt: skip
    return Case(case_id=name, patient_id=name, labels=str(path)), folder / f"{name}.npz"


@pytest.fixture
def completer():
    training = VecsetOptions(preset="demo", input_points=600, hidden_share=0.5)
    options = VecsetReconstructOptions(query_batch=5000)
    network = Reconstructor(Oracle(), TABLE, training, options, torch.device("cpu"), usual())
    return PartCompleter(network, usual())


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("size", [50.0, 60.0])
def test_what_lacks_is_made_and_what_is_known_stays(tmp_path, completer, size):
    """The heart is found in its place and size from the classes that are there."""
    whole = load_label_map(heart(tmp_path, "whole", size)[0].labels)
    given = heart(tmp_path, "given", size, without_value=3)[0].labels
    complete_file(
        tmp_path / "given.nii.gz", tmp_path / "out.nii.gz", missing=(), completer=completer
    )
    made, before = load_label_map(tmp_path / "out.nii.gz"), load_label_map(given)
    assert np.array_equal(made.data[before.data > 0], before.data[before.data > 0])
    assert dice(made.data == 3, whole.data == 3) > 0.9
    assert set(np.unique(made.data)) == {0, *TABLE.values}
    assert not (completer.network.model.seen[0, :, 3 + 2] > 0).any(), "it was not seen"


def test_a_heart_is_made_from_its_slices(tmp_path, completer):
    """The network sees their contours and nothing else; the balls come out between them."""
    network = completer.network
    training = dataclasses.replace(network.training, normals=True)
    completer = dataclasses.replace(
        completer, network=dataclasses.replace(network, training=training)
    )
    whole = load_label_map(heart(tmp_path, "whole")[0].labels)
    kept = np.arange(6, 44, 5)
    data = np.zeros_like(whole.data)
    data[kept] = whole.data[kept]
    save_label_map(tmp_path / "given.nii.gz", data, AFFINE)
    places = tmp_path / "given.nii.gz", tmp_path / "out.nii.gz"
    complete_between(*places, missing=(), completer=completer)
    made = load_label_map(tmp_path / "out.nii.gz").data
    assert np.array_equal(made[kept], whole.data[kept])
    for value in TABLE.values:
        assert dice(made == value, whole.data == value) > 0.9, value
    shown = completer.network.model.seen[0]
    across = np.sort(shown[(shown[:, 3:6] == 1).any(dim=1), 0].numpy())
    gaps = np.diff(across)
    assert (gaps > 0.1).sum() >= 5 and (gaps > 0.1).sum() < len(kept), "points lie in planes"


@pytest.mark.parametrize(
    "share, words",
    [
        ("slices_share", "complete slices; train it with vecset."),
        ("hidden_share", "complete; train it with vecset."),
    ],
)
def test_a_model_without_what_is_asked_is_refused(tmp_path, completer, share, words):
    network = dataclasses.replace(
        completer.network, training=VecsetOptions(preset="demo", hidden_share=0.0)
    )
    with pytest.raises(InputError, match=f"model.pt: was not trained to {words}{share} above 0"):
        PartCompleter.of(
            network, tmp_path / "model.pt", completer.meshes, completer.points, [share]
        )


@pytest.mark.parametrize("beyond", [False, True])
def test_a_heart_of_a_voxel_is_refused(tmp_path, beyond):
    """For whatever model: nothing was asked of it yet."""
    known = types.SimpleNamespace(table=TABLE)
    data = np.zeros((8, 8, 8), np.uint8)
    data[0 if beyond else 4, 4, 4] = TABLE.values[0]
    save_label_map(tmp_path / "given.nii.gz", data, AFFINE)
    places = tmp_path / "given.nii.gz", tmp_path / "out.nii.gz"
    with pytest.raises(InputError, match=r"given\.nii\.gz: spans 1 x 1 x 1 voxels only") as caught:
        if beyond:
            complete_beyond(*places, mm=5.0, completer=known)
        else:
            complete_file(*places, missing=(), completer=known)
    assert len(caught.value.problems) == 1 and not places[1].exists()


def test_a_label_that_the_table_lacks_names_the_file(tmp_path, completer):
    heart(tmp_path, "given", without_value=3)
    found = load_label_map(tmp_path / "given.nii.gz")
    found.data[0, 0, 0] = 77
    save_label_map(tmp_path / "given.nii.gz", found.data, found.affine)
    with pytest.raises(InputError, match=r"given\.nii\.gz: label 77 is not in the label table"):
        complete_file(
            tmp_path / "given.nii.gz", tmp_path / "out.nii.gz", missing=(), completer=completer
        )
    assert not (tmp_path / "out.nii.gz").exists()


def test_every_class_of_a_test_case_is_made_from_the_others(tmp_path, completer):
    cases = [heart(tmp_path, name) for name in "ab"]
    shapes = UsualShapes.of(cases, TABLE, completer.usual)
    written = evaluate_case(
        cases[0][0],
        points={"a": cases[0][1]},
        completer=completer,
        mean_shape=shapes,
        out=tmp_path / "out",
    )
    assert [p.name for p in written] == ["a.json", "a.nii.gz", "a.png"]
    found = summarise(["a"], tmp_path / "out", TABLE.names)["mean"]
    for name in TABLE.names:
        assert found[name]["model"]["dice"] > 0.9, name
        assert found[name]["mean_shape"]["dice"] > 0.85, "of equal hearts"


def test_a_model_that_was_not_trained_to_is_refused(tmp_path, completer):
    plain = Reconstructor(*list(vars(completer.network).values())[:5])
    with pytest.raises(InputError, match=r"model\.pt: was not trained to complete; train it with"):
        PartCompleter.of(plain, tmp_path / "model.pt", completer.meshes, completer.points)
