"""CT windows: definitions, Hounsfield units, regions, dense volumes, the filter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ct_phantoms import chest, circular
from strategies import ORIENTATIONS, turned

from cardiform import volumes
from cardiform.cohort.checks import check_case
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.geometry.closed_band import Solid
from cardiform.geometry.ct_windows import (
    ct_region,
    region_band,
    verdict,
    volume_frame,
    volume_path,
    volume_region,
    window_case,
)
from cardiform.geometry.narrowband import NarrowBand
from cardiform.geometry.surface import signed_volume
from cardiform.geometry.window_names import CtWindow, parse_windows
from cardiform.labels import LabelTable
from cardiform.options.geometry import WindowsOptions
from cardiform.volumes import LabelMap, check_hounsfield

BONE = CtWindow("bone", 300, 1500)
OPTIONS = WindowsOptions(resolution=64, windows=("bone=300/1500",))
RADIUS_MM = 18.0


def ct(path, slope=1.0, intercept=0.0, affine=None):
    """A ball of 400 HU in air, its values stored through slope and intercept."""
    import nibabel

    affine = np.diag([-1.5, 1.5, 2.0, 1.0]) if affine is None else affine
    index = np.stack(np.indices((40, 44, 36)), axis=-1) - [20, 22, 18]
    hu = np.where(np.linalg.norm(index * [1.5, 1.5, 2.0], axis=-1) < RADIUS_MM, 400.0, -1000.0)
    image = nibabel.Nifti1Image(((hu - intercept) / slope).astype(np.int16), affine)
    image.header.set_slope_inter(slope, intercept)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)
    return path


def test_windows_by_name_level_and_width() -> None:
    windows = parse_windows(WindowsOptions().windows)
    assert list(windows) == ["lung", "bone", "soft_tissue", "brain"]
    assert (windows["lung"].low, windows["lung"].high) == (-1350, 150)
    assert windows["lung"].volume_name == "lung_w1500_l-600.npy"
    assert (windows["brain"].low, windows["brain"].high) == (-5, 75)
    assert windows["brain"].volume_name == "brain_w80_l35.npy"


def test_bad_windows_are_named_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse_windows(["bone", "lung=-600/0", "a/b=1/2", "liver=60/150", "liver=30/10"])
    with pytest.raises(InputError, match="write name=level/width"):
        parse_windows(["bone=300/" + "9" * 400])
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 4095], "no value below 0"),
        ([-1.0, 1.0], "from -1 to 1: not Hounsfield units"),
        ([-1000, 65535], "not Hounsfield units"),
        ([-1000, np.nan], "not finite"),
    ],
)
def test_what_is_not_in_hounsfield_units_is_refused(values, words) -> None:
    with pytest.raises(InputError, match=words):
        check_hounsfield("ct.nii.gz", np.array(values, np.float32))
    check_hounsfield("ct.nii.gz", np.array([-2000, -1000, 3000], np.float32))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (2.0, -1024.0)])
def test_slope_and_intercept_are_honoured(tmp_path, slope, intercept) -> None:
    region, _ = ct_region(ct(tmp_path / "ct.nii.gz", slope, intercept), BONE)
    volume = region.data.sum() * 1.5 * 1.5 * 2
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.02)


@pytest.mark.parametrize("offset", [0, 1024])
@pytest.mark.parametrize("padding", [0, -1000, -2000])
def test_a_window_judges_as_the_check_of_the_cohort_does(tmp_path, offset, padding) -> None:
    hu, labels, affine = chest()
    path, given = str(tmp_path / "ct.nii.gz"), str(tmp_path / "labels.nii.gz")
    volumes.save_image(path, circular(hu + offset, padding).astype(np.float32), affine)
    volumes.save_label_map(given, labels, affine)
    case = Case(case_id="a", patient_id="a", labels=given, image=path)
    (report,) = check_case(case, LabelTable(), tmp_path)
    at_check = [line for line in json.loads(report.read_text())["problems"] if path in line]
    at_window = []
    try:
        window_case(case, window=BONE, options=OPTIONS, out=tmp_path)
    except InputError as error:
        at_window = error.problems
    assert at_window == at_check
    assert bool(at_check) is (offset > 0)


def test_the_band_of_a_region_lies_in_the_frame_of_its_volume(tmp_path) -> None:
    path = ct(tmp_path / "ct.nii.gz")
    region, frame = ct_region(path, BONE)
    band = region_band(region, frame, OPTIONS)
    mesh = Solid.of_band(band.coords, band.sdf.astype(np.float32), 64, band.frame).surface()
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.03)
    middle = region.affine[:3, :3] @ [20, 22, 18]
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), middle, atol=0.7)
    corners = np.array([[-0.5, -0.5, -0.5], [39.5, 43.5, 35.5]]) @ region.affine[:3, :3].T
    assert np.linalg.norm(volume_frame((40, 44, 36), region.affine).to_unit(corners), axis=1) == (
        pytest.approx([0.95, 0.95])
    )


def test_a_ct_stored_in_another_order_gives_the_same_region(tmp_path) -> None:
    data, affine = volumes.load_image(ct(tmp_path / "a.nii"))
    volumes.save_image(tmp_path / "b.nii", *turned(data, affine, ORIENTATIONS[-2]))
    bands = [region_band(*ct_region(tmp_path / name, BONE), OPTIONS) for name in ("a.nii", "b.nii")]
    np.testing.assert_array_equal(bands[0].coords, bands[1].coords)
    np.testing.assert_allclose(bands[0].sdf, bands[1].sdf, atol=1e-3)


def test_an_empty_region_has_no_voxels_and_is_filtered(tmp_path) -> None:
    case = Case(case_id="a", patient_id="a", labels="", image=str(ct(tmp_path / "ct.nii.gz")))
    (path,) = window_case(case, window=CtWindow("brain", 35, 80), options=OPTIONS, out=tmp_path)
    assert path == tmp_path / "a" / "brain.npz"
    assert len(NarrowBand.load(path).sdf) == 0
    assert "0 voxels, fewer than windows.min_points (100)" in verdict(path, OPTIONS)


def test_the_filter_states_its_reason(tmp_path) -> None:
    case = Case(case_id="a", patient_id="a", labels="", image=str(ct(tmp_path / "ct.nii.gz")))
    (path,) = window_case(case, window=BONE, options=OPTIONS, out=tmp_path)
    assert verdict(path, OPTIONS) == ""
    limited = WindowsOptions(max_points=200)
    assert "more than windows.max_points (200)" in verdict(path, limited)


def test_dense_volumes_of_earlier_preprocessing(tmp_path) -> None:
    """Found recursively; the band is that of the same region with a voxel of one mm."""
    index = np.stack(np.indices((48,) * 3), axis=-1) - 24.0
    volume = np.linalg.norm(index, axis=-1) < 15
    place = tmp_path / "deep" / "down" / "case7" / "windows" / "bone_w1500_l300.npy"
    place.parent.mkdir(parents=True)
    np.save(place, volume)
    options = WindowsOptions(resolution=64, volumes=str(tmp_path))
    case = Case(case_id="case7", patient_id="case7", labels="")
    assert volume_path(case, BONE, options) == place
    (path,) = window_case(case, window=BONE, options=options, out=tmp_path / "out")
    band = NarrowBand.load(path)
    mesh = Solid.of_band(band.coords, band.sdf.astype(np.float32), 64, band.frame).surface()
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.03)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), 0.5, atol=0.1)
    with pytest.raises(InputError, match="holds 0 files"):
        volume_path(case, CtWindow("lung", -600, 1500), options)


@pytest.mark.parametrize(
    "content", [np.zeros((4, 4)), np.zeros((4, 5, 4)), np.full((4, 4, 4), 7), np.array([None])]
)
def test_other_volumes_are_refused(tmp_path, content) -> None:
    np.save(tmp_path / "x.npy", content)
    with pytest.raises(InputError, match=r"x\.npy"):
        volume_region(tmp_path / "x.npy")


def test_the_real_ct(real_data) -> None:
    """Soft tissue of a chest: most of its voxels, and a band about its whole surface."""
    window = CtWindow("soft_tissue", 50, 400)
    region, frame = ct_region(real_data / "chest_ct.nii.gz", window)
    band = region_band(region, frame, OPTIONS)
    image, _ = volumes.load_image(real_data / "chest_ct.nii.gz")
    assert region.data.mean() == pytest.approx(((image >= -150) & (image <= 250)).mean())
    solid = Solid.of_band(band.coords, band.sdf.astype(np.float32), 64, band.frame)
    where, values = solid.on_grid(region.data.shape, region.affine)
    found = np.zeros(region.data.shape, bool)
    found[where] = values < 0
    both = (found & (region.data > 0)).sum()
    assert 2 * both / (found.sum() + region.data.sum()) > 0.85


def test_an_empty_label_map_is_an_empty_region() -> None:
    empty = LabelMap(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    band = region_band(empty, volume_frame((8, 8, 8), np.eye(4)), OPTIONS)
    assert len(band.coords) == 0 and (band.coarse_sign == 1).all()


def test_an_npz_under_the_name_of_a_volume_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 4, 4)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"x\.npy: is no \.npy file"):
        volume_region(tmp_path / "x.npy")


class Trap:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_no_pickle_within_a_volume_is_run(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 2, 2), Trap(tmp_path / "sprung")), allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy: is no \.npy file"):
        volume_region(tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()
