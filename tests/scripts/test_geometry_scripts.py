"""extract_meshes, sample_sdf and the voxelize scripts as a user calls them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from inside import run_inside

from cardiform import volumes
from cardiform.cohort import table as cohort
from cardiform.files import load_npz
from cardiform.geometry.frame import Frame, apply_affine
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.narrowband import NarrowBand
from cardiform.geometry.surface import is_watertight, signed_volume
from cardiform.labels import LabelTable
from cardiform.phantom import draw_phantom

SMALL = ("--surface-points", 3000, "--min-class-points", 100)
SMALL += ("--near-points", 4000, "--volume-points", 2000)
TABLE = LabelTable()


def draw(folder, name, seed, **kwargs):
    heart = draw_phantom(seed, least_vessel_radius=3.0, **kwargs)
    low, high = heart.bounds()
    affine = np.diag([-3.5, 3.5, 3.0, 1.0])
    affine[:3, 3] = [high[0] + 7, low[1] - 7, low[2] - 7]
    shape = tuple(np.ceil((high - low + 14) / [3.5, 3.5, 3.0]).astype(int))
    volumes.save_label_map(folder / f"{name}.nii.gz", heart.label_map(shape, affine), affine)


def write_cases(folder, *names):
    cohort.write_cases(
        folder / "cases.tsv",
        [
            cohort.Case(case_id=n, patient_id=n, labels=str(folder / f"{n}.nii.gz"), status="ok")
            for n in names
        ],
    )


class Stages:
    """The two scripts on the label maps of a folder."""

    def __init__(self, folder):
        self.folder = folder

    def _run(self, script, out, *arguments):
        places = ["--cases", self.folder / "cases.tsv", "--out", self.folder / out]
        places += ["--manifest", self.folder / out / "manifest.tsv"]
        return run_inside(script, *places, *arguments)

    def extract(self, *arguments):
        return self._run("extract_meshes.py", "meshes", *arguments)

    def sample(self, *arguments, out="points"):
        meshes = ["--meshes", self.folder / "meshes"]
        return self._run("sample_sdf.py", out, *meshes, *SMALL, *arguments)

    def voxelize(self, *arguments, out="sparse"):
        meshes = ["--meshes", self.folder / "meshes"]
        return self._run("voxelize_labels.py", out, *meshes, "--resolution", 64, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two coarse hearts, the second without an appendage; meshes and points are made."""
    folder = tmp_path_factory.mktemp("two")
    draw(folder, "whole", 3)
    draw(folder, "lacking", 4, missing=("left_atrial_appendage",))
    write_cases(folder, "whole", "lacking")
    stages = Stages(folder)
    for result in (stages.extract("--processes", 2), stages.sample()):
        assert result.returncode == 0, result.stderr
    return stages


def test_meshes_of_every_class_that_is_there(finished):
    folder = finished.folder
    for name, missing in (("whole", set()), ("lacking", {"left_atrial_appendage"})):
        record = json.loads((folder / "meshes" / name / "frame.json").read_text())
        assert set(record["classes"]) == set(TABLE.names) - missing
        assert {p.stem for p in (folder / "meshes" / name).glob("*.ply")} == set(record["classes"])
        label_map = volumes.load_label_map(folder / f"{name}.nii.gz")
        frame = Frame(np.array(record["center_mm"]), record["scale"])
        for class_name, told in record["classes"].items():
            mesh = read_mesh(folder / "meshes" / name / f"{class_name}.ply")
            voxels = (label_map.data == told["value"]).sum() * np.prod(label_map.spacing)
            assert signed_volume(mesh) == pytest.approx(told["volume_mesh_mm3"], rel=1e-3)
            assert told["volume_voxels_mm3"] == pytest.approx(voxels)
            assert told["watertight"] == is_watertight(mesh)
            assert np.linalg.norm(frame.to_unit(mesh.vertices), axis=1).max() <= 0.951


def test_points_lie_where_the_label_map_says(finished):
    """Stored distances against the label map itself, through frame and affine."""
    arrays = load_npz(finished.folder / "points" / "lacking.npz")
    label_map = volumes.load_label_map(finished.folder / "lacking.nii.gz")
    np.testing.assert_allclose(arrays["affine"], label_map.affine)
    assert not arrays["annotated"][7] and np.isnan(arrays["near_sdf"][:, 7]).all()
    world = Frame(arrays["center"], float(arrays["scale"])).to_world(arrays["volume_points"])
    index = np.rint(apply_affine(np.linalg.inv(label_map.affine), world)).astype(int)
    within = ((index >= 0) & (index < label_map.data.shape)).all(axis=1)
    truth = np.zeros(len(world), np.uint8)
    truth[within] = label_map.data[tuple(index[within].T)]
    sdf_mm = arrays["volume_sdf"].astype(np.float32) / arrays["scale"]
    sdf_mm[:, 7] = 1e3
    clear = np.abs(sdf_mm).min(axis=1) > 3.5 / 2 * np.sqrt(3)  # half a voxel's diagonal
    found = np.where(sdf_mm.min(1) < 0, np.array(TABLE.values)[sdf_mm.argmin(1)], 0)
    assert clear.sum() > 200 and (found[clear] == truth[clear]).all()


def test_voxels_agree_with_the_label_map(finished):
    result = finished.voxelize()
    assert result.returncode == 0, result.stderr
    label_map = volumes.load_label_map(finished.folder / "lacking.nii.gz")
    files = {p.stem: p for p in (finished.folder / "sparse" / "lacking").glob("*.npz")}
    assert set(files) == set(TABLE.names) - {"left_atrial_appendage"}
    for label in TABLE:
        if label.name not in files:
            continue
        band = NarrowBand.load(files[label.name])
        world = band.frame.to_world((band.coords + 0.5) * 2 / 64 - 1.0)
        index = np.rint(apply_affine(np.linalg.inv(label_map.affine), world)).astype(int)
        within = ((index >= 0) & (index < label_map.data.shape)).all(axis=1)
        truth = np.zeros(len(world), bool)
        truth[within] = label_map.data[tuple(index[within].T)] == label.value
        mm = band.sdf.astype(np.float32) * band.band_voxels * band.voxel_mm
        clear = np.abs(mm) > 3.5 / 2 * np.sqrt(3)
        np.testing.assert_array_equal((mm < 0)[clear], truth[clear])
    assert "2 of 2 cases are finished already" in finished.voxelize().stderr


def test_meshes_of_any_format_become_voxels(finished, tmp_path, run_script):
    import trimesh

    source = finished.folder / "meshes" / "whole" / "left_ventricle.ply"
    mesh = trimesh.load_mesh(source)
    paths = [tmp_path / f"lv_{kind}.{kind}" for kind in ("ply", "stl", "obj")]
    for path in paths:
        mesh.export(path)
    places = ["--out", tmp_path / "sparse", "--manifest", tmp_path / "manifest.tsv"]
    call = ["voxelize_meshes.py", "--meshes", *paths, *places, "--resolution", 64]
    result = run_script(*call)
    assert result.returncode == 0, result.stderr
    bands = [NarrowBand.load(tmp_path / "sparse" / p.stem / "mesh.npz") for p in paths]
    assert len(bands[0].coords) > 5000
    for band in bands[1:]:
        assert abs(len(band.coords) - len(bands[0].coords)) <= 5  # OBJ rounds its vertices
    twice = run_script(*call[:2], paths[0], tmp_path / "x" / paths[0].name, *call[5:])
    assert twice.returncode == 2 and "is called like" in twice.stderr


def test_all_bad_meshes_of_a_call_are_reported(tmp_path, run_script):
    """In a process of its own: none of them may end the interpreter."""
    import trimesh

    ball = trimesh.creation.icosphere(2, 20)
    ball.export(tmp_path / "good.ply")
    flat = np.array([[0, 0, 0], [9, 0, 0], [9, 9, 0], [0, 9, 0]], float)
    bad = {
        "point": (np.ones((3, 3)), [[0, 1, 2]], "has no extent"),
        "flat": (flat, [[0, 1, 2], [0, 2, 3]], "is flat"),
        "half": (ball.vertices, ball.faces[: len(ball.faces) // 2], "is open"),
        "beyond": (flat, [[0, 1, 2], [0, 2, 70_000_000]], "none of its 4 vertices"),
        "nan": (flat * np.nan, [[0, 1, 2]], "not finite"),
    }
    for name, (vertices, faces, _) in bad.items():
        made = trimesh.Trimesh(vertices, faces, process=False, validate=False)
        made.export(tmp_path / f"{name}.ply", vertex_normal=False)
    paths = [tmp_path / f"{name}.ply" for name in ("good", *bad, "missing")]
    places = ["--out", tmp_path / "sparse", "--manifest", tmp_path / "manifest.tsv"]
    places += ["--resolution", 32]
    for odd in ([], [tmp_path / "ä.ply"]):
        result = run_script("voxelize_meshes.py", "--meshes", *paths, *odd, *places)
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        for name, (*_, words) in bad.items():
            [line] = [line for line in lines if f"/{name}.ply: " in line]
            assert words in line and line.count("; ") == 1
        assert any("missing.ply: " in line for line in lines)
        assert any("makes no case id" in line for line in lines) is bool(odd)
        assert not (tmp_path / "manifest.tsv").exists()
    result = run_script("voxelize_meshes.py", "--meshes", paths[0], *places)
    assert result.returncode == 0 and "finished already" in result.stderr


def test_meshes_of_a_case_that_get_other_names_are_made_again(tmp_path):
    """Files are called like their structures; the bytes in them are the same as before."""
    import trimesh

    meshes = tmp_path / "meshes" / "a"
    meshes.mkdir(parents=True)
    trimesh.creation.icosphere(1, 20).export(meshes / "aota.stl")
    case = cohort.Case(case_id="a", patient_id="a", meshes=str(meshes))
    cohort.write_cases(tmp_path / "cases.tsv", [case])
    out = tmp_path / "sparse"
    call = ["voxelize_meshes.py", "--cases", tmp_path / "cases.tsv", "--out", out]
    call += ["--manifest", out / "manifest.tsv", "--resolution", 32]
    assert run_inside(*call).returncode == 0
    (meshes / "aota.stl").rename(meshes / "aorta.stl")
    assert run_inside(*call).returncode == 0
    assert [path.name for path in (out / "a").iterdir()] == ["aorta.npz"]
    assert "aorta.npz" in (out / "manifest.tsv").read_text()
    assert "finished already" in run_inside(*call).stderr


def test_a_second_run_does_nothing(finished):
    before = (finished.folder / "points" / "whole.npz").stat().st_mtime_ns
    for result in (finished.extract(), finished.sample()):
        assert result.returncode == 0
        assert "2 of 2 cases are finished already" in result.stderr
    assert (finished.folder / "points" / "whole.npz").stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_file(finished):
    assert finished.sample("--select", "whole", out="again").returncode == 0
    one, again = ((finished.folder / out / "whole.npz").read_bytes() for out in ("points", "again"))
    assert one == again
    assert finished.sample("--select", "whole", "--seed", 1, out="again").returncode == 0
    assert (finished.folder / "again" / "whole.npz").read_bytes() != one


def test_a_changed_label_map_redoes_its_case_alone(tmp_path):
    draw(tmp_path, "one", 3)
    draw(tmp_path, "two", 4)
    write_cases(tmp_path, "one", "two")
    stages = Stages(tmp_path)
    assert stages.extract().returncode == 0
    label_map = volumes.load_label_map(tmp_path / "one.nii.gz")
    data = np.where(label_map.data == 8, 0, label_map.data).astype(np.uint8)
    volumes.save_label_map(tmp_path / "one.nii.gz", data, label_map.affine)

    result = stages.sample()  # before the meshes are made again
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "was not made from" in result.stderr and "run extract_meshes again" in result.stderr
    assert (tmp_path / "points" / "two.npz").is_file(), "the good case is not held up"

    result = stages.extract()
    assert "1 of 2 cases are finished already" in result.stderr
    assert not (tmp_path / "meshes" / "one" / "left_atrial_appendage.ply").exists()
    assert (tmp_path / "meshes" / "two" / "left_atrial_appendage.ply").exists()
    assert stages.sample().returncode == 0


def test_missing_meshes_are_named(tmp_path):
    draw(tmp_path, "one", 3)
    write_cases(tmp_path, "one")
    result = Stages(tmp_path).sample()
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "frame.json" in result.stderr


@pytest.mark.parametrize("name", ["chest_heart1_aorta6_pa7", "thorax_heart1_lad9"])
def test_real_label_maps_come_back_from_their_fields(real_data, name):
    from cardiform.geometry.sdf import class_fields
    from cardiform.options.geometry import MeshesOptions

    label_map = volumes.load_label_map(real_data / f"{name}.nii.gz")
    for value, field in class_fields(label_map, TABLE, MeshesOptions()).items():
        mask = np.zeros(label_map.data.shape, bool)
        stop = np.minimum(np.array(field.origin) + field.values.shape, mask.shape)
        start = np.maximum(field.origin, 0)
        inner = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, field.origin))
        mask[tuple(map(slice, start, stop))] = field.mask()[inner]
        np.testing.assert_array_equal(mask, label_map.data == value)
        mesh = field.surface()
        assert is_watertight(mesh)
        assert signed_volume(mesh) == pytest.approx(field.voxel_volume, rel=0.02)


def test_cases_may_be_called_like_what_the_stages_make(tmp_path):
    """All names that no table refuses: nothing is overwritten, and finished cases stay finished."""
    names = ["frame", "all", "grid", "boxes", "aorta.ply"]
    data = np.zeros((9, 9, 9), np.uint8)
    data[2:6, 3:7, 2:7] = 6
    for name in names:
        volumes.save_label_map(tmp_path / f"{name}.nii.gz", data, np.eye(4))
    rows = [f"{name}\t{name}.nii.gz" for name in names]
    (tmp_path / "cohort.tsv").write_text("\n".join(["case_id\tlabels", *rows]) + "\n")
    out = tmp_path / "out"
    checked = ["--cases", out / "cases.tsv"]
    meshes = ["--meshes", out / "meshes"]
    calls = {
        "check_cohort.py": ["--table", tmp_path / "cohort.tsv", "--out", out],
        "extract_meshes.py": [*checked, "--out", out / "meshes"],
        "sample_sdf.py": [*checked, *meshes, "--out", out / "points", *SMALL],
        "voxelize_labels.py": [*checked, *meshes, "--out", out / "sparse", "--resolution", 16],
        "repair_coronary.py": [*checked, "--out", out / "repaired", "--structure", "aorta"],
        "resample_labels.py": [*checked, "--out", out / "voxels", "--voxel-size", 16],
    }
    for turn in ("first", "second"):
        for script, arguments in calls.items():
            more = ["--manifest", arguments[arguments.index("--out") + 1] / "manifest" / "all.tsv"]
            result = run_inside(script, *arguments, *(more if script != "check_cohort.py" else ()))
            assert result.returncode == 0, (script, result.stderr)
            done = f"{len(names)} of {len(names)} cases are finished already"
            assert (done in result.stderr) is (turn == "second"), (script, result.stderr)
