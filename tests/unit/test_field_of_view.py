"""Classes that the scan cuts: found, and nothing taught of what lies behind the cut."""

from __future__ import annotations

import numpy as np
import pytest

from cardiform import volumes
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import load_npz, read_json
from cardiform.geometry.cases import mesh_case, sample_case, voxelize_case
from cardiform.geometry.field_of_view import check_beyond, cut_names, cuts_of, seen_only
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.meshed import mesh_files
from cardiform.labels import LabelTable
from cardiform.metrics.surface import surface_figures
from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from cardiform.volumes import LabelMap

TABLE = LabelTable()
POINTS = PointsOptions(
    surface_points=3000, min_class_points=500, near_points=3000, volume_points=4000, seed=1
)
# A ball whose centre lies 4 voxels before the edge that cuts it, and one that is whole.
RADIUS, BEFORE, SMALL = 11.0, 4.5, 5.0
BALL, WHOLE_BALL = 2, 3
SPACING = np.array([1.2, 0.9, 1.0])


def scan(axis: int = 0, side: int = 1, pad: int = 0, order=(0, 1, 2)):
    """A label map, and the middles of both balls, mm; ``pad`` empty layers beyond the cut."""
    shape = np.full(3, 40)
    middle, other = np.full(3, 19.0), np.full(3, 19.0)
    middle[axis] = 39 - BEFORE if side > 0 else BEFORE
    other[axis] = 12 if side > 0 else 27
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    data = np.zeros(shape, np.uint8)
    data[np.linalg.norm((index - middle) * SPACING, axis=-1) < RADIUS] = BALL
    other[(axis + 1) % 3] = 8
    data[np.linalg.norm((index - other) * SPACING, axis=-1) < SMALL] = WHOLE_BALL
    width = [(0, 0)] * 3
    width[axis] = (0, pad) if side > 0 else (pad, 0)
    affine = np.diag([*(SPACING * [-1, 1, 1]), 1.0])
    affine[:3, 3] = [50, -20, 7] - affine[:3, :3] @ [w[0] for w in width]
    middles = [
        affine[:3, :3] @ (m + [w[0] for w in width]) + affine[:3, 3] for m in (middle, other)
    ]
    data = np.pad(data, width)
    affine[:, :3] = affine[:, list(order)]
    return LabelMap(np.ascontiguousarray(data.transpose(order)), affine), middles


def write_case(folder, label_map: LabelMap, cut: str = "") -> Case:
    path = folder / "a.nii.gz"
    volumes.save_label_map(path, label_map.data, label_map.affine)
    return Case(case_id="a", patient_id="a", labels=str(path), cut=cut)


def points_of(folder, label_map: LabelMap, cut: str = "") -> dict[str, np.ndarray]:
    case, meshes = write_case(folder, label_map, cut), folder / "meshes"
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=meshes)
    (path,) = sample_case(case, table=TABLE, options=POINTS, meshes=meshes, out=folder / "points")
    return load_npz(path)


def true_distance(arrays, name: str, middle, radius: float) -> np.ndarray:
    """Unit frame, of the whole ball, whatever the scan shows of it."""
    world = arrays[f"{name}_points"] / arrays["scale"] + arrays["center"]
    return (np.linalg.norm(world - middle, axis=1) - radius) * arrays["scale"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(("axis", "side"), [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)])
def test_a_class_on_a_face_of_the_volume_is_cut_there(axis, side, order):
    label_map, _ = scan(axis, side, order=order)
    cuts = cuts_of(label_map, TABLE)
    assert list(cuts) == [BALL]
    (plane,) = cuts[BALL].planes
    assert (order[plane.axis], plane.side) == (axis, side)
    assert plane.at == (39.5 if side > 0 else -0.5)
    assert cut_names(cuts, TABLE) == ["left_atrium"]


def test_the_case_table_may_list_others_or_none():
    label_map, _ = scan(pad=3)
    assert cuts_of(label_map, TABLE) == {}

    def listed(cut):
        return cuts_of(label_map, TABLE, Case(case_id="a", patient_id="a", labels="a", cut=cut))

    (plane,) = listed("left_atrium")[BALL].planes
    assert (plane.axis, plane.side, plane.at) == (0, 1, 39.5), "where it ends flat"
    assert listed("aorta") == {}, "it is absent"
    touching, _ = scan()
    case = Case(case_id="a", patient_id="a", labels="a", cut="none")
    assert cuts_of(touching, TABLE, case) == {}


@pytest.mark.parametrize(("axis", "side"), [(0, 1), (1, -1), (2, 1)])
@pytest.mark.parametrize("pad", [0, 4])
def test_nothing_is_taught_of_what_the_cut_hides(tmp_path, axis, side, pad):
    label_map, middles = scan(axis, side, pad)
    arrays = points_of(tmp_path, label_map, "left_atrium" if pad else "")
    voxel = SPACING.max() * float(arrays["scale"])
    on_ball = arrays["surface_labels"] == BALL
    assert on_ball.sum() >= 500
    off = np.abs(true_distance(arrays, "surface", middles[0], RADIUS))[on_ball]
    assert off.max() < 0.5 * voxel, "no point on the cap, nor on its rounded rim"
    assert arrays["cut"].tolist() == [value == BALL for value in TABLE.values]
    for name in ("near", "volume"):
        for value, middle, radius in ((BALL, middles[0], RADIUS), (WHOLE_BALL, middles[1], SMALL)):
            channel = TABLE.values.index(value)
            truth = true_distance(arrays, name, middle, radius)
            found = arrays[f"{name}_sdf"][:, channel].astype(np.float32)
            known = np.isfinite(found)
            # far away the fields are coarse, cut or not
            assert (np.abs(found - truth) < 0.5 * voxel + 0.1 * np.abs(truth))[known].all()
            if value == WHOLE_BALL:
                assert known.all()
                continue
            assert name == "near" or 0.1 < known.mean() < 0.9
            least = arrays[f"{name}_least"][:, channel].astype(np.float32)
            assert np.isnan(least[known]).all()
            bounded = np.isfinite(least)
            assert (np.sign(least) == np.sign(truth))[bounded].all()
            assert (np.abs(truth) > 0.9 * np.abs(least) - 0.1 * voxel)[bounded].all()
    # the unknown lies behind the plane, or nearer to it than to the ball: not a ring around it
    own = arrays["near_labels"] == BALL
    channel = TABLE.values.index(BALL)
    assert np.isfinite(arrays["near_sdf"][own, channel]).all()


def test_whole_hearts_have_the_files_that_they_had(tmp_path):
    label_map, _ = scan()
    label_map.data[label_map.data == BALL] = 0
    arrays = points_of(tmp_path, label_map)
    assert not {"cut", "near_least", "volume_least"} & set(arrays)
    record = read_json(tmp_path / "meshes" / "a" / "frame.json")
    assert "cut" not in record["classes"]["left_ventricle"]


def test_the_cap_is_recorded_with_the_mesh(tmp_path):
    label_map, middles = scan()
    case = write_case(tmp_path, label_map)
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    record = read_json(tmp_path / "meshes" / "a" / "frame.json")["classes"]["left_atrium"]
    assert record["cut"] is True and record["cut_planes"] == [[0, 1, 39.5]]
    half = (BEFORE + 0.5) * SPACING[0]
    assert record["cap_area_mm2"] == pytest.approx(np.pi * (RADIUS**2 - half**2), rel=0.15)
    mesh = read_mesh(tmp_path / "meshes" / "a" / "left_atrium.ply")
    cut = cuts_of(label_map, TABLE)[BALL]
    wall = cut.open_part(mesh)
    off = np.linalg.norm(mesh.vertices[np.unique(wall.faces)] - middles[0], axis=1) - RADIUS
    assert np.abs(off).max() < 0.5
    assert not cut.is_cap(wall).any() and cut.is_cap(mesh).any()


def test_a_class_that_is_listed_but_ends_at_no_plane_is_not_trained_on(tmp_path):
    label_map, _ = scan()
    arrays = points_of(tmp_path, label_map, "left_ventricle")
    channel = TABLE.values.index(WHOLE_BALL)
    assert not arrays["annotated"][channel]
    assert np.isnan(arrays["volume_sdf"][:, channel]).all()
    assert WHOLE_BALL not in arrays["surface_labels"]


def test_a_case_of_which_nothing_is_left_says_so(tmp_path):
    label_map, _ = scan()
    label_map.data[label_map.data == BALL] = 0
    with pytest.raises(InputError, match=r"a\.nii\.gz: the scan cuts every class"):
        points_of(tmp_path, label_map, "left_ventricle")


def test_voxels_say_which_of_them_are_known(tmp_path):
    label_map, middles = scan()
    case, meshes = write_case(tmp_path, label_map), tmp_path / "meshes"
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=meshes)
    options = VoxelsOptions(resolution=64)
    paths = voxelize_case(case, table=TABLE, options=options, meshes=meshes, out=tmp_path / "v")
    cut, whole = (load_npz(tmp_path / "v" / "a" / f"left_{n}.npz") for n in ("atrium", "ventricle"))
    assert len(paths) == 2 and "known" not in whole
    world = ((cut["coords"] + 0.5) / 32 - 1) / cut["scale"] + cut["center"]
    truth = np.linalg.norm(world - middles[0], axis=1) - RADIUS
    found = cut["sdf"].astype(float) * options.band_voxels / 32 / cut["scale"]
    assert np.abs(found - truth)[cut["known"]].max() < 0.8
    assert np.abs(found - truth)[~cut["known"]].max() > 3
    assert 0.3 < cut["known"].mean() < 0.95


def test_figures_stay_within_the_field_of_view(tmp_path):
    label_map, _ = scan(pad=4)
    case = write_case(tmp_path, label_map, "left_atrium")
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    capped = read_mesh(mesh_files(case, tmp_path / "meshes")[1])
    index = np.stack(np.meshgrid(*map(np.arange, (44, 40, 40)), indexing="ij"), axis=-1)
    middle = np.array([39 - BEFORE, 19, 19])
    beyond = (np.linalg.norm((index - middle) * SPACING, axis=-1) < RADIUS) & (index[..., 0] > 39)
    completed = np.where(beyond, np.uint8(BALL), label_map.data)
    cuts = cuts_of(label_map, TABLE, case)
    np.testing.assert_array_equal(seen_only(completed, label_map.affine, cuts), label_map.data)
    other = Case(case_id="b", patient_id="b", labels=str(tmp_path / "b.nii.gz"))
    volumes.save_label_map(other.labels, completed, label_map.affine)
    mesh_case(other, table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    whole = read_mesh(mesh_files(other, tmp_path / "meshes")[1])
    assert surface_figures(capped, whole)["hd95_mm"] > 2
    figures = surface_figures(capped, whole, cut=cuts[BALL])
    assert figures["hd95_mm"] < 0.2 and figures["f_score"] > 0.99


@pytest.mark.parametrize("mm", [-1.0, float("nan"), float("inf"), 1e9])
def test_no_label_map_is_grown_by_nonsense(mm):
    check_beyond(0.0)
    check_beyond(40.0)
    with pytest.raises(InputError, match=r"--beyond-mm: .* is no length; give 0 to 200 mm"):
        check_beyond(mm)


def test_planes_come_along_in_the_unit_frame(tmp_path):
    label_map, _ = scan(1, -1)
    arrays = points_of(tmp_path, label_map)
    (plane,) = arrays["cut_planes"]
    points = arrays["volume_points"].astype(np.float64)
    depth = points @ plane[:3] + plane[3]
    world = points / arrays["scale"] + arrays["center"]
    expected = cuts_of(label_map, TABLE)[BALL].depth(world) * arrays["scale"]
    np.testing.assert_allclose(depth, expected, atol=1e-6)
    assert (arrays["surface_points"] @ plane[:3] + plane[3] >= -1e-5).all()
