"""Regions that share their walls: closed, true to the label map, without crossings; tetrahedra."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from vtk_files import vtp_arrays, vtu_arrays

from cardiform import volumes
from cardiform.cohort.table import Case, write_cases
from cardiform.errors import InputError
from cardiform.export.regions import edge_mm
from cardiform.export.shapes import export_case
from cardiform.geometry.cases import mesh_case
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.surface import Mesh, is_watertight, signed_volume
from cardiform.geometry.tets import mesh, walls
from cardiform.geometry.tets.lattice import UNIT, body_centred, edge_keys, refined
from cardiform.geometry.tets.mesh import tet_mesh
from cardiform.geometry.tets.quality import smallest_angles
from cardiform.geometry.tets.quality import volumes as sizes_of
from cardiform.labels import LabelTable
from cardiform.options.exports import ExportsOptions
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

TABLE = LabelTable()
EDGE_MM = 3.0
LEAST_ANGLE_DEG, VOLUME_ERROR, NEAR_MM = 10.0, 0.01, 0.01


def touching_parts() -> np.ndarray:
    """A ball in a shell that another ball is cut into; a bar runs from it out of the volume."""
    index = np.indices((34, 30, 26))
    inner = np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (13, 14, 13))))
    other = np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (23, 15, 12))))
    data = np.zeros((34, 30, 26), np.uint8)
    data[other < 7] = 5
    data[inner < 11] = 1
    data[inner < 7] = 3
    data[(data == 0) & (np.abs(index[1] - 15) < 3) & (np.abs(index[2] - 12) < 3)] = 6
    data[:20][data[:20] == 6] = 0
    return data


def oblique() -> np.ndarray:
    affine = trimesh.transformations.rotation_matrix(0.3, [1, 2, 3]) @ np.diag([-0.8, 0.8, 1.1, 1])
    affine[:3, 3] = (120.0, -45.0, 800.0)
    return affine


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A case of touching parts, oblique and mirrored, with its files."""
    folder = tmp_path_factory.mktemp("exported")
    volumes.save_label_map(folder / "a.nii.gz", touching_parts(), oblique())
    case = Case(case_id="a", patient_id="a", labels=str(folder / "a.nii.gz"))
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
    paths = export_case(
        case,
        options=ExportsOptions(formats=("walls", "tets"), edge_mm=EDGE_MM),
        table=TABLE,
        meshes=folder / "meshes",
        out=folder / "exports",
    )
    assert [p.name for p in paths] == ["colors.ctbl", "a_walls.vtp", "a_tets.vtu"]
    return folder


@pytest.fixture(scope="module")
def complex_of(exported):
    """Points, triangles and sides of the file."""
    arrays, _ = vtp_arrays(exported / "exports" / "a" / "a_walls.vtp")
    sides = np.column_stack([arrays["region_inside"], arrays["region_outside"]])
    return arrays["Points"].astype(float), arrays["connectivity"].reshape(-1, 3), sides


@pytest.fixture(scope="module")
def tetrahedra(exported):
    """Points, tetrahedra and regions of the file, by a reader of our own."""
    found = vtu_arrays(exported / "exports" / "a" / "a_tets.vtu")
    tets = found["connectivity"].reshape(-1, 4)
    assert (found["types"] == 10).all() and len(found["types"]) == len(tets)
    assert (found["offsets"][:, 0] == 4 * np.arange(1, len(tets) + 1)).all()
    return found["Points"], tets, found["region"][:, 0]


def boundary(faces: np.ndarray, sides: np.ndarray, value: int) -> np.ndarray:
    """(F, 3) triangles around a region, facing outward."""
    return np.concatenate([faces[sides[:, 0] == value], faces[sides[:, 1] == value][:, ::-1]])


def true_volumes(folder) -> dict[int, float]:
    label_map = volumes.load_label_map(folder / "a.nii.gz")
    voxel = abs(np.linalg.det(label_map.affine[:3, :3]))
    return {v: np.count_nonzero(label_map.data == v) * voxel for v in label_map.boxes}


def test_every_region_is_closed_and_as_large_as_its_voxels(exported, complex_of):
    points, faces, sides = complex_of
    assert (sides[:, 0] > 0).all() and (sides[:, 0] != sides[:, 1]).all()
    shared = {tuple(pair) for pair in np.unique(sides, axis=0).tolist()}
    assert {(1, 3), (1, 5), (5, 6), (1, 0), (5, 0), (6, 0)} <= shared
    for value, wanted in true_volumes(exported).items():
        surface = Mesh(points.astype(np.float32), boundary(faces, sides, value))
        assert is_watertight(surface), value
        assert signed_volume(surface) == pytest.approx(wanted, rel=VOLUME_ERROR), value


def test_a_point_is_in_one_region_and_in_that_of_its_voxel(exported, complex_of):
    points, faces, sides = complex_of
    label_map = volumes.load_label_map(exported / "a.nii.gz")
    rng = np.random.default_rng(0)
    index = rng.uniform(0, np.array(label_map.data.shape) - 1, (150, 3))
    places = apply_affine(label_map.affine, index)
    wound = {v: winding(points, boundary(faces, sides, v), places) for v in label_map.boxes}
    numbers = np.column_stack(list(wound.values()))
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-4)
    assert set(np.unique(np.rint(numbers.sum(axis=1)))) <= {0, 1}
    found = (np.rint(numbers) * list(wound)).sum(axis=1)
    of_voxel = label_map.data[tuple(np.rint(index).astype(int).T)]
    assert (found == of_voxel).mean() > 0.93, "but for points within a part of a voxel of a wall"


def winding(points: np.ndarray, faces: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(N,) how often a closed surface winds around points (Van Oosterom and Strackee, 1983)."""
    a, b, c = (points[faces[:, k]] - places[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
    triple = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    dots = [np.einsum("nfi,nfi->nf", *pair) for pair in ((a, b), (b, c), (c, a))]
    below = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
    return 2 * np.arctan2(triple, below).sum(axis=1) / (4 * np.pi)


def test_no_two_triangles_cross(complex_of):
    points, faces, _ = complex_of
    assert crossings(points, faces) == 0
    moved = points.copy()
    corner = faces[len(faces) // 2, 0]
    moved[corner] += 4 * EDGE_MM * np.sign(points.mean(axis=0) - points[corner])
    assert crossings(moved, faces) > 0, "the test finds those that do"


def crossings(points: np.ndarray, faces: np.ndarray) -> int:
    """How many edges of triangles pass through triangles with which they share no corner."""
    middles = points[faces].mean(axis=1)
    reach = np.linalg.norm(points[faces] - middles[:, None], axis=2).max(axis=1)
    pairs = cKDTree(middles).query_pairs(2 * reach.max(), output_type="ndarray")
    pairs = pairs[
        np.linalg.norm(middles[pairs[:, 0]] - middles[pairs[:, 1]], axis=1)
        <= reach[pairs].sum(axis=1)
    ]
    found = 0
    for one, two in (pairs.T, pairs.T[::-1]):
        for start in range(3):
            ends = faces[one][:, [start, (start + 1) % 3]]
            apart = ~(ends[:, :, None] == faces[two][:, None]).any(axis=(1, 2))
            first, last = points[ends[apart]].transpose(1, 0, 2)
            found += int(_passes(first, last, points[faces[two[apart]]]).sum())
    return found


def _passes(first, last, corners) -> np.ndarray:
    """(N,) bool: a segment passes through a triangle (Moller and Trumbore, 1997)."""
    way, one, two = last - first, corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(way, two)
    level = np.einsum("ij,ij->i", one, across)
    level = np.where(np.abs(level) < 1e-12, np.inf, level)
    offset = first - corners[:, 0]
    u = np.einsum("ij,ij->i", offset, across) / level
    turned = np.cross(offset, one)
    v = np.einsum("ij,ij->i", way, turned) / level
    t = np.einsum("ij,ij->i", two, turned) / level
    return np.isfinite(level) & (u > 0) & (v > 0) & (u + v < 1) & (t > 0) & (t < 1)


def test_tetrahedra_fill_the_regions(exported, tetrahedra):
    points, tets, regions = tetrahedra
    angles = smallest_angles(points, tets)
    assert angles.min() >= LEAST_ANGLE_DEG, "and none is inverted"
    sizes = sizes_of(points, tets)
    for value, wanted in true_volumes(exported).items():
        assert sizes[regions == value].sum() == pytest.approx(wanted, rel=VOLUME_ERROR), value
    label_map = volumes.load_label_map(exported / "a.nii.gz")
    index = apply_affine(np.linalg.inv(label_map.affine), points[tets].mean(axis=1))
    index = np.clip(np.rint(index).astype(int), 0, np.array(label_map.data.shape) - 1)
    assert np.average(label_map.data[tuple(index.T)] == regions, weights=sizes) > 0.93


def test_walls_and_tetrahedra_are_of_the_same_triangles(complex_of, tetrahedra):
    points, faces, sides = complex_of
    corners, tets, regions = tetrahedra
    neighbours = walls.paired_faces(tets)
    at, side = np.nonzero((neighbours < 0) | (regions[neighbours] != regions[:, None]))
    outer = np.take_along_axis(tets[at], walls.FACES[side], axis=1)
    middles = corners[outer].mean(axis=1)
    found = cKDTree(points[faces].mean(axis=1))
    apart, which = found.query(middles)
    assert apart.max() < NEAR_MM
    assert (sides[which] == regions[at][:, None]).any(axis=1).all()
    counts = (sides != 0).sum()
    assert len(outer) == counts


def test_vtk_reads_both(exported, complex_of, tetrahedra):
    xml = pytest.importorskip("vtkmodules.vtkIOXML", reason="vtk is not installed")
    reader = xml.vtkXMLPolyDataReader()
    reader.SetFileName(str(exported / "exports" / "a" / "a_walls.vtp"))
    reader.Update()
    data = reader.GetOutput()
    points, faces, sides = complex_of
    assert data.GetNumberOfPolys() == len(faces)
    for column, name in enumerate(("region_inside", "region_outside")):
        array = data.GetCellData().GetArray(name)
        for k in range(0, len(faces), 97):
            assert array.GetTuple1(k) == sides[k, column]
    bounds = [points.min(axis=0), points.max(axis=0)]
    np.testing.assert_allclose(np.reshape(data.GetBounds(), (3, 2)).T, bounds, atol=NEAR_MM)
    reader = xml.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(exported / "exports" / "a" / "a_tets.vtu"))
    reader.Update()
    data = reader.GetOutput()
    corners, tets, regions = tetrahedra
    assert data.GetNumberOfCells() == len(tets)
    for k in range(0, len(tets), 997):
        cell = data.GetCell(k)
        assert [cell.GetPointId(i) for i in range(4)] == tets[k].tolist()
        assert data.GetCellType(k) == 10
        assert data.GetCellData().GetArray("region").GetTuple1(k) == regions[k]
        np.testing.assert_allclose(data.GetPoint(int(tets[k, 0])), corners[tets[k, 0]])
    bounds = [corners.min(axis=0), corners.max(axis=0)]
    np.testing.assert_allclose(np.reshape(data.GetBounds(), (3, 2)).T, bounds, atol=NEAR_MM)
    assert data.GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "RAS"


def test_the_surface_lies_where_the_label_map_has_it(exported, complex_of):
    points, faces, sides = complex_of
    label_map = volumes.load_label_map(exported / "a.nii.gz")
    for value in label_map.boxes:
        used = points[np.unique(boundary(faces, sides, value))]
        index = apply_affine(np.linalg.inv(label_map.affine), used)
        voxels = np.argwhere(label_map.data == value)
        np.testing.assert_allclose(index.min(axis=0), voxels.min(axis=0) - 0.5, atol=1.0)
        np.testing.assert_allclose(index.max(axis=0), voxels.max(axis=0) + 0.5, atol=1.0)


def test_a_lattice_is_refined_without_gaps():
    points, tets = body_centred(np.ones((2, 2, 2), bool))
    assert smallest_angles(points, tets).min() == pytest.approx(60)
    middle = np.array([UNIT] * 3)

    def too_long(middles, longest):
        return longest > np.maximum(0.1 * UNIT, np.linalg.norm(middles - middle, axis=1) / 2)

    finer, halves = refined(points, tets, too_long, 10**6)
    assert len(halves) > 20 * len(tets)
    assert smallest_angles(finer, halves).min() == pytest.approx(45)
    assert sizes_of(finer, halves).sum() == pytest.approx(sizes_of(points, tets).sum())
    assert not too_long(finer[halves].mean(axis=1), _longest(finer, halves)).any()
    at, side = np.nonzero(walls.paired_faces(halves) < 0)
    outer = finer[np.take_along_axis(halves[at], walls.FACES[side], axis=1)]
    at, side = np.nonzero(walls.paired_faces(tets) < 0)
    hull = points[np.take_along_axis(tets[at], walls.FACES[side], axis=1)]
    assert _area(outer) == pytest.approx(_area(hull)), "every inner face has two tetrahedra"


def _longest(points, tets) -> np.ndarray:
    corners = points[tets]
    return np.linalg.norm(corners[:, :, None] - corners[:, None], axis=3).max(axis=(1, 2))


def _area(corners) -> float:
    sides = corners[:, 1:] - corners[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


def test_a_region_that_touches_itself_along_an_edge_is_parted():
    points, tets = body_centred(np.ones((3, 3, 3), bool))
    channels = np.zeros(len(tets), np.int64)
    keys, times = np.unique(edge_keys(tets, len(points)), return_counts=True)
    edge = np.divmod(keys[times.argmax()], len(points))
    ring = np.flatnonzero(np.isin(tets, edge).sum(axis=1) == 2)
    neighbours = walls.paired_faces(tets)
    first = ring[0]
    far = next(t for t in ring if t != first and t not in neighbours[first])
    channels[[first, far]] = 1
    assert walls.pinched(tets, channels, neighbours)
    found = walls.parted(tets, channels, neighbours)
    assert not walls.pinched(tets, found, neighbours) and (found == 1).sum() == 1


def test_edges_follow_the_voxels():
    assert edge_mm(np.array([1.5, 1.5, 1.5])) == pytest.approx(3.0)
    assert edge_mm(np.array([0.4, 0.4, 0.5])) == pytest.approx(2.4)


def refusal(data: np.ndarray, edge: float) -> list[str]:
    with pytest.raises(InputError) as caught:
        tet_mesh(LabelMap(data, np.eye(4)), 1.0, edge, {2: "speck"})
    return caught.value.problems


def test_what_cannot_be_meshed_is_one_line():
    data = np.zeros((16, 16, 16), np.uint8)
    data[4:12, 4:12, 4:12] = 1
    data[12, 8, 8] = 2
    [line] = refusal(data, 2.4)
    assert line.startswith("class speck has 1 voxels: too few for edges of 2.4 mm; lower exports.")
    [line] = refusal(np.pad(data[12:13, 8:9, 8:9], 6), 2.4)
    assert line.startswith("class speck has 1 voxels")
    finer = tet_mesh(LabelMap(data[7:, 3:13, 3:13], np.eye(4)), 1.0, 0.8, {})
    assert finer.volumes()[2] == pytest.approx(1, rel=VOLUME_ERROR)


def test_so_many_tetrahedra_are_refused_before_the_memory_is_full(monkeypatch):
    monkeypatch.setattr(mesh, "MOST", 5_000)
    data = np.ones((16, 16, 16), np.uint8)
    [line] = refusal(data, 0.02)
    assert line.startswith("more than 5,000 tetrahedra with edges of 0.02 mm")
    [line] = refusal(data, 0.6)
    assert line.startswith("more than 5,000 tetrahedra with edges of 0.6 mm; raise exports.edge_mm")


@pytest.mark.parametrize("parts", ["filled", "halves", "sheet", "corners", "noise", "slice"])
def test_odd_label_maps_have_sound_tetrahedra(parts):
    """Classes at the border, one voxel thick, that touch at corners alone, or as noise."""
    data = np.zeros((10, 9, 8), np.uint8)
    if parts in ("filled", "halves"):
        data[:] = 1
        data[:, :, 4:] = 1 + (parts == "halves")
    elif parts == "sheet":
        data[:, 4] = 1
    elif parts == "corners":
        data[1:5, 1:4, 1:4] = data[5:9, 4:8, 4:7] = 1
        data[5:9, 1:4, 1:4] = data[1:5, 4:8, 4:7] = 2
    elif parts == "noise":
        data[:] = np.random.default_rng(0).integers(0, 4, data.shape)
    else:
        data = np.ones((1, 9, 8), np.uint8)
    found = tet_mesh(LabelMap(data, np.diag([-1.0, 1, 1, 1])), 1.0, 2.4, {})
    points, tets, _ = found.solid()
    assert smallest_angles(points, tets).min() >= LEAST_ANGLE_DEG
    corners, faces, sides = found.walls()
    for value, size in found.volumes().items():
        assert size == pytest.approx(np.count_nonzero(data == value), rel=VOLUME_ERROR)
        assert is_watertight(Mesh(corners.astype(np.float32), boundary(faces, sides, value)))


def test_the_script_writes_them_and_an_empty_list_is_one_line(exported, run_script, tmp_path):
    write_cases(
        tmp_path / "cases.tsv",
        [Case(case_id="a", patient_id="a", labels=str(exported / "a.nii.gz"))],
    )
    call = ["export_shapes.py", "--cases", tmp_path / "cases.tsv", "--meshes", exported / "meshes"]
    call += ["--out", tmp_path / "out", "--manifest", tmp_path / "out" / "all.tsv"]
    result = run_script(*call, "--formats", "walls", "--edge-mm", 4)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in (tmp_path / "out" / "a").iterdir()} == {"colors.ctbl", "a_walls.vtp"}
    result = run_script(*call, "--formats", "")
    assert result.returncode == 2 and "--formats is empty; give one or more of stl" in result.stderr
    result = run_script(*call, "--formats", "dcm")
    assert result.returncode == 2
    assert "error: " in result.stderr and "Traceback" not in result.stderr  # one line
    assert {p.name for p in (tmp_path / "out" / "a").iterdir()} == {"colors.ctbl", "a_walls.vtp"}


def test_a_real_heart(real_hearts):
    """Atria with an appendage and veins, emptied and thin."""
    label_map = volumes.load_label_map(real_hearts / "exvivo_atria_3.nii.gz")
    found = tet_mesh(label_map, 1.0, edge_mm(label_map.spacing), {})
    points, tets, _ = found.solid()
    assert smallest_angles(points, tets).min() >= LEAST_ANGLE_DEG
    corners, faces, sides = found.walls()
    voxel = abs(np.linalg.det(label_map.affine[:3, :3]))
    for value in label_map.boxes:
        surface = Mesh(corners.astype(np.float32), boundary(faces, sides, value))
        assert is_watertight(surface)
        wanted = np.count_nonzero(label_map.data == value) * voxel
        assert signed_volume(surface) == pytest.approx(wanted, rel=VOLUME_ERROR)
