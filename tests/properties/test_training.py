"""Which sample comes when, and operators on sparse voxels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiform.options.training import TrainingOptions
from cardiform.sparse import ops
from cardiform.sparse.tensor import Structure
from cardiform.training.distributed import World
from cardiform.training.sampling import BudgetSampler, StepSampler, filled
from cardiform.vecset.inputs import farthest_points


def world(rank: int, size: int) -> World:
    return World(rank=rank, size=size, device=torch.device("cpu"))


plans = st.fixed_dictionaries({
    "size": st.integers(1, 30), "ranks": st.sampled_from([1, 2, 4]),
    "accumulate": st.sampled_from([1, 3]), "share": st.integers(1, 4),
    "seed": st.integers(0, 2**32 - 1), "start": st.integers(0, 6),
})  # fmt: skip


def options_of(plan) -> TrainingOptions:
    batch = plan["ranks"] * plan["accumulate"] * plan["share"]
    return TrainingOptions(batch_size=batch, accumulate=plan["accumulate"], seed=plan["seed"])


def by_step(samplers, steps: int, accumulate: int) -> list[list[tuple[int, int]]]:
    """The keys of each step, of all ranks together."""
    per_rank = [list(sampler) for sampler in samplers]
    assert {len(batches) for batches in per_rank} == {steps * accumulate}
    return [
        [
            key
            for batches in per_rank
            for batch in batches[step * accumulate : (step + 1) * accumulate]
            for key in batch
        ]
        for step in range(steps)
    ]


@given(plans)
def test_every_sample_comes_once_per_epoch_on_any_number_of_ranks(plan):
    options, size = options_of(plan), plan["size"]
    steps = -(-3 * size // options.batch_size)  # three epochs
    ranks = [
        StepSampler(size, options, world(r, plan["ranks"]), 0, steps) for r in range(plan["ranks"])
    ]
    dealt = by_step(ranks, steps, plan["accumulate"])
    keys = sorted((draw, index) for step in dealt for index, draw in step)
    assert [draw for draw, _ in keys] == list(range(steps * options.batch_size))
    for epoch in range(3):
        seen = [index for draw, index in keys if draw // size == epoch]
        assert sorted(seen) == list(range(size))
    # one rank, no accumulation: the same samples in every step
    whole = TrainingOptions(batch_size=options.batch_size, seed=plan["seed"])
    alone = by_step([StepSampler(size, whole, world(0, 1), 0, steps)], steps, 1)
    assert [sorted(step) for step in dealt] == [sorted(step) for step in alone]


@given(plans)
def test_a_resumed_order_is_the_rest_of_the_uninterrupted_one(plan):
    options, size, ranks = options_of(plan), plan["size"], plan["ranks"]
    costs = np.random.default_rng(plan["seed"]).integers(1, 9, size)
    start, steps = plan["start"], plan["start"] + 4
    for rank in range(ranks):
        span = (options, world(rank, ranks))
        whole = list(StepSampler(size, *span, 0, steps))
        assert list(StepSampler(size, *span, start, steps)) == whole[start * plan["accumulate"] :]
        whole = list(BudgetSampler(costs, 12, *span, 0, steps))
        rest = list(BudgetSampler(costs, 12, *span, start, steps))
        assert rest == whole[start * plan["accumulate"] :]


@given(plans, st.integers(8, 30))
def test_batches_of_unequal_samples_keep_the_budget_and_leave_none_out(plan, budget):
    options, size, ranks = options_of(plan), plan["size"], plan["ranks"]
    costs = np.random.default_rng(plan["seed"]).integers(1, 9, size)
    first = BudgetSampler(costs, budget, options, world(0, ranks), 0, 1)
    for epoch in (0, 2):
        batches = first.epoch(epoch)
        keys = sorted((draw, index) for batch in batches for index, draw in batch)
        assert [draw for draw, _ in keys] == list(range(epoch * size, (epoch + 1) * size))
        assert sorted(index for _, index in keys) == list(range(size))
        for batch in batches:
            assert len(batch) <= plan["share"]
            assert sum(costs[index] for index, _ in batch) <= budget
    # dealt out in turn: all ranks together have the batches of the steps, in their order
    dealt = [
        list(BudgetSampler(costs, budget, options, world(rank, ranks), 0, 5))
        for rank in range(ranks)
    ]
    together = [batch for group in zip(*dealt) for batch in group]
    steps = list(itertools.islice(first.dealt(), 5))
    assert together == [batch for step in steps for batch in step]
    # all batches of an epoch come, but fewer than a step needs, which come with the next one
    epoch, count = first.epoch(0), plan["accumulate"] * ranks
    whole = len(epoch) // count
    seen = [b for step in itertools.islice(first.dealt(), whole) for b in step]
    assert len(seen) == whole * count and all(batch in epoch for batch in seen)


@given(plans.filter(lambda plan: plan["size"] > 12))
def test_another_seed_is_another_order(plan):
    one, other = (
        list(StepSampler(plan["size"], options_of({**plan, "seed": seed}), world(0, 1), 0, 20))
        for seed in (plan["seed"], plan["seed"] + 1)
    )
    assert one != other


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(20, 50), st.integers(1, 6))
def test_filling_keeps_the_order_and_never_leaves_room_for_the_next(costs, budget, most):
    batches = filled(range(len(costs)), np.array(costs, int), budget, most)
    assert [index for batch in batches for index in batch] == list(range(len(costs)))
    spent = [sum(costs[index] for index in batch) for batch in batches]
    assert all(total <= budget for total in spent)
    for k in range(len(batches) - 1):
        assert len(batches[k]) == most or spent[k] + costs[batches[k + 1][0]] > budget


@given(st.integers(1, 60), st.integers(1, 3), st.integers(0, 2**32 - 1), st.data())
def test_farthest_points_are_farther_apart_than_any_point_from_them(number, kinds, seed, data):
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(number, 3)).astype(np.float32)
    classes = rng.integers(0, kinds, number)
    points = np.concatenate([place, np.eye(kinds, dtype=np.float32)[classes]], axis=1)
    count = data.draw(st.integers(1, number))
    rows = farthest_points(points, count)
    assert len(set(rows.tolist())) == len(rows) == count
    np.testing.assert_array_equal(rows, farthest_points(points, count))
    for kind in np.unique(classes):
        chosen = place[rows[classes[rows] == kind]]
        members = place[classes == kind]
        assert abs(len(chosen) - count * len(members) / number) <= 1.001, "a share of its own"
        if len(chosen) < 2:
            continue
        apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)
        apart = apart[~np.eye(len(chosen), dtype=bool)].min()
        left = np.linalg.norm(members[:, None] - chosen[None], axis=2).min(axis=1).max()
        assert apart >= left - 1e-5


@st.composite
def structures(draw, even: bool = False) -> Structure:
    """Any voxels of up to three samples; a sample may have none."""
    resolution = draw(st.sampled_from([2, 4, 6] if even else [1, 2, 3, 5]))
    samples = draw(st.integers(1, 3))
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    grids = torch.from_numpy(np.random.default_rng(seed).random((samples, *[resolution] * 3)))
    return Structure.of_samples([(grid < share).nonzero() for grid in grids], resolution)


def rows_of(structure: Structure, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(structure))
    return torch.randn(len(structure), channels, generator=generator, dtype=torch.float64)


def dense(feats: torch.Tensor, structure: Structure) -> torch.Tensor:
    b, x, y, z = structure.coords.long().unbind(1)
    grid = feats.new_zeros(structure.samples, *[structure.resolution] * 3, feats.shape[1])
    return grid.index_put((b, x, y, z), feats).permute(0, 4, 1, 2, 3)


def at(grid: torch.Tensor, structure: Structure) -> torch.Tensor:
    b, x, y, z = structure.coords.long().unbind(1)
    return grid.permute(0, 2, 3, 4, 1)[b, x, y, z]


@given(structures())
def test_keys_number_the_voxels_in_order_and_give_them_back(structure):
    keys, edge = structure.keys, structure.resolution + 2
    assert (keys[1:] > keys[:-1]).all()
    axes = [keys // edge**3, keys // edge**2 % edge, keys // edge % edge, keys % edge]
    coords = torch.stack(axes, 1) - torch.tensor([0, 1, 1, 1])
    assert torch.equal(coords, structure.coords.long())


@given(structures(even=True))
def test_halving_covers_all_voxels_and_subdividing_brings_them_back(structure):
    halving = structure.halved
    coarse = halving.coarse
    parents = structure.coords.clone()
    parents[:, 1:] //= 2
    assert torch.equal(coarse.coords[halving.parent], parents)
    assert torch.equal(coarse.coords, torch.unique(parents, dim=0).view(-1, 4))
    assert int(halving.occupied.sum()) == len(structure)
    fine = coarse.subdivided(halving.occupied)
    rows = {tuple(row) for row in fine.coords.tolist()}
    assert rows == {tuple(row) for row in structure.coords.tolist()}
    assert fine.resolution == structure.resolution


@pytest.mark.parametrize("buffer", [1, 4 << 20])
@settings(max_examples=20)
@given(structure=structures())
def test_a_sparse_convolution_is_the_dense_one_on_any_structure(buffer, structure):
    feats, weight = rows_of(structure, 2), torch.randn(27, 2, 3, dtype=torch.float64)
    before = ops.BUFFER_BYTES["cpu"]
    ops.BUFFER_BYTES["cpu"] = buffer
    try:
        found = ops.submanifold_conv(feats, weight, structure)
    finally:
        ops.BUFFER_BYTES["cpu"] = before
    kernel = weight.view(3, 3, 3, 2, 3).permute(4, 3, 0, 1, 2)
    expected = at(F.conv3d(dense(feats, structure), kernel, padding=1), structure)
    torch.testing.assert_close(found, expected)


@settings(max_examples=20)
@given(structures(even=True))
def test_convolutions_between_resolutions_are_the_dense_ones_on_any_structure(structure):
    halving = structure.halved
    feats, weight = rows_of(structure, 2), torch.randn(8, 2, 3, dtype=torch.float64)
    kernel = weight.view(2, 2, 2, 2, 3)
    down = F.conv3d(dense(feats, structure), kernel.permute(4, 3, 0, 1, 2), stride=2)
    torch.testing.assert_close(ops.strided_conv(feats, weight, halving), at(down, halving.coarse))
    coarse = rows_of(halving.coarse, 2)
    up = F.conv_transpose3d(dense(coarse, halving.coarse), kernel.permute(3, 4, 0, 1, 2), stride=2)
    torch.testing.assert_close(ops.transposed_conv(coarse, weight, halving), at(up, structure))
