"""Hearts for other programs, read back: each file shows the heart where the label map has it."""

from __future__ import annotations

import dataclasses

import nrrd
import numpy as np
import pytest
import trimesh
from vtk_files import vtp_arrays

from cardiform import volumes
from cardiform.cohort.table import Case, write_cases
from cardiform.export.shapes import COLORS, TO_GLTF, export_case, write_segmentation
from cardiform.geometry.cases import mesh_case
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.mesh_files import read_mesh
from cardiform.labels import LabelTable
from cardiform.options.exports import ExportsOptions
from cardiform.options.geometry import MeshesOptions

TABLE = LabelTable()
NAMES = {3: "left_ventricle", 6: "aorta"}
NEAR_MM = 0.01


def write_heart(folder) -> Case:
    """A large and a small ball, oblique, mirrored and far from the origin."""
    index = np.indices((40, 36, 30))
    data = np.zeros((40, 36, 30), np.uint8)
    data[np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (14, 18, 15)))) < 9] = 3
    data[np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (31, 12, 20)))) < 5] = 6
    turn = trimesh.transformations.rotation_matrix(0.3, [1, 2, 3])
    affine = turn @ np.diag([-0.8, 0.8, 1.2, 1.0])
    affine[:3, 3] = (120.0, -45.0, 800.0)
    volumes.save_label_map(folder / "a.nii.gz", data, affine)
    return Case(case_id="a", patient_id="a", labels=str(folder / "a.nii.gz"), status="ok")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    case = write_heart(folder)
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
    common = {"table": TABLE, "meshes": folder / "meshes", "out": folder / "exports"}
    paths = export_case(case, options=ExportsOptions(), **common)
    assert sorted(p.name for p in paths) == [
        "a.glb", "a.seg.nrrd", "a.vtp", "aorta.stl", "colors.ctbl", "left_ventricle.stl",
    ]  # fmt: skip
    return folder


def surface(folder, name):
    return read_mesh(folder / "meshes" / "a" / f"{name}.ply")


def about_the_voxels(folder, value: int, vertices: np.ndarray) -> None:
    """The middle of a surface is that of the voxels of its class, in RAS mm."""
    label_map = volumes.load_label_map(folder / "a.nii.gz")
    index = np.argwhere(label_map.data == value).astype(float)
    middle = apply_affine(label_map.affine, index.mean(axis=0)[None])[0]
    bounds = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    np.testing.assert_allclose(bounds, middle, atol=0.3)


@pytest.mark.parametrize(("value", "name"), NAMES.items())
def test_stl(exported, value, name):
    path = exported / "exports" / "a" / f"{name}.stl"
    content = path.read_bytes()
    assert b"SPACE=RAS" in content[:80] and not content.startswith(b"solid")
    found, wanted = trimesh.load_mesh(path), surface(exported, name)
    assert len(found.faces) == len(wanted.faces) and found.is_watertight and found.volume > 0
    np.testing.assert_allclose(found.bounds[0], wanted.vertices.min(axis=0), atol=NEAR_MM)
    np.testing.assert_allclose(found.bounds[1], wanted.vertices.max(axis=0), atol=NEAR_MM)
    about_the_voxels(exported, value, np.asarray(found.vertices))
    rows = np.frombuffer(content[84:], [("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")])
    sides = rows["c"][:, 1:] - rows["c"][:, :1]
    out = np.cross(sides[:, 0], sides[:, 1])
    assert (np.einsum("ij,ij->i", rows["n"], out) > 0).mean() > 0.99
    again = read_mesh(path)
    assert len(again.vertices) == len(wanted.vertices)


def test_vtp(exported):
    path = exported / "exports" / "a" / "a.vtp"
    arrays, piece = vtp_arrays(path)
    faces = arrays["connectivity"].reshape(-1, 3)
    labels = arrays["label"][:, 0]
    assert len(faces) == int(piece.get("NumberOfPolys")) == len(arrays["offsets"]) == len(labels)
    assert (np.diff(arrays["offsets"][:, 0]) == 3).all()
    for value, name in NAMES.items():
        wanted = surface(exported, name)
        used = np.unique(faces[labels == value])
        np.testing.assert_array_equal(arrays["Points"][used], wanted.vertices)
        about_the_voxels(exported, value, arrays["Points"][used])
        color = TABLE[TABLE.channel(name)].color
        assert (arrays["color"][labels == value] == list(bytes.fromhex(color[1:]))).all()
    assert "3 left_ventricle, 6 aorta" in path.read_text().splitlines()[1]


def test_vtp_is_what_vtk_reads(exported):
    reader = pytest.importorskip("vtkmodules.vtkIOXML", reason="vtk is not installed")
    found = reader.vtkXMLPolyDataReader()
    found.SetFileName(str(exported / "exports" / "a" / "a.vtp"))
    found.Update()
    data = found.GetOutput()
    arrays, _ = vtp_arrays(exported / "exports" / "a" / "a.vtp")
    assert data.GetNumberOfPolys() == len(arrays["label"])
    ends = np.array(data.GetBounds()).reshape(3, 2).T
    points = arrays["Points"]
    np.testing.assert_allclose(ends, [points.min(axis=0), points.max(axis=0)], atol=NEAR_MM)
    shown = data.GetCellData().GetArray("label")
    assert {int(shown.GetTuple1(k)) for k in range(0, shown.GetNumberOfTuples(), 50)} == set(NAMES)
    assert data.GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "RAS"


def test_gltf(exported):
    scene = trimesh.load(exported / "exports" / "a" / "a.glb")
    assert set(scene.geometry) == set(NAMES.values())
    assert np.linalg.det(TO_GLTF[:3, :3]) == pytest.approx(1e-9), "a rotation, no mirror"
    for value, name in NAMES.items():
        mesh, wanted = scene.geometry[name], surface(exported, name)
        vertices = apply_affine(np.linalg.inv(TO_GLTF), np.asarray(mesh.vertices, float))
        np.testing.assert_allclose(vertices.min(axis=0), wanted.vertices.min(axis=0), atol=NEAR_MM)
        np.testing.assert_allclose(vertices.max(axis=0), wanted.vertices.max(axis=0), atol=NEAR_MM)
        about_the_voxels(exported, value, vertices)
        assert mesh.volume > 0 and len(mesh.faces) == len(wanted.faces)
        color = TABLE[TABLE.channel(name)].color
        assert list(mesh.visual.material.baseColorFactor)[:3] == list(bytes.fromhex(color[1:]))


def test_segmentation_of_slicer(exported):
    data, header = nrrd.read(str(exported / "exports" / "a" / "a.seg.nrrd"), index_order="F")
    label_map = volumes.load_label_map(exported / "a.nii.gz")
    np.testing.assert_array_equal(data, label_map.data)
    assert header["space"] == "left-posterior-superior" and header["encoding"] == "gzip"
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = np.array(header["space directions"]).T, header["space origin"]
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ lps, label_map.affine, atol=1e-6)
    for number, (value, name) in enumerate(NAMES.items()):
        label = TABLE[TABLE.channel(name)]
        assert header[f"Segment{number}_ID"] == name
        assert header[f"Segment{number}_Name"] == label.title
        assert header[f"Segment{number}_LabelValue"] == str(value)
        color = np.array(header[f"Segment{number}_Color"].split(), float) * 255
        np.testing.assert_allclose(color, list(bytes.fromhex(label.color[1:])), atol=0.01)
        index = np.argwhere(data == value)
        ends = np.array(header[f"Segment{number}_Extent"].split(), int).reshape(3, 2).T
        np.testing.assert_array_equal(ends, [index.min(axis=0), index.max(axis=0)])


@pytest.mark.parametrize(
    ("title", "wanted"), [("Wänd größer", "Wand groer"), ("心", "aorta"), ("", "aorta")]
)
def test_titles_of_other_alphabets_are_written_in_ascii(tmp_path, title, wanted):
    label = dataclasses.replace(TABLE[TABLE.channel("aorta")], title=title)
    label_map = volumes.load_label_map(write_heart(tmp_path).labels)
    write_segmentation(tmp_path / "a.seg.nrrd", label_map, [label])
    assert nrrd.read_header(str(tmp_path / "a.seg.nrrd"))["Segment0_Name"] == wanted


def test_color_table(exported):
    lines = (exported / "exports" / "a" / COLORS).read_text().splitlines()
    assert lines[1:] == [
        "0 background 0 0 0 0", "3 left_ventricle 196 30 42 255", "6 aorta 240 138 36 255",
    ]  # fmt: skip


def test_other_formats_replace_those_of_before_and_the_script_says_what_is_wrong(
    tmp_path, run_script
):
    case = write_heart(tmp_path)
    write_cases(tmp_path / "cases.tsv", [case])
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    out = tmp_path / "exports"
    call = ["export_shapes.py", "--cases", tmp_path / "cases.tsv", "--meshes", tmp_path / "meshes"]
    call += ["--out", out, "--manifest", out / "all.tsv"]
    assert run_script(*call).returncode == 0
    result = run_script(*call, "--formats", "glb")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (out / "a").iterdir()) == ["a.glb", COLORS]
    result = run_script(*call, "--formats", "dae")
    assert result.returncode == 2 and "stl, vtp, glb, seg.nrrd" in result.stderr
    (tmp_path / "meshes" / "a" / "aorta.ply").unlink()
    result = run_script(*call)
    assert result.returncode == 2
    assert "aorta.ply: does not exist; run extract_meshes" in result.stderr
