"""Voxel samples and their batches: found by manifest, augmented exactly, dealt by cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bands import ball_band, write_cohort

from cardiform.cohort.manifest import read_manifest, write_manifest
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.geometry.narrowband import NarrowBand, voxel_keys
from cardiform.options.training import TrainingOptions
from cardiform.training.distributed import World
from cardiform.training.sampling import BudgetSampler, training_batches, validation_batches
from cardiform.vqvae.data import VoxelDataset, augmented, collate, find_instances, stored_size
from cardiform.vqvae.train import described

CPU = torch.device("cpu")


def options(**changes) -> TrainingOptions:
    return TrainingOptions(
        **{"batch_size": 8, "steps": 6, "workers": 0, "device": "cpu", **changes}
    )


def test_instances_are_found_in_order_with_their_sizes(tmp_path, caplog) -> None:
    manifest = write_cohort(tmp_path, {"b": [0.5, 0.3], "a": [0.4], "c": [0.6]})
    found = find_instances([manifest], ["a", "b", "none"])
    assert "left out, because no manifest lists them: none" in caplog.text
    assert [(i.case_id, i.name) for i in found] == [("a", "ball0"), ("b", "ball0"), ("b", "ball1")]
    for instance in found:
        assert instance.voxels == len(NarrowBand.load(instance.path).sdf)


def test_a_log_says_what_is_trained_on(tmp_path) -> None:
    manifest = write_cohort(tmp_path, {"b": [0.5, 0.3], "a": [0.4]})
    found = find_instances([manifest], ["a", "b"])
    voxels = [len(NarrowBand.load(i.path).sdf) for i in found]
    band = NarrowBand.load(found[0].path)
    sizes = f"{sum(voxels):,} voxels, {min(voxels):,} to {max(voxels):,} each"
    expected = f"3 at {band.resolution}^3 with {sizes} (ball0 2, ball1 1)"
    assert described(found) == expected
    assert described([]) == "none"


def test_filtered_and_skipped_rows_are_left_out(tmp_path) -> None:
    manifest = write_cohort(tmp_path, {"a": [0.4], "b": [0.5], "c": [0.6]})
    rows = [list(row.values()) for row in read_manifest(manifest)]
    rows[0][-1] = "filtered: 3 voxels, fewer than windows.min_points (100)"
    rows[1] = ["b", "", 0, "", "skipped: no image"]
    write_manifest(manifest, rows)
    assert [i.case_id for i in find_instances([manifest], ["a", "b", "c"])] == ["c"]


def test_every_bad_file_is_named(tmp_path) -> None:
    manifest = write_cohort(tmp_path, {"a": [0.4], "b": [0.5], "c": [0.5]})
    for name in "ab":
        (tmp_path / "sparse" / name / "ball0.npz").write_bytes(b"nothing")
    (tmp_path / "split.csv").write_text("case_id,path\na,x.npz\n")
    with pytest.raises(InputError, match=r"cannot be read.*--forcerun voxelize_labels") as caught:
        find_instances([manifest], ["a", "b", "c"])
    assert len(caught.value.problems) == 2
    (tmp_path / "sparse" / "b" / "ball0.npz").unlink()
    with pytest.raises(InputError, match=r"does not exist.*--forcerun voxelize_labels"):
        find_instances([manifest], ["a", "b", "c"])
    with pytest.raises(InputError, match="is no manifest"):
        find_instances([tmp_path / "split.csv"], ["a"])


def test_sizes_of_uncompressed_files_too(tmp_path) -> None:
    band = ball_band(0.5)
    band.save(tmp_path / "packed.npz")
    save_npz(tmp_path / "x.npz", **load_npz(tmp_path / "packed.npz"))
    assert stored_size(tmp_path / "x.npz") == (len(band.sdf), (32, 3.0))


def test_a_size_of_no_sense_is_refused(tmp_path) -> None:
    ball_band(0.5).save(tmp_path / "a.npz")
    arrays = load_npz(tmp_path / "a.npz")
    for name, value in (("sdf", np.float16(1)), ("resolution", np.zeros(3, np.int64))):
        save_npz(tmp_path / "b.npz", **(arrays | {name: value}))
        with pytest.raises(InputError, match=rf"b\.npz: is no sparse-voxel file \({name} is "):
            stored_size(tmp_path / "b.npz")


def test_a_structure_above_the_budget_is_named(tmp_path) -> None:
    instances = find_instances([write_cohort(tmp_path, {"a": [0.6]})], ["a"])
    with pytest.raises(InputError, match=r"a/ball0\.npz: has [\d,]+ voxels, more than .*\(100\)"):
        VoxelDataset(instances, 100, augment=False)


@pytest.mark.parametrize("draw", range(12))
def test_augmentation_moves_and_mirrors_and_keeps_every_value(draw: int) -> None:
    band = ball_band(0.4, center=(0.1, -0.2, 0.3))
    coords, sdf = augmented(band.coords.astype(np.int32), band.sdf, 32, np.random.default_rng(draw))
    assert coords.min() >= 0 and coords.max() < 32
    assert (np.diff(voxel_keys(coords, 32)) > 0).all()
    assert sorted(sdf.tolist()) == sorted(band.sdf.tolist())
    # still the distances of a ball: one middle explains all of them
    radius = 0.4 * 16
    distances = sdf.astype(np.float64) * 3 + radius
    middle, *_ = np.linalg.lstsq(
        np.column_stack([2.0 * coords, np.ones(len(coords))]),
        (coords.astype(np.float64) ** 2).sum(axis=1) - distances**2,
        rcond=None,
    )
    found = np.linalg.norm(coords - middle[:3], axis=1) - radius
    np.testing.assert_allclose(found, sdf.astype(np.float64) * 3, atol=0.02)


def test_augmentation_reaches_all_symmetries_of_the_cube() -> None:
    """Three voxels that no symmetry maps onto each other."""
    coords = np.array([[10, 10, 10], [10, 10, 12], [10, 14, 10], [19, 10, 10]], np.int32)
    values = np.arange(4.0)
    seen = set()
    for draw in range(600):
        moved, order = augmented(coords, values, 32, np.random.default_rng(draw))
        place = dict(zip(order.tolist(), moved))
        seen.add(tuple(tuple(place[k] - place[0.0]) for k in (1.0, 2.0, 3.0)))
    assert len(seen) == 48


def test_the_draw_decides_the_augmentation(tmp_path) -> None:
    instances = find_instances([write_cohort(tmp_path, {"a": [0.4]})], ["a"])
    dataset = VoxelDataset(instances, 10**6, augment=True, seed=1)
    one, same, other = (dataset[0, draw]["coords"] for draw in (5, 5, 6))
    assert torch.equal(one, same) and not torch.equal(one, other)
    plain = VoxelDataset(instances, 10**6, augment=False)[0, 5]["coords"]
    np.testing.assert_array_equal(plain.numpy(), NarrowBand.load(instances[0].path).coords)


def test_a_batch_keeps_its_samples_apart(tmp_path) -> None:
    instances = find_instances([write_cohort(tmp_path, {"a": [0.4, 0.2]})], ["a"])
    dataset = VoxelDataset(instances, 10**6, augment=False)
    samples = [dataset[i, i] for i in range(2)]
    batch = collate(samples)
    assert batch["case_id"] == ["a/ball0", "a/ball1"]
    for i, sample in enumerate(samples):
        rows = batch["coords"][:, 0] == i
        assert torch.equal(batch["coords"][rows][:, 1:], sample["coords"])
        assert torch.equal(batch["sdf"][rows], sample["sdf"])


def test_resolutions_are_not_mixed(tmp_path) -> None:
    first = find_instances([write_cohort(tmp_path / "x", {"a": [0.4]}, 32)], ["a"])
    second = find_instances([write_cohort(tmp_path / "y", {"b": [0.4]}, 64)], ["b"])
    with pytest.raises(InputError, match=r"32\^3 and 3 in .*a/ball0.npz, 64\^3 and 3 in"):
        VoxelDataset([*first, *second], 10**6, augment=False)


class Costly:
    """Samples of known cost."""

    def __init__(self, costs, budget: int):
        self.costs, self.budget = np.array(costs), budget

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, key):
        return {"key": key}


def sampler(costs, first=0, last=6, rank=0, size=1, budget=100, **changes) -> BudgetSampler:
    return BudgetSampler(
        np.array(costs), budget, options(**changes), World(rank, size, CPU), first, last
    )


COSTS = [5, 80, 33, 60, 12, 7, 99, 41, 28, 64, 3, 50, 18]


def test_no_batch_costs_more_than_the_budget_and_every_sample_comes_once() -> None:
    for epoch in range(5):
        batches = sampler(COSTS).epoch(epoch)
        for batch in batches:
            assert sum(COSTS[index] for index, _ in batch) <= 100 and len(batch) <= 8
        assert sorted(index for batch in batches for index, _ in batch) == list(range(13))
        draws = sorted(draw for batch in batches for _, draw in batch)
        assert draws == list(range(13 * epoch, 13 * (epoch + 1)))


def test_batches_are_full_and_those_of_a_step_cost_about_the_same() -> None:
    """Ten structures of each heart, as large as structures are beside each other."""
    shares = np.array([0.19, 0.13, 0.13, 0.14, 0.15, 0.11, 0.07, 0.025, 0.02, 0.035])
    sizes = np.exp(np.random.default_rng(0).normal(0, 0.2, (200, 10)))
    costs = np.minimum(4_200_000 * shares * sizes, 1_500_000).astype(int).ravel()
    ranks = [
        list(sampler(costs, last=300, rank=r, size=4, budget=1_500_000, batch_size=128))
        for r in range(4)
    ]
    found = np.array([[costs[[i for i, _ in batch]].sum() for batch in rank] for rank in ranks])
    assert (found.max(axis=0) / found.mean(axis=0)).mean() < 1.03, "no rank waits for another"
    assert found.mean() > 0.95 * 1_500_000


def test_epochs_differ() -> None:
    one, other = (sampler(COSTS).epoch(e) for e in (0, 1))
    assert [[i for i, _ in b] for b in one] != [[i for i, _ in b] for b in other]


def test_a_resumed_order_is_the_rest_of_the_order() -> None:
    whole = list(sampler(COSTS, accumulate=2))
    assert len(whole) == 12
    for step in range(6):
        assert list(sampler(COSTS, first=step, accumulate=2)) == whole[2 * step :]


def test_ranks_share_the_batches_of_one_rank_that_accumulates() -> None:
    alone = list(sampler(COSTS, accumulate=2))
    ranks = [list(sampler(COSTS, rank=r, size=2)) for r in (0, 1)]
    assert [batch for pair in zip(*ranks) for batch in pair] == alone


def test_batches_of_the_engine_are_those_of_the_sampler() -> None:
    dataset = Costly(COSTS, 100)
    keys = lambda samples: {"keys": [s["key"] for s in samples]}  # noqa: E731
    world = World(0, 1, CPU)
    steps = list(training_batches(dataset, options(accumulate=2), world, 1, keys))
    flat = [batch["keys"] for step in steps for batch in step]
    assert flat == list(sampler(COSTS, first=1, accumulate=2))
    shown = [b["keys"] for b in validation_batches(dataset, options(), world, keys)]
    assert [key for batch in shown for key in batch] == [(i, i) for i in range(13)]
    assert all(sum(COSTS[i] for i, _ in batch) <= 100 for batch in shown)
