"""Mesh files."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from cardiform.errors import InputError
from cardiform.geometry.mesh_files import MESH_ENDING, read_mesh, write_mesh
from cardiform.geometry.surface import Mesh, is_watertight, signed_volume, surface_area


@pytest.fixture(scope="module")
def box():
    made = trimesh.creation.box((1, 2, 3))
    return Mesh(made.vertices.astype(np.float32), made.faces.astype(np.int32))


def test_ply_keeps_vertices_and_faces(tmp_path, box):
    write_mesh(tmp_path / "box.ply", box)
    again = read_mesh(tmp_path / "box.ply")
    np.testing.assert_array_equal(again.vertices, box.vertices)
    np.testing.assert_array_equal(again.faces, box.faces)
    assert [p.name for p in tmp_path.iterdir()] == ["box.ply"]


@pytest.mark.parametrize("suffix", [".stl", ".obj"])
def test_other_formats_are_read_as_closed_meshes(tmp_path, box, suffix):
    path = tmp_path / f"box{suffix}"
    trimesh.Trimesh(box.vertices, box.faces, process=False).export(path)
    mesh = read_mesh(path)
    assert len(mesh.vertices) == 8 and is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(6)
    assert surface_area(mesh) == pytest.approx(22)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.vtk", b"", "is no known mesh format"),
        ("a.ply", None, "does not exist"),
        ("a.ply", b"ply\nnothing", "cannot be read"),
        ("a.obj", b"v 0 0 0\n", "a.obj"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_mesh(tmp_path / name)


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path, box):
    with pytest.raises(InputError, match=r"a\.vtp: is no known mesh format; save it as .*\.ply"):
        write_mesh(tmp_path / "a.vtp", box)
    with pytest.raises(InputError, match="is of a format that is only read"):
        write_mesh(tmp_path / "a.stl", box)
    assert not list(tmp_path.iterdir())
    write_mesh(tmp_path / f"A{MESH_ENDING.upper()}", box)
    assert len(read_mesh(tmp_path / f"A{MESH_ENDING.upper()}").faces) == 12


def test_an_open_mesh_is_not_watertight(box):
    assert is_watertight(box)
    assert not is_watertight(Mesh(box.vertices, box.faces[1:]))
    turned = box.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not is_watertight(Mesh(box.vertices, turned))
