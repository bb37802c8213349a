"""Mesh files."""

from __future__ import annotations

import re
import struct

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
        ("a.ply", b"", "cannot be read"),
        ("a.stl", b"", "is cut short"),
        ("a.stl", b"solid nothing\nendsolid\n", r"a\.stl: "),
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
        write_mesh(tmp_path / "a.obj", box)
    assert not list(tmp_path.iterdir())
    write_mesh(tmp_path / f"A{MESH_ENDING.upper()}", box)
    assert len(read_mesh(tmp_path / f"A{MESH_ENDING.upper()}").faces) == 12


def test_an_open_mesh_is_not_watertight(box):
    assert is_watertight(box)
    assert not is_watertight(Mesh(box.vertices, box.faces[1:]))
    turned = box.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not is_watertight(Mesh(box.vertices, turned))


def header(path):
    """The comments of a PLY file, by a parser of our own."""
    lines = path.read_bytes().split(b"end_header\n")[0].decode("ascii").split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    return [line.removeprefix("comment ") for line in lines if line.startswith("comment ")]


def ascii_ply(vertices, faces, *comments, index="int", number="float"):
    lines = ["ply", "format ascii 1.0", *(f"comment {c}" for c in comments)]
    lines += [f"element vertex {len(vertices)}", *(f"property {number} {a}" for a in "xyz")]
    lines += [f"element face {len(faces)}", f"property list uchar {index} vertex_indices"]
    lines += ["end_header", *(" ".join(map(str, v)) for v in vertices)]
    return "\n".join([*lines, *(f"{len(f)} " + " ".join(map(str, f)) for f in faces), ""])


def test_ply_says_that_it_is_in_ras(tmp_path, box):
    """3D Slicer takes a mesh without it for LPS and turns it beside its own image."""
    write_mesh(tmp_path / "box.ply", box)
    assert "SPACE=RAS" in header(tmp_path / "box.ply")
    again = trimesh.load_mesh(tmp_path / "box.ply", process=False)
    np.testing.assert_array_equal(again.vertices, box.vertices)


def test_ply_of_the_version_before_is_read(tmp_path, box):
    made = trimesh.Trimesh(box.vertices, box.faces, process=False)
    (tmp_path / "box.ply").write_bytes(made.export(file_type="ply"))
    assert "SPACE=RAS" not in header(tmp_path / "box.ply")
    np.testing.assert_array_equal(read_mesh(tmp_path / "box.ply").vertices, box.vertices)


def stl(path, mesh, space):
    content = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(file_type="stl")
    path.write_bytes(f"3D Slicer output. {space}".encode().ljust(80, b" ") + content[80:])


def stl_ascii(path, mesh, space):
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    text = made.export(file_type="stl_ascii")
    path.write_text(f"solid 3D Slicer output. {space}\n" + text.partition("\n")[2])


def obj(path, mesh, space):
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    path.write_text(f"# 3D Slicer output. {space}\n" + made.export(file_type="obj"))


def ply(path, mesh, space):
    path.write_text(ascii_ply(mesh.vertices, mesh.faces, "VTK generated PLY File", space))


def ply_binary(path, mesh, space):
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(file_type="ply")
    path.write_bytes(made.replace(b"\nelement", f"\ncomment {space}\nelement".encode(), 1))


@pytest.mark.parametrize("write", [stl, stl_ascii, obj, ply, ply_binary])
def test_the_system_in_the_header_is_heeded(tmp_path, box, write):
    moved = Mesh(box.vertices + np.array([10, 20, 30], np.float32), box.faces)
    path = tmp_path / f"a.{write.__name__.partition('_')[0]}"
    for space, way in (("SPACE=LPS", -1), ("SPACE=RAS", 1), ("SPACE=", 1), ("", 1)):
        write(path, moved, space)
        found = read_mesh(path)
        np.testing.assert_allclose(found.vertices.mean(axis=0), [way * 10, way * 20, 30], rtol=1e-6)
        assert signed_volume(found) == pytest.approx(6)


def test_coordinates_that_look_like_a_header_are_none(tmp_path, box):
    (tmp_path / "a.ply").write_text(
        ascii_ply(box.vertices, box.faces).replace("end_header", "obj_info SPACE=LPS\nend_header")
    )
    np.testing.assert_array_equal(read_mesh(tmp_path / "a.ply").vertices, box.vertices)


QUADS = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
CUBE = [(0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0), (0, 0, 2), (2, 0, 2), (2, 2, 2), (0, 2, 2)]


def binary_ply(faces, order):
    """A cube whose vertices and faces have other properties, too, as mesh editors write them."""
    lines = [
        "ply", f"format binary_{'big' if order == '>' else 'little'}_endian 1.0",
        "element vertex 8", "property double x", "property double y", "property double z",
        "property uchar red", f"element face {len(faces)}", "property uchar flags",
        "property list uchar uint vertex_indices", "end_header", "",
    ]  # fmt: skip
    rows = [struct.pack(f"{order}3dB", *vertex, 200) for vertex in CUBE]
    rows += [struct.pack(f"{order}BB{len(f)}I", 7, len(f), *f) for f in faces]
    return "\n".join(lines).encode() + b"".join(rows)


@pytest.mark.parametrize("order", "<>")
def test_polygons_of_binary_files_are_cut_into_triangles(tmp_path, order):
    """trimesh reads those whose faces have one number of corners alone."""
    path = tmp_path / "a.ply"
    content = binary_ply([(0, 3, 2), (0, 2, 1), *QUADS[1:]], order)
    path.write_bytes(content)
    mesh = read_mesh(path)
    assert mesh.faces.shape == (12, 3) and is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(8)
    np.testing.assert_array_equal(mesh.faces[:3], [[0, 3, 2], [0, 2, 1], [4, 5, 6]])
    path.write_bytes(binary_ply([*QUADS[:2], (0, 1, 5), (0, 1, 5, 6, 4)], order))
    assert read_mesh(path).faces.max() == 7, "four corners each on average"
    for wrong in (content[:-1], content[:-40], content + b"x"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="cannot be read"):
            read_mesh(path)


@pytest.mark.parametrize("mixed", [False, True])
def test_quads_are_cut_in_two(tmp_path, mixed):
    faces = [*QUADS[1:], (0, 3, 2), (0, 2, 1)] if mixed else QUADS
    (tmp_path / "a.ply").write_text(ascii_ply(CUBE, faces))
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.faces.shape == (12, 3) and is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(8)


@pytest.mark.parametrize("bad", [8, 10**6, 2**31 - 1, -1, -(2**31)])
@pytest.mark.parametrize("ending", ["ply", "binary", "obj"])
def test_corners_that_are_no_vertices_are_refused(tmp_path, bad, ending):
    """Native code would read whatever lies there."""
    faces = np.array([q[:3] for q in QUADS] + [q[2:] + q[:1] for q in QUADS], np.int64)
    faces[3, 1] = bad
    if ending == "obj":
        path = tmp_path / "a.obj"
        one_based = np.where(faces == bad, bad + 1 if bad > 0 else -9, faces + 1)
        lines = ["v {} {} {}".format(*v) for v in CUBE] + [
            "f {} {} {}".format(*f) for f in one_based
        ]
        path.write_text("\n".join(lines))
    elif ending == "binary":
        path = tmp_path / "a.ply"
        write_mesh(path, Mesh(np.array(CUBE, np.float32), faces.astype(np.int32)))
    else:
        path = tmp_path / "a.ply"
        path.write_text(ascii_ply(CUBE, faces))
    with pytest.raises(InputError, match=r"a\.\w+: .*; export the mesh again") as caught:
        read_mesh(path)
    assert "\n" not in caught.value.problems[0]


@pytest.mark.parametrize(("index", "bad"), [("uint", 2**32 - 1), ("uint64", 2**64 - 2**11)])
def test_unsigned_corners_do_not_wrap_around(tmp_path, index, bad):
    text = ascii_ply(CUBE, [(0, 1, bad), (0, 2, 1)], index=index)
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(InputError, match=r"none of its 8 vertices \(in 1 of 2 faces\)"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e39"])
def test_vertices_that_are_not_finite_are_counted(tmp_path, bad):
    cube = [*CUBE[:7], (0, bad, 2)]
    (tmp_path / "a.ply").write_text(ascii_ply(cube, QUADS, number="double"))
    with pytest.raises(InputError, match=r"has vertices that are not finite \(1 of 8\)"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize("write", [stl, stl_ascii])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_cut_files_are_not_taken_for_the_whole(tmp_path, box, write, part):
    path = tmp_path / "a.stl"
    write(path, box, "")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match="it is cut short"):
        read_mesh(path)


def test_a_binary_file_whose_header_begins_like_text_is_read(tmp_path, box):
    stl(tmp_path / "a.stl", box, "")
    content = (tmp_path / "a.stl").read_bytes()
    (tmp_path / "a.stl").write_bytes(b"solid heart SPACE=LPS".ljust(80) + content[80:])
    assert is_watertight(read_mesh(tmp_path / "a.stl"))


@pytest.mark.parametrize("face", ["f 0 1 2", "f 1 2 0", "f 1/1 2/2 0/3", "f 3//1 0//1 1//1\r"])
def test_an_obj_that_counts_from_zero_is_refused(tmp_path, face):
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n"
    (tmp_path / "a.obj").write_text(text + face + "\n")
    with pytest.raises(InputError, match="OBJ counts from 1"):
        read_mesh(tmp_path / "a.obj")


def test_a_file_without_faces_is_named(tmp_path):
    (tmp_path / "a.ply").write_text(ascii_ply(CUBE, []))
    with pytest.raises(InputError, match=r"a\.ply: has no triangles"):
        read_mesh(tmp_path / "a.ply")


def test_all_objects_of_a_scene_are_read(tmp_path, box):
    lines = []
    for name, shift in (("a", 0), ("b", 10)):
        start = 8 if shift else 0
        lines += [f"o {name}", f"usemtl {name}"]
        lines += ["v {} {} {}".format(*v) for v in box.vertices + [shift, 0, 0]]
        lines += ["f {} {} {}".format(*f) for f in box.faces + 1 + start]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    mesh = read_mesh(tmp_path / "a.obj")
    assert signed_volume(mesh) == pytest.approx(12) and is_watertight(mesh)


def test_the_reader_of_stl_logs_no_traceback_of_normals_that_nobody_needs(tmp_path, box, caplog):
    text = trimesh.Trimesh(box.vertices, box.faces).export(file_type="stl_ascii")
    (tmp_path / "a.stl").write_text(re.sub("normal [^ ]+", "normal x", text, count=1))
    assert is_watertight(read_mesh(tmp_path / "a.stl"))
    assert not caplog.records


@pytest.mark.parametrize("lost", [1, 5])
def test_a_text_that_lacks_rows_is_not_taken_for_the_whole(tmp_path, lost):
    """Less than a tenth of the surface would pass as a hole, and be closed."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    content = ball.export(file_type="ply", encoding="ascii").splitlines()
    path = tmp_path / "a.ply"
    path.write_bytes(b"\r\n".join([*content, b"", b""]))
    assert len(read_mesh(path).faces) == 1280
    path.write_bytes(b"\n".join(content[:-lost]) + b"\n")
    with pytest.raises(InputError, match=f"it is cut short: {1922 - lost} of 1922 rows"):
        read_mesh(path)


def test_a_number_of_triangles_that_is_not_that_of_the_file_is_named(tmp_path, box):
    stl(tmp_path / "a.stl", box, "")
    content = (tmp_path / "a.stl").read_bytes()
    (tmp_path / "a.stl").write_bytes(content + bytes(30))
    with pytest.raises(InputError, match=rf"it has {len(content) + 30} bytes, {len(content)} by"):
        read_mesh(tmp_path / "a.stl")
