"""The network: shapes, free-running decoding, samples that do not touch, checkpointing."""

from __future__ import annotations

import pytest
import torch

from cardiform.errors import InputError
from cardiform.options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from cardiform.sparse.layers import Block
from cardiform.sparse.tensor import SparseTensor, Structure
from cardiform.vqvae.model import SparseVQVAE, build_quantizer

SMALL = {"channels": (8, 8, 16, 16), "blocks": (1, 0, 1, 1), "latent_dim": 6}


def ball(radius: float = 0.6, resolution: int = 16, band: float = 3.0) -> tuple:
    """(V, 3) voxels and (V, 1) distances in half-bands."""
    ticks = (torch.arange(resolution) + 0.5) * 2 / resolution - 1
    grid = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1)
    sdf = (grid.norm(dim=-1) - radius) / (band * 2 / resolution)
    coords = (sdf.abs() < 1).nonzero()
    return coords, sdf[tuple(coords.T)][:, None]


def batch(*radii: float) -> SparseTensor:
    parts = [ball(r) for r in radii]
    structure = Structure.of_samples([coords for coords, _ in parts], 16)
    return SparseTensor(torch.cat([sdf for _, sdf in parts]), structure)


def network(quantizer: str | None = "codebook", **changes) -> SparseVQVAE:
    torch.manual_seed(0)
    codebook = None
    if quantizer is not None:
        codebook = VqvaeCodebookOptions(quantizer=quantizer, codebook_size=32, fsq_levels=(4, 4))
    model = SparseVQVAE.from_options(VqvaeOptions(**{**SMALL, **changes}), codebook)
    for parameter in model.parameters():  # the blocks are the identity at first
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_a_code_per_block_of_eight_voxels() -> None:
    band = batch(0.6, 0.4)
    latents = network().encode(band)
    assert latents.structure.resolution == 2
    blocks = band.structure.coords.clone()
    blocks[:, 1:] //= 8
    assert torch.equal(latents.structure.coords, blocks.unique(dim=0))
    assert latents.feats.shape == (len(latents.structure), 6)
    # LayerNorm without affine
    torch.testing.assert_close(latents.feats.mean(dim=1), torch.zeros(len(latents.feats)))


@pytest.mark.parametrize("quantizer", ["codebook", "fsq", None])
def test_decoding_on_the_true_structure(quantizer) -> None:
    band = batch(0.6, 0.4)
    decoded, _, codes = network(quantizer)(band)
    assert decoded.field.structure is band.structure
    assert decoded.field.feats.shape == band.feats.shape
    assert decoded.field.feats.abs().max() < 1
    structure = band.structure
    for logits in reversed(decoded.logits):  # fine to coarse
        structure = structure.halved.coarse
        assert logits.shape == (len(structure), 8)
    assert (codes is None) == (quantizer is None)


def test_free_running_decoding_follows_the_logits_alone() -> None:
    """With all children predicted the finest grid is full; with none it is empty."""
    model, band = network(), batch(0.6, 0.4)
    coarse, indices = model.encode_indices(band)
    for sign, voxels in ((1.0, 512 * len(coarse)), (-1.0, 0)):
        for head in model.subdivision:
            head[1].weight.data.zero_()
            head[1].bias.data.fill_(sign)
        decoded = model.decode_indices(coarse, indices)
        assert len(decoded.field.structure) == voxels


def test_free_running_equals_given_structure_where_the_prediction_is_right(monkeypatch) -> None:
    """The same codes, the same voxels: the same distances, whoever named the voxels."""
    model, band = network(), batch(0.6)
    given, latents, codes = model(band)
    occupied = []
    structure = band.structure
    for _ in range(3):
        occupied.insert(0, structure.halved.occupied)
        structure = structure.halved.coarse
    for head, truth in zip(reversed(model.subdivision), occupied):
        monkeypatch.setattr(head, "forward", lambda feats, truth=truth: truth.float() - 0.5)
    free = model.decode_indices(latents.structure, codes.indices)
    assert torch.equal(free.field.structure.coords, band.structure.coords)
    torch.testing.assert_close(free.field.feats, given.field.feats)


def test_samples_of_a_batch_do_not_touch() -> None:
    model = network()
    together, _, _ = model(batch(0.6, 0.4))
    for index, radius in enumerate((0.6, 0.4)):
        alone, _, _ = model(batch(radius))
        rows = together.field.structure.coords[:, 0] == index
        torch.testing.assert_close(together.field.feats[rows], alone.field.feats)


def test_checkpointing_runs_blocks_twice_and_changes_no_gradient(monkeypatch) -> None:
    gradients, calls = [], []
    forward = Block.forward
    monkeypatch.setattr(
        Block, "forward", lambda self, *arguments: calls.append(self) or forward(self, *arguments)
    )
    for checkpointing in (False, True):
        model = network(None, checkpointing=checkpointing).train()
        decoded, _, _ = model(batch(0.6))
        decoded.field.feats.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        assert len(calls) == (12 if checkpointing else 6)
        calls.clear()
    for one, other in zip(*gradients):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_half_precision_under_autocast() -> None:
    """The quantiser stays in fp32; the distances agree to the precision of the type."""
    band = batch(0.6)
    model = network(None).train()
    exact, _, _ = model(band)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoded, _, _ = model(band)
    torch.testing.assert_close(decoded.field.feats.float(), exact.field.feats, rtol=0, atol=0.05)
    decoded.field.feats.float().square().sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, _, codes = network()(band)
    assert codes.values.dtype == torch.float32 and codes.commitment.dtype == torch.float32


def test_every_level_needs_a_number() -> None:
    with pytest.raises(InputError, match="need 4 numbers each"):
        SparseVQVAE(None, channels=(8, 8), blocks=(1, 1))


def test_defaults_are_full_size() -> None:
    quantizer = build_quantizer(VqvaeCodebookOptions(), VqvaeOptions().latent_dim)
    assert quantizer.codebook.shape == (8192, 32)
    assert build_quantizer(VqvaeCodebookOptions(quantizer="fsq"), 32).size == 8000
