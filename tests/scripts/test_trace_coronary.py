"""trace_coronary and collect_trees as a user calls them: the files that they write, and notes."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import nibabel as nib
import numpy as np
import pytest
from answers import refused
from drawn_trees import CORONARY, phantom
from inside import run_inside

from cardiform.coronary.tree_files import CODES, COLUMNS
from cardiform.volumes import load_label_map, save_label_map

FEW = ("--spacing-mm", 0.75)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A folder with trees of a whole phantom, of one without coronaries, and the case table."""
    folder = tmp_path_factory.mktemp("trees")
    _, label_map = phantom(1)
    rows = ["case_id\tlabels"]
    for name in ("whole", "lacking"):
        data = label_map.data if name == "whole" else np.where(label_map.data == CORONARY, 0, 1)
        save_label_map(folder / f"{name}.nii.gz", data, label_map.affine)
        rows.append(f"{name}\t{name}.nii.gz")
    (folder / "cohort.tsv").write_text("\n".join(rows) + "\n")
    out, table = folder / "out", folder / "checked" / "cases.tsv"
    places = ("--out", out, "--manifest", out / "all.tsv")
    for script, arguments in (
        ("check_cohort", ("--table", folder / "cohort.tsv", "--out", folder / "checked")),
        ("trace_coronary", ("--cases", table, *places, *FEW)),
        ("collect_trees", ("--cases", table, "--manifest", out / "all.tsv", "--out", out)),
    ):
        result = run_inside(f"{script}.py", *arguments)
        assert result.returncode == 0, result.stderr
    return folder


def branches(path) -> list[dict]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_swc_has_a_root_per_tree_and_a_parent_before_each_node(traced):
    folder = traced / "out" / "whole"
    lines = (folder / "tree.swc").read_text().splitlines()
    assert lines[0].startswith("#") and "RAS" in lines[0]
    nodes = np.array([line.split() for line in lines if line[0] != "#"], float)
    number, kind, parent = (nodes[:, k].astype(int) for k in (0, 1, 6))
    assert np.array_equal(number, np.arange(1, len(nodes) + 1)) and (parent < number).all()
    summary = json.loads((folder / "summary.json").read_text())
    assert (parent == -1).sum() == len(summary["trees"])
    assert set(kind) <= set(CODES.values()) and (nodes[:, 5] > 0).all()
    child = nodes[parent > 0]
    steps = np.linalg.norm(child[:, 2:5] - nodes[child[:, 6].astype(int) - 1, 2:5], axis=1)
    total = sum(tree["length_mm"] for tree in summary["trees"])
    assert steps.sum() == pytest.approx(total, rel=1e-3) and steps.max() < 2


def test_vtp_holds_the_branches_of_the_table(traced):
    folder = traced / "out" / "whole"
    root = ET.parse(folder / "tree.vtp").getroot()
    assert root.get("type") == "PolyData"
    piece = root.find("PolyData/Piece")
    arrays = {
        a.get("Name"): np.array((a.text or "").split(), float) for a in piece.iter("DataArray")
    }
    [space] = root.iter("Array")
    assert bytes(map(int, space.text.split())) == b"RAS\0"
    rows = branches(folder / "branches.csv")
    assert int(piece.get("NumberOfLines")) == len(rows) > 5
    assert (
        len(arrays["Points"]) == 3 * int(piece.get("NumberOfPoints")) == 3 * len(arrays["radius"])
    )
    points = np.split(arrays["Points"].reshape(-1, 3), arrays["offsets"].astype(int)[:-1])
    for k, row in enumerate(rows):
        assert (
            CODES[row["name"]] == arrays["name"][k] and float(row["branch"]) == arrays["branch"][k]
        )
        start, end = ([float(row[f"{w}_{axis}"]) for axis in "xyz"] for w in ("start", "end"))
        assert np.allclose(points[k][[0, -1]], [start, end], atol=2e-3)
        steps = np.linalg.norm(np.diff(points[k], axis=0), axis=1)
        assert steps.sum() == pytest.approx(float(row["length_mm"]), rel=0.01, abs=0.01)
    ends = {row["branch"]: [row[f"end_{axis}"] for axis in "xyz"] for row in rows}
    for row in rows:
        if row["parent"] != "0":
            assert ends[row["parent"]] == [row[f"start_{axis}"] for axis in "xyz"]
    assert {row["ends_in"] for row in rows} <= {"fork", "end", "cut"}


def test_a_case_without_the_structure_has_a_note_and_empty_files(traced):
    folder = traced / "out" / "lacking"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["notes"] == ["the label map has no coronary"] and summary["trees"] == []
    assert branches(folder / "branches.csv") == [] and not (folder / "tree.png").exists()
    root = ET.parse(folder / "tree.vtp").getroot()
    assert root.find("PolyData/Piece").get("NumberOfLines") == "0"


def test_the_cohort_has_all_rows_and_figures_of_each_vessel(traced):
    own = branches(traced / "out" / "whole" / "branches.csv")
    rows = branches(traced / "out" / "branches.csv")
    assert rows == own and tuple(rows[0]) == COLUMNS
    summary = json.loads((traced / "out" / "summary.json").read_text())
    assert summary["cases"] == 2 and summary["with_trees"] == 1
    for name in ("left_main", "LAD", "LCX", "RCA"):
        drawn = sum(float(r["length_mm"]) for r in rows if r["name"] == name)
        assert summary["vessels"][name]["length_mm"]["mean"] == pytest.approx(drawn, abs=0.1)
    assert list(summary["notes"]) == ["lacking"]


def test_label_maps_without_a_table(traced, tmp_path):
    places = ("--out", tmp_path, "--manifest", tmp_path / "all.tsv", *FEW)
    result = run_inside("trace_coronary.py", "--label-maps", traced / "whole.nii.gz", *places)
    assert result.returncode == 0, result.stderr
    made = (tmp_path / "whole" / "branches.csv").read_bytes()
    assert made == (traced / "out" / "whole" / "branches.csv").read_bytes()
    again = run_inside("trace_coronary.py", "--label-maps", traced / "whole.nii.gz", *places)
    assert "1 of 1 cases are finished already" in again.stderr


def test_what_is_refused(traced, tmp_path):
    places = ("--out", tmp_path, "--manifest", tmp_path / "all.tsv")
    refused(run_inside("trace_coronary.py", *places), "name --cases or --label-maps")
    names = ("a/x.nii.gz", "b/x.nii.gz", "c/-y.nii.gz")
    result = run_inside("trace_coronary.py", "--label-maps", *names[:2], *places)
    refused(result, "b/x.nii.gz: is called like a/x.nii.gz; rename one of them")
    result = run_inside("trace_coronary.py", "--label-maps", names[2], *places)
    refused(result, "-y is no name of a case")
    result = run_inside("trace_coronary.py", "--label-maps", names[0], *places, "--select", "y")
    refused(result, "--select needs --cases")
    more = ("--structure", "foo")
    result = run_inside("trace_coronary.py", "--label-maps", "x.nii.gz", *places, *more)
    refused(result, "coronary_trace.structure names foo; the label table")


def test_cases_are_called_without_any_ending_that_is_read(traced, tmp_path):
    data = np.zeros((4, 4, 4), np.uint8)
    save_label_map(tmp_path / "a.nii.gz", data, np.eye(4))
    (tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    nib.save(nib.MGHImage(data, np.eye(4, dtype=np.float32)), tmp_path / "b.mgz")
    nib.save(nib.Nifti1Pair(data, np.eye(4)), tmp_path / "c.hdr")
    files = [tmp_path / name for name in ("A.NII.GZ", "b.mgz", "c.hdr")]
    result = run_inside(
        "trace_coronary.py", "--label-maps", *files,
        "--out", tmp_path / "out", "--manifest", tmp_path / "out" / "all.tsv",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert all((tmp_path / "out" / name / "tree.swc").is_file() for name in "Abc")


def test_another_structure_is_traced_without_names(traced, tmp_path):
    _, label_map = phantom(1)
    save_label_map(tmp_path / "x.nii.gz", label_map.data, label_map.affine)
    result = run_inside(
        "trace_coronary.py", "--label-maps", tmp_path / "x.nii.gz", "--out", tmp_path / "out",
        "--manifest", tmp_path / "out" / "all.tsv", "--structure", "pulmonary_veins",
        "--origins", "left_atrium", "--names", "false", "--spacing-mm", 1.5,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = branches(tmp_path / "out" / "x" / "branches.csv")
    assert {r["origin"] for r in rows} == {"left_atrium"} and {r["name"] for r in rows} == {
        "unnamed"
    }


def test_the_trees_of_a_real_heart(real_hearts, tmp_path):
    path = real_hearts / "anatomy_ten_classes.nii.gz"
    places = ("--out", tmp_path, "--manifest", tmp_path / "all.tsv")
    result = run_inside("trace_coronary.py", "--label-maps", path, *places)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "anatomy_ten_classes"
    summary = json.loads((folder / "summary.json").read_text())
    found = sorted((tree["side"], tree["origin"]) for tree in summary["trees"])
    assert found == [("left", "aorta"), ("right", "aorta")]
    names = summary["names"]
    assert {"left_main", "LAD", "LCX", "RCA"} <= set(names) and "unnamed" not in names
    assert names["left_main"]["length_mm"] < 20
    assert all(names[name]["length_mm"] > 200 for name in ("LAD", "LCX", "RCA"))
    lines = (folder / "tree.swc").read_text().splitlines()
    traced = np.array([line.split()[2:6] for line in lines if line[0] != "#"], float)
    label_map = load_label_map(path)
    index = (traced[:, :3] - label_map.affine[:3, 3]) @ np.linalg.inv(label_map.affine[:3, :3]).T
    inside = label_map.data[tuple(np.rint(index).astype(int).T)] == CORONARY
    assert inside.mean() > 0.97, "the centrelines lie in the label"
