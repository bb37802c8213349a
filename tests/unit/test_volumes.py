"""NIfTI label maps: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cardiform import volumes
from cardiform.errors import InputError
from cardiform.volumes import extent, files

AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


def volume(dtype=np.uint8):
    data = np.zeros((5, 6, 7), dtype)
    data[1:3, 2:5, 1:6] = 3
    return data


def noise():
    return np.random.default_rng(0).integers(0, 9, (40, 40, 40), np.uint8)


def write(path, data, affine=AFFINE, sform=1, qform=1, slope=None):
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_label_types(tmp_path, dtype, suffix):
    labels = volumes.load_label_map(write(tmp_path / f"a{suffix}", volume(dtype)))
    assert labels.data.dtype == np.uint8 and (labels.data == volume()).all()
    assert np.allclose(labels.spacing, [0.5, 0.5, 2.0]) and np.allclose(labels.affine, AFFINE)


def test_one_trailing_volume_is_squeezed(tmp_path):
    labels = volumes.load_label_map(write(tmp_path / "a.nii.gz", volume()[..., None]))
    assert labels.data.shape == (5, 6, 7)


def test_scaled_labels_are_read_through_the_slope(tmp_path):
    path = tmp_path / "a.nii"
    write(path, (volume() // 3).astype(np.int16))
    image = nib.load(path)
    raw = bytearray(path.read_bytes())
    slope = np.frombuffer(np.float32(3).tobytes(), np.uint8)
    raw[112:116] = bytes(slope)  # scl_slope
    path.write_bytes(bytes(raw))
    del image
    assert (volumes.load_label_map(path).data == volume()).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (volume(np.float32) * 0.5, "values are not integers"),
        (np.full((4, 4, 4), np.nan, np.float32), "not finite"),
        (volume(np.int16) * -1, "values run from -3 to 0"),
        (volume(np.int16) * 100, "values run from 0 to 300"),
        (np.zeros((4, 4), np.uint8), "not one 3-D volume"),
        (np.zeros((4, 4, 4, 2), np.uint8), "4x4x4x2 is not one 3-D volume"),
    ],
)
def test_bad_values(tmp_path, data, words):
    with pytest.raises(InputError, match=words) as caught:
        volumes.load_label_map(write(tmp_path / "case.nii.gz", data))
    assert str(caught.value).startswith(str(tmp_path / "case.nii.gz")) and "; " in str(caught.value)


def test_truncated_and_foreign_files(tmp_path):
    path = write(
        tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (40, 40, 40), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="cannot be read to its end"):
        volumes.load_label_map(path)
    plain = write(tmp_path / "b.nii", volume())
    plain.write_bytes(plain.read_bytes()[:-10])
    with pytest.raises(InputError, match="cannot be read to its end"):
        volumes.load_label_map(plain)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(b"no image"))
    (tmp_path / "d.nii").write_bytes(b"")
    for name in ("c.nii.gz", "d.nii"):
        with pytest.raises(InputError, match="not a readable NIfTI file"):
            volumes.load_label_map(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        volumes.load_label_map(tmp_path / "none.nii.gz")


def test_flipped_byte_in_a_gzip_is_found(tmp_path):
    path = write(
        tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (30, 30, 30), np.uint8)
    )
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError):
        volumes.load_label_map(path)


def test_bad_affines(tmp_path):
    singular = AFFINE.copy()
    singular[:, 1] = singular[:, 0]
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.1
    infinite = AFFINE.copy()
    infinite[0, 3] = np.nan
    for affine, words in (
        (singular, "affine is singular"), (sheared, "axes are sheared"), (infinite, "not finite")
    ):  # fmt: skip
        image = nib.Nifti1Image(volume(), None)
        image.set_sform(affine, 1)
        image.set_qform(None, 0)
        nib.save(image, tmp_path / "a.nii")
        with pytest.raises(InputError, match=words):
            volumes.load_label_map(tmp_path / "a.nii")


def test_unknown_place_and_differing_forms(tmp_path):
    with pytest.raises(InputError, match="neither sform nor qform"):
        volumes.load_label_map(write(tmp_path / "a.nii", volume(), sform=0, qform=0))
    image = nib.Nifti1Image(volume(), AFFINE)
    image.set_sform(AFFINE, 1)
    moved = AFFINE.copy()
    moved[0, 3] = 3
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(InputError, match="sform and qform differ by 6 voxels"):
        volumes.load_label_map(tmp_path / "b.nii")


def test_saved_label_maps_are_the_same_bytes_and_read_back(tmp_path):
    affine = AFFINE @ np.array([[0, -1, 0, 3], [1, 0, 0, -4], [0, 0, -1, 5], [0, 0, 0, 1.0]])
    for name in ("a.nii.gz", "b.nii.gz"):
        volumes.save_label_map(tmp_path / name, volume(), affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    labels = volumes.load_label_map(tmp_path / "a.nii.gz")
    assert (labels.data == volume()).all() and np.allclose(labels.affine, affine)


def test_images_keep_their_units(tmp_path):
    hounsfield = volume(np.int16) * 100 - 1000
    volumes.save_image(tmp_path / "ct.nii.gz", hounsfield, AFFINE)
    data, affine = volumes.load_image(tmp_path / "ct.nii.gz")
    assert data.dtype == np.float32 and (data == hounsfield).all() and np.allclose(affine, AFFINE)
    assert volumes.image_grid(tmp_path / "ct.nii.gz")[0] == (5, 6, 7)


def test_turns_by_almost_180_degrees_are_no_contradiction(tmp_path):
    """A qform knows them less exactly than a sform: a third of a voxel on a long image."""
    from scipy.spatial.transform import Rotation

    worst = 0.0
    for angle in np.linspace(179.95, 179.999, 12):
        affine = np.eye(4)
        turn = Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0.64, 0.48]))
        affine[:3, :3] = turn.as_matrix() * [1, 1, 4]
        path = write(tmp_path / "a.nii", np.ones((300, 10, 20), np.uint8), affine)
        header = nib.load(path).header
        worst = max(worst, np.abs((header.get_sform() - header.get_qform())[:3, :3]).max() * 300)
        assert np.allclose(volumes.load_label_map(path).affine, affine, atol=1e-5)
    assert worst > 0.01  # the case is a real one


def test_an_image_far_from_its_origin(tmp_path):
    affine = AFFINE.copy()
    affine[0, 3] = 1e7
    with pytest.raises(InputError, match=r"lies 1e\+07 mm from the origin"):
        volumes.load_label_map(write(tmp_path / "a.nii", volume(), affine))


def test_changed_bytes_of_a_compressed_file_are_noticed(tmp_path):
    """nibabel alone reads most of them as other labels."""
    data = (np.random.default_rng(0).random((40, 40, 40)) > 0.97).astype(np.uint8)
    path = tmp_path / "a.nii.gz"
    volumes.save_label_map(path, data, np.eye(4))
    sound = path.read_bytes()
    for place in np.linspace(400, len(sound) - 1, 40).astype(int):
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.nii\.gz: cannot be read to its end"):
            volumes.load_label_map(path)


def test_a_format_is_one_entry_and_the_others_go_to_nibabel(tmp_path, monkeypatch):
    class Plain:
        def __init__(self, path):
            self.data = np.load(path)
            self.shape = self.data.shape

        def values(self):
            return self.data

        def affine(self):
            return AFFINE

    def save(path, data, affine):
        with open(path, "wb") as stream:
            np.save(stream, data)

    monkeypatch.setitem(files.FORMATS, ".npy", files.VolumeFormat(Plain, save, save))
    path = tmp_path / "A.NPY"
    volumes.save_label_map(path, volume(np.int16), AFFINE)
    assert (volumes.load_label_map(path).data == volume()).all()
    assert volumes.load_image(path)[0].dtype == np.float32
    shape, affine = volumes.image_grid(path)
    assert shape == (5, 6, 7) and (affine == AFFINE).all()
    volumes.save_like(path, volume() // 3, path)
    assert volumes.load_label_map(path).data.max() == 1
    nib.save(nib.MGHImage(volume(np.int32), AFFINE), tmp_path / "a.mgz")
    assert (volumes.load_label_map(tmp_path / "a.mgz").data == volume()).all()
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image")
    with pytest.raises(InputError, match="not a readable NIfTI file"):
        volumes.load_label_map(tmp_path / "a.mha")


def test_what_is_written_on_a_slightly_sheared_grid_is_read_again(tmp_path):
    """A qform cannot hold the shear: with one, the file would be refused for its two places."""
    affine = np.eye(4)
    affine[0, 2] = np.sin(np.radians(0.9))
    path = tmp_path / "labels.nii"
    volumes.save_label_map(path, np.ones((2, 2, 40), np.uint8), affine)
    np.testing.assert_allclose(volumes.load_label_map(path).affine, affine, atol=1e-6)
    assert nib.load(path).header["qform_code"] == 0
    volumes.save_label_map(path, np.ones((2, 2, 40), np.uint8), np.eye(4))
    assert nib.load(path).header["qform_code"] == 1


@pytest.mark.parametrize("order", ["F", "C", "slice"])
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.4])
def test_boxes_of_classes_are_those_of_scipy_in_any_order_of_memory(monkeypatch, order, density):
    rng = np.random.default_rng(3)
    data = rng.integers(1, 256, (21, 17, 30)).astype(np.uint8)
    data[rng.random(data.shape) >= density] = 0
    data[3:9, 4:6, 20:] = 7  # runs that end with their rows
    data = np.asfortranarray(data) if order == "F" else data
    data = data[1:-2, :, ::3] if order == "slice" else data
    wanted = {v: box for v, box in enumerate(ndimage.find_objects(data), 1) if box is not None}
    assert extent.class_boxes(data) == wanted
    monkeypatch.setattr(extent, "SLAB_VOXELS", 1000)  # two layers at a time, then one
    assert extent.class_boxes(data) == wanted
