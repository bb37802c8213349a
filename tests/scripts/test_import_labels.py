"""import_labels: label maps of another label table, their classes by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from answers import refused
from inside import run_inside

from cardiform.volumes import load_label_map, save_image

AFFINE = np.diag([-0.8, 0.8, 2.0, 1.0])
CLASSES = "Value,Name\n51,left_ventricle\n52,left_atrium\n53,left_atrium\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other").mkdir()
    Path("other.csv").write_text(CLASSES)
    return tmp_path


def put(name: str, *values: int, dtype=np.uint8) -> None:
    data = np.zeros((4, 5, 6), dtype)
    data[0, 0, : len(values)] = values
    save_image(f"other/{name}.nii.gz", data, AFFINE)


def call(*more):
    given = ("--label-maps", "other", "--classes", "other.csv", "--out", "labels")
    return run_inside("import_labels.py", *given, *more)


def test_classes_are_renamed_and_the_rest_is_background(folder):
    put("a", 51, 52, 53, 7)
    put("b", 52)
    result = call()
    assert result.returncode == 0, result.stderr
    assert "a: 7 become background" in result.stderr
    given, made = load_label_map("other/a.nii.gz"), load_label_map("labels/a.nii.gz")
    assert np.allclose(made.affine, given.affine) and made.data.shape == given.data.shape
    for old, new in ((51, 3), (52, 2), (53, 2), (7, 0), (0, 0)):
        assert (made.data[given.data == old] == new).all()
    assert load_label_map("labels/b.nii.gz").data.max() == 2


def test_another_target_and_a_changed_table(folder):
    put("a", 51, 52)
    own = "value\tname\ttitle\tcolor\tcomponents\tpriority\n"
    Path("mine.tsv").write_text(own + "9\tleft_ventricle\tLV\t#ff0000\t1\t1\n")
    Path("other.csv").write_text("value,name\n51,left_ventricle\n")
    assert call("--labels", "mine.tsv").returncode == 0
    assert set(np.unique(load_label_map("labels/a.nii.gz").data)) == {0, 9}
    Path("other.csv").write_text("value,name\n52,left_ventricle\n")
    assert call("--labels", "mine.tsv").returncode == 0
    made = load_label_map("labels/a.nii.gz").data
    assert (made[load_label_map("other/a.nii.gz").data == 52] == 9).all() and (made == 9).sum() == 1


def test_values_above_255_as_in_mm_whs(folder):
    Path("other.csv").write_text("value,name\n500,left_ventricle\n850,pulmonary_artery\n")
    put("a", 500, 850, 205, dtype=np.int16)
    result = call()
    assert result.returncode == 0 and "a: 205 become background" in result.stderr, result.stderr
    assert load_label_map("labels/a.nii.gz").data[0, 0].tolist() == [3, 7, 0, 0, 0, 0]
    put("b", -1, 500, dtype=np.int16)
    refused(call(), "b.nii.gz: values run from -1 to 500")


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("value,title\n1,a\n", ["other.csv: no column name"]),
        ("value,name\n", ["other.csv: has no rows"]),
        (
            "value,name\n1,aorta\n1,coronary\n2,heart\n70000,aorta\n1_0,aorta\n",
            ["other.csv:3: value 1 is there twice", "other.csv:4: name 'heart' is no class",
             "other.csv:5: value '70000' is not within 1-65535", "other.csv:6: value '1_0' is not"],
        ),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(folder, table, lines):
    put("a", 1)
    Path("other.csv").write_text(table)
    refused(call(), *lines)
    assert not Path("labels").exists()


def test_a_file_without_any_of_the_classes_is_refused(folder):
    put("a", 51)
    put("b", 7)
    refused(call(), "other/b.nii.gz: has none of the values 51, 52, 53")
    assert not Path("labels/b.nii.gz").exists()
