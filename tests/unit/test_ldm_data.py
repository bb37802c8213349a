"""Hearts and latents as training samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hearts import FIELD_GRID, GRID, heart

from cardiform.cohort.manifest import MadeFile
from cardiform.errors import InputError
from cardiform.files import save_npz
from cardiform.ldm.data import (
    LatentDataset,
    ShapeDataset,
    load_shape,
    moved,
    resampled,
    to_channels,
    to_values,
    warped,
)
from cardiform.options.ldm import AutoencoderOptions
from cardiform.volumes import save_image, save_label_map

STILL = AutoencoderOptions(augment_rotation_deg=0.0, augment_scale=0.0, augment_shift=0.0)


def ball(size=24, radius=7.0, shift=0.0):
    index = np.indices((size,) * 3) - (size - 1) / 2
    index[0] -= shift
    distance = np.linalg.norm(index, axis=0)
    return torch.from_numpy((distance < radius).astype(np.uint8) + (distance < radius / 2))


def test_values_and_channels(tmp_path):
    values = to_values(heart(), GRID)
    assert (to_channels(values, GRID) == heart()).all()
    assert set(np.unique(values)) == {0, *GRID.table.values}
    with pytest.raises(InputError, match=r"x\.nii\.gz: has the labels 9"):
        to_channels(np.array([0, 9], np.uint8), GRID, "x.nii.gz")
    save_label_map(tmp_path / "a.nii.gz", values, np.eye(4))
    assert (load_shape(tmp_path / "a.nii.gz", GRID).numpy() == heart()).all()
    save_label_map(tmp_path / "b.nii.gz", values[:5], np.eye(4))
    with pytest.raises(InputError, match=r"b\.nii\.gz.*8 voxels along each edge"):
        load_shape(tmp_path / "b.nii.gz", GRID)
    save_image(tmp_path / "c.nii.gz", np.float32(heart() / 3), np.eye(4))
    assert load_shape(tmp_path / "c.nii.gz", FIELD_GRID).dtype == torch.float32


def test_no_augmentation_changes_nothing_and_the_draw_decides_it(tmp_path):
    given = ball()
    assert torch.equal(moved(given, STILL, np.random.default_rng(0)), given)
    ranges = AutoencoderOptions()
    first = moved(given, ranges, np.random.default_rng(1))
    assert torch.equal(first, moved(given, ranges, np.random.default_rng(1)))
    assert not torch.equal(first, moved(given, ranges, np.random.default_rng(2)))
    path = tmp_path / "a.nii.gz"
    save_label_map(path, to_values(heart(), GRID), np.eye(4))
    data = ShapeDataset([MadeFile("a", path, "")], GRID, ranges=ranges)
    assert torch.equal(data[0, 7]["target"], data[0, 7]["target"])
    assert any(not torch.equal(data[0, 7]["target"], data[0, d]["target"]) for d in range(5))
    plain = ShapeDataset([MadeFile("a", path, "")], GRID, ranges=None, cache_rate=0.0)
    assert (plain[0, 3]["target"].numpy() == heart()).all() and plain[0, 3]["case_id"] == "a"
    place = {"ranges": ranges, "shared": tmp_path / "shared"}
    shared = ShapeDataset([MadeFile("a", path, "")], GRID, **place)
    assert torch.equal(data[0, 7]["target"], shared[0, 7]["target"])
    path.unlink()
    again = ShapeDataset([MadeFile("a", path, "")], GRID, **place)
    assert torch.equal(data[0, 7]["target"], again[0, 7]["target"])


def test_ranges_do_what_they_say():
    given = ball(shift=3.0)
    volume = int((given > 0).sum())
    rng = np.random.default_rng(0)
    larger = AutoencoderOptions(augment_rotation_deg=0.0, augment_scale=0.3, augment_shift=0.0)
    sizes = [int((moved(given, larger, rng) > 0).sum()) / volume for _ in range(20)]
    assert min(sizes) < 0.85 and max(sizes) > 1.15
    assert min(sizes) > 1.3**-3 * 0.9 and max(sizes) < 1.3**3 * 1.1
    shifts = AutoencoderOptions(augment_rotation_deg=0.0, augment_scale=0.0, augment_shift=0.1)
    for _ in range(10):
        out = moved(given, shifts, rng)
        assert int((out > 0).sum()) == pytest.approx(volume, rel=0.1)
        way = np.argwhere(out.numpy()).mean(0) - np.argwhere(given.numpy()).mean(0)
        assert np.abs(way).max() < 0.1 * 24 + 0.5
    turns = AutoencoderOptions(augment_rotation_deg=30.0, augment_scale=0.0, augment_shift=0.0)
    reach = []
    for _ in range(10):
        out = moved(given, turns, rng).numpy()
        assert (out > 0).sum() == pytest.approx(volume, rel=0.1)
        reach.append(np.argwhere(out).mean(0) - 11.5)
    assert np.allclose(np.linalg.norm(reach, axis=1), 3.0, atol=0.4)
    assert np.min(reach, axis=0)[0] > 2.0, "no mirror"


def test_warps_are_smooth_and_bounded():
    given = ball()
    rng = np.random.default_rng(0)
    assert torch.equal(warped(given, 0.0, rng), given)
    out = warped(given, 3.0, rng)
    assert not torch.equal(out, given) and set(out.unique().tolist()) == {0, 1, 2}
    assert 0.5 < float((out > 0).sum() / (given > 0).sum()) < 2
    field = warped(given.float(), 3.0, np.random.default_rng(4))
    assert field.dtype == torch.float32 and 1.5 < field.max() < 2.001
    assert torch.equal(
        resampled(torch.zeros(4, 4, 4, dtype=torch.uint8), torch.eye(3, 4)[None]),
        torch.zeros(4, 4, 4, dtype=torch.uint8),
    )


def test_latents_with_and_without_variants(tmp_path):
    arrays = {
        "mu": np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1, 1),
        "sigma": np.ones((3, 1, 1, 1, 1), np.float16),
        "target": np.zeros((3, 8, 8, 8), np.uint8),
        "volumes": np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        "format_version": np.int64(1),
    }
    save_npz(tmp_path / "a.npz", compressed=True, **arrays)
    files = [MadeFile("a", tmp_path / "a.npz", "")]
    plain = LatentDataset(files, varied=False)
    assert [float(plain[0, d]["mu"]) for d in range(4)] == [0.0] * 4
    varied = LatentDataset(files, varied=True)
    drawn = [float(varied[0, d]["mu"]) for d in range(30)]
    assert set(drawn) == {0.0, 1.0, 2.0}
    assert drawn == [float(varied[0, d]["mu"]) for d in range(30)]
    assert varied[0, 0]["sigma"].dtype == torch.float32
    for some in (plain, varied, LatentDataset(files, varied=True, cache_rate=0)):
        assert some.volumes().tolist() == [1.0, 2.0], "of the heart as it is"
    (tmp_path / "b.npz").write_bytes(b"no")
    with pytest.raises(
        InputError, match=r"b\.npz: cannot be read \(no npz.* --forcerun encode_latents"
    ):
        LatentDataset([MadeFile("b", tmp_path / "b.npz", "")], varied=False)


def test_thin_vessels_keep_their_volume_and_no_gap_opens():
    given = torch.zeros(24, 24, 24, dtype=torch.uint8)
    given[4:20, 5, 5] = 1  # a voxel wide, alone
    given[4:20, 12, 11:16] = 2  # a wall
    given[4:20, 13:18, 11:16] = 3  # a body that touches it
    turns = AutoencoderOptions(augment_rotation_deg=15.0, augment_scale=0.0, augment_shift=0.0)
    rng = np.random.default_rng(0)
    made = [moved(given, turns, rng) for _ in range(12)]
    for channel in (1, 2, 3):
        ratios = [float((m == channel).sum() / (given == channel).sum()) for m in made]
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.04), channel
    whole = (given > 1).to(torch.uint8)
    rng = np.random.default_rng(0)
    for parts in made:
        together = moved(whole, turns, rng)
        lost = (together > 0) & (parts < 2)
        assert int(lost.sum()) <= 0.02 * int((together > 0).sum()), "no gap between wall and body"
