"""Sparse voxels: complete, exact, the same from label maps and meshes, filled without leaks."""

import igl
import numpy as np
import pytest

from cardiform.errors import InputError
from cardiform.geometry.closed_band import Solid
from cardiform.geometry.frame import Frame
from cardiform.geometry.mesh_to_band import mesh_band
from cardiform.geometry.narrowband import NarrowBand, field_band, narrow_band, voxel_keys
from cardiform.geometry.sdf import class_fields
from cardiform.geometry.surface import Mesh, signed_volume
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

FRAME = Frame(np.array([10.0, -20.0, 30.0]), 1 / 60)


def centres(resolution):
    ticks = (np.arange(resolution) + 0.5) * 2 / resolution - 1
    return np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)


def sphere(radius):
    return lambda points: np.linalg.norm(points, axis=1) - radius


@pytest.fixture(scope="module")
def vessel():
    """A thin oblique tube as a label map on a rotated anisotropic grid, and its field."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.8, 1.1])
    shape = (60, 50, 44)
    affine[:3, 3] = FRAME.center - affine[:3, :3] @ (np.array(shape) / 2)
    index = np.stack(np.indices(shape), axis=-1).reshape(-1, 3)
    world = index @ affine[:3, :3].T + affine[:3, 3] - FRAME.center
    way = np.array([1.0, 1.0, 1.0]) / np.sqrt(3)
    along = np.clip(world @ way, -12, 12)
    inside = np.linalg.norm(world - along[:, None] * way, axis=1) < 1.6
    data = np.zeros(shape, np.uint8)
    data.reshape(-1)[inside] = 9
    return class_fields(LabelMap(data, affine), LabelTable(), MeshesOptions())[9]


@pytest.mark.parametrize("resolution", [64, 128])
def test_block_search_misses_nothing(vessel, resolution):
    band = field_band(vessel, FRAME, resolution, 3.0)
    points = centres(resolution)
    every = vessel.lookup(FRAME.to_world(points)) * FRAME.scale * resolution / 2 / 3.0
    kept = np.flatnonzero(np.abs(every) < 1)
    np.testing.assert_array_equal(voxel_keys(band.coords, resolution), kept)
    np.testing.assert_allclose(band.sdf, every[kept], atol=1e-3)
    assert len(kept) > 100


@pytest.mark.parametrize("resolution", [64, 256, 512, 1024])
def test_a_ball_at_any_resolution(resolution):
    """Only a small ball at 1024: the memory follows the surface, not the grid."""
    radius = 0.5 * 64 / resolution
    band = narrow_band(sphere(radius), [-radius] * 3, [radius] * 3, FRAME, resolution, 2.0)
    at = (band.coords.astype(np.float64) + 0.5) * 2 / resolution - 1
    expected = (np.linalg.norm(at, axis=1) - radius) * resolution / 2 / 2.0
    np.testing.assert_allclose(band.sdf, expected, atol=1e-3)
    shell = 4 / 3 * np.pi * ((16 + 2) ** 3 - (16 - 2) ** 3)
    assert len(band.coords) == pytest.approx(shell, rel=0.02)
    assert (np.diff(voxel_keys(band.coords, resolution)) > 0).all()


def test_coarse_sign_holds_wherever_nothing_is_stored():
    band = narrow_band(sphere(0.6), [-0.6] * 3, [0.6] * 3, FRAME, 64, 2.0)
    assert (band.coarse_sign < 0).sum() > 10
    stored = np.zeros((8, 8, 8), bool)
    stored[tuple(band.coords.T // 8)] = True
    truth = np.where(sphere(0.6)(centres(64)) < 0, -1, 1).reshape(8, 8, 8, 8, 8, 8)
    for sign, block in ((1, truth.max), (-1, truth.min)):
        empty = ~stored & (band.coarse_sign == sign)
        assert (block(axis=(1, 3, 5))[empty] == sign).all()
        assert empty.any()


def test_file_round_trip_and_size(tmp_path):
    band = narrow_band(sphere(0.9), [-0.9] * 3, [0.9] * 3, FRAME, 128, 3.0)
    path = tmp_path / "a.npz"
    band.save(path)
    again = NarrowBand.load(path)
    np.testing.assert_array_equal(again.coords, band.coords)
    np.testing.assert_array_equal(again.sdf, band.sdf)
    np.testing.assert_array_equal(again.coarse_sign, band.coarse_sign)
    assert (again.resolution, again.band_voxels, again.frame.scale) == (128, 3.0, FRAME.scale)
    assert again.coords.dtype == np.uint16 and again.sdf.dtype == np.float16
    assert path.stat().st_size < 4 * len(band.coords)
    assert band.voxel_mm == pytest.approx(60 / 64)


def test_files_of_other_kinds_are_refused(tmp_path):
    np.savez(tmp_path / "points.npz", points=np.zeros(3))
    with pytest.raises(InputError, match=r"points\.npz: is no sparse-voxel file"):
        NarrowBand.load(tmp_path / "points.npz")


@pytest.mark.parametrize("resolution", [60, 4, 1 << 17])
def test_resolutions_that_do_not_fit(resolution):
    with pytest.raises(InputError, match=str(resolution)):
        narrow_band(sphere(0.5), [-0.5] * 3, [0.5] * 3, FRAME, resolution, 2.0)


def test_a_mesh_gives_what_its_field_gives(vessel):
    """The field and the exact distance to its surface differ by interpolation alone."""
    by_mesh = mesh_band(vessel.surface(), FRAME, 128, 2.0)
    by_field = field_band(vessel, FRAME, 128, 2.0)
    keys = [voxel_keys(b.coords, 128) for b in (by_mesh, by_field)]
    both, here, there = np.intersect1d(*keys, return_indices=True)
    assert len(both) > 0.95 * max(map(len, keys))
    a, b = by_mesh.sdf[here].astype(float), by_field.sdf[there].astype(float)
    assert np.abs(a - b).mean() * 2.0 * by_mesh.voxel_mm < 0.1 * 0.7  # a tenth of a voxel
    assert ((a < 0) != (b < 0)).mean() < 0.01
    assert (by_mesh.coarse_sign == 1).mean() > 0.99


@pytest.mark.parametrize("radius", [1.0, 1.5])
def test_a_thin_vessel_on_thick_slices_keeps_its_volume(radius):
    """A label map's slices are 2 mm apart: half the vessel was lost where it runs along them."""
    affine = np.diag([0.4, 0.4, 2.0, 1.0])
    world = np.indices((60, 60, 12)).reshape(3, -1).T * [0.4, 0.4, 2.0] - [12, 12, 10]
    along = np.clip(world @ [0.6, 0.8, 0], -9, 9)
    inside = np.linalg.norm(world - along[:, None] * [0.6, 0.8, 0], axis=1) < radius
    label_map = LabelMap(9 * inside.reshape(60, 60, 12).astype(np.uint8), affine)
    field = class_fields(label_map, LabelTable(), MeshesOptions())[9]
    band = field_band(field, Frame(np.zeros(3), 1 / 24), 256, 3.0)
    solid = Solid.of_band(band.coords, band.sdf.astype(np.float32), 256, band.frame)
    found = signed_volume(solid.surface())
    assert found == pytest.approx(field.voxel_volume, rel=0.05)


@pytest.mark.parametrize("faces", [[[0, 1, 3]], [[0, -1, 2]], np.zeros((0, 3))])
def test_corners_that_are_no_vertices_never_reach_native_code(faces):
    mesh = Mesh(np.eye(3, dtype=np.float32), np.array(faces, np.int32))
    with pytest.raises(InputError, match="no usable triangles"):
        mesh_band(mesh, FRAME, 64, 3.0)


def test_a_frame_of_no_extent_never_reaches_native_code():
    mesh = Mesh(np.ones((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    with np.errstate(all="ignore"), pytest.raises(InputError, match="no usable triangles"):
        mesh_band(mesh, Frame.around(mesh.vertices), 64, 3.0)


def test_a_mesh_band_is_exact(vessel):
    mesh = vessel.surface()
    band = mesh_band(mesh, FRAME, 64, 3.0)
    at = FRAME.to_world((band.coords + 0.5) * 2 / 64 - 1.0)
    exact = igl.signed_distance(at, mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64))[
        0
    ]
    np.testing.assert_allclose(band.sdf * 3.0 * band.voxel_mm, exact, atol=0.01)
