"""check_cohort and split_cohort as a user calls them."""

from __future__ import annotations

import json
import os
import time

import h5py
import nibabel as nib
import numpy as np
import pytest
from answers import refused

from cardiform.cohort import splits
from cardiform.cohort.table import Case, read_checked_cases, write_cases

AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])


def labels(value=3):
    data = np.zeros((10, 12, 14), np.uint8)
    data[2:5, 3:6, 4:8] = value
    return data


def write(folder, name, data, affine=AFFINE):
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    nib.save(image, folder / name)


def table(folder, rows, columns="case_id\tlabels\timage\tpointcloud"):
    (folder / "cohort.tsv").write_text(
        "\n".join([columns, *("\t".join(row) for row in rows)]) + "\n"
    )


@pytest.fixture
def check(tmp_path, run_script):
    def run(*arguments):
        places = ["--table", tmp_path / "cohort.tsv", "--out", tmp_path / "out"]
        return run_script("check_cohort.py", *places, *arguments)

    return run


def good_and_bad(folder):
    two = labels()
    two[7:9, 9:, 12:] = 3
    write(folder, "good.nii.gz", two)
    write(folder, "good_ct.nii.gz", labels().astype(np.int16) * 100)
    with h5py.File(folder / "points.h5", "w") as archive:
        archive["points"] = np.zeros((4, 3))
    eleven = labels(11)
    eleven[7:9, 9:, 12:] = 13
    write(folder, "eleven.nii.gz", eleven)
    write(folder, "empty.nii.gz", labels(0))
    moved = AFFINE.copy()
    moved[0, 3] = 0.3
    write(folder, "moved_ct.nii.gz", labels(), moved)
    write(folder, "other_ct.nii.gz", labels()[:-1])
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    (folder / "broken.h5").write_bytes(b"nothing")
    table(
        folder,
        [
            ("good", "good.nii.gz", "good_ct.nii.gz", "points.h5"),
            ("eleven", "eleven.nii.gz", "", ""),
            ("empty", "empty.nii.gz", "", ""),
            ("moved", "good.nii.gz", "moved_ct.nii.gz", ""),
            ("other", "good.nii.gz", "other_ct.nii.gz", ""),
            ("gone", "none.nii.gz", "", "broken.h5"),
            ("broken", "good.nii.gz", "broken.nii.gz", ""),
        ],
    )


WORDS = (
    "eleven.nii.gz: label 11, 13 is not in the label table (1-10); add",
    "empty.nii.gz: holds no class of the label table; segment at least one",
    "moved_ct.nii.gz: lies up to 0.3 mm beside the label map",
    "other_ct.nii.gz: shape (9, 12, 14) differs from the label map's (10, 12, 14)",
    "none.nii.gz: does not exist",
    "broken.h5: is not a readable HDF5 file",
    "broken.nii.gz: is not a readable NIfTI file",
)


def test_all_problems_are_told_at_once(tmp_path, check):
    good_and_bad(tmp_path)
    result = check()
    assert result.returncode == 2 and "Traceback" not in result.stderr
    for words in WORDS:
        assert words in result.stderr, result.stderr
    assert "on_bad_case" in result.stderr
    assert not (tmp_path / "out" / "cases.tsv").exists()


def test_skip_keeps_the_good_and_says_why(tmp_path, check):
    good_and_bad(tmp_path)
    assert check("--on-bad-case", "skip", "--max-bad-cases", 5).returncode == 2
    result = check("--on-bad-case", "skip", "--processes", 2)
    assert result.returncode == 0, result.stderr
    cases = {c.case_id: c for c in read_checked_cases(tmp_path / "out" / "cases.tsv")}
    assert [n for n, c in cases.items() if c.status == "ok"] == ["good"]
    assert "holds no class" in cases["empty"].reason
    qc = json.loads((tmp_path / "out" / "qc" / "cohort.json").read_text())
    good = next(c for c in qc["cases"] if c["case_id"] == "good")
    assert good["shape"] == [10, 12, 14] and good["spacing_mm"] == [2, 1, 1]
    assert good["classes"] == {
        "left_ventricle": {
            "voxels": 48, "volume_ml": 0.096, "components": 2, "touches_border": True
        }
    }  # fmt: skip
    assert "left_ventricle has 2 components, expected 1" in good["warnings"]
    assert "left_ventricle is cut by the image border" in good["warnings"]
    assert "aorta is missing" in good["warnings"]
    assert "aorta is missing: 1 of the cases (good)" in result.stderr
    assert qc["classes"]["left_ventricle"]["volume_ml"] is None, "the only one is cut"
    assert qc["classes"]["left_ventricle"]["cut"] == 1
    assert qc["classes"]["aorta"] == {"cases": 0}


def test_a_repaired_case_is_looked_at_again_alone(tmp_path, check):
    good_and_bad(tmp_path)
    check()
    write(tmp_path, "empty.nii.gz", labels())
    result = check("--on-bad-case", "skip")
    assert "6 of 7 cases are finished already" in result.stderr
    assert "2 of 7 cases are usable" in result.stderr


def test_own_label_table(tmp_path, check):
    write(tmp_path, "liver.nii.gz", labels(200))
    table(tmp_path, [("a", "liver.nii.gz", "", "")])
    (tmp_path / "labels.tsv").write_text(
        "value\tname\ttitle\tcolor\tcomponents\tpriority\n200\tliver\tLiver\t#884422\t1\t1\n"
    )
    assert check().returncode == 2
    assert check("--labels", tmp_path / "labels.tsv").returncode == 0


def test_real_label_maps(tmp_path, real_data, check):
    rows = [
        ("chest", "chest_heart1_aorta6_pa7.nii.gz", "chest_ct.nii.gz"),
        ("thorax", "thorax_heart1_lad9.nii.gz", ""),
    ]
    table(
        tmp_path,
        [(n, str(real_data / p), str(real_data / i) if i else "", "") for n, p, i in rows],
    )
    result = check()
    assert result.returncode == 0, result.stderr
    qc = json.loads((tmp_path / "out" / "qc" / "cohort.json").read_text())
    chest = next(c for c in qc["cases"] if c["case_id"] == "chest")
    assert set(chest["classes"]) == {"myocardium", "aorta", "pulmonary_artery"}
    assert chest["spacing_mm"] == [1.5, 1.5, 1.5]


def test_split(tmp_path, run_script):
    members = [Case(case_id=f"c{i}", patient_id=f"p{i // 2}", labels="x.nii.gz") for i in range(60)]
    members[0] = Case(case_id="c0", patient_id="p0", labels="x", status="skipped", reason="")
    write_cases(tmp_path / "cases.tsv", members)
    arguments = ["--cases", tmp_path / "cases.tsv", "--points", "results/points"]
    result = run_script("split_cohort.py", *arguments, "--out", tmp_path / "split", "--test", 0.3)
    assert result.returncode == 0, result.stderr
    rows = {p: splits.read_split(tmp_path / "split" / f"{p}.csv") for p in ("train", "val", "test")}
    assert sum(map(len, rows.values())) == 59 and all(rows.values())
    assert "c0" not in {name for part in rows.values() for name, _ in part}
    name, path = rows["test"][0]
    assert str(path) == f"results/points/{name}.npz"


@pytest.mark.parametrize("arguments", [(), ("--on-bad-case", "skip")])
def test_a_date_in_the_future_is_told_with_its_remedy(tmp_path, check, arguments):
    """Snakemake would let a job with such an input fail when it is done, every time."""
    for name in ("a", "b"):
        write(tmp_path, f"{name}.nii.gz", labels())
    table(tmp_path, [("a", "a.nii.gz", "", ""), ("b", "b.nii.gz", "", "")])
    later = time.time() + 11 * 365 * 86400
    os.utime(tmp_path / "b.nii.gz", (later, later))
    path = tmp_path / "b.nii.gz"
    year = time.localtime(later).tm_year
    refused(check(*arguments), f"{path}: was changed in the future ({year}", f"touch {path}")
    assert not (tmp_path / "out" / "cases.tsv").exists()
    path.touch()
    result = check(*arguments)
    assert result.returncode == 0 and "2 of 2 cases are finished already" in result.stderr


def test_a_report_changes_with_the_bytes_of_a_file_and_not_with_its_place(tmp_path, run_script):
    """What follows a chunk is told of its files by the manifest of check_cases alone."""

    def manifest(label_map):
        table(tmp_path, [("a", label_map, "", "")])
        places = ["--cases", tmp_path / "cohort.tsv", "--out", tmp_path / "qc"]
        result = run_script("check_cases.py", *places, "--manifest", tmp_path / "qc.tsv")
        assert result.returncode == 0, result.stderr
        return (tmp_path / "qc.tsv").read_text()

    write(tmp_path, "a.nii.gz", labels())
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    first = manifest("a.nii.gz")
    assert manifest("moved/b.nii.gz") == first
    write(tmp_path, "a.nii.gz", np.roll(labels(), 1, axis=2))
    assert manifest("a.nii.gz") != first, "the same figures, another place"


def test_a_file_may_be_named_twice(tmp_path, check):
    write(tmp_path, "a.nii.gz", labels())
    table(tmp_path, [("a", "a.nii.gz", "a.nii.gz")], columns="case_id\tlabels\timage")
    result = check()
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "qc" / "cases" / "a.json").read_text())
    assert report["classes"]["left_ventricle"]["voxels"] == 36
