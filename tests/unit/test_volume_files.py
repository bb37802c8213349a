"""Files of volumes as a disk has them: compressed, in two parts, cut off, of other formats."""

from __future__ import annotations

import gzip
import hashlib
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nifti_files import AFFINE, heart, write_nifti

from cardiform import volumes
from cardiform.errors import InputError
from cardiform.files import future_problems, parts_of, sha256_file
from cardiform.volumes import files


def refusal(path, reader=volumes.load_label_map):
    with pytest.raises(InputError) as caught:
        reader(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ") and "; " in line and "\n" not in line
    return line


def pair(path, data=None):
    return write_nifti(path, data, kind=nib.Nifti1Pair)


@pytest.mark.parametrize(
    "name", ["a.nii.gz", "A.NII.GZ", "a.Nii.Gz", "a.mgz", "p.img.gz", "p.hdr.gz"]
)
def test_the_checksum_of_every_gzip_file_is_compared(tmp_path, name):
    kind = nib.MGHImage if name == "a.mgz" else nib.Nifti1Pair if "p." in name else nib.Nifti1Image
    path = tmp_path / name
    if kind is nib.MGHImage:
        nib.save(nib.MGHImage(heart(np.int16), AFFINE), path)
    else:
        write_nifti(tmp_path / name.lower(), kind=kind).rename(path)
    assert (volumes.load_label_map(path).data == heart()).all()
    for part in map(Path, parts_of(path)):
        sound = part.read_bytes()
        # the checksum itself, which no reader meets that stops at the last voxel; and bytes
        # after the end, unless they are zeros
        for damaged in (sound[:-8] + b"\1\2\3\4" + sound[-4:], sound + b"x"):
            part.write_bytes(damaged)
            for reader in (volumes.load_label_map, volumes.load_image):
                assert "cannot be read to its end" in refusal(path, reader)
        part.write_bytes(sound + b"\0" * 10)
        assert (volumes.load_label_map(path).data == heart()).all()
        part.write_bytes(sound)


def test_a_gzip_file_in_members_is_read_through_all_of_them(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert (volumes.load_label_map(path).data == heart()).all()


def test_a_name_that_does_not_say_what_is_in_the_file(tmp_path):
    plain = write_nifti(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(plain)
    assert "not compressed, whatever its name says" in refusal(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain))
    assert "add .gz to its name" in refusal(tmp_path / "c.nii")
    (tmp_path / "d.nrrd").write_bytes(b"NRRD0004\n")
    (tmp_path / "e").write_bytes(plain)
    (tmp_path / "f.nii").write_bytes(b"<!DOCTYPE html><html>" * 100)
    (tmp_path / "g.nii").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for name in ("d.nrrd", "e", "f.nii", "g.nii"):
        assert "convert it to NIfTI (.nii, .nii.gz, .hdr with .img)" in refusal(tmp_path / name)


def test_formats_that_do_not_know_their_place_are_refused(tmp_path):
    for kind in (nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage):
        nib.save(kind(heart(np.int16), AFFINE), tmp_path / "a.img")
        for name in ("a.img", "a.hdr"):
            assert "is an Analyze file" in refusal(tmp_path / name)
    nib.save(nib.Nifti2Image(heart(), AFFINE), tmp_path / "sound.nii")
    for name in ("a.BRIK", "a+orig.HEAD", "a.PAR", "a.mnc", "a.gii", "a.v"):
        (tmp_path / name).write_bytes(b"\211HDF and the like" * 100)
        assert "not a readable NIfTI file" in refusal(tmp_path / name)


def test_a_folder_and_a_dead_link(tmp_path):
    (tmp_path / "dicom").mkdir()
    assert "is a folder" in refusal(tmp_path / "dicom")
    (tmp_path / "a.nii").symlink_to(tmp_path / "gone.nii")
    line = refusal(tmp_path / "a.nii")
    assert "is a link to" in line and "gone.nii, which does not exist" in line
    assert "a.nii: does not exist" not in line


def test_a_name_that_starts_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nifti(tmp_path / "a.nii").rename(tmp_path / "~a.nii")
    assert (volumes.load_label_map("~a.nii").data == heart()).all()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/p.hdr", ["a/p.hdr", "a/p.img"]),
        ("a/p.img", ["a/p.hdr", "a/p.img"]),
        ("P.IMG", ["P.HDR", "P.IMG"]),
        ("p.img.gz", ["p.hdr.gz", "p.img.gz"]),
        ("p.HDR.GZ", ["p.HDR.GZ", "p.IMG.GZ"]),
        ("a.hdr/p.nii", ["a.hdr/p.nii"]),
        ("p.nii.gz", ["p.nii.gz"]),
        ("a.img.json", ["a.img.json"]),
        ("img", ["img"]),
    ],
)
def test_a_pair_is_two_files_whichever_is_named(name, parts):
    assert parts_of(name) == parts


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_pair_is_read_and_hashed_whole(tmp_path, end):
    header, voxels = (tmp_path / f"p.{part}{end}" for part in ("hdr", "img"))
    pair(header)
    hashes = {sha256_file(header), sha256_file(voxels)}
    for path in (header, voxels):
        assert (volumes.load_label_map(path).data == heart()).all()
    content = voxels.read_bytes()
    pair(header, heart() * 3)
    assert voxels.read_bytes() != content
    hashes |= {sha256_file(header), sha256_file(voxels)}
    assert len(hashes) == 2
    os.utime(voxels, (4e9, 4e9))
    (line,) = future_problems([header])
    assert line.startswith(f"{voxels}: was changed in the future")


def test_the_hash_of_a_single_file_is_that_of_its_bytes(tmp_path):
    for name in ("a.nii.gz", "a.ply", "lone.img", "lone2.hdr"):
        (tmp_path / name).write_bytes(name.encode())
        assert sha256_file(tmp_path / name) == hashlib.sha256(name.encode()).hexdigest()
    for name in ("none.nii", "none.hdr"):
        with pytest.raises(FileNotFoundError):
            sha256_file(tmp_path / name)


@pytest.mark.parametrize(("lost", "kept"), [("hdr", "img"), ("img", "hdr")])
def test_half_a_pair_is_refused(tmp_path, lost, kept):
    pair(tmp_path / "p.hdr")
    (tmp_path / f"p.{lost}").unlink()
    assert f"p.{lost} is not beside it" in refusal(tmp_path / f"p.{kept}")
    assert "does not exist" in refusal(tmp_path / f"p.{lost}")


def test_a_pair_whose_voxels_are_cut_off(tmp_path):
    pair(tmp_path / "p.hdr")
    voxels = (tmp_path / "p.img").read_bytes()
    (tmp_path / "p.img").write_bytes(voxels[:-1])
    for name in ("p.hdr", "p.img"):
        assert "shorter than its header says: 335 bytes, not 336" in refusal(tmp_path / name)


@pytest.mark.parametrize("reader", [volumes.load_label_map, volumes.load_image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_wide_types_need_little_more_memory_than_what_is_made_of_them(
    tmp_path, monkeypatch, reader, suffix, dtype
):
    monkeypatch.setattr(files, "SLAB_VOXELS", 2**14)
    data = np.zeros((64, 64, 256), dtype)
    data[10:40, 20:50, 30:200] = 7
    path = write_nifti(tmp_path / f"a{suffix}", data)
    tracemalloc.start()
    found = reader(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made = found.data if reader is volumes.load_label_map else found[0]
    np.testing.assert_array_equal(made, data)
    slabs = 6 * 2**14 * 8  # some copies of a part, at eight bytes a voxel
    assert peak < made.nbytes + slabs + 2**22  # what a stream buffers


@pytest.mark.parametrize("slab", [1, 50, 2**20])
def test_what_is_read_does_not_depend_on_the_parts(tmp_path, monkeypatch, slab):
    monkeypatch.setattr(files, "SLAB_VOXELS", slab)
    for suffix in (".nii", ".nii.gz"):
        path = write_nifti(tmp_path / f"a{suffix}", heart(np.float32)[..., None, None])
        assert (volumes.load_label_map(path).data == heart()).all()
        assert (volumes.load_image(path)[0] == heart()).all()
    far = heart(np.float32)
    far[0, 0, -1] = 0.25
    assert "values are not integers (off by 0.25)" in refusal(write_nifti(tmp_path / "b.nii", far))
    far[0, 0, -1] = np.nan
    assert "not finite" in refusal(write_nifti(tmp_path / "b.nii", far))
    far = heart(np.int16)
    far[0, 0, 0], far[0, 0, -1] = -4, 300
    assert "values run from -4 to 300" in refusal(write_nifti(tmp_path / "b.nii", far))


def test_what_another_format_holds_must_be_numbers_too(tmp_path, monkeypatch):
    class Complex:
        shape = (2, 3, 4)

        def __init__(self, path):
            pass

        def values(self):
            return np.ones(self.shape, np.complex64)

        def affine(self):
            return AFFINE

    monkeypatch.setitem(files.FORMATS, ".odd", files.VolumeFormat(Complex, None, None))
    for reader in (volumes.load_label_map, volumes.load_image):
        assert "holds complex64 values" in refusal(tmp_path / "a.odd", reader)


@pytest.mark.parametrize("name", ["a.NII.GZ", "a.nii.Gz", "a.NII", "a.nii"])
def test_a_name_in_capitals_is_written_as_it_is_read(tmp_path, name):
    volumes.save_label_map(tmp_path / name, heart(), AFFINE)
    assert (volumes.load_label_map(tmp_path / name).data == heart()).all()
    volumes.save_like(tmp_path / f"b{name}", heart() // 3, tmp_path / name)
    assert (volumes.load_label_map(tmp_path / f"b{name}").data == heart() // 3).all()


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.hdr", "a.img", "a.nii.bz2", "a"])
def test_nothing_is_written_under_the_name_of_another_format(tmp_path, name):
    with pytest.raises(InputError, match=r"let it end in \.nii or \.nii\.gz"):
        volumes.save_label_map(tmp_path / name, heart(), AFFINE)
    assert not list(tmp_path.iterdir())


def test_classes_that_the_type_of_a_file_cannot_hold_are_written_all_the_same(tmp_path):
    like = write_nifti(tmp_path / "like.nii", heart(np.int8))
    volumes.save_like(tmp_path / "out.nii", heart() * 80, like)
    assert (volumes.load_label_map(tmp_path / "out.nii").data == heart() * 80).all()
