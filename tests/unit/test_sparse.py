"""Sparse operators against dense ones."""

from __future__ import annotations

import importlib.util
import types

import pytest
import torch
import torch.nn.functional as F

from cardiform.errors import InputError
from cardiform.sparse import ops, spconv_backend
from cardiform.sparse.tensor import Structure

RESOLUTION = 6


def random_structure(seed: int = 0, samples: int = 3, share: float = 0.3) -> Structure:
    """Random voxels, some of them at the border, and one sample without any."""
    generator = torch.Generator().manual_seed(seed)
    grids = torch.rand(samples, *[RESOLUTION] * 3, generator=generator) < share
    grids[1] = False
    return Structure.of_samples([grid.nonzero() for grid in grids], RESOLUTION)


def dense(feats: torch.Tensor, structure: Structure) -> torch.Tensor:
    """(B, C, R, R, R) with zeros where nothing is active."""
    b, x, y, z = structure.coords.long().unbind(1)
    edge = structure.resolution
    grid = feats.new_zeros(structure.samples, edge, edge, edge, feats.shape[1])
    return grid.index_put((b, x, y, z), feats).permute(0, 4, 1, 2, 3)


def sparse(grid: torch.Tensor, structure: Structure) -> torch.Tensor:
    b, x, y, z = structure.coords.long().unbind(1)
    return grid.permute(0, 2, 3, 4, 1)[b, x, y, z]


def inputs(structure: Structure, offsets: int, cin: int = 2, cout: int = 3, rows=None):
    generator = torch.Generator().manual_seed(1)
    count = len(structure) if rows is None else rows
    feats = torch.randn(count, cin, generator=generator, dtype=torch.float64)
    weight = torch.randn(offsets, cin, cout, generator=generator, dtype=torch.float64)
    return feats.requires_grad_(), weight.requires_grad_()


def both_gradients(value: torch.Tensor, *leaves: torch.Tensor):
    factor = torch.arange(value.numel(), dtype=value.dtype).view_as(value).sin()
    return torch.autograd.grad((value * factor).sum(), leaves)


def agree(found: torch.Tensor, expected: torch.Tensor, leaves) -> None:
    torch.testing.assert_close(found, expected)
    for one, other in zip(both_gradients(found, *leaves), both_gradients(expected, *leaves)):
        torch.testing.assert_close(one, other)


def test_neighbours_are_those_that_differ_by_one_step() -> None:
    structure = random_structure()
    rows = {tuple(c): i for i, c in enumerate(structure.coords.tolist())}
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    for row, (b, x, y, z) in enumerate(structure.coords.tolist()):
        expected = [rows.get((b, x + i, y + j, z + k), len(rows)) for i, j, k in steps]
        assert structure.neighbours[row].tolist() == expected


@pytest.mark.parametrize("buffer", [1, 3000, 1 << 20])
def test_a_submanifold_convolution_is_a_dense_one_read_at_the_active_voxels(
    buffer, monkeypatch
) -> None:
    monkeypatch.setitem(ops.BUFFER_BYTES, "cpu", buffer)
    structure = random_structure()
    feats, weight = inputs(structure, 27)
    kernel = weight.view(3, 3, 3, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
    expected = sparse(F.conv3d(dense(feats, structure), kernel, padding=1), structure)
    agree(ops.submanifold_conv(feats, weight, structure), expected, (feats, weight))


def test_a_strided_convolution_is_a_dense_one_read_at_the_parents() -> None:
    structure = random_structure()
    feats, weight = inputs(structure, 8)
    kernel = weight.view(2, 2, 2, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
    halving = structure.halved
    expected = sparse(F.conv3d(dense(feats, structure), kernel, stride=2), halving.coarse)
    agree(ops.strided_conv(feats, weight, halving), expected, (feats, weight))


def test_a_transposed_convolution_is_a_dense_one_read_at_the_children() -> None:
    structure = random_structure()
    halving = structure.halved
    feats, weight = inputs(structure, 8, rows=len(halving.coarse))
    kernel = weight.view(2, 2, 2, *weight.shape[1:]).permute(3, 4, 0, 1, 2)
    grid = F.conv_transpose3d(dense(feats, halving.coarse), kernel, stride=2)
    agree(ops.transposed_conv(feats, weight, halving), sparse(grid, structure), (feats, weight))


@pytest.mark.parametrize("operator", ["submanifold", "strided", "transposed"])
def test_numerical_gradients(operator: str) -> None:
    structure = random_structure(share=0.08)
    halving = structure.halved
    rows = len(halving.coarse) if operator == "transposed" else len(structure)
    feats, weight = inputs(structure, 27 if operator == "submanifold" else 8, rows=rows)
    function, where = {
        "submanifold": (ops.submanifold_conv, structure),
        "strided": (ops.strided_conv, halving),
        "transposed": (ops.transposed_conv, halving),
    }[operator]
    assert torch.autograd.gradcheck(lambda f, w: function(f, w, where), (feats, weight))


def test_subdividing_undoes_halving() -> None:
    structure = random_structure()
    halving = structure.halved
    again = halving.coarse.subdivided(halving.occupied)
    assert torch.equal(again.coords, structure.coords)
    assert again.resolution == structure.resolution
    for name in ("parent", "children"):
        assert torch.equal(getattr(again.halved, name), getattr(halving, name))
    assert again.halved.coarse is halving.coarse


def test_samples_do_not_touch_each_other() -> None:
    """A sample alone and in a batch: the same values."""
    structure = random_structure()
    feats, weight = inputs(structure, 27)
    whole = ops.submanifold_conv(feats, weight, structure)
    for index in range(structure.samples):
        rows = structure.coords[:, 0] == index
        alone = Structure.of_samples([structure.coords[rows][:, 1:]], RESOLUTION)
        torch.testing.assert_close(ops.submanifold_conv(feats[rows], weight, alone), whole[rows])


def test_the_same_bits_every_time() -> None:
    structure = random_structure(share=0.5)
    feats, weight = (t.detach().float().requires_grad_() for t in inputs(structure, 27, 16, 16))

    def once():
        value = ops.submanifold_conv(feats, weight, structure)
        return value, *both_gradients(value, feats, weight)

    first = once()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, once()))


def test_half_precision_under_autocast() -> None:
    structure = random_structure()
    feats, weight = (t.detach().float().requires_grad_() for t in inputs(structure, 27))
    exact = ops.submanifold_conv(feats, weight, structure)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ops.submanifold_conv(feats, weight, structure)
    assert value.dtype == torch.bfloat16
    torch.testing.assert_close(value.float(), exact, rtol=0.05, atol=0.1)
    for one, other in zip(
        both_gradients(value.float(), feats, weight), both_gradients(exact, feats, weight)
    ):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.2)


def test_weight_gradients_in_half_precision_are_added_up_in_full(monkeypatch) -> None:
    """Row by row, 1 + 1 + ... stops at 256 in bfloat16."""
    monkeypatch.setitem(ops.BUFFER_BYTES, "cpu", 1)
    structure = Structure.of_samples([torch.ones(8, 8, 8).nonzero()], 8)
    feats = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.ones(27, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    ops.submanifold_conv(feats, weight, structure).sum().backward()
    assert weight.grad[13].item() == 512


def test_no_voxels_at_all() -> None:
    structure = Structure.of_samples([torch.zeros(0, 3)], RESOLUTION)
    feats, weight = inputs(structure, 27)
    assert ops.submanifold_conv(feats, weight, structure).shape == (0, 3)
    assert len(structure.halved.coarse) == 0


def test_an_odd_grid_is_not_halved() -> None:
    with pytest.raises(ValueError, match="5 voxels cannot be halved"):
        _ = Structure.of_samples([torch.zeros(1, 3)], 5).halved


def test_spconv_is_refused_on_the_cpu() -> None:
    structure = random_structure()
    feats, weight = inputs(structure, 27)
    with pytest.raises(InputError, match="wrong results on the CPU"):
        ops.submanifold_conv(feats, weight, structure, backend="spconv")


class FakeSubMConv3d(torch.nn.Module):
    """What spconv documents of its layer: weights (out, 3, 3, 3, in), a correlation like Conv3d."""

    def __init__(self, cin, cout, size, bias, indice_key):
        super().__init__()
        assert (size, bias) == (3, False)
        self.weight = torch.nn.Parameter(torch.zeros(cout, 3, 3, 3, cin))

    def forward(self, tensor):
        b, x, y, z = tensor.indices.long().unbind(1)
        grid = tensor.features.new_zeros(
            tensor.batch_size, *tensor.spatial_shape, self.weight.shape[4]
        )
        grid = grid.index_put((b, x, y, z), tensor.features).permute(0, 4, 1, 2, 3)
        kernel = self.weight.permute(0, 4, 1, 2, 3)
        tensor.features = F.conv3d(grid, kernel, padding=1).permute(0, 2, 3, 4, 1)[b, x, y, z]
        tensor.indice_dict["pairs"] = "made"
        return tensor


def fake_sparse_tensor(features, indices, spatial_shape, batch_size):
    return types.SimpleNamespace(
        features=features, indices=indices, spatial_shape=spatial_shape, batch_size=batch_size
    )


def test_weights_reach_spconv_in_its_own_layout() -> None:
    """Against a stand-in for the library: values and gradients of both backends agree."""
    library = types.ModuleType("fake_spconv")
    library.SubMConv3d, library.SparseConvTensor = FakeSubMConv3d, fake_sparse_tensor
    structure = random_structure()
    feats, weight = inputs(structure, 27)
    found = spconv_backend.convolve(library, feats, weight, structure)
    agree(found, ops.submanifold_conv(feats, weight, structure), (feats, weight))
    assert structure.__dict__["spconv_pairs"] == {"pairs": "made"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed")
def test_spconv_gives_the_same_values() -> None:
    structure = random_structure()
    here = Structure(structure.coords.cuda(), RESOLUTION, structure.samples)
    feats, weight = (
        t.detach().float().cuda().requires_grad_() for t in inputs(structure, 27, 16, 32)
    )
    ours = ops.submanifold_conv(feats, weight, here)
    theirs = ops.submanifold_conv(feats, weight, here, backend="spconv")
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), (feats, weight)),
        torch.autograd.grad(theirs.square().sum(), (feats, weight)),
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)
