"""The stored fields of a case: the same distances as those that were made, and made once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from inside import run_inside

from cardiform import volumes
from cardiform.cohort.table import Case, write_cases
from cardiform.errors import InputError
from cardiform.files import read_json, save_npz, write_json
from cardiform.geometry import meshed, near_field, sdf, surface_boxes
from cardiform.geometry.cases import mesh_case, sample_case, voxelize_case
from cardiform.geometry.fields import FIELDS, load_fields
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.interpolation import trilinear
from cardiform.geometry.lookup import distances
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.sdf import class_fields, smooth_distance
from cardiform.geometry.surface import is_watertight
from cardiform.geometry.surface_boxes import boxes_about, surface_blocks, voxels_of
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from cardiform.volumes import LabelMap

TABLE, MESHES = LabelTable(), MeshesOptions()
SPACING = (0.4, 0.5, 0.7)
POINTS = PointsOptions(surface_points=800, min_class_points=100, near_points=800, volume_points=800)


def tubes(shape=(70, 60, 50)) -> LabelMap:
    """A thin ring in a plane that is oblique, and a ball that touches it."""
    affine = np.diag([*SPACING, 1.0])
    affine[0, 0] *= -1
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index * SPACING - np.array(shape) * SPACING / 2
    along = world @ np.array([0.3, 0.2, 0.93])
    ring = np.hypot(along, np.linalg.norm(world, axis=-1) - 9.0)
    data = np.zeros(shape, np.uint8)
    data[ring < 1.5] = 9
    data[np.linalg.norm(world - [9.0, 0, 0], axis=-1) < 4.0] = 1
    return LabelMap(np.asfortranarray(data), affine)


def write_case(folder) -> Case:
    label_map = tubes()
    volumes.save_label_map(folder / "a.nii.gz", label_map.data, label_map.affine)
    return Case(case_id="a", patient_id="a", labels=str(folder / "a.nii.gz"), status="ok")


@pytest.fixture
def large(monkeypatch):
    """Crops of a few thousand voxels are treated as large ones are."""
    monkeypatch.setattr(near_field, "SMALL_VOXELS", 1000)
    monkeypatch.setattr(sdf, "SMALL_VOXELS", 1000)
    monkeypatch.setattr(surface_boxes, "BOX_COST", -1e6)  # halving pays
    monkeypatch.setattr(surface_boxes, "LEAST_HALVED", 4)


def stored(folder) -> dict:
    record = read_json(folder / "meshes" / "a" / "frame.json")
    shifts = {c["value"]: c["shift_mm"] for c in record["classes"].values()}
    path = folder / "meshes" / "a" / "fields.npz"
    return dict(load_fields(path, np.array(record["affine"]), shifts))


def points_near(label_map: LabelMap, value: int, sigma: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    voxels = np.argwhere(label_map.data == value)
    return apply_affine(label_map.affine, voxels[rng.integers(len(voxels), size=5000)]) + (
        rng.normal(0, sigma, (5000, 3))
    )


def test_boxes_hold_every_block_of_the_surface_once():
    mask = np.zeros((96, 80, 112), bool)
    mask[8:16, 8:16, 8:16] = True  # whole blocks: the surface runs between them and the next
    mask[70:90, 40:77, 3:109] = True
    marked = surface_blocks(mask)
    count = np.zeros(marked.shape, int)
    for box in boxes_about(marked):
        count[box] += 1
    assert (count[marked] == 1).all() and count.max() == 1
    changes = np.zeros(mask.shape, bool)
    for axis in range(3):
        ends = np.moveaxis(changes, axis, 0)
        differ = np.diff(np.moveaxis(mask, axis, 0), axis=0)
        ends[1:] |= differ
        ends[:-1] |= differ
    assert not (changes & ~voxels_of(marked, mask.shape)).any()
    assert not marked[10, 7, 8], "the inside of the large part"


@pytest.mark.usefixtures("large")
def test_fields_in_boxes_are_those_of_the_whole_crop(monkeypatch):
    label_map = tubes()
    [boxed, whole] = [], []
    for found, least in ((boxed, 1000), (whole, 1 << 30)):
        monkeypatch.setattr(sdf, "SMALL_VOXELS", least)
        found.extend(class_fields(label_map, TABLE, MESHES, {1: 0.0, 9: 0.0}).values())
    for made, wanted in zip(boxed, whole):
        near = np.abs(wanted.values) < 4 * min(SPACING)
        assert np.abs(made.values - wanted.values)[near].max() < 0.01
        np.testing.assert_array_equal(made.values < 0, wanted.values < 0)
        faces, vertices = made.surface().faces, made.surface().vertices
        np.testing.assert_array_equal(faces, wanted.surface().faces)
        np.testing.assert_allclose(vertices, wanted.surface().vertices, atol=2e-3)
        assert is_watertight(made.surface())
    assert any(field.deep is not None for field in boxed), "some were made in boxes"


@pytest.mark.parametrize("small", [True, False])
def test_stored_distances_are_those_that_were_made(tmp_path, request, small):
    if not small:
        request.getfixturevalue("large")
    case, label_map = write_case(tmp_path), tubes()
    mesh_case(case, table=TABLE, options=MESHES, out=tmp_path / "meshes")
    found = stored(tmp_path)
    step = min(SPACING) / 128
    for value, made in class_fields(label_map, TABLE, MESHES).items():
        points = points_near(label_map, value, 0.5)
        wanted = made.lookup(points)
        close = np.abs(wanted) < near_field.BAND_VOX * min(SPACING)
        error = np.abs(found[value].lookup(points) - wanted)
        assert error[close].max() <= step / 2 + 1e-5
        everywhere = points_near(label_map, value, 3.0)
        away = np.abs(found[value].lookup(everywhere) - made.lookup(everywhere))
        assert away.max() <= min(SPACING) / 16 + 1e-4
        both = distances([found[value], None, found[value]], points)
        np.testing.assert_allclose(both[:, 0], found[value].lookup(points), atol=1e-5)
        assert np.isnan(both[:, 1]).all()


@pytest.mark.usefixtures("large")
def test_no_point_near_the_surface_is_off_the_blocks():
    label_map = tubes()
    for value, field in class_fields(label_map, TABLE, MESHES).items():
        points = points_near(label_map, value, 1.5)
        local = apply_affine(np.linalg.inv(field.crop_affine), points).astype(np.float32)
        rows, _ = field.near.lookup(local)
        off = np.ones(len(points), bool)
        off[rows] = False
        assert off.any()
        crop = np.ascontiguousarray(field.mask())
        inside = ((local >= 0) & (local <= np.array(crop.shape) - 1)).all(axis=1)
        dense = smooth_distance(crop, np.array(SPACING), 1.0)
        assert np.abs(trilinear(dense, local[off & inside])).min() > 3 * min(SPACING)


def test_a_case_has_its_fields_made_once(tmp_path, monkeypatch):
    """Three stages, and another resolution, on one computation per class."""
    made = []
    original = sdf.smooth_distance
    monkeypatch.setattr(sdf, "smooth_distance", lambda *a: made.append(1) or original(*a))
    case = write_case(tmp_path)
    mesh_case(case, table=TABLE, options=MESHES, out=tmp_path / "meshes")
    assert len(made) == 2
    common = {"table": TABLE, "meshes": tmp_path / "meshes"}
    sample_case(case, options=POINTS, out=tmp_path / "points", **common)
    for resolution in (32, 64):
        options = VoxelsOptions(resolution=resolution)
        voxelize_case(case, options=options, out=tmp_path / str(resolution), **common)
    assert len(made) == 2


def test_without_a_file_of_fields_they_are_made_from_the_label_map(tmp_path):
    """Meshes of the version before: the same voxels, but for the steps of the file."""
    case, out = write_case(tmp_path), tmp_path / "meshes"
    mesh_case(case, table=TABLE, options=MESHES, out=out)
    common = {"table": TABLE, "meshes": out, "options": VoxelsOptions(resolution=64)}
    voxelize_case(case, out=tmp_path / "new", **common)
    (out / "a" / "fields.npz").unlink()
    with pytest.raises(InputError, match=r"fields.npz: does not exist; run extract_meshes"):
        voxelize_case(case, out=tmp_path / "old", **common)
    frame = read_json(out / "a" / "frame.json")
    write_json(out / "a" / "frame.json", frame | {"format_version": 1})
    voxelize_case(case, out=tmp_path / "old", **common)
    for name in ("myocardium", "coronary"):
        old, new = (np.load(tmp_path / k / "a" / f"{name}.npz") for k in ("old", "new"))
        rows = [dict(zip(map(tuple, f["coords"].tolist()), f["sdf"])) for f in (old, new)]
        shared = rows[0].keys() & rows[1].keys()
        assert len(shared) > 0.995 * len(rows[0])
        assert max(abs(float(rows[0][k]) - float(rows[1][k])) for k in shared) < 0.01


@pytest.mark.parametrize("change", ["shift_mm", "affine", "blocks", "block_count", "shape"])
def test_fields_of_another_case_and_impossible_ones_are_refused(tmp_path, change):
    case = write_case(tmp_path)
    mesh_case(case, table=TABLE, options=MESHES, out=tmp_path / "meshes")
    path = tmp_path / "meshes" / "a" / "fields.npz"
    arrays = FIELDS.load(path)
    changed = {
        "shift_mm": arrays["shift_mm"] + 0.1,
        "affine": arrays["affine"] * 2,
        "blocks": arrays["blocks"] + 100_000,
        "block_count": arrays["block_count"] + 1,
        "shape": arrays["shape"] * 0 - 5,
    }
    save_npz(path, **{**arrays, change: changed[change]})
    with pytest.raises(InputError, match=r"was not made with the frame.json beside it; run"):
        stored(tmp_path)


def test_damaged_fields_are_named_and_made_again_by_their_stage(tmp_path):
    case = write_case(tmp_path)
    write_cases(tmp_path / "cases.tsv", [case])
    common = ["--cases", tmp_path / "cases.tsv"]
    meshes, path = tmp_path / "meshes", tmp_path / "meshes" / "a" / "fields.npz"
    make = [*common, "--out", meshes, "--manifest", meshes / "all.tsv"]
    assert run_inside("extract_meshes.py", *make).returncode == 0
    whole = path.read_bytes()
    voxels = [*common, "--meshes", meshes, "--out", tmp_path / "v"]
    voxels += ["--manifest", tmp_path / "v" / "all.tsv", "--resolution", 32]
    path.write_bytes(whole[: len(whole) // 2])
    result = run_inside("voxelize_labels.py", *voxels)
    assert (
        result.returncode == 2 and "fields.npz: is not what extract_meshes wrote" in result.stderr
    )
    assert run_inside("extract_meshes.py", *make).returncode == 0
    assert path.read_bytes() == whole, "the same bytes"
    assert run_inside("voxelize_labels.py", *voxels).returncode == 0
    assert "finished already" in run_inside("voxelize_labels.py", *voxels).stderr


def test_the_names_of_the_files_follow_from_the_frame(tmp_path):
    case = write_case(tmp_path)
    mesh_case(case, table=TABLE, options=MESHES, out=tmp_path / "meshes")
    names = [path.name for path in meshed.mesh_files(case, tmp_path / "meshes")]
    assert names == ["frame.json", "coronary.ply", "myocardium.ply", "fields.npz"]
    mesh = read_mesh(tmp_path / "meshes" / "a" / "coronary.ply")
    assert is_watertight(mesh)
    shutil.rmtree(tmp_path / "meshes")
    assert [path.name for path in meshed.frame_files(case, tmp_path / "meshes")] == ["frame.json"]
