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
from inside import run_inside

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
    write(folder, "good_ct.nii.gz", labels().astype(np.int16) * 400 - 1000)
    with h5py.File(folder / "points.h5", "w") as archive:
        archive["points"] = np.eye(4, 3)
    eleven = labels(11)
    eleven[7:9, 9:, 12:] = 13
    write(folder, "eleven.nii.gz", eleven)
    write(folder, "empty.nii.gz", labels(0))
    moved = AFFINE.copy()
    moved[0, 3] = 0.3
    write(folder, "moved_ct.nii.gz", labels().astype(np.int16) * 400 - 1000, moved)
    write(folder, "other_ct.nii.gz", labels()[:-1].astype(np.int16) * 400 - 1000)
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
    "broken.h5: is no readable HDF5 file",
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
    table(tmp_path, [("a", "a.nii.gz", "a.nii.gz")], columns="case_id\tlabels\ttruth")
    result = check()
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "qc" / "cases" / "a.json").read_text())
    assert report["classes"]["left_ventricle"]["voxels"] == 36


def clouds_good_and_bad(folder):
    """case id -> what is wrong with its cloud, empty for good ones."""
    points = np.random.default_rng(0).normal(size=(400, 3)) * 30
    nan, far = points.copy(), points.copy()
    nan[7, 1], far[3] = np.nan, 1e5
    content = {
        "good": (points, ""),
        "nan": (nan, "points that are not finite (1 of 400)"),
        "empty": (points[:0], "has the shape (0, 3), not (N, 3)"),
        "turned": (points.T, "has the shape (3, 400), not (N, 3); transpose it"),
        "equal": (points * 0 + 5, "has no extent: its 400 points are all equal"),
        "far": (far, "1 of 400 points lie up to 1.732e+05 mm from the middle"),
        "several": (points.reshape(4, 100, 3), "has 4 samples for one case"),
    }
    for name, (data, _) in content.items():
        with h5py.File(folder / f"{name}.h5", "w") as archive:
            archive["points"] = data
    with h5py.File(folder / "foreign.h5", "w") as archive:
        archive["points"], archive["labels"] = points, np.full(400, 99)
    with h5py.File(folder / "damaged.h5", "w") as archive:
        archive.create_dataset("points", data=points, chunks=(400, 3), fletcher32=True)
    damaged = bytearray((folder / "damaged.h5").read_bytes())
    damaged[damaged.index(points.tobytes()) + 1000] ^= 1
    (folder / "damaged.h5").write_bytes(damaged)
    facts = {name: fact for name, (_, fact) in content.items()} | {
        "damaged": "cannot be read",
        "foreign": "has no point of",
    }
    write(folder, "good.nii.gz", labels())
    table(folder, [(name, "good.nii.gz", "", f"{name}.h5") for name in facts])
    return facts


def test_bad_clouds_are_reported_together_and_skipped(check, run_script, tmp_path):
    facts = clouds_good_and_bad(tmp_path)
    result = check()
    assert result.returncode == 2 and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: case ")]
    assert len(lines) == len(facts) - 1
    for name, fact in facts.items():
        found = [line for line in lines if line.startswith(f"error: case {name}: ")]
        assert len(found) == bool(fact) and all(fact in line for line in found), (name, lines)

    result = check("--on-bad-case", "skip")
    assert result.returncode == 0 and "1 of 9 cases are usable" in result.stderr
    out = ("--out", tmp_path / "voxels", "--manifest", tmp_path / "voxels.tsv")
    result = run_script("convert_pointclouds.py", "--cases", tmp_path / "out" / "cases.tsv", *out)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "voxels" / "good.nii.gz").is_file()


def test_bad_clouds_are_reported_together_when_they_are_converted(run_script, tmp_path):
    facts = clouds_good_and_bad(tmp_path)
    cases = [
        Case(case_id=n, patient_id=n, labels="x", pointcloud=str(tmp_path / f"{n}.h5"))
        for n in facts
    ]
    write_cases(tmp_path / "cases.tsv", cases)
    out = ("--out", tmp_path / "voxels", "--manifest", tmp_path / "voxels.tsv")
    result = run_script("convert_pointclouds.py", "--cases", tmp_path / "cases.tsv", *out)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    for name, fact in facts.items():
        found = [line for line in result.stderr.splitlines() if f"/{name}.h5:" in line]
        assert len(found) == bool(fact) and all(fact in line for line in found), (name, found)


CONTENT = "case_id\tpatient_id\tlabels\timage\tpointcloud\ttruth"


@pytest.fixture
def judge(tmp_path):
    """check_cohort in this process."""
    places = ["--table", tmp_path / "cohort.tsv", "--out", tmp_path / "out"]
    return lambda *arguments: run_inside("check_cohort.py", *places, *arguments)


def every_file_bad(folder):
    """A sound case, and one whose four files are readable and wrong."""
    hu = labels().astype(np.int16) * 400 - 1000
    hu[0] = -100
    write(folder, "good.nii.gz", labels())
    write(folder, "good_ct.nii.gz", hu)
    write(folder, "eleven.nii.gz", labels() + np.uint8(8) * (labels() > 0))
    write(folder, "stored_ct.nii.gz", hu + 1024)
    write(folder, "binary.nii.gz", np.uint8(255) * (labels() > 0))
    (folder / "broken.h5").write_bytes(b"nothing")
    rows = [
        ("good", "p", "good.nii.gz", "good_ct.nii.gz", "", "good.nii.gz"),
        ("bad", "q", "eleven.nii.gz", "stored_ct.nii.gz", "broken.h5", "binary.nii.gz"),
    ]
    table(folder, rows, CONTENT)


def test_all_files_of_a_case_are_judged_in_one_round_and_it_alone_is_skipped(tmp_path, judge):
    every_file_bad(tmp_path)
    words = [
        "eleven.nii.gz: label 11 is not in the label table",
        "stored_ct.nii.gz: has no value below 0",
        "broken.h5: is no readable HDF5 file",
        "binary.nii.gz: has label 255, no class of the label table",
    ]
    result = judge()
    refused(result, *words)
    assert sum(line.startswith("error: case bad: ") for line in result.stderr.splitlines()) == 4
    result = judge("--on-bad-case", "skip")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    cases = {c.case_id: c for c in read_checked_cases(tmp_path / "out" / "cases.tsv")}
    assert (cases["good"].status, cases["bad"].status) == ("ok", "skipped")
    assert all(part in cases["bad"].reason for part in words)


@pytest.mark.parametrize("kind", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
@pytest.mark.parametrize("column", ["labels", "image", "truth"])
def test_colours_and_complex_numbers_skip_their_case_alone(tmp_path, judge, kind, column):
    every_file_bad(tmp_path)
    write(tmp_path, "odd.nii.gz", np.zeros((10, 12, 14), kind))
    files = {"labels": "good.nii.gz", "image": "good_ct.nii.gz", "truth": "good.nii.gz"}
    odd = files | {column: "odd.nii.gz"}
    rows = [("a", *files.values()), ("b", *odd.values())]
    table(tmp_path, rows, "case_id\tlabels\timage\ttruth")
    result = judge("--on-bad-case", "skip")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert f"skipped: b: {tmp_path / 'odd.nii.gz'}: holds " in result.stderr
    assert "1 of 2 cases are usable" in result.stderr


def test_the_same_file_under_two_patients_is_noted(tmp_path, judge):
    """Under one patient it is fine: both cases are in the same part of the split."""
    every_file_bad(tmp_path)
    (tmp_path / "copy.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes())
    write(tmp_path, "other.nii.gz", np.roll(labels(), 1, axis=1))

    def notes(*rows):
        table(tmp_path, rows, CONTENT)
        result = judge()
        assert result.returncode == 0, result.stderr
        return [line for line in result.stderr.splitlines() if "same file" in line]

    one = ("a", "p1", "good.nii.gz", "", "", "")
    assert notes(one, ("b", "p1", "copy.nii.gz", "", "", "")) == []
    assert notes(one, ("b", "p2", "other.nii.gz", "", "", "")) == []
    (note,) = notes(one, ("b", "p2", "copy.nii.gz", "", "", ""))
    assert "the label map is the same file under 2 patients (p1, p2): give them one" in note
    assert note.endswith(": 2 of the cases (a, b)")
    qc = json.loads((tmp_path / "out" / "qc" / "cohort.json").read_text())
    assert all(any("same file" in w for w in case["warnings"]) for case in qc["cases"])
    ct = ("b", "p2", "other.nii.gz", "good_ct.nii.gz", "", "")
    (note,) = notes((*one[:3], "good_ct.nii.gz", "", ""), ct)
    assert "the image is the same file under 2 patients (p1, p2)" in note
    assert len(notes(one, ("b", "p2", "other.nii.gz", "", "", "copy.nii.gz"))) == 2


def test_the_same_label_map_in_another_file_is_noted(tmp_path, judge):
    """Written again, moved or turned round, it is another file."""
    two = labels()
    two[6:8, 3:6, 4:8] = 2
    fewer = two.copy()
    fewer[2, 3, 4] = 0
    files = {"two": two, "turned": two[::-1], "fewer": fewer}
    files |= {"one": labels(), "one_turned": labels()[::-1]}
    for name, data in files.items():
        write(tmp_path, f"{name}.nii.gz", data)

    def notes(patient, name, first="two"):
        one = ("a", "p1", f"{first}.nii.gz", "", "", "")
        table(tmp_path, (one, ("b", patient, f"{name}.nii.gz", "", "", "")), CONTENT)
        result = judge()
        assert result.returncode == 0, result.stderr
        return [line for line in result.stderr.splitlines() if "as many voxels" in line]

    (note,) = notes("p2", "turned")
    assert "the label maps of 2 patients (p1, p2) have as many voxels in each class" in note
    assert note.endswith(": 2 of the cases (a, b)")
    assert notes("p1", "turned") == notes("p2", "fewer") == []
    assert notes("p2", "one_turned", "one") == [], "of one class that may be chance"


def test_a_patient_who_is_named_as_missing_is_noted(tmp_path, judge):
    """All such cases would be in one part of the split."""
    every_file_bad(tmp_path)
    write(tmp_path, "other.nii.gz", np.roll(labels(), 1, axis=1))

    def notes(*patients):
        files = ("good.nii.gz", "other.nii.gz")
        rows = [(c, p, f, "", "", "") for c, p, f in zip("ab", patients, files)]
        table(tmp_path, rows, CONTENT)
        result = judge()
        assert result.returncode == 0, result.stderr
        return [line for line in result.stderr.splitlines() if "one patient" in line]

    for word in ("NA", "nan", "None", "unknown"):
        (note,) = notes(word, word)
        assert f"2 cases are of one patient, {word}, and so in one part of the split" in note
    assert notes("NA", "p1") == notes("p1", "p1") == notes("", "") == []


def test_a_case_that_is_skipped_by_hand_is_not_looked_at(tmp_path, judge):
    every_file_bad(tmp_path)
    columns = "case_id\tlabels\tstatus\treason"
    rows = [("a", "good.nii.gz", "", ""), ("b", "gone.nii.gz", "skipped", "moved in the scan")]
    table(tmp_path, rows, columns)
    result = judge()
    assert result.returncode == 0, result.stderr
    assert "skipped: b: moved in the scan" in result.stderr
    assert "1 of 2 cases are usable" in result.stderr
    cases = {c.case_id: c for c in read_checked_cases(tmp_path / "out" / "cases.tsv")}
    assert (cases["b"].status, cases["b"].reason) == ("skipped", "moved in the scan")
    manifest = (tmp_path / "out" / "qc" / "manifest" / "all.tsv").read_text()
    assert "skipped: moved in the scan" in manifest, "what follows from the chunk is told"
    table(tmp_path, [rows[0], ("b", "gone.nii.gz", "ok", "")], columns)
    refused(judge(), "gone.nii.gz: does not exist")
    table(tmp_path, [(*rows[0][:2], "skipped", ""), rows[1]], columns)
    refused(judge(), "no usable case is left")


def test_a_report_of_the_version_before_is_read(tmp_path, judge):
    every_file_bad(tmp_path)
    table(tmp_path, [("a", "good.nii.gz")], "case_id\tlabels")
    assert judge().returncode == 0
    before = {
        "case_id": "a", "sha256": ["0" * 64, "", "", ""], "problems": [], "warnings": [],
        "classes": {}, "shape": [10, 12, 14], "spacing_mm": [2.0, 1.0, 1.0],
    }  # fmt: skip
    path = tmp_path / "before.json"
    path.write_text(json.dumps(before))
    manifest = tmp_path / "before.tsv"
    manifest.write_text(f"case_id\tpath\tbytes\tsha256\tstatus\na\t{path}\t1\t0\tok\n")
    result = judge("--manifest", manifest)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("column", ["labels", "image", "truth"])
def test_a_path_that_no_disk_takes_is_that_of_one_case_alone(tmp_path, column):
    """A name of 300 letters, and a place below a file."""
    write(tmp_path, "good.nii.gz", labels())
    rows = [["a", "good.nii.gz"], ["b", "good.nii.gz"], ["c", "good.nii.gz"]]
    columns = "case_id\tlabels" + ("" if column == "labels" else f"\t{column}")
    for row, path in zip(rows[:2], ["x" * 300, "good.nii.gz/x.nii.gz"]):
        row[1 if column == "labels" else 2 :] = [path]
    table(tmp_path, rows, columns)
    places = ["--table", tmp_path / "cohort.tsv", "--out", tmp_path / "out"]
    result = run_inside("check_cohort.py", *places, "--on-bad-case", "skip")
    assert result.returncode == 0, result.stderr
    status = {case.case_id: case.status for case in read_checked_cases(tmp_path / "out/cases.tsv")}
    assert status == {"a": "skipped", "b": "skipped", "c": "ok"}
