"""Headers of real and damaged files: units, forms, types and sizes."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from nifti_files import AFFINE, heart, write_nifti

from cardiform import volumes
from cardiform.errors import InputError

READERS = (volumes.load_label_map, volumes.load_image, volumes.image_grid)
KINDS = {
    "a.nii": nib.Nifti1Image,
    "a.nii.gz": nib.Nifti1Image,
    "two.nii": nib.Nifti2Image,
    "pair.hdr": nib.Nifti1Pair,
    "twopair.hdr": nib.Nifti2Pair,
}


def affine_of(reader, path):
    found = reader(path)
    return found.affine if reader is volumes.load_label_map else found[1]


def refusal(path, reader=volumes.load_label_map):
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as caught:
        reader(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ") and "; " in line and "\n" not in line
    return line


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
@pytest.mark.parametrize("time", [0, 8])
def test_lengths_are_read_in_the_unit_of_the_header(tmp_path, name, unit, factor, time):
    stored = AFFINE.copy()
    stored[:3] /= factor
    path = write_nifti(
        tmp_path / name, affine=stored, kind=KINDS[name], sform=1, xyzt_units=unit + time
    )
    for reader in READERS:
        np.testing.assert_allclose(affine_of(reader, path), AFFINE, rtol=1e-5)
    np.testing.assert_allclose(volumes.load_label_map(path).spacing, [1.5, 1.5, 2], rtol=1e-5)


@pytest.mark.parametrize("unit", [4, 5, 6, 7])
def test_an_unknown_unit_is_refused(tmp_path, unit):
    path = write_nifti(tmp_path / "a.nii", xyzt_units=unit)
    for reader in READERS:
        assert f"unknown unit of length (xyzt_units {unit})" in refusal(path, reader)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_what_is_written_like_a_file_lies_where_it_lies_for_every_reader(tmp_path, name, unit):
    stored = AFFINE.copy()
    stored[:3] /= {0: 1, 1: 1000, 2: 1, 3: 0.001}[unit]
    like = write_nifti(
        tmp_path / name, heart(np.int16), stored, kind=KINDS[name], xyzt_units=unit + 8
    )
    out = tmp_path / "out.nii.gz"
    volumes.save_like(out, heart() // 3, like)
    written, given = nib.load(out), nib.load(like)
    np.testing.assert_allclose(written.affine, given.affine)
    assert int(written.header["xyzt_units"]) == unit + 8
    assert written.get_data_dtype() == np.int16
    labels = volumes.load_label_map(out)
    np.testing.assert_allclose(labels.affine, AFFINE, rtol=1e-5)
    assert (labels.data == heart() // 3).all()


def test_freesurfer_files_are_read_and_written_like(tmp_path):
    for name in ("a.mgz", "a.mgh"):
        path = tmp_path / name
        nib.save(nib.MGHImage(heart(np.int16), AFFINE), path)
        for reader in READERS:
            np.testing.assert_allclose(affine_of(reader, path), AFFINE, atol=1e-5)
        volumes.save_like(tmp_path / "out.nii.gz", heart() // 3, path)
        labels = volumes.load_label_map(tmp_path / "out.nii.gz")
        assert (labels.data == heart() // 3).all()
        np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-5)
        assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == np.int16


def test_a_freesurfer_file_without_orientation_is_refused(tmp_path):
    path = tmp_path / "a.mgh"
    nib.save(nib.MGHImage(heart(np.int16), AFFINE), path)
    content = bytearray(path.read_bytes())
    content[28:30] = b"\0\0"
    path.write_bytes(content)
    for reader in READERS:
        assert "has no orientation" in refusal(path, reader)


def half_turn(excess, kind=nib.Nifti1Image):
    """Header fields of half a turn whose stored quaternion is that much too long."""
    parts = np.array([0.6, 0.64, 0.48]) * (1 + excess)
    return dict(zip(("quatern_b", "quatern_c", "quatern_d"), parts))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("excess", [0, 1e-7, 3e-7, 1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("sform", [0, 1])
def test_half_a_turn_may_be_rounded(tmp_path, kind, excess, sform):
    """A quaternion that is a bit longer than one is a rotation, which nibabel refuses."""
    axis = np.array([0.6, 0.64, 0.48])
    affine = np.eye(4)
    affine[:3, :3] = (2 * np.outer(axis, axis) - np.eye(3)) * [1.5, 1.5, 2]
    path = write_nifti(
        tmp_path / "a.nii", affine=affine, sform=sform, kind=kind, **half_turn(excess)
    )
    for reader in READERS:
        np.testing.assert_allclose(affine_of(reader, path), affine, atol=1e-5)
    volumes.save_like(tmp_path / "out.nii", heart(), path)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (half_turn(0.5), "qform is no rotation (a quaternion of length 1.5)"),
        ({"quatern_b": np.nan}, "qform is not finite"),
        ({"quatern_c": np.inf}, "qform is not finite"),
        ({"qoffset_x": np.nan}, "qform is not finite"),
        ({"pixdim": [1, 0, 1.5, 2, 0, 0, 0, 0]}, "qform has no spacing (pixdim 0 x 1.5 x 2)"),
        ({"pixdim": [1, 1.5, -1.5, 2, 0, 0, 0, 0]}, "qform has no spacing (pixdim 1.5 x -1.5 x 2)"),
        ({"pixdim": [1, 1.5, 1.5, np.nan, 0, 0, 0, 0]}, "qform has no spacing"),
        ({"pixdim": [1, 1.5, 1.5, np.inf, 0, 0, 0, 0]}, "qform has no spacing"),
        ({"pixdim": [0.5, 1.5, 1.5, 2, 0, 0, 0, 0]}, "qform has no handedness (pixdim[0] is 0.5"),
    ],
)
def test_a_broken_qform_is_refused_where_it_is_the_one_used(tmp_path, fields, words):
    path = write_nifti(tmp_path / "a.nii", sform=0, **fields)
    for reader in READERS:
        assert words in refusal(path, reader)
    # with a sform it is not used, and where its code is 0, nothing is wrong
    path = write_nifti(tmp_path / "b.nii", qform=0, **fields)
    np.testing.assert_allclose(volumes.load_label_map(path).affine, AFFINE)


@pytest.mark.parametrize(
    "fields",
    [half_turn(0.5), {"quatern_b": np.nan}, {"quatern_b": np.inf}, {"quatern_d": 1e30},
     {"pixdim": [1, 0, 0, 0, 0, 0, 0, 0]}, {"pixdim": [1, np.nan, 1.5, 2, 0, 0, 0, 0]}],
)  # fmt: skip
def test_a_broken_qform_beside_a_sform_is_refused_in_one_line(tmp_path, fields):
    path = write_nifti(tmp_path / "a.nii", **fields)
    assert "set its code to 0" in refusal(path)


def test_a_negative_spacing_beside_a_sform_that_agrees_is_no_matter(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    pixdim = np.array(nib.load(path).header["pixdim"])
    pixdim[1] *= -1
    path = write_nifti(tmp_path / "b.nii", pixdim=pixdim)
    np.testing.assert_allclose(volumes.load_label_map(path).affine, AFFINE)


def test_a_qfac_of_zero_is_one(tmp_path):
    affine = np.diag([1.5, 1.5, 2.0, 1.0])
    path = write_nifti(
        tmp_path / "a.nii", affine=affine, sform=0, pixdim=[0, 1.5, 1.5, 2, 0, 0, 0, 0]
    )
    np.testing.assert_allclose(volumes.load_label_map(path).affine, affine)


@pytest.mark.parametrize("degrees", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("axis", "onto"), [(0, 1), (0, 2), (1, 2), (2, 0)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_little_shear_may_be_left_out_of_the_qform(tmp_path, degrees, axis, onto, whole):
    """A qform knows no shear; programs spread it over the axes, or leave one where it was."""
    sform, spacing = AFFINE.copy(), volumes.spacing_of(AFFINE)
    unit = sform[:3, onto] / spacing[onto]
    sform[:3, axis] += np.tan(np.radians(degrees)) * spacing[axis] * unit
    image = nib.Nifti1Image(np.ones((60, 50, 40), np.uint8), None)
    image.set_sform(sform, 1)
    image.set_qform(sform if whole else AFFINE, 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(volumes.load_label_map(tmp_path / "a.nii").affine, sform, rtol=1e-5)


def turned(degrees):
    turn = np.radians(degrees)
    return np.array([[np.cos(turn), -np.sin(turn), 0, 0], [np.sin(turn), np.cos(turn), 0, 0],
                     [0, 0, 1, 0], [0, 0, 0, 1.0]])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.diag([-1.0, 1, 1, 1]), "an axis is flipped"),
        (np.diag([1.0, 1, 2, 1]), "a spacing of 1.5 x 1.5 x 2 mm, and of 1.5 x 3 x 2 mm"),
        (turned(30), "turned by 30 degrees"),
        (np.diag([-1.0, -1, 1, 1]), "turned by 180 degrees"),
        (np.array([[1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "shifted by 3 mm"),
    ],
)
def test_two_forms_that_differ_are_told_apart(tmp_path, change, words):
    image = nib.Nifti1Image(heart(), None)
    image.set_sform(AFFINE, 1)
    image.set_qform(change @ AFFINE, 1)
    nib.save(image, tmp_path / "a.nii")
    line = refusal(tmp_path / "a.nii")
    assert "sform and qform differ by" in line and words in line


def test_forms_of_a_sheared_image_that_lie_apart_are_refused(tmp_path):
    """Shear explains axes that are turned a little, and no other place of the first voxel."""
    sform = AFFINE.copy()
    sform[:3, 0] += np.tan(np.radians(0.9)) * sform[:3, 1]
    moved = AFFINE.copy()
    moved[0, 3] += 0.8
    image = nib.Nifti1Image(np.ones((60, 50, 40), np.uint8), None)
    image.set_sform(sform, 1)
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "a.nii")
    assert "shifted by 0.8 mm" in refusal(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"datatype": 999}, "data code 999 not recognized"),
        ({"datatype": 0}, "data code 0 not supported"),
        ({"datatype": 1}, "not a readable NIfTI file"),
        ({"magic": b"xxx"}, "not a readable NIfTI file"),
        ({"vox_offset": 12}, "not a readable NIfTI file"),
        ({"vox_offset": np.nan}, "not a readable NIfTI file"),
        ({"vox_offset": 1e30}, "shorter than its header says"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "not a readable NIfTI file"),
        ({"dim": [3, -6, 7, 8, 1, 1, 1, 1]}, "is not one 3-D volume"),
        ({"dim": [3, 6, 0, 8, 1, 1, 1, 1]}, "is not one 3-D volume"),
        ({"dim": [3, -1, 1, 1, 1, 1, 1, 1]}, "a.nii"),
        ({"dim": [0, 6, 7, 8, 1, 1, 1, 1]}, "a.nii"),
        ({"dim": [9, 6, 7, 8, 1, 1, 1, 1]}, "a.nii"),
        ({"dim": [3, 6, 7, 9, 1, 1, 1, 1]}, "shorter than its header says: 688 bytes, not 730"),
        ({"dim": [3, 30000, 30000, 3000, 1, 1, 1, 1]}, "shorter than its header says"),
        ({"srow_x": np.inf}, "affine is not finite"),
        ({"srow_y": np.nan}, "affine is not finite"),
        ({"srow_y": 0}, "affine is singular"),
        ({"srow_y": 1e30}, "has voxels of 1e+30 mm"),
        ({"sform_code": 77, "qform_code": 0}, "neither sform nor qform"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_impossible_headers_are_refused_in_one_line(tmp_path, fields, words, suffix, capfd):
    path = write_nifti(tmp_path / f"a.nii{suffix}", **fields)
    assert words in refusal(path)
    assert words in refusal(path, volumes.load_image)
    assert capfd.readouterr() == ("", "")  # nibabel's own words would stand beside the line


def test_a_nifti2_header_of_any_size_takes_no_memory(tmp_path):
    path = write_nifti(
        tmp_path / "a.nii.gz", kind=nib.Nifti2Image, dim=[3, 2**40, 2**40, 2**40, 1, 1, 1, 1]
    )
    assert "shorter than its header says" in refusal(path)


COLOURS = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
WITH_ALPHA = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (COLOURS, "holds colours (RGB)"),
        (WITH_ALPHA, "holds colours (RGB)"),
        (np.complex64, "holds complex numbers"),
        (np.complex128, "holds complex numbers"),
    ],
)
@pytest.mark.parametrize("slope", [{}, {"scl_slope": 2}])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype, words, slope):
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), dtype), **slope)
    for reader in READERS:
        assert words in refusal(path, reader)


@pytest.mark.parametrize("value", [b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x7f\xf8\x00\x01"])
def test_any_word_of_a_header_may_be_broken(tmp_path, value):
    """The file is read, or refused in one line."""
    path = write_nifti(tmp_path / "a.nii")
    sound = path.read_bytes()
    for at in range(0, 352, 2):
        path.write_bytes(sound[:at] + value + sound[at + 4 :])
        for reader in READERS:
            try:
                reader(path)
            except InputError as error:
                (line,) = error.problems
                assert line.startswith(str(path)) and "\n" not in line


def test_big_endian_and_scaled_files_are_read_as_nibabel_reads_them(tmp_path):
    for number, (dtype, slope) in enumerate(
        [("u1", 1), (">i2", 0.01), ("<u2", 3), ("i4", 1e-3), (">f4", 2), ("f8", 1), ("i8", 1)]
    ):
        data = (np.arange(11 * 12 * 13).reshape(11, 12, 13) % 100).astype(dtype)
        image = nib.Nifti1Image(data, AFFINE, dtype=data.dtype)
        image.set_qform(AFFINE, 1)
        path = tmp_path / f"{number}.nii.gz"
        nib.save(image, path)
        content = bytearray(gzip.decompress(path.read_bytes()))
        header = np.frombuffer(content, nib.nifti1.header_dtype, count=1)[0]
        header["scl_slope"], header["scl_inter"] = slope, -7
        path.write_bytes(gzip.compress(bytes(content)))
        expected = np.asarray(nib.load(path).dataobj, np.float32)
        np.testing.assert_array_equal(volumes.load_image(path)[0], expected)
