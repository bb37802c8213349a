"""What turns in the report: modes of variation, generated hearts, coronaries; its other tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
from report_more import GROWS_MM, NEAREST, SHARES, write_everything
from report_pages import Cells, numbers
from report_results import RADII, TABLE, write_cohort
from scipy.spatial import cKDTree

from cardiform.cohort.table import Case, write_cases
from cardiform.errors import InputError
from cardiform.files import load_npz, read_json, save_npz, write_json
from cardiform.report import modes
from cardiform.report.page import sections_of, write_report
from cardiform.report.parts import Results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_everything(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def sections(folder):
    """Name -> section of the page, which is written on the way."""
    return {s.name: s for s in write_report(folder, folder / "report.html", TABLE, "acme")}


def test_modes_move_the_vertices_of_the_mean_heart(folder, sections):
    """What the page has of a vertex is what the model has of it, within a hundredth of a mm."""
    assert [chart.figure["data"][0]["y"] for chart in sections["modes"].charts] == [
        pytest.approx(list(SHARES))
    ]
    [shown] = json.loads(Cells((folder / "report.html").read_text()).drawn)["modes"]["modes"]
    assert shown["shares"] == pytest.approx(list(SHARES))
    model = load_npz(folder / "shape_statistics" / "model.npz")
    radii = {"left_ventricle": 30.0, "aorta": 12.0}
    assert [part["name"] for part in shown["parts"]] == list(radii)
    for part in shown["parts"]:
        mean = numbers(part["mean"]).reshape(-1, 3) * shown["steps"]["mean"]
        change = numbers(part["components"]).reshape(len(SHARES), -1, 3)
        change = change * shown["steps"]["components"]
        away, rows = cKDTree(model["vertices"]).query(mean)
        assert away.max() < 0.01 and len(set(rows.tolist())) == len(rows)
        np.testing.assert_allclose(change, model["components"][:, rows], atol=0.01)
        corners = np.stack([numbers(part[axis]) for axis in "ijk"], axis=1)
        assert 1000 < len(corners) <= modes.FACES and corners.max() == len(mean) - 1
        solid = trimesh.Trimesh(mean, corners, process=False)
        assert solid.volume == pytest.approx(4 / 3 * np.pi * radii[part["name"]] ** 3, rel=0.02)
        if part["name"] == "left_ventricle":
            larger = trimesh.Trimesh(mean + 2 * change[0], corners, process=False)
            wanted = RADII["left_ventricle"] + 2 * GROWS_MM
            assert larger.volume == pytest.approx(4 / 3 * np.pi * wanted**3, rel=0.02)
    quality, between = sections["modes"].tables
    assert [[cell.text for cell in row][1:] for row in quality.rows] == [
        ["1", "70.0%", "1.70", "1.20", "1.10"],
        ["2", "90.0%", "–", "0.90", "1.20"],
        ["1", "70.0%", "1.70", "1.20", "1.10"],
    ]
    assert between.rows[0][1].text == "98%"
    low, high = shown["reach"]["z"]
    assert low == pytest.approx(-30 - 3 * GROWS_MM) and high == pytest.approx(72 + 3 * 3)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"components": np.zeros((2, 3, 3), np.float32)}, "components has the shape"),
        ({"explained": np.array([np.nan] * 3, np.float32)}, "explained has values"),
        ({"faces": np.full((40960, 3), 99999, np.int32)}, "corners that are no vertices"),
        ({"faces": np.zeros((40960, 3), np.float32)}, "faces are no whole numbers"),
    ],
)
def test_a_damaged_model_of_modes_is_one_line(folder, tmp_path, change, fact):
    model = load_npz(folder / "shape_statistics" / "model.npz")
    write_cohort(tmp_path, ["c00"], np.random.default_rng(0))
    write_cases(tmp_path / "cases.tsv", [Case(case_id="c00", patient_id="c00", labels="x")])
    save_npz(tmp_path / "shape_statistics" / "model.npz", **(model | change))
    with pytest.raises(InputError, match=rf"model\.npz: is not what the workflow writes.*{fact}"):
        sections_of(Results(tmp_path), TABLE)


def test_generated_hearts_stand_beside_their_nearest_training_hearts(sections):
    section = sections["generated"]
    near = next(t for t in section.tables if "nearest" in t.title)
    assert [[cell.text for cell in row] for row in near.rows] == [
        ["sample_0000: least like any training heart", "c04", "0.310"],
        ["sample_0001: most like a training heart", "c05", "0.120"],
    ]
    [viewer] = section.viewers
    assert len(viewer.hearts) == len(NEAREST) and viewer.start == "beside"
    for heart in viewer.hearts.values():
        assert [mesh["name"] for mesh in heart] == ["aorta", "left_ventricle"]
        for way, radius in (("model", 31.0), ("truth", 30.0)):
            across = np.concatenate([numbers(mesh[way]["x"]) for mesh in heart])
            assert across.min() == pytest.approx(-radius, abs=0.1) == -across.max()
    assert viewer.apart_mm > 2 * 31.0, "they do not overlap"
    completed = next(t for t in section.tables if "completed" in t.title)
    names = [row[0].text for row in completed.rows]
    assert names == ["Aorta", "flow"], "also what the label table does not name"


def test_coronaries_are_shown_before_and_after(sections):
    section = sections["refined-coronary"]
    [viewer] = section.viewers
    assert [way for way, _ in viewer.ways] == ["given", "repaired", "model", "fused", "both"]
    assert list(viewer.hearts) == ["best: c01", "median: c03", "worst: c02"]
    [vessel] = viewer.hearts["best: c01"]
    lengths = {}
    for way in ("given", "repaired", "model", "fused"):
        x = numbers(vessel[way]["x"])
        lengths[way] = np.ptp(x)
        assert np.ptp(x) == pytest.approx(8.0, abs=0.5), "millimetres"
        assert (np.abs(x - 5.0) < 0.3).any() == (way != "given"), "the gap"
    low, high = viewer.reach["best: c01"]["x"]
    assert (low, high) == pytest.approx((0.75, 8.75), abs=0.3), "the same for all ways"
    text = " ".join(cell.text for table in section.tables for row in table.rows for cell in row)
    assert "worst: c02" in text and "0.810" in text
    fused = sections["fused"]
    known, changed = fused.tables
    figures = [cell.text for cell in known.rows[0]]
    assert figures == ["Coronary arteries", "0.610", "0.870", "0.700", "–"]
    assert [row[0].text for row in changed.rows] == ["Aorta", "Coronary arteries", "flow"]


def test_cut_structures_and_voxel_edges_are_shown(tmp_path):
    write_cohort(tmp_path, ["c00", "c01", "c02"], np.random.default_rng(0))
    write_cases(tmp_path / "cases.tsv", [Case(case_id="c00", patient_id="c00", labels="x")])
    found = read_json(tmp_path / "qc" / "cohort.json")
    found["cases"][0]["classes"]["aorta"]["touches_border"] = True
    found["cases"][1]["cut"] = ["coronary"]
    write_json(tmp_path / "qc" / "cohort.json", found)
    cohort = sections_of(Results(tmp_path), TABLE)[0]
    cut = next(table for table in cohort.tables if table.title.startswith("Cut"))
    assert [[cell.text for cell in row] for row in cut.rows] == [
        ["Aorta", "c00"], ["Coronary arteries", "c01"],
    ]  # fmt: skip
    edges = next(chart for chart in cohort.charts if chart.title == "Voxel edges").figure["data"]
    assert [trace["name"] for trace in edges] == ["x", "y", "z"]
    assert edges[2]["x"] == [case["spacing_mm"][2] for case in found["cases"]]
