"""The fields of thin structures: pointwise, whatever is asked along; and their trainings."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from thin import CARDIFORM, NEAR, REPAIR, cohort_of

from cardiform.coronary.data import Cells, NearDataset, PatchDataset, collate_patches
from cardiform.coronary.model import (
    CellField,
    NearDecoder,
    build_cell_field,
    even_resolution,
    interpolated,
    structure_of,
)
from cardiform.coronary.task import DenoiserTask, NearAutoDecoderTask, dice, near_loss
from cardiform.sparse.tensor import SparseTensor, Structure


def randomised(module, std=0.2):
    """No weight stays zero: a head that starts at nothing would hide mistakes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return cohort_of(tmp_path_factory.mktemp("thin"))


@pytest.fixture(scope="module")
def batch(files):
    data = PatchDataset(files, REPAIR, CARDIFORM)
    return collate_patches([data[0, 0], data[1, 1]])


@torch.no_grad()
def test_a_cell_field_does_not_know_what_else_is_asked(batch):
    model = randomised(build_cell_field(CARDIFORM))
    latent = model.encode(SparseTensor(batch["inputs"], structure_of(batch)))
    points = batch["points"].repeat(40, 1)
    whole = model.field(latent, points)
    parts = torch.cat([model.field(latent, part) for part in points.split(333)])
    one = model.field(latent, points[17:18])
    shuffled = torch.randperm(len(points))
    assert whole.std() > 0.05
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(one, whole[17:18], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.field(latent, points[shuffled]), whole[shuffled], atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_a_case_does_not_know_its_batch(batch, files):
    model = randomised(build_cell_field(CARDIFORM))
    alone = collate_patches([PatchDataset(files, REPAIR, CARDIFORM)[1, 1]])
    together = model.encode(SparseTensor(batch["inputs"], structure_of(batch))).feats
    single = model.encode(SparseTensor(alone["inputs"], structure_of(alone))).feats
    torch.testing.assert_close(together[-len(single) :], single, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_near_decoder_does_not_know_what_else_is_asked():
    model = randomised(NearDecoder(8, -4.6), std=0.3)
    grids = model.grids(torch.randn(1, 8))
    assert [tuple(g.shape[1:]) for g in grids] == [
        (64, 4, 4, 4), (48, 8, 8, 8), (32, 16, 16, 16), (16, 32, 32, 32)
    ]  # fmt: skip
    points = torch.rand(1, 9000, 3) * 2 - 1
    whole = model.field(grids, points)
    parts = torch.cat([model.field(grids, part) for part in points.split(1024, dim=1)], dim=1)
    assert whole.std() > 0.01
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_the_near_decoder_has_the_documented_size():
    model = NearDecoder(256, -4.6)
    points = sum(p.numel() for n, p in model.named_parameters() if n.startswith(("early", "late")))
    documented = 171_265  # with the affine norms that are left out here
    norms = 2 * (256 + 256 + 128 + 64)
    assert points == documented - norms
    assert model.late[-1].bias.item() == pytest.approx(-4.6)


@torch.no_grad()
def test_points_read_the_grid_in_their_own_order():
    """The first coordinate runs along the first axis of the grid."""
    model = NearDecoder(8, 0.0)
    seen = []
    model.early.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ramps = [torch.zeros(1, c, n, n, n) for c, n in zip((64, 48, 32, 16), (4, 8, 16, 32))]
    ticks = torch.linspace(-1, 1, 32)
    ramps[3][0, 0], ramps[3][0, 1] = ticks[:, None, None], ticks[None, :, None]
    ramps[3][0, 2] = ticks
    points = torch.rand(1, 50, 3) * 2 - 1
    model.field(ramps, points)
    torch.testing.assert_close(seen[0][..., 3 + 64 + 48 + 32 :][..., :3], points, atol=1e-5, rtol=0)


def test_interpolation_is_trilinear_and_nothing_counts_as_zero():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((9, 9, 9)).astype(np.float32)
    coords = np.argwhere(np.ones_like(dense, bool))
    structure = Structure.of_samples([torch.from_numpy(coords)], 16)
    cells = SparseTensor(torch.from_numpy(dense[tuple(coords.T)])[:, None], structure)
    points = rng.uniform(-2, 10, (200, 3)).astype(np.float32)
    found = interpolated(cells, torch.nn.functional.pad(torch.from_numpy(points), (1, 0)))
    expected = map_coordinates(np.pad(dense, 3), (points + 3).T, order=1)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)


@torch.no_grad()
def test_an_untrained_field_is_the_smoothed_repair(batch):
    model = build_cell_field(CARDIFORM)
    latent = model.encode(SparseTensor(batch["inputs"], structure_of(batch)))
    coords = batch["coords"].float()
    torch.testing.assert_close(
        model.field(latent, coords), batch["inputs"][:, -1], atol=1e-5, rtol=0
    )


def test_every_weight_of_the_network_is_trained(batch):
    task = DenoiserTask(CARDIFORM)
    randomised(task.module)
    loss, figures = task.loss(batch, "model", 0)
    loss.backward()
    idle = [n for n, p in task.module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle and 0 <= figures["dice_points"] <= 1


def test_a_batch_without_query_points_moves_nothing(batch):
    """Empty patches alone, or patches behind a cut: a loss of NaN would end the training."""
    no_points = {**batch, "points": batch["points"][:0], "values": batch["values"][:0]}
    empty = {**no_points, "coords": batch["coords"][:0], "inputs": batch["inputs"][:0]}
    for some in (no_points, empty):
        task = DenoiserTask(CARDIFORM)
        some.pop("structure", None)  # of the other coordinates
        loss, figures = task.loss(some, "model", 0)
        loss.backward()
        assert loss.item() == 0 and figures["dice_points"] == 1
        found = [p.grad for p in task.module.parameters()]
        assert not any(g is None or g.any() for g in found), "several processes wait for all"


def test_a_network_of_other_depth():
    deep = dataclasses.replace(CARDIFORM, channels=(8, 16, 16), blocks=(0, 1, 2))
    model = build_cell_field(deep)
    assert isinstance(model, CellField) and len(model.down) == 2


def test_evaluation_starts_from_the_repair(files):
    data = PatchDataset(files, REPAIR, CARDIFORM, patches=2, augment=False)
    task = DenoiserTask(CARDIFORM)
    batches = [collate_patches([data[i, i]]) for i in range(len(data))]
    figures = task.evaluate(batches)
    assert figures["dice_points"] == pytest.approx(figures["dice_start"])
    assert figures["loss"] > 0
    torch.nn.init.constant_(task.module.head[-1].bias, 3.0)  # nothing is inside now
    assert task.evaluate(batches)["dice_points"] == 0


def test_near_trains_the_vectors_of_its_batch_alone(files):
    task = NearAutoDecoderTask(NEAR, len(files))
    data = NearDataset(files, NEAR)
    found = torch.utils.data.default_collate([data[0, 0], data[2, 1]])
    loss, _ = task.loss(found, "model", 0)
    loss.backward()
    moved = task.module.latents.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [True, False, True]
    assert set(task.evaluate([found])) == {"loss", "dice_label"}


def test_the_near_loss_is_dice_and_focal():
    options = dataclasses.replace(NEAR, weight_dice=0.7, weight_focal=0.3)
    occupied = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    logits = torch.tensor([[2.0, -1.0, 0.5, -0.5]])
    chance = 1 / (1 + np.exp(-logits.numpy()[0]))
    truth = occupied.numpy()[0]
    overlap = 2 * (chance * truth).sum() / (chance.sum() + truth.sum())
    right = np.where(truth > 0, chance, 1 - chance)
    focal = (0.25 * (1 - right) ** 4 * -np.log(right)).mean()
    expected = 0.7 * (1 - overlap) + 0.3 * focal
    assert near_loss(logits, occupied, options).item() == pytest.approx(expected, rel=1e-4)


def test_dice_of_nothing_is_perfect():
    nothing = torch.zeros(4, dtype=torch.bool)
    assert dice(nothing, nothing) == 1 and dice(~nothing, nothing) == 0


def test_the_grid_can_be_halved():
    for most in (0, 15, 16, 200, 255, 256):
        coords = torch.tensor([[0, 0, most, 0]])
        resolution = even_resolution(coords)
        assert resolution > most and resolution % 16 == 0 and resolution <= max(32, 2 * most)
    assert Cells.channels(dataclasses.replace(CARDIFORM, scales_mm=(1.0,))) == 5
