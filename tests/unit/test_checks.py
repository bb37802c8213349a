"""What the check of a case warns of."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from cardiform.anatomy.components import count_components
from cardiform.cohort import checks
from cardiform.cohort.checks import check_case, check_cases
from cardiform.cohort.table import Case
from cardiform.labels import LabelClass, LabelTable, load_label_table
from cardiform.volumes import save_label_map


@pytest.mark.parametrize(
    ("spacing", "coarse"),
    [
        ((1.0, 1.0, 3.0), False),
        ((1.0, 1.0, 3.5), True),
        ((0.5, 0.5, 2.0), False),
        ((0.5, 0.5, 2.5), True),
    ],
)
def test_a_coarse_grid_is_warned_of(tmp_path, spacing, coarse):
    """Beyond 3 mm, and beyond four times the shortest edge."""
    data = np.zeros((8, 9, 10), np.uint8)
    data[2:5, 2:6, 3:8] = 1
    path = tmp_path / "a.nii.gz"
    save_label_map(path, data, np.diag([*spacing, 1.0]))
    case = Case(case_id="a", patient_id="a", labels=str(path))
    (report,) = check_case(case, LabelTable(), tmp_path)
    found = json.loads(report.read_text())
    assert found["problems"] == []
    assert any("coarse grid" in warning for warning in found["warnings"]) is coarse
    (label,) = found["classes"].values()
    assert label["voxels"] == 60
    assert label["volume_ml"] == pytest.approx(60 * np.prod(spacing) / 1000, abs=1e-4)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("first", "touches"), [(0, True), (1, False), (4, False), (5, True)])
def test_a_class_at_the_border_is_warned_of(tmp_path, axis, first, touches):
    data = np.zeros((8, 8, 8), np.uint8)
    np.moveaxis(data, axis, 0)[first : first + 3, 2:6, 2:6] = 1
    path = tmp_path / "a.nii.gz"
    save_label_map(path, data, np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(path))
    (report,) = check_case(case, LabelTable(), tmp_path)
    found = json.loads(report.read_text())
    assert any("is cut by the image border" in w for w in found["warnings"]) is touches


@pytest.mark.parametrize("axis", range(3))
def test_parts_of_a_class_are_counted_up_to_its_ends(tmp_path, axis):
    data = np.zeros((9, 9, 9), np.uint8)
    np.moveaxis(data, axis, 0)[[1, 4, 7], 2:6, 2:6] = 1
    path = tmp_path / "a.nii.gz"
    save_label_map(path, data, np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(path))
    (report,) = check_case(case, LabelTable(), tmp_path)
    (label,) = json.loads(report.read_text())["classes"].values()
    assert label["components"] == 3


@pytest.mark.parametrize(("distance", "noted"), [(50.0, False), (600.0, True)])
def test_points_far_from_the_others_are_warned_of(tmp_path, distance, noted):
    """Not refused: the grid is coarser, and still shows the heart."""
    points = np.random.default_rng(0).normal(size=(400, 3)) * 20
    points[7] = (distance, 0, 0)
    with h5py.File(tmp_path / "a.h5", "w") as archive:
        archive["points"] = points
    data = np.zeros((8, 8, 8), np.uint8)
    data[2:6, 2:6, 2:6] = 1
    save_label_map(tmp_path / "a.nii.gz", data, np.eye(4))
    files = {"labels": str(tmp_path / "a.nii.gz"), "pointcloud": str(tmp_path / "a.h5")}
    (report,) = check_case(Case(case_id="a", patient_id="a", **files), LabelTable(), tmp_path)
    found = json.loads(report.read_text())
    assert found["problems"] == []
    lines = [w for w in found["warnings"] if w.startswith("point cloud: 1 of 400 points lie up to")]
    assert len(lines) == noted


@pytest.mark.parametrize("axis", range(3))
def test_parts_in_a_row_are_counted(tmp_path, axis):
    """Specks on one line, as automatic labels have them: their box is one voxel wide."""
    data = np.zeros((12, 12, 12), np.uint8)
    np.moveaxis(data, axis, 0)[[2, 4, 5, 7], 6, 6] = 1
    path = tmp_path / "a.nii.gz"
    save_label_map(path, data, np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(path))
    (report,) = check_case(case, LabelTable(), tmp_path)
    (label,) = json.loads(report.read_text())["classes"].values()
    assert label["components"] == 3
    row = np.ascontiguousarray(data[np.ix_(*[[6]] * axis, range(12), *[[6]] * (2 - axis))])
    assert count_components(row > 0) == 3


def checked(case, table, folder):
    """The report of a case in a folder in which it may have been checked before."""
    check_cases([case], table, out=folder, manifest=folder / "m.tsv", processes=1)
    return json.loads((folder / "cases" / f"{case.case_id}.json").read_text())


def test_a_file_that_another_column_names_is_checked_again(tmp_path):
    """A label map may be a truth, but no CT."""
    save_label_map(tmp_path / "a.nii.gz", np.pad(np.ones((4, 4, 4), np.uint8), 1), np.eye(4))
    path = str(tmp_path / "a.nii.gz")
    given = {"case_id": "a", "patient_id": "a", "labels": path}
    assert not checked(Case(**given, truth=path), LabelTable(), tmp_path)["problems"]
    [problem] = checked(Case(**given, image=path), LabelTable(), tmp_path)["problems"]
    assert "give the CT, not a label map" in problem


@pytest.mark.parametrize(("parts", "warned"), [("2", True), ("1-2", False), ("2-3", True)])
def test_another_usual_number_of_parts_is_looked_at(tmp_path, parts, warned):
    """Also where the upper end of the range, which all stages go by, is the same."""
    save_label_map(tmp_path / "a.nii.gz", np.pad(np.ones((4, 4, 4), np.uint8), 1), np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(tmp_path / "a.nii.gz"))
    for text in ("2", "1-2", parts):
        table = tmp_path / "labels.tsv"
        rows = ["value name title color components priority", f"1 lv LV #112233 {text} 1"]
        table.write_text("\n".join(rows).replace(" ", "\t"))
        warnings = checked(case, load_label_table(table), tmp_path)["warnings"]
    assert any("has 1 components" in warning for warning in warnings) is warned


def test_reports_of_tables_without_ranges_stay_finished():
    """The key of a report has the ranges of a table alone that its classes do not tell."""
    assert LabelTable().other_parts == {}
    assert LabelTable((LabelClass(value=1, name="a", title="", color="#000000"),)).other_parts == {}


def test_whatever_a_library_says_of_a_file_is_a_problem_of_this_file(tmp_path, monkeypatch):
    def surprise(path, **_):
        raise IndexError("out of range\nand more")

    monkeypatch.setattr(checks, "image_doubts", surprise)
    save_label_map(tmp_path / "a.nii.gz", np.pad(np.ones((4, 4, 4), np.uint8), 1), np.eye(4))
    path = str(tmp_path / "a.nii.gz")
    (report,) = check_case(
        Case(case_id="a", patient_id="a", labels=path, image=path), LabelTable(), tmp_path
    )
    assert json.loads(report.read_text())["problems"] == [
        f"{path}: cannot be read (IndexError: out of range); export the file again"
    ]


def test_exhausted_memory_is_no_problem_of_the_file(tmp_path, monkeypatch):
    def exhausted(path, **_):
        raise MemoryError

    monkeypatch.setattr(checks, "image_doubts", exhausted)
    save_label_map(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))
    path = str(tmp_path / "a.nii.gz")
    with pytest.raises(MemoryError):
        check_case(
            Case(case_id="a", patient_id="a", labels=path, image=path), LabelTable(), tmp_path
        )
