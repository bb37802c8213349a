"""Hearts in their cubes: placed by their chambers, cut by none without a word."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import read_json, write_json
from cardiform.labels import LabelTable
from cardiform.ldm.clouds_on_grid import CloudBounds, cloud_grid
from cardiform.ldm.hearts_on_grid import (
    box_case,
    case_centers,
    cut_classes,
    label_grid,
    load_grid,
    resample_case,
)
from cardiform.ldm.outside import report_clouds, report_hearts, voxels_outside
from cardiform.options.ldm import LdmOptions, PointcloudsOptions
from cardiform.volumes import load_label_map, save_label_map
from cardiform.volumes.clouds import Cloud

TABLE = LabelTable()
VALUE = dict(zip(TABLE.names, TABLE.values))
SPACING = 2.0
MIDDLES = {
    "left_ventricle": (-20, 0, 0), "right_ventricle": (12, 16, 0),
    "left_atrium": (0, -24, 24), "right_atrium": (24, -8, 16),
}  # fmt: skip
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def scan(path, *, ends_at=-50.0, aorta=True, shift=(0, 0, 0), axes=None, spare=4.0):
    """A label map of four balls and a descending aorta that ends where the scan does."""
    half = 100
    index = np.indices((half,) * 3)
    matrix = (np.eye(3) if axes is None else axes) * SPACING
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = np.array(shift, float) - matrix @ np.full(3, (half - 1) / 2)
    world = np.einsum("ij,jxyz->ixyz", matrix, index) + affine[:3, 3][:, None, None, None]
    x, y, z = (world[k] - shift[k] for k in range(3))
    data = np.zeros((half,) * 3, np.uint8)
    if aorta:
        data[(np.hypot(x + 8, y + 45) < 9) & (z > ends_at) & (z < 60)] = VALUE["aorta"]
    for name, middle in MIDDLES.items():
        distance = np.sqrt(sum((a - m) ** 2 for a, m in zip((x, y, z), middle)))
        data[distance < 13] = VALUE[name]
    data[(z < ends_at - spare)] = 0
    save_label_map(path, data, affine)
    return Case(case_id=path.name.split(".")[0], patient_id="p", labels=str(path))


def boxed(folder, cases, **options):
    """Boxes, grid and centres of a cohort."""
    for case in cases:
        box_case(case, table=TABLE, out=folder / "boxes")
    paths = [folder / "boxes" / f"{case.case_id}.json" for case in cases]
    grid = label_grid(paths, LdmOptions(**{"voxel_size": 48, **options}), TABLE)
    return grid, case_centers(paths, grid.table), folder / "boxes"


def middle_in_cube(path, grid, name="left_ventricle"):
    """(3,) mm of a class from the middle of its cube."""
    index = np.argwhere(load_label_map(path).data == VALUE[name]).mean(axis=0)
    return (index - (grid.size - 1) / 2) * grid.spacing


@pytest.mark.parametrize("together", [True, False], ids=["one cohort", "each alone"])
@pytest.mark.parametrize(
    "other",
    [{"ends_at": -70.0}, {"ends_at": -20.0}, {"aorta": False}, {"axes": TURN}],
    ids=["ends 20 mm lower", "ends higher", "no descending aorta", "turned"],
)
def test_the_field_of_view_does_not_move_the_heart(tmp_path, other, together):
    one = scan(tmp_path / "one.nii.gz")
    two = scan(tmp_path / "two.nii.gz", shift=(7, -5, 11), **other)
    grid, centers, boxes = boxed(tmp_path, [one, two])
    at = []
    for case in (one, two):
        given = {"centers": centers} if together else {}
        [path] = resample_case(case, grid=grid, boxes=boxes, out=tmp_path / "voxels", **given)
        at.append([middle_in_cube(path, grid, name) for name in MIDDLES])
    assert np.abs(np.subtract(*at)).max() < 1.0


def test_a_cut_chamber_does_not_pull_the_others_along(tmp_path):
    cases = [scan(tmp_path / f"case{k}.nii.gz", shift=(k, 0, 0)) for k in range(3)]
    whole = load_label_map(cases[0].labels)
    shown = np.ascontiguousarray(whole.data[:, :, 48:])  # through both ventricles
    affine = whole.affine.copy()
    affine[2, 3] += 48 * SPACING
    save_label_map(tmp_path / "cut.nii.gz", shown, affine)
    cut = Case(case_id="cut", patient_id="p", labels=str(tmp_path / "cut.nii.gz"))
    _, centers, _ = boxed(tmp_path, [*cases, cut])
    assert np.abs(centers["cut"] - centers["case0"]).max() < 1.0


def test_another_heart_moves_none_of_the_others(tmp_path):
    cases = [scan(tmp_path / f"case{k}.nii.gz", shift=(k, 3 * k, 0)) for k in range(3)]
    _, first, _ = boxed(tmp_path, cases[:2])
    _, then, _ = boxed(tmp_path, cases)
    assert all((then[name] == first[name]).all() for name in first)


def test_boxes_and_grids_of_the_version_before_are_read(tmp_path):
    case = scan(tmp_path / "one.nii.gz")
    grid, _, boxes = boxed(tmp_path, [case])
    content = read_json(boxes / "one.json")
    write_json(boxes / "one.json", {n: content[n] for n in ("box_mm", "values")})
    before = case_centers([boxes / "one.json"], grid.table)["one"]
    assert np.allclose(before, np.mean(content["box_mm"], axis=0), atol=1e-3)
    write_json(tmp_path / "grid.json", grid.as_dict())
    assert load_grid(tmp_path / "grid.json") == grid and grid.as_dict()["format_version"] == 1


def test_what_sticks_out_of_the_grid_is_named_and_counted_as_cut(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cases = [scan(tmp_path / f"case{k}.nii.gz") for k in range(2)]
    long = scan(tmp_path / "long.nii.gz", ends_at=-95.0)
    grid, centers, boxes = boxed(tmp_path, [*cases, long], extent_mm=136.0)
    report_hearts([*cases, long], centers, boxes, grid)
    lines = [r.message for r in caplog.records if "sticks out" in r.message]
    lost = voxels_outside(load_label_map(long.labels), grid.cube(centers["long"]), grid)
    count, of = lost[VALUE["aorta"]]
    assert set(lost) == {VALUE["aorta"]} and 0 < count < of
    assert len(lines) == 1 and lines[0].startswith("long: sticks out of the grid of 136 mm")
    assert f"{count} voxels of aorta ({100 * count / of:.1f} %)" in lines[0]
    for case in (cases[0], long):
        resample_case(case, grid=grid, boxes=boxes, out=tmp_path, centers=centers)
    found = cut_classes(tmp_path / "manifest.tsv", ["case0", "long"], grid)
    assert set(found) == {"long"}, "its volume is not that of an aorta"
    assert [n for n, is_cut in zip(grid.table.names, found["long"]) if is_cut] == ["aorta"]


def test_no_heart_of_a_usual_cohort_is_cut(tmp_path, caplog):
    cases = [scan(tmp_path / f"c{k}.nii.gz", ends_at=-40.0 - 5 * k) for k in range(4)]
    grid, centers, boxes = boxed(tmp_path, cases)
    report_hearts(cases, centers, boxes, grid)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    for case in cases:
        cube = grid.cube(centers[case.case_id])
        assert not voxels_outside(load_label_map(case.labels), cube, grid)


class Samples:
    """In place of an HDF5 file: clouds by name."""

    path = "clouds.h5"

    def __init__(self, clouds):
        self.clouds = {cloud.name: cloud for cloud in clouds}

    def read(self, name):
        return self.clouds[name]


def cloud(name, vessel_mm):
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(200, 3)) * 8 + middle for middle in MIDDLES.values()]
    labels = [np.full(200, VALUE[n], np.uint8) for n in MIDDLES]
    vessel = np.column_stack([np.zeros(50), np.full(50, -45.0), np.linspace(60, -vessel_mm, 50)])
    labels.append(np.full(50, VALUE["aorta"], np.uint8))
    return Cloud(name, np.concatenate([*points, vessel]), np.concatenate(labels))


def test_clouds_with_classes_are_placed_in_the_same_way(caplog):
    file = Samples([cloud("short", 40.0), cloud("long", 100.0)])
    clouds = {name: (name, file) for name in file.clouds}
    bounds = CloudBounds.of(list(clouds.values()), TABLE)
    options = PointcloudsOptions()
    assert np.allclose(bounds.center(0, options), bounds.center(1, options), atol=1e-3)
    ldm = LdmOptions(voxel_size=32, extent_mm=150.0)
    grid = cloud_grid(list(clouds.values()), bounds, ldm, options, TABLE)
    report_clouds(clouds, bounds, options, grid)
    lines = [r.message for r in caplog.records if "sticks out" in r.message]
    assert len(lines) == 1 and lines[0].startswith("long:") and "points of aorta" in lines[0]
    with pytest.raises(InputError, match="no point of the classes that take part"):
        CloudBounds.of([("short", file)], LabelTable(TABLE.classes[6:8]))
