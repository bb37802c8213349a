"""Training samples of thin structures: patches that are corrupted again, and NeAR's points."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from thin import CARDIFORM, NEAR, REPAIR, cohort_of, structure
from tubes import SPACING, tube

from cardiform.anatomy.centreline import Centreline
from cardiform.coronary.data import (
    Cells,
    NearDataset,
    PatchDataset,
    collate_patches,
    find_repaired,
    strengths,
    unit_points,
    wall_band,
)
from cardiform.coronary.thin_structure import Outline, PackedMask, ThinStructure
from cardiform.coronary.train import near_job, repaired_files
from cardiform.errors import InputError
from cardiform.geometry.distances import distance_to, signed_distance
from cardiform.labels import LabelTable


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return cohort_of(tmp_path_factory.mktemp("thin"))


@pytest.fixture(scope="module")
def patches(files):
    return PatchDataset(files, REPAIR, CARDIFORM)


def asymmetric(tmp_path, radius=1.2):
    """A vessel that lies along no diagonal of a box with unequal axes."""
    mask = tube((90, 40, 26), (6, 5, 9), (38, 16, 4), radius)
    affine = np.diag([SPACING] * 3 + [1.0])
    path = tmp_path / "tree.npz"
    ThinStructure(mask, mask, mask, affine).save(path)
    return mask, path


def test_a_structure_comes_back_as_it_was(tmp_path):
    thin = structure(1)
    thin.save(tmp_path / "a.npz")
    again = ThinStructure.load(tmp_path / "a.npz")
    for name in ("label", "repaired", "supported", "affine"):
        np.testing.assert_array_equal(getattr(again, name), getattr(thin, name))
    assert again.spacing == SPACING
    packed = PackedMask.load(tmp_path / "a.npz", "repaired")
    np.testing.assert_array_equal(packed.mask(), thin.repaired)
    assert packed.spacing == SPACING and packed.bits.nbytes <= thin.repaired.size / 8 + 1
    line = Centreline.of(thin.repaired, SPACING).index
    np.testing.assert_array_equal(packed.line, line)
    np.savez(tmp_path / "b.npz", label=thin.label)
    with pytest.raises(InputError, match=r"b\.npz: is no repaired-structure file.*repair_coronary"):
        ThinStructure.load(tmp_path / "b.npz")


def test_a_structure_says_which_class_it_is_of(tmp_path):
    thin = structure(0)
    thin.save(tmp_path / "early.npz")  # as files of before, which do not say
    assert ThinStructure.load(tmp_path / "early.npz").structure == ""
    assert "structure" not in np.load(tmp_path / "early.npz").files
    dataclasses.replace(thin, structure="coronary").save(tmp_path / "a.npz")
    assert ThinStructure.load(tmp_path / "a.npz").structure == "coronary"
    assert Outline.load(tmp_path / "a.npz", "label") == Outline("coronary", False, False)
    content = dict(np.load(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **{**content, "structure": np.zeros(3)})
    for reader in (ThinStructure.load, lambda path: Outline.load(path, "label")):
        with pytest.raises(InputError, match=r"b\.npz: is no repaired-structure file .*structure"):
            reader(tmp_path / "b.npz")


def cohort_of_classes(folder, *names):
    """Files of structures of some classes, and the arguments of ``repaired_files``."""
    files = cohort_of(folder, len(names))
    for file, name in zip(files, names):
        dataclasses.replace(structure(0), structure=name).save(file.path)
    rows = [f"{file.case_id},{file.case_id},x" for file in files]
    for part, lines in (("train", rows[:1]), ("val", rows[1:])):
        (folder / f"{part}.csv").write_text("\n".join(["case_id,patient_id,path", *lines]) + "\n")
    return [folder / "manifest.tsv"], folder / "train.csv", folder / "val.csv"


def test_a_training_is_of_one_class(tmp_path):
    places = cohort_of_classes(tmp_path, "vein", "", "vein")
    assert [len(f) for f in repaired_files(*places).values()] == [1, 2]
    assert len(repaired_files(*places, structure="vein")["train"]) == 1
    with pytest.raises(InputError, match=r"c0\.npz: is of vein, not of coronary; set .*structure"):
        repaired_files(*places, structure="coronary")
    job = near_job(NEAR, repaired_files(*places), LabelTable())
    assert job.extra == {"structure": "vein"}
    places = cohort_of_classes(tmp_path, "", "vein", "coronary")
    with pytest.raises(InputError, match=r"c2\.npz: is of coronary, not of vein"):
        repaired_files(*places)
    assert near_job(NEAR, {"train": cohort_of(tmp_path, 1)}, LabelTable()).extra == {}


def test_cases_of_which_nothing_is_left_are_not_trained_on(tmp_path, caplog):
    places = cohort_of_classes(tmp_path, "", "")
    thin = structure(0)
    nothing = np.zeros_like(thin.label)
    dataclasses.replace(thin, repaired=nothing).save(tmp_path / "c1.npz")
    assert [len(f) for f in repaired_files(*places).values()] == [1, 0]
    assert "validation: left out, nothing is left of the repaired structure: c1" in caplog.text
    assert [len(f) for f in repaired_files(*places, mask="label").values()] == [1, 1]
    dataclasses.replace(thin, repaired=nothing).save(tmp_path / "c0.npz")
    with pytest.raises(InputError, match=r"train\.csv: has no case that can be trained on \(noth"):
        repaired_files(*places)


def test_only_the_wanted_cases_and_those_that_have_the_structure(files, tmp_path):
    rows = (files[0].path.parent / "manifest.tsv").read_text().splitlines()
    (tmp_path / "m.tsv").write_text("\n".join([*rows, "c9\tc9.json\t1\tabc\tok"]) + "\n")
    found = find_repaired([tmp_path / "m.tsv"], ["c2", "c9", "c0"])
    assert [f.case_id for f in found] == ["c2", "c0"]


def test_a_patch_depends_on_its_draw_alone(patches):
    first, again, other = patches[1, 7], patches[1, 7], patches[1, 8]
    for name in ("coords", "inputs", "points", "values"):
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["points"], other["points"])


def test_validation_patches_are_others_and_stay_the_same(files):
    held = PatchDataset(files, REPAIR, CARDIFORM, patches=2, augment=False)
    assert len(held) == 6
    assert held[4, 4]["case_id"] == "c1"
    assert torch.equal(held[4, 4]["points"], held[4, 4]["points"])
    assert not torch.equal(held[1, 1]["points"], held[4, 4]["points"])
    rng = np.random.default_rng(0)
    assert strengths(CARDIFORM, rng, False) == {
        "jagged": 0.75, "breaks": 1.0, "blobs": 1.0, "speckle": 1.0
    }  # fmt: skip
    drawn = [strengths(CARDIFORM, rng, True)["breaks"] for _ in range(200)]
    assert 0 <= min(drawn) < 0.2 and 1.8 < max(drawn) <= 2.0


def test_the_target_is_the_label_before_it_was_corrupted_again(patches):
    sample = patches[0, 3]
    inputs, values = sample["inputs"], sample["values"]
    assert inputs.shape[1] == Cells.channels(CARDIFORM) == 7
    assert inputs.abs().max() <= 1 and values.abs().max() <= 1
    assert torch.equal(inputs[:, -1], inputs[:, 3]), "what the network adds to"
    quiet = dataclasses.replace(CARDIFORM, strength=0.0)
    plain = PatchDataset(patches.files, REPAIR, quiet)[0, 3]
    cells = plain["coords"].numpy()
    nearest = {tuple(c): i for i, c in enumerate(cells)}
    rows = [nearest[tuple(p)] for p in np.rint(plain["points"].numpy()).astype(int)]
    found = plain["inputs"][rows, 0].numpy()
    assert np.corrcoef(found, plain["values"].numpy())[0, 1] > 0.95


def test_query_points_lie_in_cells_and_half_of_them_at_the_wall(patches):
    sample = patches[2, 5]
    cells = {tuple(c) for c in sample["coords"].tolist()}
    assert all(tuple(c) in cells for c in np.rint(sample["points"].numpy()).astype(int).tolist())
    near = (sample["values"].abs() * CARDIFORM.truncation_mm <= 2.5 * SPACING).float().mean()
    assert near >= 0.5


def test_patches_follow_the_centreline_however_thin(tmp_path):
    """A thin and a wide vessel of one length are met equally often."""
    shape = (120, 120, 30)
    thin, wide = (
        tube(shape, (4, y, 7), (56, y, 7), radius) for y, radius in ((12, 0.7), (48, 2.5))
    )
    affine = np.diag([SPACING] * 3 + [1.0])
    ThinStructure(thin | wide, thin | wide, thin, affine).save(tmp_path / "c0.npz")
    files = [dataclasses.replace(cohort_of(tmp_path, 1)[0], path=tmp_path / "pair.npz")]
    ThinStructure(thin | wide, thin | wide, thin, affine).save(tmp_path / "pair.npz")
    line = PatchDataset(files, REPAIR, CARDIFORM).cases[0].line
    share = (line[:, 1] * SPACING < 30).mean()
    assert 0.4 < share < 0.6 and thin.sum() < 0.15 * wide.sum()


def test_other_grids_than_the_model_will_name_are_refused(files, tmp_path):
    thin = structure(0)
    coarse = thin.affine.copy()
    coarse[:3, :3] *= 2
    ThinStructure(thin.label, thin.repaired, thin.supported, coarse).save(tmp_path / "x.npz")
    other = dataclasses.replace(files[0], path=tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"x\.npz: lies on a grid of 1 mm, .* \(1 of 2 files\)"):
        PatchDataset([files[0], other], REPAIR, CARDIFORM)
    with pytest.raises(InputError, match=r"spacing_mm is 0\.5 .*; set coronary_repair\.spacing_mm"):
        PatchDataset([other], REPAIR, CARDIFORM)
    rounded = dataclasses.replace(REPAIR, spacing_mm=SPACING * (1 + 1e-6))
    assert len(PatchDataset(files, rounded, CARDIFORM)) == len(files)


def test_a_batch_numbers_its_samples(patches):
    batch = collate_patches([patches[0, 1], patches[1, 2]])
    assert batch["case_id"] == ["c0", "c1"] and batch["samples"] == 2
    assert batch["coords"].shape[1] == batch["points"].shape[1] == 4
    assert batch["points"][:, 0].unique().tolist() == [0, 1]
    assert len(batch["inputs"]) == len(batch["coords"])


def test_the_band_lies_about_the_vessel_on_unequal_axes(tmp_path):
    """Transposed coordinates would put most of its points elsewhere."""
    mask, path = asymmetric(tmp_path)
    options = dataclasses.replace(NEAR, band=(1.0,), points=2000)
    data = NearDataset([dataclasses.replace(cohort_of(tmp_path, 1)[0], path=path)], options)
    sample = data[0, 0]
    shape = np.array(mask.shape)
    voxels = (sample["points"].numpy() + 1) / 2 * (shape - 1)
    nearest = np.clip(np.rint(voxels).astype(int), 0, shape - 1)
    away = distance_to(mask, 1.0)[tuple(nearest.T)]
    assert (away <= options.band_voxels + 1).mean() > 0.99
    assert 0.15 < sample["occupied"].mean() < 0.6
    np.testing.assert_array_equal(mask[tuple(nearest.T)][away == 0], True)


def test_the_band_is_a_dilation_minus_an_erosion():
    mask = tube((60, 30, 30), (6, 7, 7), (24, 7, 7), 2.5)
    band = wall_band(mask, 2)
    inside = mask[tuple(band.T)]
    assert 0.2 < inside.mean() < 0.8
    assert distance_to(mask, 1.0)[tuple(band.T)].max() <= 2
    assert distance_to(~mask, 1.0)[tuple(band.T)].max() <= 2
    assert mask.sum() > inside.sum(), "the core is not in the band"


def test_shared_structures_give_the_same_samples(files, patches, tmp_path):
    near = NearDataset(files, NEAR)
    for _ in range(2):  # made, and found
        shared = PatchDataset(files, REPAIR, CARDIFORM, shared=tmp_path / "a")
        others = NearDataset(files, NEAR, shared=tmp_path / "b")
        for key in ((0, 3), (2, 5)):
            for one, other in ((patches[key], shared[key]), (near[key], others[key])):
                assert all(torch.equal(one[n], other[n]) for n in one if torch.is_tensor(one[n]))
    assert len(list((tmp_path / "a").iterdir())) == len(files)
    wider = NearDataset(files, dataclasses.replace(NEAR, band_voxels=4), shared=tmp_path / "b")
    assert len(wider.kept[0]["band"]) > len(near.kept[0]["band"])


def test_the_share_of_band_points_falls_over_the_training(files):
    data = NearDataset(files, NEAR)
    assert [data.band_share(step) for step in (0, 1, 2, 3, 4, 5, 9)] == [
        0.5, 0.5, 0.3, 0.3, 0.1, 0.1, 0.1
    ]  # fmt: skip
    uniform = NearDataset(files, NEAR, uniform=True)
    early, late = data[0, 0]["occupied"].mean(), uniform[0, 0]["occupied"].mean()
    assert late < 0.1 < early
    assert torch.equal(uniform[0, 0]["points"], uniform[0, 0]["points"])


def test_unit_points_end_at_the_middles_of_the_border_voxels():
    points = np.array([[0, 0, 0], [9, 4, 6], [4.5, 2, 3]], np.float32)
    found = unit_points(points, (10, 5, 7))
    np.testing.assert_allclose(found, [[-1, -1, -1], [1, 1, 1], [0, 0, 0]], atol=1e-6)


def test_a_part_of_a_packed_mask_is_that_of_the_whole():
    rng = np.random.default_rng(3)
    mask = rng.random((7, 5, 9)) < 0.4  # planes that do not begin at a byte
    packed = PackedMask(np.packbits(mask), mask.shape, 0.6, np.zeros((0, 3), np.int16))

    for _ in range(50):
        low = rng.integers(0, mask.shape)
        high = rng.integers(low, mask.shape) + 1
        part = tuple(map(slice, low, high))
        np.testing.assert_array_equal(packed.part(low, high), mask[part])
    assert packed.part(np.zeros(3, int), np.zeros(3, int)).shape == (0, 0, 0)


def test_inputs_of_cells_are_smoothed_distances_of_the_whole_grid():
    rng = np.random.default_rng(1)
    label = np.zeros((24, 62, 50), bool)
    label[:, 29:33, 28:32] = True  # a vessel through all of the first axis
    label &= rng.random(label.shape) < 0.8
    repaired = label.copy()
    repaired[5:15, 30:32, 29:31] = True
    cells = Cells.of(label, repaired, SPACING, CARDIFORM)

    limit = CARDIFORM.truncation_mm
    raw = [
        np.clip(signed_distance(m, SPACING, 100.0), -limit, limit) / limit
        for m in (label, repaired)
    ]
    channels = raw + [
        ndimage.gaussian_filter(values, scale / SPACING, truncate=3.0, mode="nearest")
        for scale in CARDIFORM.scales_mm
        for values in raw
    ]
    expected = np.stack([*channels, channels[3]])[(slice(None), *cells.coords.T)].T
    near = ndimage.distance_transform_edt(~(label | repaired), sampling=(SPACING,) * 3)
    np.testing.assert_array_equal(cells.coords, np.argwhere(near <= CARDIFORM.reach_mm))
    np.testing.assert_allclose(cells.inputs, expected, atol=1e-6)


def test_there_are_no_cells_of_nothing():
    cells = Cells.of(np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool), SPACING, CARDIFORM)
    assert cells.coords.shape == (0, 3) and cells.inputs.shape == (0, Cells.channels(CARDIFORM))
