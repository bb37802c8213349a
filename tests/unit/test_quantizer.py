"""Quantisers: nearest codes, inverse indices, k-means, moving means, revival, figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tensor_cores import TensorCores

from cardiform.vqvae.quantizer import (
    CodebookQuantizer,
    FiniteScalarQuantizer,
    kmeans,
    nearest,
    statistics,
    usage_figures,
)


def clusters(count: int = 8, each: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(centres, latents): tight clouds that no method may confuse."""
    generator = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(count, 4, generator=generator)
    noise = 0.05 * torch.randn(count, each, 4, generator=generator)
    return centres, (centres[:, None] + noise).reshape(-1, 4)


def test_nearest_is_the_nearest(monkeypatch) -> None:
    monkeypatch.setattr("cardiform.vqvae.quantizer.ROWS_AT_A_TIME", 7)
    latents, codes = torch.randn(40, 5), torch.randn(9, 5)
    assert torch.equal(nearest(latents, codes), torch.cdist(latents, codes).argmin(dim=1))
    assert nearest(latents[:0], codes).shape == (0,)


def test_nearest_is_the_nearest_where_a_gpu_rounds_products(monkeypatch) -> None:
    latents = 10 + torch.rand(500, 4, generator=torch.Generator().manual_seed(0))
    codes, wanted = latents[::5], torch.cdist(latents.double(), latents[::5].double()).argmin(1)
    torch.set_float32_matmul_precision("high")
    try:
        with TensorCores():
            rounded = (latents @ codes.T - codes.square().sum(1) / 2).argmax(1)
            found = nearest(latents, codes)
        assert torch.get_float32_matmul_precision() == "high", "of all that comes after"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (rounded != wanted).float().mean() > 0.2, "the products are rounded"
    assert (found != wanted).float().mean() < 0.01


@pytest.mark.parametrize(
    "quantizer", [CodebookQuantizer(32, 6), FiniteScalarQuantizer((4, 3, 5), 6)], ids=["vq", "fsq"]
)
def test_indices_and_codes_are_inverse(quantizer) -> None:
    torch.manual_seed(0)
    if isinstance(quantizer, FiniteScalarQuantizer):
        # a right inverse, so that every code is reached
        quantizer.outward.weight.data = torch.linalg.pinv(quantizer.inward.weight.data)
        quantizer.outward.bias.data = -quantizer.outward.weight @ quantizer.inward.bias
        quantizer.outward.weight.data *= 3  # away from the middle of the sigmoid
    latents = torch.randn(50, 6)
    indices = quantizer.encode_indices(latents)
    assert indices.min() >= 0 and indices.max() < quantizer.size
    quantized = quantizer(latents)
    assert torch.equal(quantized.indices, indices)
    torch.testing.assert_close(quantizer.decode_indices(indices), quantized.values)
    if isinstance(quantizer, CodebookQuantizer):
        everything = torch.arange(quantizer.size)
        assert torch.equal(
            quantizer.encode_indices(quantizer.decode_indices(everything)), everything
        )


def test_finite_scalar_codes_are_numbered_without_gaps() -> None:
    quantizer = FiniteScalarQuantizer((4, 3, 5), 6)
    everything = torch.arange(60)
    places = everything[:, None] // quantizer.strides % quantizer.levels
    assert torch.equal(quantizer._numbers(places.float()), everything)
    assert len(np.unique(quantizer.decode_indices(everything).detach().numpy(), axis=0)) == 60


def test_the_gradient_passes_straight_through() -> None:
    quantizer = CodebookQuantizer(8, 3)
    latents = torch.randn(5, 3, requires_grad=True)
    factor = torch.randn(5, 3)
    (quantizer(latents).values * factor).sum().backward()
    torch.testing.assert_close(latents.grad, factor)
    assert quantizer.codebook.grad is None


@pytest.mark.parametrize("learned_by", ["ema", "gradient"])
def test_what_moves_whom(learned_by: str) -> None:
    quantizer = CodebookQuantizer(8, 3, learned_by)
    latents = torch.randn(5, 3, requires_grad=True)
    quantized = quantizer(latents)
    assert quantized.vq.requires_grad == (learned_by == "gradient")
    quantized.commitment.backward()
    codes = quantizer.decode_indices(quantized.indices).detach()
    torch.testing.assert_close(latents.grad, 2 * (latents.detach() - codes) / latents.numel())
    assert quantizer.codebook.grad is None
    if learned_by == "gradient":
        quantized.vq.backward()
        assert quantizer.codebook.grad is not None


def test_kmeans_ends_where_every_code_is_the_mean_of_its_latents() -> None:
    _, latents = clusters()
    codes, counts = kmeans(latents, 8, 50, torch.Generator().manual_seed(3))
    found, sums = statistics(latents, nearest(latents, codes), 8)
    assert torch.equal(found, counts) and counts.min() > 0
    torch.testing.assert_close(sums / counts[:, None], codes, rtol=0, atol=0.1)
    again, _ = kmeans(latents, 8, 50, torch.Generator().manual_seed(3))
    assert torch.equal(codes, again)


def test_kmeans_leaves_no_code_without_latents() -> None:
    """Nearly all latents are the same: most of the first codes are doubles of each other."""
    latents = torch.zeros(200, 4)
    latents[:7] = 10 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    codes, counts = kmeans(latents, 8, 20, torch.Generator().manual_seed(1))
    assert sorted(counts.tolist()) == [1] * 7 + [193]
    assert torch.cdist(latents, codes).min(dim=1).values.max() < 0.05


def test_kmeans_refuses_fewer_latents_than_codes() -> None:
    with pytest.raises(ValueError, match="3 latents for 8 codes"):
        kmeans(torch.randn(3, 4), 8, 5, torch.Generator())


def test_statistics_are_counts_and_sums() -> None:
    latents, indices = torch.randn(100, 3), torch.randint(0, 7, (100,))
    counts, sums = statistics(latents, indices, 9)
    assert counts.tolist() == [(indices == i).sum().item() for i in range(9)]
    for i in range(9):
        torch.testing.assert_close(sums[i], latents[indices == i].sum(dim=0))


def test_codes_follow_their_latents() -> None:
    """Clouds that moved a little: the codes are there after some hundred steps."""
    centres, latents = clusters()
    quantizer = CodebookQuantizer(8, 4)
    quantizer.start(centres, torch.full((8,), 50))
    moved = latents + 0.5
    for _ in range(400):
        counts, sums = statistics(moved, quantizer.encode_indices(moved), 8)
        assert quantizer.follow(counts, sums, moved, revive_below=0.05) == 0
    assert torch.cdist(centres + 0.5, quantizer.codebook).min(dim=1).values.max() < 0.05
    torch.testing.assert_close(quantizer.counts, torch.ones(8), rtol=0, atol=1e-4)


def test_one_step_of_the_moving_mean() -> None:
    quantizer = CodebookQuantizer(2, 1, decay=0.9)
    quantizer.start(torch.tensor([[0.0], [10.0]]), torch.tensor([5, 5]))
    # all four latents go to the first code; 2 / 4 scales the step to an even use of 1
    quantizer.follow(torch.tensor([4, 0]), torch.tensor([[4.0], [0.0]]), torch.ones(4, 1), 0.0)
    torch.testing.assert_close(quantizer.counts, torch.tensor([1.1, 0.9]))
    torch.testing.assert_close(quantizer.codebook.data, torch.tensor([[0.2 / 1.1], [10.0]]))


def test_dead_codes_are_revived_from_the_latents() -> None:
    torch.manual_seed(0)
    _, latents = clusters()
    quantizer = CodebookQuantizer(8, 4)
    quantizer.start(torch.full((8, 4), 99.0) + torch.arange(8)[:, None], torch.ones(8))
    revived = 0
    for _ in range(600):
        counts, sums = statistics(latents, quantizer.encode_indices(latents), 8)
        revived += quantizer.follow(counts, sums, latents, revive_below=0.05)
    assert revived >= 7
    assert (
        usage_figures(torch.bincount(quantizer.encode_indices(latents), minlength=8))["usage"]
        >= 7 / 8
    )


def test_a_revived_code_is_a_latent_of_the_step_at_once() -> None:
    quantizer = CodebookQuantizer(2, 1, decay=0.5)
    quantizer.start(torch.tensor([[1.0], [50.0]]), torch.ones(2))
    quantizer.counts[1] = 1e-3
    latents = torch.tensor([[1.0], [2.0]])
    assert quantizer.follow(torch.tensor([2, 0]), torch.tensor([[3.0], [0.0]]), latents, 0.1) == 1
    assert quantizer.codebook[1].item() in (1.0, 2.0)


def test_a_dead_code_that_is_not_revived_stays_where_it_was() -> None:
    quantizer = CodebookQuantizer(2, 1, decay=0.5)
    quantizer.start(torch.tensor([[1.0], [50.0]]), torch.ones(2))
    latents = torch.tensor([[1.0], [2.0]])
    for _ in range(60):
        quantizer.follow(torch.tensor([2, 0]), torch.tensor([[3.0], [0.0]]), latents, 0.0)
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[1.5], [50.0]]))
    # and is near to whatever it gets
    quantizer.follow(torch.tensor([1, 1]), torch.tensor([[1.0], [51.0]]), latents, 0.0)
    torch.testing.assert_close(quantizer.codebook[1], torch.tensor([51.0]))


def test_the_start_of_uneven_codes_is_those_codes() -> None:
    quantizer = CodebookQuantizer(3, 2)
    codes = torch.randn(3, 2)
    quantizer.start(codes, torch.tensor([1, 3, 8]))
    torch.testing.assert_close(quantizer.sums / quantizer.counts[:, None], codes)
    torch.testing.assert_close(quantizer.counts, torch.tensor([0.25, 0.75, 2.0]))


def test_figures_of_a_split() -> None:
    even = usage_figures(torch.tensor([5, 5, 5, 5]))
    assert even == {"usage": 1.0, "perplexity": pytest.approx(4)}
    some = usage_figures(torch.tensor([6, 2, 0, 0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert some == {"usage": 0.5, "perplexity": pytest.approx(math.exp(entropy))}


def test_recent_use_forgets() -> None:
    quantizer = CodebookQuantizer(4, 2)
    quantizer.observe(torch.tensor([3, 3, 0, 0]))
    nothing = torch.zeros(4)
    assert quantizer.recent_figures(nothing)["usage"] == 0.5
    assert quantizer.recent_figures(torch.tensor([0, 0, 1, 0]))["usage"] == 0.75
    for _ in range(500):
        quantizer.observe(torch.tensor([0, 1, 0, 0]))
    assert quantizer.recent_figures(nothing)["usage"] == 0.25
