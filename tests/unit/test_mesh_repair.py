"""Meshes with flaws: repaired to the shape that was meant, or refused; never a crash."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh

from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.geometry.closed_band import Solid
from cardiform.geometry.frame import Frame
from cardiform.geometry.mesh_files import write_mesh
from cardiform.geometry.mesh_repair import repaired
from cardiform.geometry.mesh_to_band import check_inside, inside_of, mesh_band, voxelize_meshes
from cardiform.geometry.narrowband import NarrowBand
from cardiform.geometry.surface import Mesh, is_watertight, signed_volume
from cardiform.options.geometry import VoxelsOptions

RANDOM = np.random.default_rng(0)


def mesh_of(vertices, faces):
    return Mesh(np.array(vertices, np.float32), np.array(faces, np.int32))


def ball(radius=20.0, middle=(10, -20, 30)):
    made = trimesh.creation.icosphere(3, radius)
    return mesh_of(made.vertices + middle, made.faces)


def box(size=20.0, middle=(0, 0, 0)):
    made = trimesh.creation.box((size,) * 3)
    return mesh_of(made.vertices + middle, made.faces)


def together(*meshes):
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = np.concatenate([m.faces + start for m, start in zip(meshes, starts)])
    return mesh_of(np.concatenate([m.vertices for m in meshes]), faces)


def mirrored(mesh, x):
    return mesh_of(mesh.vertices * (-1, 1, 1) + (2 * x, 0, 0), mesh.faces[:, ::-1])


def inward(mesh):
    return mesh_of(mesh.vertices, mesh.faces[:, ::-1])


def turned(mesh, share):
    rows = RANDOM.random(len(mesh.faces)) < share
    return mesh_of(mesh.vertices, np.where(rows[:, None], mesh.faces[:, ::-1], mesh.faces))


def soup(mesh):
    """Every face with corners of its own, as many exporters write it."""
    return mesh_of(
        mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(mesh.faces.size).reshape(-1, 3)
    )


def cracked(mesh):
    made = soup(mesh)
    return mesh_of(made.vertices + RANDOM.uniform(-2e-5, 2e-5, made.vertices.shape), made.faces)


def with_faces(mesh, more):
    return mesh_of(mesh.vertices, np.concatenate([mesh.faces, more]))


def stray(mesh):
    return mesh_of(np.concatenate([[[1e4, 0, 0]], mesh.vertices]), mesh.faces + 1)


BALL = ball()
CAVITY = together(BALL, inward(ball(10)))
SOUND = {
    "ball": BALL,
    "inside out": inward(BALL),
    "cavity": CAVITY,
    "inside out with a cavity": inward(CAVITY),
    "two parts": together(BALL, ball(8, (60, 0, 0))),
    "nested": together(BALL, ball(10)),
    "soup": soup(BALL),
}
# name -> mesh, the volume that was meant, words of what is logged
REPAIRED = {
    "stray vertex": (stray(BALL), BALL, "dropped vertices that no face uses: 1"),
    "two-sided": (with_faces(BALL, BALL.faces[:, ::-1]), BALL, "occur twice"),
    "two-sided soup": (soup(with_faces(BALL, BALL.faces[:, ::-1])), BALL, "occur twice"),
    "two-sided in part": (
        with_faces(BALL, BALL.faces[:200, ::-1]),
        BALL,
        "occur twice: 200",
    ),
    "twice": (with_faces(BALL, BALL.faces), BALL, "occur twice: 1280"),
    "three times": (
        with_faces(BALL, np.tile(BALL.faces[:9], (2, 1))),
        BALL,
        "occur twice: 18",
    ),
    "5 % turned": (turned(BALL, 0.05), BALL, "turned faces"),
    "20 % turned": (turned(BALL, 0.2), BALL, "turned faces"),
    "20 % of a soup": (turned(soup(BALL), 0.2), BALL, "turned faces"),
    "half turned": (turned(BALL, 0.5), BALL, "turned faces"),
    "turned with a cavity": (turned(CAVITY, 0.2), CAVITY, "turned faces"),
    "one part of two": (
        together(BALL, inward(ball(18, (30, -20, 30)))),
        None,
        "faced inward: 1 of 2",
    ),
    "degenerate": (
        with_faces(BALL, [[3, 3, 5], [7, 7, 7]]),
        BALL,
        "without an area: 2",
    ),
    "a hole": (mesh_of(BALL.vertices, BALL.faces[4:]), BALL, "closed holes"),
    "holes": (mesh_of(BALL.vertices, BALL.faces[RANDOM.random(1280) > 0.03]), BALL, "closed holes"),
    "a hole, turned": (
        turned(mesh_of(BALL.vertices, BALL.faces[4:]), 0.2),
        BALL,
        "turned faces",
    ),
    "two boxes, one wall": (together(box(), mirrored(box(), 10)), None, "occur twice"),
}
SQUARE = [[0, 0, 0], [9, 0, 0], [9, 9, 0], [0, 9, 0]]
UPPER = BALL.vertices[BALL.faces, 2].mean(axis=1) > 30
REFUSED = {
    "point": (mesh_of(np.ones((3, 3)), [[0, 1, 2]]), "has no extent"),
    "one corner thrice": (mesh_of(np.eye(3), [[0, 0, 0]]), "has no extent"),
    "line": (mesh_of(np.outer(range(4), (1, 2, 3)), [[0, 1, 2], [1, 2, 3]]), "is flat"),
    "flat": (mesh_of(SQUARE, [[0, 1, 2], [0, 2, 3]]), "is flat"),
    "half": (mesh_of(BALL.vertices, BALL.faces[UPPER]), "is open"),
    "a third gone": (mesh_of(BALL.vertices, BALL.faces[RANDOM.random(1280) > 0.33]), "is open"),
    "soup of loose triangles": (
        mesh_of(RANDOM.normal(size=(90, 3)), np.arange(90).reshape(-1, 3)),
        "is open",
    ),
    "a damaged corner": (
        mesh_of(np.concatenate([BALL.vertices[:-1], [[0, 0, 1e30]]]), BALL.faces),
        r"is 1e\+30 mm in size",
    ),
    "far away": (mesh_of(BALL.vertices.astype(float) + 1e8, BALL.faces), "from the origin"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_mesh_stays_as_it_is(name):
    mesh, repairs = repaired(SOUND[name], "a.ply")
    assert mesh is SOUND[name] and repairs == []


@pytest.mark.parametrize("name", REPAIRED)
def test_flaws_are_repaired(name):
    """The repaired mesh is closed, and its voxels hold what was meant."""
    mesh, meant, words = REPAIRED[name]
    again, repairs = repaired(mesh, "a.ply")
    assert any(words in line for line in repairs), repairs
    assert repaired(again, "a.ply")[1] == []
    if meant is None:
        return
    assert abs(signed_volume(again)) == pytest.approx(signed_volume(meant), rel=0.02)
    frame = Frame.around(meant.vertices)
    band, expected = (mesh_band(m, frame, 48, 2.0) for m in (again, meant))
    assert inside_of(band)[1] == pytest.approx(inside_of(expected)[1], rel=0.02)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_inside_is_refused_in_one_line(name):
    mesh, words = REFUSED[name]
    with pytest.raises(InputError, match=rf"a\.ply: [^;]*{words}[^;]*; ") as caught:
        repaired(mesh, "a.ply")
    assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]


def test_a_one_sided_strip_is_refused():
    angle = np.linspace(0, np.pi, 40, endpoint=False)
    way = np.stack([np.cos(2 * angle), np.sin(2 * angle), 0 * angle], axis=1)
    across = way * np.cos(angle)[:, None] + np.array([0, 0, 1]) * np.sin(angle)[:, None]
    vertices = np.concatenate([20 * way + 5 * across, 20 * way - 5 * across])
    i, j = np.arange(40), (np.arange(40) + 1) % 40
    a, b, c, d = i, i + 40, j.copy(), j + 40
    c[-1], d[-1] = 40, 0  # half a turn further the sides have changed places
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    with pytest.raises(InputError, match="one-sided"):
        repaired(mesh_of(vertices, faces), "a.ply")


def test_cracks_between_rounded_corners_are_no_holes():
    mesh = cracked(BALL)
    again, repairs = repaired(mesh, "a.ply")
    assert again is mesh and repairs == []


def test_a_corner_on_another_faces_edge_is_no_hole():
    """One face cut in two whose neighbour is not."""
    made = box()
    a, b, c = made.faces[0]
    middle = len(made.vertices)
    vertices = np.concatenate([made.vertices, [(made.vertices[a] + made.vertices[b]) / 2]])
    faces = np.concatenate([made.faces[1:], [[a, middle, c], [middle, b, c]]])
    mesh = mesh_of(vertices, faces)
    again, repairs = repaired(mesh, "a.ply")
    assert again is mesh and repairs == []


def test_boxes_that_share_a_wall_are_one():
    mesh, _ = repaired(REPAIRED["two boxes, one wall"][0], "a.ply")
    assert signed_volume(mesh) == pytest.approx(2 * 20**3, rel=1e-6)


def test_a_turned_part_that_overlaps_is_no_cavity():
    mesh, _ = repaired(REPAIRED["one part of two"][0], "a.ply")
    assert signed_volume(mesh) == pytest.approx(
        signed_volume(BALL) + signed_volume(ball(18)), rel=1e-3
    )
    band = mesh_band(mesh, Frame.around(mesh.vertices), 64, 2.0)
    check_inside(band, mesh, "a.ply")  # what both hold counts once


@pytest.mark.parametrize("resolution", [32, 64, 96])
@pytest.mark.parametrize("name", ["ball", "cavity", "two parts", "nested"])
def test_voxels_inside_are_counted(name, resolution):
    mesh = SOUND[name]
    band = mesh_band(mesh, Frame.around(mesh.vertices), resolution, 2.0)
    voxels, shares = inside_of(band)
    solid = Solid.of_band(band.coords, band.sdf, resolution, band.frame)
    assert voxels == (solid.values < 0).sum()
    volume = signed_volume(BALL) if name == "nested" else signed_volume(mesh)
    assert shares * band.voxel_mm**3 == pytest.approx(volume, rel=0.015)
    check_inside(band, mesh, "a.ply")


def test_voxels_that_hold_another_volume_are_refused():
    frame = Frame.around(BALL.vertices)
    with pytest.raises(InputError, match=r"a\.ply: its voxels hold .*; its parts cross"):
        check_inside(mesh_band(ball(18.5), frame, 64, 2.0), BALL, "a.ply")
    with pytest.raises(InputError, match="no voxel inside at resolution 64; raise"):
        check_inside(NarrowBand.empty(64, 2.0, frame), BALL, "a.ply")


def test_parts_that_cross_inside_out_are_refused(tmp_path):
    """A prism over a figure of eight: one lobe counts against the other."""
    outline = np.array([(0, 0), (10, 8), (10, 0), (-6, 5)], float)
    flat = np.zeros((4, 1))
    vertices = np.concatenate([np.hstack([outline, flat]), np.hstack([outline, flat + 10])])
    i, j = np.arange(4), (np.arange(4) + 1) % 4
    sides = np.concatenate([np.stack([i, j, j + 4], 1), np.stack([i, j + 4, i + 4], 1)])
    lids = [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7)]
    write_mesh(tmp_path / "a.ply", mesh_of(vertices, np.concatenate([sides, lids])))
    case = Case(case_id="a", patient_id="a", meshes=str(tmp_path / "a.ply"))
    with pytest.raises(InputError, match=r"a\.ply: its voxels hold \+\d+% of the volume"):
        voxelize_meshes(case, options=VoxelsOptions(resolution=32), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_a_thin_tube_is_warned_of(caplog):
    made = trimesh.creation.cylinder(1.0, 60)
    mesh = mesh_of(made.vertices, made.faces)
    frame = Frame.around(mesh.vertices)
    check_inside(mesh_band(mesh, frame, 256, 3.0), mesh, "a.ply")
    assert not caplog.text
    check_inside(mesh_band(mesh, frame, 48, 3.0), mesh, "a.ply")
    assert "is thin for resolution 48" in caplog.text


def test_repairs_are_kept_beside_the_voxels(tmp_path):
    def make():
        return voxelize_meshes(case, options=VoxelsOptions(resolution=32), out=tmp_path)

    case = Case(case_id="a", patient_id="a", meshes=str(tmp_path / "a.ply"))
    write_mesh(case.meshes, turned(BALL, 0.2))
    assert make() == [tmp_path / "a" / "mesh.npz", tmp_path / "a" / "repairs.json"]
    found = json.loads((tmp_path / "a" / "repairs.json").read_text())
    assert "turned faces" in found["repairs"][0]
    assert found["volume_mm3"] == pytest.approx(signed_volume(BALL), rel=1e-5)
    write_mesh(case.meshes, BALL)
    assert make() == [tmp_path / "a" / "mesh.npz"]
    assert not (tmp_path / "a" / "repairs.json").exists()
    assert is_watertight(BALL)


def test_the_structures_of_a_case_share_a_frame(tmp_path):
    folder = tmp_path / "meshes"
    small = trimesh.creation.icosphere(3, 4.0)
    far = mesh_of(small.vertices + [30, 0, 0], small.faces)
    write_mesh(folder / "left.ply", BALL)
    write_mesh(folder / "right.stl", turned(far, 0.2))
    case = Case(case_id="a", patient_id="a", meshes=str(folder))
    made = voxelize_meshes(case, options=VoxelsOptions(resolution=64), out=tmp_path)
    assert [p.name for p in made] == ["left.npz", "right.npz", "repairs.json"]
    left, right = (NarrowBand.load(path) for path in made[:2])
    assert left.frame.scale == right.frame.scale and (left.frame.center == right.frame.center).all()
    middle = right.frame.to_world(right.coords.mean(axis=0) / 32 - 1 + 1 / 64)
    assert middle == pytest.approx([30, 0, 0], abs=0.5)
    assert list(json.loads(made[2].read_text())) == ["right"]
    (folder / "right.stl").unlink()
    assert voxelize_meshes(case, options=VoxelsOptions(resolution=64), out=tmp_path) == made[:1]
    assert not made[1].exists() and not made[2].exists()


def test_all_bad_files_of_a_case_are_reported(tmp_path):
    for name in ("a.ply", "a.stl", "left atrium.ply"):
        write_mesh(tmp_path / "meshes" / name, BALL)
    case = Case(case_id="a", patient_id="a", meshes=str(tmp_path / "meshes"))
    with pytest.raises(InputError) as caught:
        voxelize_meshes(case, options=VoxelsOptions(resolution=32), out=tmp_path)
    assert "a.stl: is a, as is" in caught.value.problems[0]
    assert "left atrium.ply: its name is that of no structure" in caught.value.problems[1]
    for name in ("left atrium.ply", "a.stl"):
        (tmp_path / "meshes" / name).unlink()
    (tmp_path / "meshes" / "a.ply").write_bytes(b"ply")
    (tmp_path / "meshes" / "b.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError) as caught:
        voxelize_meshes(case, options=VoxelsOptions(resolution=32), out=tmp_path)
    assert len(caught.value.problems) == 2
