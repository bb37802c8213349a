"""A folder of ready voxels in place of point clouds."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from answers import refused
from inside import run_inside
from nifti_files import write_nifti

from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.splits import read_split
from cardiform.volumes import load_image, load_label_map

SIZE = 16


def write(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def density(seed=0):
    return np.random.default_rng(seed).random((SIZE,) * 3).astype(np.float32)


def convert(tmp_path, *arguments, size=SIZE):
    out = tmp_path / "out"
    where = ("--out", out, "--manifest", out / "manifest.tsv", "--voxel-size", size)
    return run_inside("convert_pointclouds.py", "--file", tmp_path / "in", *where, *arguments)


def test_densities_of_the_earlier_converter_with_their_split(tmp_path):
    for part, names in {"train": "ab", "val": "c", "test": "d"}.items():
        for k, name in enumerate(names):
            write(tmp_path / "in" / part / f"{name}.nii.gz", density(k)[None])  # (1, D, H, W)
    result = convert(tmp_path, "--unit-mm", 3.0)
    assert result.returncode == 0, result.stderr
    grid = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert grid["kind"] == "field" and grid["edge_mm"] == 48.0 and grid["voxel_size"] == SIZE
    data, affine = load_image(tmp_path / "out" / "b.nii.gz")
    assert (data == density(1)).all() and np.allclose(np.diag(affine)[:3], 3.0)
    assert np.allclose(affine[:3, :3] @ np.full(3, 7.5) + affine[:3, 3], 0)
    assert [r["case_id"] for r in read_manifest(tmp_path / "out" / "manifest.tsv")] == list("abcd")
    parts = {p: [n for n, _ in read_split(tmp_path / "out" / "split" / f"{p}.csv")]
             for p in ("train", "val", "test")}  # fmt: skip
    assert parts == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert "4 of 4 cases are finished already" in convert(tmp_path, "--unit-mm", 3.0).stderr


def test_label_maps_on_a_grid_that_are_not_split_yet(tmp_path):
    labels = np.zeros((SIZE,) * 3, np.int16)
    labels[2:9, 3:8, 4:7], labels[9:12, 3:8, 4:7] = 3, 9
    write(tmp_path / "in" / "x.nii", labels, np.diag([-2.0, 2.0, 2.0, 1.0]))  # LAS
    result = convert(tmp_path, "--drop-classes", "coronary")
    assert result.returncode == 0, result.stderr
    made = load_label_map(tmp_path / "out" / "x.nii.gz")
    assert (made.data == np.where(labels == 9, 0, labels)[::-1]).all() and made.spacing[0] == 2
    grid = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert grid["kind"] == "labels" and [c["name"] for c in grid["classes"]] == ["left_ventricle"]
    assert (tmp_path / "out" / "cases.tsv").is_file()
    assert not (tmp_path / "out" / "split").exists()


def test_all_faults_are_reported_together(tmp_path):
    folder = tmp_path / "in" / "train"
    write(folder / "good.nii.gz", density())
    write(folder / "small.nii.gz", density()[:8, :8, :8])
    write(folder / "far.nii.gz", density() * 3)
    write(folder / "wide.nii.gz", density(), np.diag([2.0, 2.0, 2.0, 1.0]))
    write(folder / "flat.nii.gz", density(), np.diag([1.0, 1.0, 2.5, 1.0]))
    write(folder / "labels.nii.gz", np.zeros((SIZE,) * 3, np.uint8))
    write(folder / "many.nii.gz", np.zeros((SIZE, SIZE, SIZE, 2), np.float32))
    (folder / "torn.nii.gz").write_bytes(b"no")
    refused(
        convert(tmp_path),
        "small.nii.gz: has 8x8x8 voxels, ldm.voxel_size is 16",
        "far.nii.gz: has values from",
        "wide.nii.gz: has voxels of 2, the first file of",
        "flat.nii.gz: has voxels of 1 x 1 x 2.5",
        "labels.nii.gz: has integers where others have floats",
        "many.nii.gz: shape 16x16x16x2 is not one 3-D volume",
        "torn.nii.gz: is not a readable NIfTI file",
    )


def test_headers_are_read_as_those_of_label_maps(tmp_path):
    """The unit, the checksum, the length, the place: one reader for all NIfTI files."""
    folder, millimetres = tmp_path / "in", np.diag([2.0, 2.0, 2.0, 1.0])
    micrometres = np.diag([2000.0, 2000.0, 2000.0, 1.0])
    write(folder / "mm.nii.gz", density(), millimetres)
    write_nifti(folder / "micron.nii.gz", density(), micrometres, xyzt_units=3)
    result = convert(tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "grid.json").read_text())["spacing_mm"] == 2.0
    sound = write_nifti(folder / "crc.nii.gz", density(), millimetres)
    content = sound.read_bytes()
    sound.write_bytes(content[:-8] + b"\1\2\3\4" + content[-4:])
    dim = [3, 30000, 30000, 3000, 1, 1, 1, 1]
    write_nifti(folder / "huge.nii.gz", density(), millimetres, dim=dim)
    write_nifti(folder / "nowhere.nii.gz", density(), millimetres, sform=0, qform=0)
    write_nifti(folder / "two.nii.gz", density(), millimetres, srow_x=[-2, 0, 0, 30])
    write_nifti(folder / "one.nii.gz", density()[None], dim=[4, 1, 30000, 30000, 3000, 1, 1, 1])
    refused(
        convert(tmp_path),
        "crc.nii.gz: cannot be read to its end (CRC check failed",
        "huge.nii.gz: cannot be read to its end (it is shorter than its header says",
        "nowhere.nii.gz: has neither sform nor qform",
        "two.nii.gz: sform and qform differ",
        "one.nii.gz: cannot be read to its end (it is shorter than its header says",
    )


def test_what_no_cohort_can_be_made_of(tmp_path):
    (tmp_path / "in" / "train").mkdir(parents=True)
    refused(convert(tmp_path), "has no .nii or .nii.gz file")
    write(tmp_path / "in" / "train" / "a.nii.gz", density())
    write(tmp_path / "in" / "val" / "a.nii", density())
    refused(convert(tmp_path), "is one of 2 files called a", "give each another name")
    (tmp_path / "in" / "val" / "a.nii").unlink()
    write(tmp_path / "in" / "train" / "a.nii.gz", np.full((SIZE,) * 3, 77, np.uint8))
    refused(convert(tmp_path), "has labels 77, no classes of the label table")


def test_names_as_other_systems_leave_them(tmp_path):
    write(tmp_path / "in" / "x.nii.gz", density())
    (tmp_path / "in" / "x.nii.gz").rename(tmp_path / "in" / "X.NII.GZ")
    (tmp_path / "in" / "._X.nii.gz").write_bytes(b"of macOS")
    result = convert(tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "X.nii.gz").is_file()


def test_what_lies_beside_a_split_is_named(tmp_path):
    for path in ("train/a.nii.gz", "validation/b.nii.gz", "c.nii.gz"):
        write(tmp_path / "in" / path, density())
    result = convert(tmp_path)
    assert "in: not taken, beside train, val, test: 'c.nii.gz', 'validation'" in result.stderr


def test_samples_are_not_selected(tmp_path):
    write(tmp_path / "in" / "a.nii.gz", density())
    refused(convert(tmp_path, "--select", "b"), "--select needs --cases")


@pytest.mark.parametrize("split", [True, False])
def test_the_workflow_takes_a_folder(tmp_path, split):
    from dag import planned

    folder = tmp_path / "voxels" / ("train" if split else "")
    write(folder / "a.nii.gz", density())
    text = "ldm: {sources: [pointclouds]}\npointclouds: {file: voxels}\n"
    (tmp_path / "mine.yaml").write_text(text)
    plan = planned(tmp_path, "ldm")
    assert {"convert_pointclouds", "train_diffusion"} <= set(plan)
    assert ("split_pointclouds" in plan) is not split
