"""Odd and damaged label maps and images in a cohort: bad ones are skipped, each in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inside import run_inside
from nifti_files import AFFINE, scan, write_nifti

from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.table import read_checked_cases


def heart(dtype=np.uint8, value=3):
    data = np.zeros((20, 21, 22), dtype)
    data[4:14, 5:15, 6:16] = value
    return data


def check(folder, rows, columns="case_id\tlabels\timage"):
    table = folder / "cohort.tsv"
    table.write_text("\n".join([columns, *("\t".join(row) for row in rows)]) + "\n")
    arguments = ["--table", table, "--out", folder / "out", "--on-bad-case", "skip"]
    arguments += ["--max-bad-cases", 20]
    return run_inside("check_cohort.py", *arguments)


def bad_files(folder):
    """Name -> words of its line."""
    sheared = AFFINE.copy()
    sheared[:3, 0] += 0.1 * sheared[:3, 1]
    colours = np.zeros(heart().shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    dim = [3, 30000, 30000, 3000, 1, 1, 1, 1]
    write_nifti(folder / "type.nii.gz", heart(), datatype=999)
    write_nifti(folder / "huge.nii.gz", heart(), dim=dim)
    write_nifti(folder / "huge.nii", heart(), dim=dim)
    write_nifti(folder / "turn.nii.gz", heart(), quatern_b=3)
    write_nifti(folder / "unit.nii.gz", heart(), xyzt_units=5)
    write_nifti(folder / "colours.nii.gz", colours)
    write_nifti(folder / "complex.nii.gz", heart(np.complex64))
    write_nifti(folder / "nan.nii.gz", heart(), qform=0, srow_x=np.nan)
    write_nifti(folder / "flat.nii.gz", heart(), dim=[3, 20, -21, 22, 1, 1, 1, 1])
    write_nifti(folder / "sheared.nii.gz", heart(), sheared, qform=0)
    path = write_nifti(folder / "crc.nii.gz", heart()).rename(folder / "CRC.NII.GZ")
    content = path.read_bytes()
    path.write_bytes(content[:-8] + b"\1\2\3\4" + content[-4:])
    nib.save(nib.AnalyzeImage(heart(np.int16), AFFINE), folder / "analyze.img")
    (folder / "folder").mkdir()
    (folder / "dead.nii.gz").symlink_to("gone.nii.gz")
    write_nifti(folder / "half.hdr", heart(), kind=nib.Nifti1Pair)
    (folder / "half.img").unlink()
    return {
        "type.nii.gz": "data code 999 not recognized",
        "huge.nii.gz": "shorter than its header says",
        "huge.nii": "shorter than its header says",
        "turn.nii.gz": "qform is no rotation",
        "unit.nii.gz": "unknown unit of length",
        "colours.nii.gz": "holds colours (RGB)",
        "complex.nii.gz": "holds complex numbers",
        "nan.nii.gz": "affine is not finite",
        "flat.nii.gz": "is not one 3-D volume",
        "sheared.nii.gz": "axes are sheared by 5.7 degrees",
        "CRC.NII.GZ": "CRC check failed",
        "analyze.img": "is an Analyze file",
        "folder": "is a folder",
        "dead.nii.gz": "is a link to gone.nii.gz, which does not exist",
        "half.hdr": "half.img is not beside it",
    }


@pytest.mark.parametrize("column", ["labels", "image"])
def test_bad_files_are_skipped_each_in_one_line(tmp_path, column):
    words = bad_files(tmp_path)
    write_nifti(tmp_path / "good.nii.gz", heart())
    write_nifti(tmp_path / "ct.nii.gz", scan(heart()))
    rows = [("good", "good.nii.gz", "ct.nii.gz")]
    for number, name in enumerate(words):
        labels, image = (name, "") if column == "labels" else ("good.nii.gz", name)
        rows.append((f"bad{number}", labels, image))
    result = check(tmp_path, rows)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    cases = {case.case_id: case for case in read_checked_cases(tmp_path / "out" / "cases.tsv")}
    assert cases["good"].status == "ok"
    for number, (name, text) in enumerate(words.items()):
        case = cases[f"bad{number}"]
        assert case.status == "skipped" and text in case.reason
        assert f"{tmp_path / name}: " in case.reason  # the file at fault, not the other one


def test_a_file_that_may_not_be_read_is_skipped(tmp_path, monkeypatch):
    for name in ("good.nii.gz", "secret.nii.gz"):
        write_nifti(tmp_path / name, heart())
    allowed = os.access  # the superuser may read all
    monkeypatch.setattr(os, "access", lambda p, mode: "secret" not in str(p) and allowed(p, mode))
    rows = [
        ("a", "good.nii.gz", ""),
        ("b", "secret.nii.gz", ""),
        ("c", "good.nii.gz", "secret.nii.gz"),
    ]
    result = check(tmp_path, rows)
    assert result.returncode == 0, result.stderr
    cases = read_checked_cases(tmp_path / "out" / "cases.tsv")
    assert [case.status for case in cases] == ["ok", "skipped", "skipped"]
    assert all("secret.nii.gz: may not be read by you" in case.reason for case in cases[1:])


def test_odd_files_are_used(tmp_path):
    """Legal, and seen in the wild: units, half turns, shear, images stored in another order."""
    micron = AFFINE.copy()
    micron[:3] *= 1000
    write_nifti(tmp_path / "micron.nii.gz", heart(), micron, xyzt_units=3)
    sheared = AFFINE.copy()
    sheared[:3, 0] += 0.015 * sheared[:3, 1]
    write_nifti(tmp_path / "sheared.nii.gz", heart(), sheared)
    half = np.diag([1.5, -1.5, -2, 1.0])
    write_nifti(tmp_path / "half.nii.gz", heart(), half, quatern_b=1.000001)
    nib.save(nib.MGHImage(heart(np.int32), AFFINE), tmp_path / "a.mgz")
    write_nifti(tmp_path / "pair.hdr", heart(), kind=nib.Nifti1Pair)
    write_nifti(tmp_path / "labels.nii.gz", heart())
    turned = AFFINE[:, [1, 2, 0, 3]].copy()
    turned[:3, 3] += turned[:3, 0] * 20
    turned[:3, 0] *= -1
    image = np.flip(scan(heart()).transpose(1, 2, 0), 0)
    write_nifti(tmp_path / "turned.nii.gz", image, turned)
    write_nifti(tmp_path / "micron_ct.nii.gz", scan(heart()), micron, xyzt_units=3)
    names = ("micron.nii.gz", "sheared.nii.gz", "half.nii.gz", "a.mgz", "pair.hdr", "pair.img")
    rows = [(f"case{i}", name, "") for i, name in enumerate(names)]
    rows += [
        ("image", "labels.nii.gz", "turned.nii.gz"),
        ("converted", "labels.nii.gz", "micron_ct.nii.gz"),
    ]
    result = check(tmp_path, rows)
    assert result.returncode == 0, result.stderr
    cases = read_checked_cases(tmp_path / "out" / "cases.tsv")
    assert {case.case_id: case.reason for case in cases} == {row[0]: "" for row in rows}
    report = json.loads((tmp_path / "out" / "qc" / "cases" / "case0.json").read_text())
    assert report["spacing_mm"] == [1.5, 1.5, 2.0]
    assert report["classes"]["left_ventricle"]["volume_ml"] == 4.5


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_a_spacing_of_another_unit_is_warned_of(tmp_path, factor):
    affine = np.diag([factor, factor, factor, 1.0])
    write_nifti(tmp_path / "a.nii.gz", heart(), affine)
    assert check(tmp_path, [("a", "a.nii.gz", "")]).returncode == 0
    report = json.loads((tmp_path / "out" / "qc" / "cases" / "a.json").read_text())
    (warning,) = (text for text in report["warnings"] if "units" in text)
    spacing = " x ".join([f"{factor:g}"] * 3)
    assert warning == f"spacing of {spacing} mm: are the header's units right?"


def test_other_voxels_of_a_pair_are_new_input(tmp_path):
    """Its header stays the same bytes; check and meshes are made again all the same."""
    write_nifti(tmp_path / "p.hdr", heart(), kind=nib.Nifti1Pair)
    header = (tmp_path / "p.hdr").read_bytes()
    rows = [("a", "p.hdr", ""), ("b", "p.img", "")]

    def made():
        assert check(tmp_path, rows).returncode == 0
        places = ["--cases", tmp_path / "out" / "cases.tsv", "--out", tmp_path / "meshes"]
        manifest = tmp_path / "meshes" / "manifest.tsv"
        result = run_inside("extract_meshes.py", *places, "--manifest", manifest)
        assert result.returncode == 0, result.stderr
        files = [Path(row["path"]).name for row in read_manifest(manifest)]
        reports = [tmp_path / "out" / "qc" / "cases" / f"{case}.json" for case in "ab"]
        return [json.loads(r.read_text())["classes"].keys() for r in reports], files

    classes, files = made()
    assert all(list(found) == ["left_ventricle"] for found in classes)
    assert files.count("left_ventricle.ply") == 2
    write_nifti(tmp_path / "p.hdr", heart(value=1), kind=nib.Nifti1Pair)
    assert (tmp_path / "p.hdr").read_bytes() == header
    classes, files = made()
    assert all(list(found) == ["myocardium"] for found in classes)
    assert files.count("myocardium.ply") == 2 and "left_ventricle.ply" not in files
