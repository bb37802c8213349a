"""import_volumes: dense arrays of labels, their spacing from a flag or tables beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from answers import refused
from inside import run_inside

from cardiform.cohort.table import read_case_table
from cardiform.volumes import load_label_map


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def array(*voxels, shape=(4, 5, 6)) -> np.ndarray:
    made = np.zeros(shape, np.int16)
    for value, voxel in enumerate(voxels, start=1):
        made[voxel] = value
    return made


def put(path: str, content=None) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array((1, 1, 1)) if content is None else content)
    return Path(path)


def imported(*arguments) -> dict:
    result = run_inside("import_volumes.py", *arguments, "--out", "labels")
    assert result.returncode == 0, result.stderr
    return {c.case_id: load_label_map(c.labels) for c in read_case_table("labels/cohort.tsv")}


def test_axes_and_spacing_are_those_of_the_array(folder):
    put("volumes/a.npy", array((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5)))
    made = imported("--volumes", "volumes", "--spacing", 1, 2, 3, "--axes", "sal")["a"]
    place = {
        value: made.affine[:3, :3] @ np.argwhere(made.data == value)[0] + made.affine[:3, 3]
        for value in (1, 2, 3, 4)
    }
    assert place[2] - place[1] == pytest.approx([0, 0, 3])  # the first axis points up, 1 mm
    assert place[3] - place[1] == pytest.approx([0, 8, 0])
    assert place[4] - place[1] == pytest.approx([-15, 0, 0])
    assert sum(place.values()) / 4 == pytest.approx(np.array([7.5, -4, -1.5]) / 2)


def test_a_tree_of_earlier_preprocessing(folder):
    """Spacings of the nearest table that knows a case; one call makes nothing twice."""
    put("old/site1/p1/masks/labels.npy")
    put("old/site1/p2/masks/labels.npy", array((1, 1, 1)).astype(float))
    put("old/site2/p3/labels.npy", array((1, 1, 1))[None])
    Path("old/metadata.csv").write_text("id,spacing_x,spacing_y,spacing_z\np1,9,9,9\np3,1,1,2\n")
    Path("old/site1/metadata.csv").write_text('case,Spacing\np1,0.5\np2,"(0.5, 0.5, 0.8)"\n')
    made = imported("--volumes", "old")
    assert list(made) == ["p1", "p2", "p3"]
    found = np.stack([label_map.spacing for label_map in made.values()])
    assert found == pytest.approx(np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.8], [1, 1, 2]]))
    again = run_inside("import_volumes.py", "--volumes", "old", "--out", "labels")
    assert "3 of 3 cases are finished already" in again.stderr
    rows = imported("--volumes", "old/{patient}/{case}/labels.npy", "--spacing", 1, "--force")
    assert list(rows) == ["p3"]


def test_a_table_may_name_cases_as_their_files_are_called(folder):
    put("v/patient 1.npy")
    put("v/p_2.npy")
    Path("v/metadata.csv").write_text("case_id,spacing_mm\npatient 1,0.5\np_2,0.8\n")
    made = imported("--volumes", "v")
    assert {name: labels.spacing[0] for name, labels in made.items()} == pytest.approx(
        {"patient_1": 0.5, "p_2": 0.8}
    )


def test_a_table_may_hold_other_cases_whose_names_make_the_same_id(folder):
    put("v/p_1.npy")
    put("v/p 2.npy")
    rows = "p 1,0.3\np_1,0.5\nM\u00fcller,0.6\nM\u00f6ller,0.7\np 2,0.8\n"
    Path("v/metadata.csv").write_text(f"case_id,spacing_mm\n{rows}", encoding="utf-8")
    made = imported("--volumes", "v")
    assert {name: labels.spacing[0] for name, labels in made.items()} == pytest.approx(
        {"p_1": 0.5, "p_2": 0.8}
    )


def test_edges_of_a_table_are_those_of_the_world(folder):
    put("volumes/a.npy")
    Path("volumes/metadata.csv").write_text("id,spacing_x,spacing_y,spacing_z\na,1,2,3\n")
    made = imported("--volumes", "volumes", "--axes", "SAR")["a"]
    assert tuple(made.spacing) == (1, 2, 3)


def test_a_table_that_was_edited_is_kept(folder):
    put("volumes/a.npy")
    imported("--volumes", "volumes", "--spacing", 1)
    edited = "case_id\tpatient_id\tlabels\tx_age\na\tp7\ta.nii.gz\t61\n"
    Path("labels/cohort.tsv").write_text(edited)
    put("volumes/b.npy")
    call = ("--volumes", "volumes", "--spacing", 1, "--out", "labels")
    result = run_inside("import_volumes.py", *call)
    assert "volumes that it does not list: b (--force" in result.stderr
    assert Path("labels/cohort.tsv").read_text() == edited
    imported("--volumes", "volumes", "--spacing", 1, "--force")
    assert "p7" not in Path("labels/cohort.tsv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--spacing", 1, 2), "--spacing is one edge in mm above 0, or three"),
        (("--spacing", 0), "--spacing is one edge"),
        (("--spacing", 1, "--metadata", "m.csv"), "both give the spacing"),
        (("--spacing", 1, "--axes", "RLS"), "--axes RLS names no three axes"),
        ((), "2 volumes have no spacing in a metadata.csv beside them or above (a, b); give"),
        (("--metadata", "none.csv"), "none.csv: cannot be read"),
        (("--metadata", "m.csv"), "m.csv:2: spacing 'wide' is no spacing; write one edge"),
        (("--metadata", "n.csv"), "n.csv: has no spacings of cases in case_id | size; name"),
        (("--spacing", 1), "volumes/b.npy: has values that are no classes (0 to 300)"),
    ],
)
def test_what_cannot_be_imported_is_one_line(folder, arguments, words):
    put("volumes/a.npy")
    put("volumes/b.npy", array((1, 1, 1)) * 300)
    Path("m.csv").write_text("name\tspacing\na\twide\nb\t1\n")
    Path("n.csv").write_text("case_id,size\na,1\n")
    result = run_inside("import_volumes.py", "--volumes", "volumes", *arguments, "--out", "labels")
    refused(result, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (array((1, 1, 1))[0], "holds int16 of the shape (5, 6)"),
        (array((1, 1, 1)) * 0.5, "has values that are no classes (0 to 0.5)"),
        (np.full((2, 2, 2), np.nan), "has values that are no classes"),
        (-array((1, 1, 1)), "has values that are no classes (-1 to 0)"),
        (np.array([{}], object), "is no .npy file"),
        (np.zeros((0, 2, 2)), "holds float64 of the shape (0, 2, 2)"),
    ],
)
def test_arrays_that_are_no_label_maps(folder, content, words):
    put("volumes/a.npy", content)
    call = ("import_volumes.py", "--volumes", "volumes", "--spacing", 1, "--out", "labels")
    refused(run_inside(*call), f"volumes/a.npy: {words}")


def test_a_header_that_claims_more_than_its_file_holds_takes_no_memory(folder):
    put("volumes/a.npy")
    content = Path("volumes/a.npy").read_bytes()
    huge = content.replace(b"(4, 5, 6), }", b"(9999999,9999999,9), }")
    Path("volumes/a.npy").write_bytes(huge[: len(content)])
    call = ("import_volumes.py", "--volumes", "volumes", "--spacing", 1, "--out", "labels")
    refused(run_inside(*call), "volumes/a.npy: is no .npy file (it is shorter than its header says")


def test_two_spacings_of_a_case_are_refused(folder):
    put("volumes/a.npy")
    Path("volumes/metadata.csv").write_text("case_id,spacing_mm\na,0.8\na,0.80\n")
    assert imported("--volumes", "volumes")["a"].spacing == pytest.approx([0.8] * 3)
    Path("volumes/metadata.csv").write_text("case_id,spacing_mm\na,0.8\nb,1\na,0.4\n")
    call = ("import_volumes.py", "--volumes", "volumes", "--out", "labels")
    refused(run_inside(*call), "metadata.csv:4: gives case a another spacing than a line above")
