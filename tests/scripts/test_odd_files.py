"""Odd and damaged label maps and images in a cohort: bad ones are skipped, each in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from answers import refused
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


@pytest.fixture
def fuse(tmp_path):
    """fuse_labels of one case; the masks' folders are called like their classes."""
    write_nifti(tmp_path / "a.nii.gz", heart(value=2))
    (tmp_path / "cohort.tsv").write_text("case_id\tlabels\na\ta.nii.gz\n")
    places = ["--table", tmp_path / "cohort.tsv", "--out", tmp_path]
    assert run_inside("check_cohort.py", *places).returncode == 0
    files = ["--cases", tmp_path / "cases.tsv", "--out", tmp_path / "fused"]
    files += ["--manifest", tmp_path / "fused.tsv"]
    return lambda *masks: run_inside("fuse_labels.py", *files, "--masks", *masks)


def test_a_mask_far_from_the_heart_is_refused_and_nothing_is_lost(tmp_path, fuse):
    away = AFFINE.copy()
    away[0, 3] += 500
    write_nifti(tmp_path / "left_atrium" / "a.nii.gz", heart(), away)
    result = fuse(f"left_atrium={tmp_path / 'left_atrium'}")
    refused(result, "left_atrium/a.nii.gz: lies ", "beside all structures of the label map")
    assert not (tmp_path / "fused" / "a.nii.gz").exists()


def test_folders_of_masks_that_are_none_or_one_too_many_are_refused(tmp_path, fuse):
    (tmp_path / "masks").mkdir()
    there = f"coronary={tmp_path / 'masks'}"
    refused(fuse(f"coronary={tmp_path / 'gone'}"), "gone: is no folder; correct --masks")
    refused(fuse(there, there), "--masks names coronary twice")
    result = fuse(there)
    assert result.returncode == 0, result.stderr
    assert "masks: has no mask <case>.nii.gz of 1 of 1 cases, which keep" in result.stderr


def test_meshes_without_an_inside_are_skipped_before_they_are_voxelized(tmp_path):
    """And one of another unit is told; beside a label map nothing is made of meshes."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=2, radius=30)
    ball.export(tmp_path / "good.ply")
    trimesh.creation.icosphere(subdivisions=2, radius=0.03).export(tmp_path / "metres.ply")
    half = ball.copy()
    half.update_faces(ball.triangles_center[:, 2] > 0)
    half.export(tmp_path / "open.ply")
    rows = [(name, f"{name}.ply") for name in ("good", "metres", "open")]
    result = check(tmp_path, rows, "case_id\tmeshes")
    assert result.returncode == 0, result.stderr
    assert f"skipped: open: {tmp_path / 'open.ply'}: is open: closing it takes" in result.stderr
    assert "a mesh spans less than 5 mm: are its numbers millimetres?: 1 of" in result.stderr
    assert "2 of 3 cases are usable" in result.stderr
    write_nifti(tmp_path / "labels.nii.gz", heart())
    result = check(tmp_path, [("a", "labels.nii.gz", "open.ply")], "case_id\tlabels\tmeshes")
    assert "1 of 1 cases are usable" in result.stderr
