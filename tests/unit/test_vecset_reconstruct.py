"""Reconstruction: frames, baselines, figures; with a network that knows the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from points_files import write_points_file

from cardiform import volumes
from cardiform.artefact.model import save_model
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import load_npz, read_json
from cardiform.geometry.frame import UNIT_RADIUS, Frame, apply_affine
from cardiform.geometry.mesh_files import read_mesh, write_mesh
from cardiform.geometry.sdf import class_fields
from cardiform.geometry.surface import is_watertight, signed_volume
from cardiform.held_out import summarise, table_of_figures
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.vecset.model import VECSET, VecSet
from cardiform.vecset.reconstruct import (
    METHODS,
    MajorityLabels,
    Reconstructor,
    isotropic_grid,
    lookup,
    reconstruct_case,
)
from cardiform.volumes import LabelMap

TABLE = LabelTable(STACOM_2025[:3])
RADIUS = 24.0
AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])  # patient's left on the first voxel: mirrored on purpose
AFFINE[:3, 3] = [50, -30, 100]
SHAPE = (36, 38, 26)
CENTER = apply_affine(AFFINE, np.array([17.3, 18.6, 12.4]))
SHELLS = ((1, RADIUS, 16.0), (3, 16.0, 0.0))  # class, outer and inner radius, mm; 2 is missing


def heart(center=CENTER):
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    radius = np.linalg.norm(apply_affine(AFFINE, index.astype(float)) - center, axis=-1)
    data = np.zeros(SHAPE, np.uint8)
    for value, outer, inner in SHELLS:
        data[(radius < outer) & (radius >= inner)] = value
    return LabelMap(data, AFFINE)


def write_case(folder, name, center=CENTER, frame_center=None, layers=None) -> tuple[Case, object]:
    """Label map, meshes and a points file with as much as reconstruction reads."""
    frame_center = center if frame_center is None else frame_center
    label_map = heart(center)
    label_map = LabelMap(np.ascontiguousarray(label_map.data[..., :layers]), AFFINE)
    path = folder / f"{name}.nii.gz"
    volumes.save_label_map(path, label_map.data, AFFINE)
    names = dict(zip(TABLE.values, TABLE.names))
    for value, field in class_fields(label_map, TABLE, MeshesOptions()).items():
        write_mesh(folder / "meshes" / name / f"{names[value]}.ply", field.surface())
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 3)).astype(np.float32)
    points *= 0.9 / np.linalg.norm(points, axis=1, keepdims=True)
    points_file = folder / f"{name}.npz"
    sdf = np.zeros((400, 3), np.float16)
    write_points_file(
        points_file,
        surface_points=points, surface_labels=np.ones(400, np.uint8), near_points=points,
        near_labels=np.ones(400, np.uint8), near_sdf=sdf, volume_points=points, volume_sdf=sdf,
        annotated=np.array([True, False, True]), class_values=np.array(TABLE.values, np.uint8),
        center=np.asarray(frame_center, np.float64), scale=np.float64(UNIT_RADIUS / RADIUS),
    )  # fmt: skip
    return Case(case_id=name, patient_id=name, labels=str(path)), points_file


class Oracle(torch.nn.Module):
    """Answers with the true distances of :func:`heart`, whatever it was given."""

    starts = 4

    def __init__(self):
        super().__init__()
        self.asked = []

    def encode(self, points, fps):
        assert points.shape[2] == 3 + len(TABLE) and fps.shape == (1, 4)
        return torch.zeros(1, 4, 5)

    def expand(self, latents):
        return latents

    def query(self, tokens, queries):
        self.asked.append(queries.shape[1])
        radius = queries.norm(dim=-1)
        unit = UNIT_RADIUS / RADIUS
        shell = (radius - 20 * unit).abs() - 4 * unit
        return torch.stack([shell, torch.ones_like(radius), radius - 16 * unit], dim=-1)


def knowing(monkeypatch):
    """A network that knows the answer; one that has learnt nothing says so everywhere."""
    options = VecsetReconstructOptions(query_batch=1000)
    training = VecsetOptions(preset="demo", input_points=64)
    oracle = Reconstructor(Oracle(), TABLE, training, options, torch.device("cpu"))
    blank = Reconstructor(Oracle(), TABLE, training, options, torch.device("cpu"))
    monkeypatch.setattr(blank.model, "query", lambda t, q: torch.ones(1, q.shape[1], 3))
    monkeypatch.setattr(Reconstructor, "untrained", blank)
    return oracle


@pytest.fixture
def network(monkeypatch):
    return knowing(monkeypatch)


def reconstruct(folder, network):
    case, points = write_case(folder, "a")
    return reconstruct_case(
        case,
        points={"a": points},
        meshes=folder / "meshes",
        out=folder / "out",
        network=network,
        mean_shape=MajorityLabels.of([(case, points)], TABLE),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruct")
    with pytest.MonkeyPatch.context() as monkeypatch:
        network = knowing(monkeypatch)
        yield folder, network, reconstruct(folder, network)


def test_a_perfect_network_gives_the_case_back(finished):
    folder, network, written = finished
    assert all(path.is_file() for path in written)
    labels = volumes.load_label_map(folder / "out" / "a" / "labels.nii.gz")
    truth = heart()
    np.testing.assert_allclose(labels.affine, truth.affine)
    assert (labels.data != truth.data).mean() < 1e-3
    mesh = read_mesh(folder / "out" / "a" / "left_ventricle.ply")
    assert is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.02)
    assert not (folder / "out" / "a" / "left_atrium.ply").exists()
    assert max(network.model.asked) <= 1000, "queries come in batches"
    latents = load_npz(folder / "out" / "a" / "latents.npz")
    assert latents["latents"].shape == (4, 5)
    np.testing.assert_allclose(latents["center"], CENTER)


def test_figures_of_all_methods_stand_side_by_side(finished):
    folder, _, _ = finished
    figures = read_json(folder / "out" / "a" / "figures.json")
    model = figures["model"]["left_ventricle"]
    assert model["dice"] > 0.99 and model["assd_mm"] < 0.3 and model["hd95_mm"] < 1
    assert figures["untrained"]["left_ventricle"]["dice"] == 0
    assert 0.9 < figures["mean_shape"]["left_ventricle"]["dice"] <= 1
    found = summarise({"validation": [], "test": ["a"]}, folder / "out", METHODS)
    assert found["test"]["model"]["mean"]["left_ventricle"]["dice"] == model["dice"]
    text = table_of_figures(found["test"], TABLE.names, "mean_shape")
    row = next(line for line in text.splitlines() if line.startswith("left_ventricle"))
    assert row.split()[1] == f"{model['dice']:.3f}"
    missing = next(line for line in text.splitlines() if line.startswith("left_atrium"))
    assert "nan" not in text.lower() and missing.split()[1] == "-"


def test_a_heart_that_the_scan_cuts(tmp_path, network):
    """Measured within the field of view, without its caps, and completed past it."""
    case, points = write_case(tmp_path, "a", layers=16)
    mean_shape = MajorityLabels.of([(case, points)], TABLE)
    assert mean_shape.unknown == ("myocardium", "left_ventricle") and not mean_shape.labels.any()
    written = reconstruct_case(
        case,
        points={"a": points},
        meshes=tmp_path / "meshes",
        out=tmp_path / "out",
        network=network,
        mean_shape=mean_shape,
        beyond_mm=30.0,
    )
    figures = read_json(tmp_path / "out" / "a" / "figures.json")
    assert figures["cut"] == ["myocardium", "left_ventricle"]
    row = figures["model"]["left_ventricle"]
    assert row["dice"] > 0.99 and abs(row["volume_error"]) < 0.01
    assert row["hd95_mm"] < 1 and row["f_score"] > 0.99, "a cap is no surface"
    assert set(figures["mean_shape"]["left_ventricle"].values()) == {None}
    whole = volumes.load_label_map(tmp_path / "out" / "a" / "completed.nii.gz")
    assert tmp_path / "out" / "a" / "completed.nii.gz" in written
    assert whole.data.shape == (*SHAPE[:2], 26)
    truth = heart().data
    np.testing.assert_array_equal(whole.data[..., :16], truth[..., :16])
    assert (whole.data[..., 16:] != truth[..., 16:]).mean() < 1e-3
    found = summarise({"test": ["a"]}, tmp_path / "out", METHODS)["test"]
    assert found["model"]["mean"]["left_ventricle"]["dice"] is None
    assert found["model"]["cut"]["left_ventricle"]["dice"] == row["dice"]


def test_a_second_run_leaves_no_stale_mesh(finished):
    folder, network, _ = finished
    stale = folder / "out" / "a" / "left_atrium.ply"
    stale.write_bytes(b"")
    reconstruct(folder, network)
    assert not stale.exists()


def test_the_mean_shape_is_what_most_cases_have(tmp_path):
    shifts = (np.zeros(3), np.zeros(3), np.array([6.0, 0, 0]))
    cases = [write_case(tmp_path, f"c{i}", CENTER + s) for i, s in enumerate(shifts)]
    mean_shape = MajorityLabels.of(cases, TABLE)
    placed = mean_shape.place(Frame(CENTER, UNIT_RADIUS / RADIUS), heart())
    # all three are the same heart in their own frames
    assert (placed != heart().data).mean() < 0.03
    moved = mean_shape.place(Frame(CENTER + [0, 8, 0], UNIT_RADIUS / RADIUS), heart())
    middle = [np.argwhere(p == 3).mean(axis=0) for p in (placed, moved)]
    np.testing.assert_allclose(middle[1] - middle[0], [0, 4, 0], atol=0.1)


def test_the_mean_shape_of_two_is_not_all_that_either_has(tmp_path):
    cases = [
        write_case(tmp_path, name, CENTER + shift, frame_center=CENTER)
        for name, shift in (("a", np.zeros(3)), ("b", np.array([0, 0, 5.0])))
    ]
    placed = MajorityLabels.of(cases, TABLE).place(Frame(CENTER, UNIT_RADIUS / RADIUS), heart())
    assert (placed == 3).sum() == pytest.approx((heart().data == 3).sum(), rel=0.03)


def test_what_a_minority_has_is_not_in_the_mean_shape(tmp_path):
    away = np.array([0, 0, 14.0])
    cases = [write_case(tmp_path, n, CENTER) for n in "ab"]
    cases.append(write_case(tmp_path, "c", CENTER + away, frame_center=CENTER))
    placed = MajorityLabels.of(cases, TABLE).place(Frame(CENTER, UNIT_RADIUS / RADIUS), heart())
    assert (placed == 3).sum() == pytest.approx((heart().data == 3).sum(), rel=0.03)


def test_beyond_the_anatomy_nothing_is_asked(network):
    field = network.field(torch.zeros(1, 4, 5))
    points = np.array([[0, 0, 0], [1.2, 0, 0], [1, 1, 1]], np.float32)
    values = field(points)
    assert network.model.asked == [1]
    np.testing.assert_allclose(values[1], 1.2 - UNIT_RADIUS, rtol=1e-5)
    np.testing.assert_allclose(values[2], np.sqrt(3) - UNIT_RADIUS, rtol=1e-5)


def test_own_spacing_of_the_meshes():
    shape, affine = isotropic_grid(heart(), 1.0)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 1)
    ends = apply_affine(affine, np.array(shape) - 1.0), apply_affine(AFFINE, np.array(SHAPE) - 1.0)
    assert np.abs(ends[0] - ends[1]).max() <= 1
    np.testing.assert_allclose(affine[:3, 3], AFFINE[:3, 3])


def test_lookup_is_nearest_and_zero_beyond():
    label_map = heart()
    index = np.argwhere(label_map.data == 3)[:50]
    world = apply_affine(AFFINE, index + 0.3)
    assert (lookup(label_map, world) == 3).all()
    assert (lookup(label_map, world + 1000) == 0).all()


def test_cases_that_the_table_lacks_are_named(tmp_path):
    from cardiform.held_out import checked_cases

    with pytest.raises(InputError, match="has no case gone"):
        checked_cases([("gone", tmp_path / "x.npz")], {}, tmp_path / "cases.tsv")


def test_a_network_is_asked_with_other_latents_than_it_learned_with(tmp_path):
    _, points = write_case(tmp_path, "a")

    def asked(training, **options):
        model = VecSet.from_options(training, len(TABLE))
        save_model(
            tmp_path / "model.pt", VECSET, model.state_dict(), options={"vecset": training},
            labels=TABLE, figures={}, training_cases=["a"], source_sha256="",
        )  # fmt: skip
        how = VecsetReconstructOptions(device="cpu", **options)
        return Reconstructor.load(tmp_path / "model.pt", how, torch.device("cpu"))

    demo = VecsetOptions(preset="demo", latents=40, input_points=120)
    assert asked(demo).encode(points, "a").shape[1] == 40
    more = asked(demo, latents=150, input_points=300)
    assert more.encode(points, "a").shape[1] == 150
    with pytest.raises(InputError, match="120 input points are too few for 150 latents"):
        asked(demo, latents=150).encode(points, "a")
    learned = VecsetOptions(preset="small", queries="learned")
    with pytest.raises(InputError, match="has learned queries, not 150 latents at points"):
        asked(learned, latents=150)
