"""Registration, modes, scores, voxels and regression against what is known of each."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from cardiform.cohort.free_columns import read_numbers
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.geometry import cases
from cardiform.geometry.surface import Mesh, extract_surface
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.options.statistics import ShapeStatisticsOptions
from cardiform.statistics import make
from cardiform.statistics.case import RegisteredHeart, registered_path, to_surface
from cardiform.statistics.cohort import (
    Cohort,
    compared,
    file_stems,
    registration_figures,
    write_columns,
)
from cardiform.statistics.drawing import write_modes
from cardiform.statistics.hearts import (
    Outline,
    check_enough,
    chosen_classes,
    extent,
    split_off,
)
from cardiform.statistics.model import ShapeModel
from cardiform.statistics.poses import Pose, aligned, best_pose, common_middles, middles_pose
from cardiform.statistics.quality import SignedDistances
from cardiform.statistics.regression import check_known, regression
from cardiform.statistics.template import Template, make_template
from cardiform.statistics.velocity import folded_share, register, rows_at
from cardiform.statistics.voxels import Box, inside, label_map
from cardiform.volumes import save_label_map

RNG = np.random.default_rng(0)


def ball(radius, middle=(0, 0, 0), edge=2.0, shape=(24, 24, 24)) -> np.ndarray:
    """(X, Y, Z) signed distances of a ball about the middle of a grid, clipped at 12 mm."""
    points = (np.indices(shape).T - (np.array(shape) - 1) / 2).T * edge
    far = np.linalg.norm(points.T - np.asarray(middle), axis=-1).T - radius
    return np.clip(far, -12, 12).astype(np.float32)


def surface(distances: np.ndarray, edge: float = 2.0) -> Mesh:
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = -(np.array(distances.shape) - 1) / 2 * edge
    return extract_surface(np.where(distances == 0, 1e-3, distances), affine)


# --- registration ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [ball(16), ball(8), ball(11, (6, -4, 3))], ids=("grow", "shrink", "move")
)
def test_surfaces_are_moved_onto_each_other_without_folds(other):
    fixed = ball(11)
    found = register(fixed[..., None], other[..., None], 2.0, 4.0)
    mesh = surface(fixed)
    index = (mesh.vertices / 2.0 + (np.array(fixed.shape) - 1) / 2).astype(np.float32)
    left = np.abs(rows_at(other[..., None], found.moved(index)))
    assert left.mean() < 0.25 and left.max() < 1.0  # mm, of voxels of 2 mm
    assert found.folded == 0


def test_each_class_moves_to_its_own():
    """Two balls that come near each other do not take the other's surface for their own."""
    fixed = np.stack([ball(7, (-9, 0, 0)), ball(7, (9, 0, 0))], axis=-1)
    moving = np.stack([ball(7, (-5, 4, 0)), ball(6, (10, 4, 0))], axis=-1)
    found = register(fixed, moving, 2.0, 4.0)
    for channel in (0, 1):
        vertices = surface(fixed[..., channel]).vertices
        index = (vertices / 2.0 + 11.5).astype(np.float32)
        left = np.abs(rows_at(moving[..., channel, None], found.moved(index)))
        assert left.mean() < 0.3
    assert found.folded == 0


def test_a_fold_is_seen():
    displacement = np.zeros((8, 8, 8, 3), np.float32)
    assert folded_share(displacement) == 0
    displacement[4:, :, :, 0] = -3
    assert folded_share(displacement) > 0.1


# --- poses -------------------------------------------------------------------------------


def test_a_pose_is_found_again():
    points = RNG.normal(size=(50, 3)) * 30
    pose = Pose(
        Rotation.from_euler("xyz", [20, -10, 40], degrees=True).as_matrix(), np.arange(3.0), 1.2
    )
    found = best_pose(points, pose(points), with_scale=True)
    np.testing.assert_allclose(found.matrix, pose.matrix, atol=1e-9)
    np.testing.assert_allclose(pose.inverse(pose(points)), points, atol=1e-9)
    np.testing.assert_allclose(Pose.of_matrix(pose.matrix).turn, pose.turn, atol=1e-12)
    mirrored = points * [-1, 1, 1]
    assert np.linalg.det(best_pose(points, mirrored).turn) > 0  # a rotation, never a mirror


def test_alignment_takes_pose_away_and_size_where_asked():
    shape = RNG.normal(size=(40, 3)) * 20
    turns = Rotation.random(6, rng=1).as_matrix()
    sizes = np.linspace(0.8, 1.2, 6)
    shapes = np.stack([s * shape @ t.T + 50 * t[0] for s, t in zip(sizes, turns)]).astype(
        np.float32
    )
    _, moved = aligned(shapes, with_scale=True)
    assert np.ptp(moved, axis=0).max() < 1e-2
    mean, moved = aligned(shapes, with_scale=False)
    spread = np.linalg.norm(moved - moved.mean(axis=1, keepdims=True), axis=2).mean(axis=1)
    np.testing.assert_allclose(spread / spread.mean(), sizes / sizes.mean(), rtol=1e-3)
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-4)


def test_few_middles_allow_a_shift_alone():
    one = np.array([[1.0, 2, 3], [np.nan] * 3])
    onto = np.array([[5.0, 5, 5], [9, 9, 9]])
    pose = middles_pose(one, onto)
    np.testing.assert_allclose(pose.turn, np.eye(3))
    np.testing.assert_allclose(pose(one[0]), onto[0])


def test_the_mean_of_middles_is_that_of_hearts_in_one_pose():
    places = np.array([[0.0, 0, 0], [30, 0, 0], [0, 20, 0], [0, 0, 10]])
    turn = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    mean = common_middles([places, places @ turn.T + 7, places + 3])
    np.testing.assert_allclose(mean, places - places.mean(axis=0), atol=1e-3)


# --- modes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    """Hearts of two modes: the model, the coefficients, the shapes."""
    mesh = surface(ball(18))
    about = mesh.vertices / 18
    modes = np.stack([3 * about * about[:, :1] ** 2, 1.5 * about * about[:, 1:2] ** 2])
    coefficients = np.linalg.qr(RNG.normal(size=(12, 3)))[0][:, 1:]
    coefficients = (coefficients - coefficients.mean(axis=0)) * np.sqrt(11)
    shapes = mesh.vertices + np.tensordot(coefficients, modes, axes=1)
    shapes = (shapes + RNG.normal(size=(12, 1, 3)) * 20).astype(np.float32)  # somewhere else each
    labels = np.where(mesh.vertices[mesh.faces[:, 0], 2] > 0, 1, 3).astype(np.uint8)
    model = ShapeModel.fit(
        shapes, mesh.faces, labels, variance=0.999, most_modes=20, remove_size=False
    )
    return model, coefficients, shapes


def test_modes_go_along_with_what_made_them(known):
    model, coefficients, shapes = known
    scores = np.stack([model.scores(shape) for shape in shapes])
    for mode in range(2):
        assert abs(np.corrcoef(scores[:, mode], coefficients[:, mode])[0, 1]) > 0.97
    np.testing.assert_allclose(scores.std(axis=0, ddof=1)[:2], 1, rtol=0.01)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=0.01)
    assert model.explained[:2].sum() > 0.98 and (np.diff(model.explained) <= 0).all()


def test_scores_make_the_heart_again(known):
    model, _, shapes = known
    rebuilt = model.shape(model.scores(shapes[0]))
    assert np.linalg.norm(rebuilt - model.posed(shapes[0]), axis=1).mean() < 0.05
    half = shapes[0][:, 2] > np.median(shapes[0][:, 2])
    np.testing.assert_allclose(
        model.scores(shapes[0], half)[:2], model.scores(shapes[0])[:2], atol=0.25
    )


def test_the_share_and_the_number_of_modes_are_kept(known):
    model, _, shapes = known
    more = {"faces": model.faces, "labels": model.labels, "remove_size": False}
    assert ShapeModel.fit(shapes, **more, variance=0.5, most_modes=20).modes == 1
    assert ShapeModel.fit(shapes, **more, variance=1.0, most_modes=2).modes == 2


@pytest.mark.parametrize("copies", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("remove_size", [False, True])
def test_hearts_that_are_all_the_same_have_no_modes(known, copies, remove_size):
    """Where they lie, and the rounding of it, is no difference; nor is their size, taken away."""
    model, _, shapes = known
    turns = Rotation.random(copies, rng=2).as_matrix()
    sizes = np.linspace(0.9, 1.1, copies) if remove_size else np.ones(copies)
    same = np.stack([s * shapes[0] @ t.T + 40 * t[0] for s, t in zip(sizes, turns)])
    with pytest.raises(InputError, match=f"the {copies} training hearts are all the same"):
        ShapeModel.fit(
            same.astype(np.float32), model.faces, model.labels, variance=0.95, most_modes=9,
            remove_size=remove_size,
        )  # fmt: skip


def test_a_model_has_the_keys_that_others_read(known, tmp_path):
    model, *_ = known
    model.save(tmp_path / "model.npz")
    found = load_npz(tmp_path / "model.npz")
    of_the_report = {"vertices", "faces", "labels", "components", "explained"}
    assert set(found) == of_the_report | {"template_sha256", "classes"}
    assert found["components"].shape == (model.modes, *found["vertices"].shape)
    np.testing.assert_array_equal(
        ShapeModel.load(tmp_path / "model.npz").components, model.components
    )


@pytest.mark.parametrize(
    ("key", "change", "fact"),
    [
        ("faces", lambda a: a + 10_000, "corners that are none"),
        ("components", lambda a: a * np.nan, "not finite"),
        ("components", lambda a: a * 0, "moves nothing"),
        ("components", lambda a: a[:0], "no modes"),
        ("labels", lambda a: a * 0, "triangles of no class"),
        ("labels", lambda a: a[1:], "is no shape model file"),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(known, tmp_path, key, change, fact):
    model, *_ = known
    model.save(tmp_path / "model.npz")
    found = load_npz(tmp_path / "model.npz")
    found[key] = change(found[key])
    if key == "components":
        found["explained"] = found["explained"][: len(found[key])]
    save_npz(tmp_path / "model.npz", **found)
    with pytest.raises(InputError, match=fact) as refused:
        ShapeModel.load(tmp_path / "model.npz")
    assert len(refused.value.problems) == 1


def test_modes_are_drawn_and_move(known, tmp_path):
    model, *_ = known
    paths = write_modes(tmp_path, model, LabelTable())
    assert len(paths) == 7 * model.modes and all(path.exists() for path in paths)
    with Image.open(tmp_path / "modes.gif") as animation:
        assert animation.n_frames > 8 and animation.size[0] == 260 * min(model.modes, 4)
    with Image.open(tmp_path / "modes.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_distance_to_a_surface_is_that_of_its_planes():
    mesh = surface(ball(16))
    points = surface(ball(14)).vertices
    np.testing.assert_allclose(to_surface(points, mesh), 2, atol=0.25)


# --- voxels ------------------------------------------------------------------------------


def test_voxels_fill_a_surface():
    mesh = surface(ball(18))
    box = Box.around(mesh.vertices, 1.0)
    found = inside(mesh, box)
    assert abs(found.sum() / (4 / 3 * np.pi * 18**3) - 1) < 0.02
    middle = (np.argwhere(found) * box.spacing + box.origin).mean(axis=0)
    np.testing.assert_allclose(middle, 0, atol=0.1)


def test_the_priority_decides_where_surfaces_overlap():
    table = LabelTable()
    parts = {1: surface(ball(16)), 3: surface(ball(10))}  # the ventricle goes before its muscle
    found = label_map(parts, Box.around(parts[1].vertices), table)
    middle = tuple(n // 2 for n in found.shape)
    assert found[middle] == 3 and set(np.unique(found)) == {0, 1, 3}


# --- which hearts ------------------------------------------------------------------------


def outline(name: str, whole) -> Outline:
    whole = np.array(whole, bool)
    radii = np.where(whole, 20.0, np.nan)
    case = Case(case_id=name, patient_id=name, labels="x")
    return Outline(
        case,
        np.where(whole[:, None], 1.0, np.nan),
        radii,
        whole,
        np.full((len(whole), 1, 3), np.nan),
    )


def test_the_grid_holds_hearts_in_the_pose_of_the_template():
    """Scans lie across each other: their own axes say nothing of the grid's."""
    ends = np.array(
        [[[-90.0, 0, 0], [9, 0, 0]], [[0, -60, 0], [0, 20, 0]], [[0, 0, -8], [0, 0, 5]]]
    )
    hearts = []
    for turn in Rotation.from_euler("z", [[0], [90], [45]], degrees=True).as_matrix():
        case = Case(case_id="a", patient_id="a", labels="x")
        about = ends @ turn.T
        hearts.append(Outline(case, about.mean(axis=1) + 50, np.ones(3), np.ones(3), about + 50))
    found = extent(hearts, [0, 1, 2], ends.mean(axis=1))
    np.testing.assert_allclose(found, [[-90, -60, -8], [9, 20, 5]], atol=1e-6)


def test_training_hearts_alone_make_the_grid(monkeypatch):
    """A held-out heart that is larger does not move it."""
    table = LabelTable(LabelTable().classes[:3])
    names = {"a": "train", "b": "train", "c": "train", "d": "test", "e": "val"}
    middles = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0]])
    hearts = [
        replace(outline(name, [1, 1, 1]), middles=middles, ends=np.full((3, 1, 3), reach))
        for name, reach in zip(names, (30.0, 31.0, 32.0, 99.0, 98.0))
    ]
    found = {}

    def stop(*_, **given):
        found.update(given)
        raise InputError("seen")

    monkeypatch.setattr(make, "outlines", lambda *_: hearts)
    monkeypatch.setattr(make, "make_template", stop)
    work = make.Work([heart.case for heart in hearts], table, None, None)
    with pytest.raises(InputError, match="seen"):
        make.make_model(work, names, {}, ShapeStatisticsOptions())
    np.testing.assert_allclose(found["reach"][1], np.array([29, 29, 32]) + make.RIM_MM)


# --- what the grid loses -----------------------------------------------------------------


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    """A ball with a plate of 1 mm beside it, meshed: the case, its table, its meshes."""
    folder = tmp_path_factory.mktemp("thin")
    x, y, z = np.indices((50, 50, 50))
    labels = ((x - 25) ** 2 + (y - 25) ** 2 + (z - 18) ** 2 < 14**2).astype(np.uint8)
    labels[15:35, 15:35, 40:42] = 2
    save_label_map(folder / "a.nii.gz", labels, np.diag([1.0, 1.0, 1.0, 1.0]))
    case = Case(case_id="a", patient_id="a", labels=str(folder / "a.nii.gz"))
    table = LabelTable(LabelTable().classes[:2])
    cases.mesh_case(case, table=table, options=MeshesOptions(), out=folder / "meshes")
    return case, table, folder / "meshes"


def thin_template(thin, grid_mm: float, mesh_mm: float) -> Template:
    case, table, meshes = thin
    return make_template(
        Outline.of(case, table, meshes), (0, 1), table, meshes, grid_mm=grid_mm, mesh_mm=mesh_mm,
        smoothing_mm=4.0, remove_size=False,
    )  # fmt: skip


@pytest.mark.parametrize(("grid_mm", "mesh_mm", "key"), [(2, 16, "mesh_mm"), (16, 2, "grid_mm")])
def test_a_class_that_is_too_thin_is_named(thin, grid_mm, mesh_mm, key):
    fact = f"left_atrium of a is too thin for {key} 16; lower shape_statistics.{key}"
    with pytest.raises(InputError, match=re.escape(fact)) as refused:
        thin_template(thin, grid_mm, mesh_mm)
    assert len(refused.value.problems) == 1


def test_distances_are_read_for_few_hearts_and_a_lost_class_is_named(thin, tmp_path):
    template = thin_template(thin, 2, 2)
    for name in "abc":
        distances = template.distances.copy()
        distances[..., 1] = np.abs(distances[..., 1]) if name != "a" else distances[..., 1]
        save_npz(
            registered_path(tmp_path, name), vertices=template.mesh.vertices, pose=np.eye(4),
            distances=distances, residual_mm=np.zeros(2), known=np.ones(2, bool),
            folded=np.float64(0), format_version=np.int64(1),
        )  # fmt: skip
    cohort = Cohort.load(template, tmp_path, dict.fromkeys("abc", "train"))
    assert not any(heart.distances.size for heart in cohort.hearts.values())
    np.testing.assert_array_equal(cohort.on_grid("a").distances, template.distances)
    assert isinstance(cohort.on_grid("b"), RegisteredHeart)
    fact = "left_atrium of b, c is too thin for grid_mm 2; lower shape_statistics.grid_mm"
    with pytest.raises(InputError, match=fact) as refused:
        compared(cohort, SimpleNamespace(), thin[1], ShapeStatisticsOptions())
    assert len(refused.value.problems) == 1


def test_classes_that_most_scans_cut_are_left_out_and_then_hearts_that_lack_one():
    table = LabelTable(LabelTable().classes[:3])
    hearts = [outline("a", [1, 1, 0]), outline("b", [1, 1, 0]), outline("c", [1, 0, 1])]
    assert chosen_classes(hearts, table, ShapeStatisticsOptions()) == [0, 1]
    kept, reasons = split_off(hearts, [0, 1], table)
    assert [o.case.case_id for o in kept] == ["a", "b"]
    assert reasons == {"c": "without left_atrium"}
    with pytest.raises(InputError, match="2 of 3 training hearts have"):
        check_enough(kept, 3, ["myocardium"])
    with pytest.raises(InputError, match="left_ventricle is whole in no training heart"):
        chosen_classes(hearts[:2], table, ShapeStatisticsOptions(classes=("left_ventricle",)))
    with pytest.raises(InputError, match="no class is whole in more than half of 1"):
        chosen_classes([outline("a", [0, 0, 0])], table, ShapeStatisticsOptions())


def test_thin_classes_are_left_out_unless_they_are_asked_for():
    table = LabelTable()
    hearts = [outline(name, np.ones(10)) for name in "abc"]
    channels = chosen_classes(hearts, table, ShapeStatisticsOptions())
    assert [n for c, n in enumerate(table.names) if c not in channels] == ["coronary"]
    asked = ShapeStatisticsOptions(classes=("coronary", "aorta"))
    assert chosen_classes(hearts, table, asked) == [5, 8]


def test_a_heart_that_reaches_beyond_the_grid_is_named(thin, caplog):
    case, table, meshes = thin
    template, heart = thin_template(thin, 2, 2), Outline.of(case, table, meshes)
    ends = heart.ends.copy()
    ends[0] = ends[0] * 4 - 3 * heart.middles[0]
    large = replace(heart, ends=ends)
    cut = replace(large, whole=np.array([False, True]))  # what the scan cuts does not count
    with caplog.at_level("INFO"):
        for outline in (heart, cut):
            make.note_beyond([outline], (0, 1), template)
            assert not caplog.messages
        make.note_beyond([large], (0, 1), template)
    [line] = caplog.messages
    assert re.fullmatch(r"a: reaches [1-9]\d* mm beyond the grid of the template, .*", line)


@pytest.mark.filterwarnings("error")
def test_hearts_that_are_alike_on_the_grid_are_plain_ones_without_modes(thin):
    template = thin_template(thin, 4, 4)
    hearts = {"train": [SimpleNamespace(distances=template.distances)] * 4}
    plain = SignedDistances(template, hearts, 9)
    assert plain.modes == 0 and plain.shares.shape == (0,)
    np.testing.assert_allclose(plain.field(plain.code(0, "train")), plain.field(np.zeros(0)))


# --- columns -----------------------------------------------------------------------------


def test_a_number_that_makes_the_shape_is_found_and_chance_is_not():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(40, 3))
    shares = np.array([0.6, 0.2, 0.1])
    age = 50 + 10 * scores[:, 0] + rng.normal(size=40)
    figures, predicted = regression(scores, shares, age, 199, 0)
    assert figures["p"] == 1 / 200 and figures["r2_of_column"] > 0.95
    assert 0.5 < figures["explained_held_out"] < figures["explained"] < 0.8
    np.testing.assert_allclose(predicted[:, 0], np.percentile(scores[:, 0], (5, 50, 95)), atol=0.3)
    chance, _ = regression(scores, shares, rng.normal(size=40), 199, 0)
    assert (
        chance["p"] > 0.02 and chance["r2_of_column"] < 0.3 and chance["explained_held_out"] < 0.1
    )


def test_every_figure_that_is_described_is_there():
    rng = np.random.default_rng(1)
    figures, _ = regression(rng.normal(size=(9, 2)), np.array([0.6, 0.4]), np.arange(9.0), 99, 0)
    assert set(re.findall(r"``(\w+)``", regression.__doc__)) <= set(figures)


def test_the_name_of_a_column_is_no_folder(known, tmp_path):
    names = ["x_E/A", "x_E_A", "x_e_a", "x_../../b", "x_" + "n" * 300, "x_age"]
    stems = file_stems(names)
    assert stems["x_age"] == "x_age" and stems["x_E_A"] == "x_E_A" and stems["x_E/A"] == "x_E_A_3"
    assert len({stem.lower() for stem in stems.values()}) == len(names)
    model, _, shapes = known
    scores = {str(k): (model.scores(shape), 0.0) for k, shape in enumerate(shapes)}
    numbers = {name: {case_id: float(case_id) for case_id in scores} for name in names}
    options = ShapeStatisticsOptions(permutations=99)
    folder = tmp_path / "columns"
    paths, figures = write_columns(folder, numbers, scores, model, LabelTable(), options)
    assert {path.parent for path in paths} == {folder}
    assert len({path.name.lower() for path in paths}) == 3 * len(names)
    assert figures["x_E/A"]["files"] == "x_E_A_3" and all(path.exists() for path in paths)
    assert set(folder.glob("x_*.vtp")) == set(paths)  # as remove_stale looks for them


def test_columns_that_are_no_numbers_are_named(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("case_id\tlabels\tx_age\na\ta.nii\told\nb\tb.nii\t\nc\tc.nii\tinf\n")
    with pytest.raises(InputError) as refused:
        read_numbers(path, ["x_age"], ["a", "b", "c"])
    assert [line.split(";")[0] for line in refused.value.problems] == [
        f"{path}:2: x_age is 'old', no number",
        f"{path}:4: x_age is 'inf', no number",
    ]
    assert read_numbers(path, ["x_age"], ["b"]) == {"x_age": {}}
    path.write_text("case_id\tx_age\na\tNA\nb\t61\nc\t-\nd\tnone\ne\tn/a\nf\tNaN\n")
    assert read_numbers(path, ["x_age"], "abcdef") == {"x_age": {"b": 61.0}}
    with pytest.raises(InputError, match="x_age has 2 numbers of scored hearts"):
        check_known({"x_age": {"a": 1.0, "b": 2.0}})


@pytest.mark.filterwarnings("error")
def test_a_class_that_no_new_heart_has_whole_has_no_distance():
    rows = {"a": [1.0, np.nan, 3.0], "b": [2.0, np.nan, np.nan]}
    hearts = {c: SimpleNamespace(residual=np.array(row), folded=0.0) for c, row in rows.items()}
    template = SimpleNamespace(values=LabelTable().values[:3])
    found = registration_figures(SimpleNamespace(hearts=hearts, template=template), LabelTable())
    assert list(found["by_class_mm"].values()) == [1.5, None, 3.0]
    assert found["mean_mm"] == 2.0 and found["worst"]["mm"] == 2.0
