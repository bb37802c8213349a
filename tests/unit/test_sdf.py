"""Smooth distance fields and surfaces: accuracy, volumes, thin and odd structures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiform.errors import InputError
from cardiform.geometry.far_field import every_second, far_grid
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.lookup import distances
from cardiform.geometry.sdf import class_fields
from cardiform.geometry.surface import is_watertight, signed_volume
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

CT = (0.35, 0.35, 0.5)  # mm, a coronary CT
TABLE = LabelTable()


def grid(extent, spacing):
    """World positions (X, Y, Z, 3) of a grid centred at the origin, and its affine."""
    shape = [int(np.ceil(2 * e / s)) + 1 for e, s in zip(extent, spacing)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, spacing)]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return apply_affine(affine, index.astype(float)), affine


def field_of(mask, affine, smoothing=1.0, value=3):
    label_map = LabelMap(mask.astype(np.uint8) * value, affine)
    return class_fields(label_map, TABLE, MeshesOptions(smoothing_vox=smoothing))[value]


def sphere(points, radius):
    return np.linalg.norm(points, axis=-1) - radius


def tube(points, radius):
    """A tube along an oblique line, ended inside of the grid."""
    way = np.array([1.0, 2.0, 2.0]) / 3
    along = np.clip(points @ way, -9, 9)
    return np.linalg.norm(points - along[..., None] * way, axis=-1) - radius


@pytest.mark.parametrize(
    ("shape", "radius", "mean", "p95"),
    [(sphere, 8.0, 0.03, 0.08), (tube, 1.5, 0.05, 0.12), (tube, 1.0, 0.06, 0.16)],
)
def test_near_distances_of_analytic_shapes(shape, radius, mean, p95):
    """Bars are a fraction of a voxel (0.35-0.5 mm): truth is known to half a voxel only."""
    world, affine = grid((11, 11, 11), CT)
    field = field_of(shape(world, radius) < 0, affine)
    rng = np.random.default_rng(0)
    points = field.surface().vertices
    points = points[rng.integers(len(points), size=4000)] + rng.normal(0, 0.3, (4000, 3))
    error = np.abs(field.lookup(points) - shape(points, radius))
    assert error.mean() < mean and np.percentile(error, 95) < p95


def test_far_and_fine_distances_agree_on_the_cells_of_the_crop():
    world, affine = grid((20, 20, 20), (0.5, 0.7, 0.9))
    field = field_of(tube(world, 3.0) < 0, affine)
    lattice = field.far_grid
    cells = np.indices(lattice.shape).reshape(3, -1).T.astype(np.float32)
    index = lattice.first_centre + cells * lattice.step.astype(np.float32)
    local = index - field.origin
    index = index[((local >= 0) & (local <= np.array(field.values.shape) - 1)).all(axis=1)]
    assert len(index) > 100
    far = field.far.lookup(index)[:, 0]
    np.testing.assert_allclose(far, field.lookup(apply_affine(affine, index)), atol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_the_coarse_lattice_holds_the_margin_of_every_class(size):
    boxes = [(slice(4, 4 + size), slice(9, 10), slice(7, 9))]
    lattice = far_grid(np.diag([0.4, 0.4, 0.6, 1.0]), boxes, margin=9)
    end = lattice.origin + lattice.step * np.array(lattice.shape)
    assert (lattice.origin <= [s.start - 9 for s in boxes[0]]).all()
    assert (end >= [s.stop + 9 for s in boxes[0]]).all()


@pytest.mark.parametrize("radius", [0.6, 0.8, 1.2])
def test_a_thin_vessel_keeps_its_volume_and_its_course(radius):
    """A fixed Gaussian of 0.7 voxel would take 29 % of the thinnest one."""
    world, affine = grid((11, 11, 11), CT)
    field = field_of(tube(world, radius) < 0, affine)
    mesh = field.surface()
    assert signed_volume(mesh) == pytest.approx(field.voxel_volume, rel=0.02)
    assert is_watertight(mesh)
    assert np.abs(tube(mesh.vertices, radius)).max() < min(CT) / 2  # half a voxel


def odd_masks():
    rng = np.random.default_rng(1)
    masks = {name: np.zeros((14, 15, 16), bool) for name in ("voxel", "plate", "line", "cut")}
    masks["voxel"][7, 7, 7] = True
    masks["plate"][3:11, 4:11, 8] = True
    masks["line"][2:12, 7, 7] = True
    masks["cut"][:6, 5:10, 10:] = True
    masks["corners"] = np.zeros((14, 15, 16), bool)
    masks["corners"][6, 6, 6] = masks["corners"][7, 7, 7] = True
    masks["everything"] = np.ones((6, 7, 5), bool)
    masks["noise"] = rng.random((14, 15, 16)) < 0.3
    return masks


@pytest.mark.parametrize("name", list(odd_masks()))
def test_odd_masks_are_read_back_from_their_field(name):
    mask = odd_masks()[name]
    field = field_of(mask, np.diag([1.0, 0.8, 1.5, 1.0]))
    read = np.zeros_like(mask)
    index = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), axis=-1)
    local = index - field.origin
    inside = ((local >= 0) & (local < field.values.shape)).all(axis=-1)
    read[inside] = field.mask()[tuple(local[inside].T)]
    np.testing.assert_array_equal(read, mask)
    assert field.voxels == mask.sum()
    assert field.touches_border == (name in ("cut", "everything", "noise"))
    mesh = field.surface()
    assert signed_volume(mesh) > 0
    assert signed_volume(mesh) == pytest.approx(field.voxel_volume, rel=0.02)
    assert is_watertight(mesh)


@pytest.mark.parametrize("spacing", [(0.4, 0.4, 2.0), (0.4, 0.4, 1.6), (3.0, 0.8, 0.8), (0.6,) * 3])
@pytest.mark.parametrize("radius", [0.4, 1.0, 1.5, 4.0])
def test_volumes_stay_on_thick_slices_down_to_single_voxels(spacing, radius):
    """The mesh, and what is inside by the distances: of these points are made and voxels."""
    world, affine = grid((11, 11, 11), spacing)
    field = field_of(tube(world, radius) < 0, affine)
    assert signed_volume(field.surface()) == pytest.approx(field.voxel_volume, rel=0.02)
    points = np.random.default_rng(0).uniform(-11, 11, (200_000, 3))
    inside = (field.lookup(points) < 0).mean() * 22**3
    assert inside == pytest.approx(field.voxel_volume, rel=0.1)


def test_all_48_orientations_face_outward():
    world, affine = grid((6, 7, 5), (0.9, 0.9, 1.3))
    mask = sphere(world - [1, 0.5, 0], 4.0) < 0
    volume = signed_volume(field_of(mask, affine).surface())
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turned = affine.copy()
            turned[:3, :3] = np.diag(signs) @ affine[:3, :3][list(order)]
            mesh = field_of(mask, turned).surface()
            assert signed_volume(mesh) == pytest.approx(volume, rel=1e-3)


def test_the_field_equals_the_exact_distance_to_its_own_mesh():
    igl = pytest.importorskip("igl")
    world, affine = grid((8, 8, 8), (0.8, 0.8, 1.0))
    field = field_of(sphere(world * [1, 1.3, 1], 5.5) < 0, affine)
    mesh = field.surface()
    rng = np.random.default_rng(2)
    points = mesh.vertices[rng.integers(len(mesh.vertices), size=1500)]
    points = points + rng.normal(0, 0.6, points.shape)
    exact = igl.signed_distance(
        points, mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
    )[0]
    error = np.abs(field.lookup(points) - exact)
    assert error.mean() < 0.05 and error.max() < 0.4
    decided = np.abs(exact) > 0.1
    assert (np.sign(field.lookup(points)) == np.sign(exact))[decided].all()


def test_classes_that_touch_have_one_common_surface():
    data = np.zeros((24, 20, 20), np.uint8)
    data[4:12, 4:16, 4:16], data[12:20, 4:16, 4:16] = 3, 1
    fields = class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())
    rows = np.random.default_rng(0).uniform(7, 12, (400, 2))
    wall = np.column_stack([np.full(len(rows), 11.5), rows])
    for value in (1, 3):  # in voxels of 1 mm: each class keeps its own volume, by a small shift
        assert np.abs(fields[value].lookup(wall)).max() < 0.1


def test_distances_grow_by_one_per_millimetre():
    world, affine = grid((9, 9, 9), (0.7, 0.7, 0.7))
    field = field_of(sphere(world, 6.0) < 0, affine)
    rng = np.random.default_rng(3)
    way = rng.normal(size=(800, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    for low, high in ((5.3, 6.7), (4.0, 8.0)):
        slope = (field.lookup(way * high) - field.lookup(way * low)) / (high - low)
        assert np.median(slope) == pytest.approx(1, abs=0.05)


def test_far_from_a_class_the_distance_is_still_right():
    world, affine = grid((40, 40, 40), (1.6, 1.6, 1.6))
    data = (sphere(world - [20, 0, 0], 9.0) < 0).astype(np.uint8)
    data[sphere(world + [22, 0, 0], 12.0) < 0] = 2
    fields = class_fields(LabelMap(data, affine), TABLE, MeshesOptions())
    points = np.random.default_rng(0).uniform(-60, 60, (3000, 3))  # also beyond the image
    found = distances([fields[1], None, fields[2]], points)
    assert np.isnan(found[:, 1]).all()
    for column, truth in (
        (0, sphere(points - [20, 0, 0], 9)),
        (2, sphere(points + [22, 0, 0], 12)),
    ):
        error = found[:, column] - truth
        cell = 2 * 1.6  # the edge of a cell of the far grid, mm
        assert np.abs(error).max() < cell and np.abs(error).mean() < cell / 6
        assert abs(error.mean()) < cell / 20
        near = (truth > 0) & (truth < 5)
        assert np.abs(error[near]).mean() < 0.2


@pytest.mark.parametrize("odd", [0, 1])
def test_thin_parts_count_far_from_them_wherever_they_run(odd):
    """A line and a sheet of single voxels, which every second voxel may miss."""
    data = np.zeros((110, 120, 130), np.uint8)
    data[8 + odd, 8 + odd, 8:120] = 9
    data[60:100, 20:60, 20 + odd] = 9
    data[90:100, 100:110, 100:110] = 9
    label_map = LabelMap(np.asfortranarray(data), np.diag([0.5, 0.5, 0.5, 1.0]))
    field = class_fields(label_map, TABLE, MeshesOptions())[9]
    assert field.deep is not None, "far distances are those of every second voxel"
    points = np.random.default_rng(0).uniform(0, 55, (20_000, 3))
    truth, _ = cKDTree(np.argwhere(data) * 0.5).query(points)
    far = truth > 5
    assert np.abs(field.lookup(points) - truth)[far].max() < 1.25  # every second voxel: 1 mm


def test_every_second_voxel_is_all_that_is_kept_of_thick_parts():
    world, _ = grid((6, 6, 6), (0.8, 0.7, 0.8))
    mask = sphere(world, 4.0) < 0
    np.testing.assert_array_equal(every_second(mask), mask[::2, ::2, ::2])


def test_stored_shifts_give_the_same_fields():
    world, affine = grid((6, 6, 6), (0.8, 0.8, 0.8))
    label_map = LabelMap((sphere(world, 4.0) < 0).astype(np.uint8), affine)
    first = class_fields(label_map, TABLE, MeshesOptions())[1]
    again = class_fields(label_map, TABLE, MeshesOptions(), {1: first.shift})[1]
    np.testing.assert_array_equal(first.values, again.values)


def test_unusable_label_maps_are_named():
    data = np.zeros((5, 5, 5), np.uint8)
    with pytest.raises(InputError, match="no voxel is labelled"):
        class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())
    data[2, 2, 2] = 11
    with pytest.raises(InputError, match="label 11 is not in the label table"):
        class_fields(LabelMap(data, np.eye(4)), TABLE, MeshesOptions())
