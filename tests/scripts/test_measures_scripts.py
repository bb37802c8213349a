"""measure_shapes and collect_measures as a user calls them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from answers import refused
from inside import run_inside

from cardiform.labels import LabelTable
from cardiform.volumes import load_label_map, save_label_map

CLASSES = {c.name: c.value for c in LabelTable()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measures of four phantoms, the last of which is cut, and of a fifth of one class alone."""
    folder = tmp_path_factory.mktemp("measures")
    demo = folder / "demo"
    must("make_demo_cohort.py", "--out", demo, "--cases", 4, "--spacing-mm", 2.5)
    rows = ["case_id\tlabels\tx_sex\tx_age"]
    for k in range(4):
        path = demo / "labels" / f"phantom_{k:03d}.nii.gz"
        label_map = load_label_map(path)
        if k == 3:  # the scan ends in the middle of the left ventricle
            index = np.argwhere(label_map.data == CLASSES["left_ventricle"])
            end = int(np.median(index[:, 2]))
            save_label_map(path, label_map.data[:, :, end:], moved(label_map.affine, end))
        rows.append(f"case{k}\tdemo/labels/{path.name}\t{'fm'[k % 2]}\t{40 + k}")
    only = np.where(label_map.data == CLASSES["aorta"], CLASSES["aorta"], 0)
    save_label_map(folder / "only.nii.gz", only, label_map.affine)
    rows.append("only\tonly.nii.gz\tf\t44")
    (folder / "cohort.tsv").write_text("\n".join(rows) + "\n")
    must("check_cohort.py", "--table", folder / "cohort.tsv", "--out", folder)
    for stage in ("meshes", "trees", "measures"):
        must(*line(folder, stage))
    must(*collect(folder))
    return folder


def must(*arguments):
    result = run_inside(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def moved(affine, layers):
    affine = affine.copy()
    affine[:3, 3] += layers * affine[:3, 2]
    return affine


def line(folder, stage):
    script, more = {
        "meshes": ("extract_meshes.py", ()),
        "trees": ("trace_coronary.py", ("--spacing-mm", 1.0)),
        "measures": (
            "measure_shapes.py", ("--meshes", folder / "meshes", "--trees", folder / "trees")
        ),
    }[stage]  # fmt: skip
    out = folder / stage
    return [
        script, "--cases", folder / "cases.tsv", "--out", out, "--manifest", out / "all.tsv", *more
    ]  # fmt: skip


def collect(folder, *more):
    out = folder / "measures"
    files = ("--cases", folder / "cases.tsv", "--manifest", out / "all.tsv", "--out", out)
    return ["collect_measures.py", *files, *more]


@pytest.fixture
def table(measured):
    return pd.read_csv(measured / "measures" / "measures.csv")


def value(table, case, structure, measure, part="whole"):
    keys = {"case_id": case, "class": structure, "measure": measure, "part": part}
    chosen = table[np.logical_and.reduce([table[k] == v for k, v in keys.items()])]
    assert len(chosen) == 1, f"{keys}: {len(chosen)} rows"
    return chosen.iloc[0]


def test_every_structure_has_its_measures(measured, table):
    assert not table.duplicated(["case_id", "class", "part", "measure"]).any()
    assert set(table["unit"]) == {"ml", "cm2", "mm", "1"}
    whole = table[table["case_id"] == "case0"]
    assert set(whole["class"]) == set(CLASSES)
    label_map = load_label_map(measured / "demo" / "labels" / "phantom_000.nii.gz")
    voxel = np.prod(label_map.spacing) / 1000
    for name, number in CLASSES.items():
        row = value(table, "case0", name, "volume")
        true = (label_map.data == number).sum() * voxel
        assert row["value"] == pytest.approx(true, rel=0.02)
    measures = {(row["class"], row["measure"]) for _, row in whole.iterrows()}
    assert measures >= {
        ("aorta", "diameter_max"), ("aorta", "centreline_length"), ("coronary", "radius_mean"),
        ("left_atrial_appendage", "ostium_area"), ("left_atrial_appendage", "depth"),
        ("left_ventricle", "long_axis_length"), ("myocardium", "wall_thickness_mean"),
        ("pulmonary_veins", "radius_mean"), ("pulmonary_artery", "radius_max"),
    }  # fmt: skip
    segments = whole[whole["part"].str.startswith("segment_")]
    assert 15 <= len(segments) <= 17 and segments["value"].between(2, 30).all()


def test_a_tree_is_as_long_as_its_branches(table):
    rows = table[(table["case_id"] == "case0") & (table["class"] == "coronary")]
    branches = rows[rows["part"].str.startswith("branch_")]
    lengths = branches[branches["measure"] == "length"]["value"]
    assert value(table, "case0", "coronary", "branches")["value"] == len(lengths)
    length = value(table, "case0", "coronary", "centreline_length")["value"]
    assert length == pytest.approx(lengths.sum(), rel=1e-3)


def test_what_the_scan_cuts_counts_in_no_norm(measured, table):
    cut = table[table["cut"] & (table["case_id"] == "case3")]
    assert {"left_ventricle", "myocardium"} <= set(cut["class"])
    norms = pd.read_csv(measured / "measures" / "norms.csv")
    key = ["class", "part", "measure", "unit"]
    row = norms.set_index(key).loc[("left_ventricle", "whole", "volume", "ml")]
    volumes = [value(table, f"case{k}", "left_ventricle", "volume")["value"] for k in range(3)]
    assert row["cases"] == 3 and row["mean"] == pytest.approx(np.mean(volumes), rel=1e-4)
    scores = pd.read_csv(measured / "measures" / "zscores.csv")
    z = value(scores, "case3", "left_ventricle", "volume")["z"]
    assert np.isnan(z), "and has no score"
    assert not norms["part"].str.startswith("branch_").any()


def test_a_heart_of_one_class_is_measured_as_far_as_it_goes(table):
    own = table[table["case_id"] == "only"]
    assert set(own["class"]) == {"aorta"}
    assert not own["measure"].str.startswith("diameter").any(), "no ventricle shows the way"


def test_the_files_that_show_where(measured):
    folder = measured / "measures" / "case0"
    assert {p.name for p in folder.iterdir()} == {
        "measures.csv", "wall_thickness.vtp",
        *(f"{name}{end}" for name in ("aorta", "pulmonary_artery", "pulmonary_veins")
          for end in (".swc", ".vtp")),
    }  # fmt: skip
    piece = ET.parse(folder / "wall_thickness.vtp").getroot().find(".//Piece")
    numbers = {
        array.get("Name"): np.array((array.text or "").split(), float)
        for array in piece.iter("DataArray")
    }
    points = numbers["Points"].reshape(-1, 3)
    assert len(points) == int(piece.get("NumberOfPoints")) == len(numbers["thickness_mm"])
    assert (numbers["thickness_mm"] > 0).all() and set(numbers["segment"]) <= set(range(18))
    assert numbers["connectivity"].max() == len(points) - 1
    label_map = load_label_map(measured / "demo" / "labels" / "phantom_000.nii.gz")
    inverse = np.linalg.inv(label_map.affine)
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    assert (index > -1).all() and (index < label_map.data.shape).all(), "RAS mm"
    assert not (measured / "measures" / "only" / "wall_thickness.vtp").exists()


def test_finished_cases_are_kept_and_changed_ones_made_again(measured):
    again = must(*line(measured, "measures"))
    assert "5 of 5 cases are finished already" in again.stderr
    one = [*line(measured, "measures"), "--select", "case0"]
    one[one.index("--manifest") + 1] = measured / "one.tsv"
    fewer = must(*one, "--vessels", "aorta")
    assert "finished already" not in fewer.stderr
    assert not (measured / "measures" / "case0" / "pulmonary_artery.vtp").exists()
    must(*one)
    assert (measured / "measures" / "case0" / "pulmonary_artery.vtp").exists()


def test_groups_and_foreign_norms(measured, tmp_path):
    out = tmp_path / "out"
    command = [*collect(measured)[:-1], out, "--table", measured / "cohort.tsv"]
    options = ("--groups", "x_age,x_sex", "--permutations", 99)
    result = must(*command, *options, "--reference", measured / "measures" / "norms.csv")
    assert "x_sex" in result.stderr, "a note: there are three f, and two m"
    found = pd.read_csv(out / "groups.csv")
    assert set(found["column"]) == {"x_age"} and found["p"].between(0, 1).all()
    assert (found["p_corrected"] >= found["p"]).all()
    scores = pd.read_csv(out / "zscores.csv")
    mine = pd.read_csv(measured / "measures" / "zscores.csv")
    pd.testing.assert_frame_equal(scores, mine, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--groups", "x_sex"), "--groups needs the case table"),
        (("--groups", "sex", "--table", "cohort.tsv"), "no column sex"),
        (("--groups", "x_height", "--table", "cohort.tsv"), "no column x_height"),
        (("--groups", "labels", "--table", "cohort.tsv"), "x_"),
        (("--groups", "x_sex", "--table", "nameless.tsv"), "nameless.tsv: no column case_id"),
        (("--reference", "cases.tsv"), "cases.tsv: is no table of norms"),
        (("--reference", "nothing.csv"), "nothing.csv: cannot be read"),
    ],
)
def test_what_cannot_be_collected_is_refused(measured, monkeypatch, tmp_path, more, words):
    monkeypatch.chdir(measured)
    (measured / "nameless.tsv").write_text("name\tx_sex\na\tf\n")
    result = run_inside(*collect(measured)[:-1], tmp_path / "out", *more)
    refused(result, words)


def test_missing_and_damaged_files_of_earlier_stages_are_named(measured, tmp_path):
    command = line(measured, "measures")
    command[command.index("--trees") + 1] = tmp_path
    refused(run_inside(*command, "--vessels", "aorta"), "branches.csv", "trace_coronary")
    path = measured / "measures" / "case0" / "measures.csv"
    before = path.read_text()
    path.write_text(before[:-20])
    refused(run_inside(*collect(measured)), "case0/measures.csv")
    path.write_text(before)
