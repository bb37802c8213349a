"""Procedural hearts: anatomy, truth, scans, noise, images and point clouds."""

from __future__ import annotations

import cc3d
import h5py
import numpy as np
import pytest
from scipy import ndimage
from true_distances import signed_distances

from cardiform.anatomy.corruption import KINDS, corrupt
from cardiform.geometry.frame import apply_affine
from cardiform.labels import LabelTable
from cardiform.phantom import draw_phantom
from cardiform.phantom.imaging import HU, ct_volume, point_cloud, write_point_cloud
from cardiform.phantom.scans import ODDITIES, draw_scan
from cardiform.volumes import spacing_of

TABLE = LabelTable()
SPACING = 2.0
# ml, diastole, healthy to moderately diseased adults
VOLUMES = {
    "myocardium": (70, 260),
    "left_atrium": (40, 150),
    "left_ventricle": (80, 220),
    "right_atrium": (50, 190),
    "right_ventricle": (90, 270),
    "coronary": (3, 25),
}


def image_of(heart, spacing=SPACING):
    low, high = heart.bounds()
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low - 4
    shape = tuple(np.ceil((high - low + 8) / spacing).astype(int))
    return heart.label_map(shape, affine), affine


@pytest.fixture(scope="module")
def hearts():
    return {seed: draw_phantom(seed, least_vessel_radius=SPACING) for seed in (0, 1, 2)}


@pytest.fixture(scope="module")
def images(hearts):
    return {seed: image_of(heart) for seed, heart in hearts.items()}


def test_ten_structures_of_plausible_size(images):
    for data, _ in images.values():
        assert set(np.unique(data)) == {0, *TABLE.values}
        for label in TABLE:
            if label.name in VOLUMES:
                low, high = VOLUMES[label.name]
                assert low < (data == label.value).sum() * SPACING**3 / 1000 < high, label.name


def test_each_structure_has_its_parts(images):
    for data, _ in images.values():
        for label in TABLE:
            parts = cc3d.connected_components(data == label.value, connectivity=26)
            sizes = np.bincount(parts.ravel())[1:]
            # slivers that a coarse grid cuts off do not count
            found = (sizes > 0.02 * sizes.sum()).sum()
            # four veins may reach the atrium one by one
            most = 4 if label.name == "pulmonary_veins" else label.components
            assert label.components <= found <= most, label.name


def test_the_label_map_is_the_sign_of_the_truth(hearts, images):
    rng = np.random.default_rng(0)
    for seed, (data, affine) in images.items():
        index = rng.integers(0, data.shape, size=(20_000, 3))
        truth = signed_distances(hearts[seed], apply_affine(affine, index.astype(float)))
        inside = np.where(truth.min(1) < 0, np.array(TABLE.values)[truth.argmin(1)], 0)
        clear = np.abs(truth).min(axis=1) > 0.3
        np.testing.assert_array_equal(inside[clear], data[tuple(index[clear].T)])
        assert ((truth < 0).sum(axis=1) <= 1).all(), "classes do not overlap"


def test_distances_grow_by_one_near_the_surfaces(hearts):
    heart = hearts[0]
    low, high = heart.bounds()
    points = np.random.default_rng(0).uniform(low, high, (60_000, 3))
    truth = signed_distances(heart, points)
    for channel in range(10):
        near = points[np.abs(truth[:, channel]) < 1.0]
        ends = [
            signed_distances(heart, near + 0.05 * step)[:, channel]
            for axis in np.eye(3)
            for step in (axis, -axis)
        ]
        slope = np.linalg.norm([(a - b) / 0.1 for a, b in zip(ends[::2], ends[1::2])], axis=0)
        assert np.median(slope) == pytest.approx(1, abs=0.03)


def test_a_seed_is_a_heart(hearts):
    same, other = draw_phantom(1), draw_phantom(2)
    points = np.random.default_rng(0).uniform(-40, 40, (500, 3))
    np.testing.assert_array_equal(
        signed_distances(same, points), signed_distances(draw_phantom(1), points)
    )
    assert np.abs(signed_distances(same, points) - signed_distances(other, points)).mean() > 1
    lacking = draw_phantom(1, missing=("left_atrial_appendage",))
    assert 8 not in np.unique(image_of(lacking, 4.0)[0])


def test_the_odd_scans_are_odd():
    found = {number: draw_scan(number, 4.0, seed=0) for number in range(16)}
    for number, (data, affine) in found.items():
        odd = ODDITIES.get(number)
        border = np.ones(data.shape, bool)
        border[1:-1, 1:-1, 1:-1] = False
        assert (data[border] > 0).any() == bool(odd and odd.cut_mm), number
        diagonal = np.abs(affine[:3, :3]) / spacing_of(affine)
        axes_swapped = not np.allclose(np.diag(diagonal), 1, atol=0.2)
        assert axes_swapped == bool(odd and odd.order != (0, 1, 2)), number
        off_axis = not np.allclose(np.sort(diagonal, axis=None)[:6], 0, atol=1e-6)
        assert off_axis == bool(odd and odd.oblique), number
        assert (np.ptp(spacing_of(affine)) > 0.1) == bool(odd and odd.thick), number
        assert (affine[0, 0] < 0) == bool(odd and 0 in odd.flips), number
        missing = set(TABLE.values) - set(np.unique(data))
        assert missing == ({8} if odd and odd.missing else set()), number


@pytest.fixture(scope="module")
def vessels():
    heart = draw_phantom(3)
    low, high = heart.bounds()
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    affine[:3, 3] = low
    shape = tuple(np.ceil((high - low) / 0.8).astype(int))
    mask = heart.label_map(shape, affine) == 9
    box = tuple(slice(max(i.min() - 5, 0), i.max() + 6) for i in np.nonzero(mask))
    return mask[box]


def parts_of(mask):
    return cc3d.connected_components(mask, connectivity=26).max()


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_of_noise_does_its_own_harm(vessels, kind):
    rng = np.random.default_rng(0)
    spacing = np.full(3, 0.8)
    noisy = corrupt(vessels, spacing, {kind: 1.0}, rng)
    lost, added = (vessels & ~noisy).sum(), (noisy & ~vessels).sum()
    dice = 2 * (vessels & noisy).sum() / (vessels.sum() + noisy.sum())
    assert 0.5 < dice < 0.999
    both = ("jagged", "slabs", "coarse")
    assert (lost > 0) == (kind in ("missing_ends", "breaks", *both))
    assert (added > 0) == (kind in ("blobs", "speckle", "dilation", *both))
    if kind in ("breaks", "speckle"):
        many = corrupt(vessels, spacing, {kind: 3.0}, np.random.default_rng(0))
        assert parts_of(many) > parts_of(noisy) > parts_of(vessels)
        assert parts_of(many) > parts_of(vessels) + 4
    again = corrupt(vessels, spacing, {kind: 1.0}, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy, again)
    stronger = corrupt(vessels, spacing, {kind: 2.0}, np.random.default_rng(0))
    assert (stronger != vessels).sum() > (noisy != vessels).sum()


@pytest.mark.parametrize("seed", range(4))
def test_what_a_slab_moves_out_does_not_come_back(seed):
    """A vessel near one side of the box: nothing appears at the other."""
    mask = np.zeros((40, 40, 40), bool)
    mask[1:4, :, 1:4] = mask[:, 1:4, 1:4] = True
    noisy = corrupt(mask, np.full(3, 0.5), {"slabs": 30.0}, np.random.default_rng(seed))
    moved = np.argwhere(noisy & ~mask)
    away = ndimage.distance_transform_edt(~mask)
    assert away[tuple(moved.T)].max(initial=0) * 0.5 <= 8.0
    assert noisy.sum() <= mask.sum()


def test_no_kind_of_noise_knows_the_other_side_of_the_box():
    """A vessel along one side, corrupted in a box and in a larger one: far from it is nothing."""
    mask = np.zeros((48, 48, 48), bool)
    mask[:, 0:3, 0:3] = True
    for kind in ("jagged", "dilation", "missing_ends", "breaks", "blobs", "slabs", "coarse"):
        noisy = corrupt(mask, np.full(3, 0.5), {kind: 2.0}, np.random.default_rng(1))
        assert not noisy[:, 24:].any() and not noisy[:, :, 24:].any(), kind


def test_no_strength_no_noise_and_unknown_kinds_are_refused(vessels):
    rng = np.random.default_rng(0)
    spacing = np.full(3, 0.8)
    np.testing.assert_array_equal(corrupt(vessels, spacing, {"breaks": 0.0}, rng), vessels)
    assert corrupt(vessels, spacing, {"dilation": -1.0}, rng).sum() < vessels.sum()
    with pytest.raises(ValueError, match="no such kind of noise: rust"):
        corrupt(vessels, spacing, {"rust": 1.0}, rng)


def test_the_volume_looks_like_contrast_ct(images):
    data, affine = images[0]
    volume = ct_volume(data, spacing_of(affine), np.random.default_rng(0))
    assert volume.dtype == np.int16 and volume.shape == data.shape
    for value in (1, 3, 5, 6):
        core = cc3d.largest_k(data == value, k=1) > 0
        assert np.median(volume[core]) == pytest.approx(HU[value], abs=60)
    assert volume[data == 0].min() < -700 and volume.min() >= -1024


def test_point_clouds_lie_in_their_structures(tmp_path, images):
    data, affine = images[1]
    points, labels = point_cloud(data, affine, 3000, np.random.default_rng(0))
    index = np.rint(apply_affine(np.linalg.inv(affine), points.astype(float))).astype(int)
    index = np.clip(index, 0, np.array(data.shape) - 1)
    assert (data[tuple(index.T)] == labels).mean() > 0.999  # but for rounding at voxel faces
    for name in ("a.h5", "b.h5"):
        write_point_cloud(tmp_path / name, points, labels)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as archive:
        np.testing.assert_array_equal(archive["points"], points)
        np.testing.assert_array_equal(archive["labels"], labels)
