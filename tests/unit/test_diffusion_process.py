"""Samplers against a denoiser in closed form: what is wrong in the samples is the sampler's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from cardiform.ldm.diffusion_model import (
    Condition,
    LatentDenoiser,
    LatentStatistics,
    Process,
    guided,
    sample_seed,
    starting_noise,
)
from cardiform.ldm.folding import folded, unfolded
from cardiform.options.ldm import DiffusionOptions

# two modes, of mean 0 and variance 1 together
MODES, SPREAD = torch.tensor([-0.9, 0.9]), float(np.sqrt(1 - 0.81))
SHAPE = (1, 12, 12, 12)


def true_samples(number):
    rng = np.random.default_rng(5)
    return rng.choice(MODES.numpy(), number) + SPREAD * rng.normal(size=number)


def clean_part(x, a, b):
    """E[x_0 | a x_0 + b noise = x] of the mixture."""
    variance = a**2 * SPREAD**2 + b**2
    odds = -((x[..., None] - a * MODES) ** 2) / (2 * variance)
    posterior = MODES + a * SPREAD**2 / variance * (x[..., None] - a * MODES)
    return (odds.softmax(-1) * posterior).sum(-1)


def exact(process):
    """The best prediction there is."""
    options = process.options

    def predict(x, times):
        if options.objective == "flow":
            t = float(times[0]) / process.times
            a, b = 1 - t, t
        else:
            kept = process.scheduler.alphas_cumprod[times[0]]
            a, b = float(kept**0.5), float((1 - kept) ** 0.5)
        x0 = clean_part(x, a, b)
        noise = (x - a * x0) / max(b, 1e-8)
        if options.objective == "flow":
            return x0 - noise
        return noise if options.prediction == "epsilon" else a * noise - b * x0

    return predict


def drawn(options, sampler, steps, number=8):
    process = Process(options)
    noise = starting_noise(SHAPE, 0, range(number))
    seeds = [sample_seed(0, n) for n in range(number)]
    return process.sample(exact(process), noise, seeds, sampler, steps)


@pytest.mark.parametrize(
    ("objective", "prediction", "sampler", "steps", "bar"),
    [
        ("flow", "v_prediction", "flow", 30, 0.04),
        ("flow", "v_prediction", "flow", 37, 0.04),
        ("ddpm", "epsilon", "ddim", 50, 0.05),
        ("ddpm", "v_prediction", "ddim", 50, 0.05),
        ("ddpm", "epsilon", "ddpm", 1000, 0.04),
        ("ddpm", "v_prediction", "ddpm", 1000, 0.04),
    ],
)
def test_exact_denoiser_gives_the_true_distribution(objective, prediction, sampler, steps, bar):
    options = DiffusionOptions(objective=objective, prediction=prediction)
    found = drawn(options, sampler, steps).flatten().numpy()
    assert wasserstein_distance(found, true_samples(len(found))) < bar
    assert found.std() == pytest.approx(1.0, abs=0.05)


def test_what_the_guards_refuse_is_wrong_indeed():
    """Strided DDPM and DDIM steps that are no divisor: why chosen_sampler refuses them."""
    options = DiffusionOptions(objective="ddpm", prediction="epsilon")
    for sampler, steps in (("ddpm", 100), ("ddim", 600)):
        found = drawn(options, sampler, steps, number=4).flatten().numpy()
        assert wasserstein_distance(found, true_samples(len(found))) > 0.07, sampler


@pytest.mark.parametrize(
    ("objective", "sampler", "steps"), [("flow", "flow", 5), ("ddpm", "ddpm", 1000)]
)
def test_a_sample_does_not_depend_on_those_beside_it(objective, sampler, steps):
    process = Process(DiffusionOptions(objective=objective))
    noise = starting_noise((1, 4, 4, 4), 3, range(3))
    seeds = [sample_seed(3, n) for n in range(3)]
    together = process.sample(exact(process), noise, seeds, sampler, steps)
    alone = process.sample(exact(process), noise[2:], seeds[2:], sampler, steps)
    assert torch.equal(together[2:], alone)
    assert torch.equal(starting_noise((1, 4, 4, 4), 3, [2])[0], noise[2])
    assert not torch.equal(noise[0], noise[1]) and sample_seed(0, 1) != sample_seed(1, 0)
    assert not torch.equal(starting_noise((1, 4, 4, 4), 4, [2])[0], noise[2])


def test_noise_and_targets():
    x, noise = torch.randn(2, 1, 2, 2, 2), torch.randn(2, 1, 2, 2, 2)
    flow = Process(DiffusionOptions())
    times = torch.tensor([0.0, 1000.0])
    noisy = flow.noisy(x, noise, times)
    assert torch.allclose(noisy[0], x[0]) and torch.allclose(noisy[1], noise[1])
    assert torch.equal(flow.target(x, noise, times), x - noise)
    ddpm = Process(DiffusionOptions(objective="ddpm", prediction="epsilon"))
    times = torch.tensor([0, 999])
    assert torch.equal(ddpm.target(x, noise, times), noise)
    assert (ddpm.noisy(x, noise, times)[0] - x[0]).abs().max() < 0.2
    v = Process(DiffusionOptions(objective="ddpm")).target(x, noise, times)
    kept = ddpm.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1, 1)
    assert torch.allclose(v, kept.sqrt() * noise - (1 - kept).sqrt() * x, atol=1e-6)


def test_min_snr_weights():
    times = torch.tensor([0, 300, 999])
    process = Process(DiffusionOptions(objective="ddpm", prediction="epsilon", snr_gamma=5.0))
    kept = process.scheduler.alphas_cumprod[times]
    ratio = kept / (1 - kept)
    assert torch.allclose(process.weights(times), ratio.clamp(max=5) / ratio)
    v = Process(DiffusionOptions(objective="ddpm", snr_gamma=5.0))
    assert torch.allclose(v.weights(times), ratio.clamp(max=5) / (ratio + 1))
    for options in (DiffusionOptions(), DiffusionOptions(objective="ddpm", snr_gamma=0.0)):
        assert (Process(options).weights(times) == 1).all()


def test_training_times_lie_within_the_process():
    x = torch.zeros(2000, 1, 1, 1, 1)
    for options in (
        DiffusionOptions(),
        DiffusionOptions(time_sampling="uniform"),
        DiffusionOptions(objective="ddpm"),
    ):
        times = Process(options).draw_times(x).float()
        assert times.min() >= 0 and times.max() <= 1000
        assert times.mean() == pytest.approx(500, abs=40)
        fixed = Process(options).fixed_times(8).float()
        assert len(fixed) == 8 and 0 < fixed.min() < fixed.max() < 1000


def test_statistics_round_trip():
    statistics = LatentStatistics(
        shape=(2, 4, 4, 4),
        mean=(1.0, -2.0),
        std=(0.5, 3.0),
        volume_mean=(100.0,),
        volume_std=(10.0,),
        centroids={"a": [0.0, 1.0, 2.0]},
        incomplete=("x",),
        autoencoder_sha256="0",
    )
    z = torch.randn(3, 2, 4, 4, 4)
    assert torch.allclose(statistics.denormalised(statistics.normalised(z)), z, atol=1e-6)
    shifted = z * torch.tensor([0.5, 3.0]).view(2, 1, 1, 1) + torch.tensor([1.0, -2.0]).view(
        2, 1, 1, 1
    )
    assert torch.allclose(statistics.normalised(shifted), z, atol=1e-6)
    assert float(statistics.volume_scores(torch.tensor([[120.0]]))) == pytest.approx(2.0)
    assert LatentStatistics.from_dict(statistics.as_dict()) == statistics


SMALL = DiffusionOptions(
    channels=(8, 16),
    attention_levels=(False, True),
    num_head_channels=8,
    norm_num_groups=4,
    num_res_blocks=1,
    volumes_share=0.5,
)


def denoiser(options=SMALL):
    torch.manual_seed(0)
    network = LatentDenoiser(options, latent_channels=2, classes=3, factor=2).eval()
    for parameter in network.parameters():  # MONAI starts its last layer at zero
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def condition(target, known, given=(False, False, False)):
    volumes = torch.tensor([[1.0, -2.0, 0.5]])
    return Condition(target, torch.tensor([known]), volumes, torch.tensor([given]))


@torch.no_grad()
@pytest.mark.parametrize("fold", [1, 2])
def test_the_network_sees_known_classes_and_told_volumes_alone(fold):
    network = denoiser(replace(SMALL, fold=fold))
    x, t = torch.randn(1, 2, 4, 4, 4), torch.tensor([500.0])
    target = torch.randint(0, 4, (1, 8, 8, 8), dtype=torch.uint8)
    given = network(x, t, condition(target, (True, False, True)))
    hidden = torch.where(target == 2, 0, target)
    assert torch.equal(given, network(x, t, condition(hidden, (True, False, True))))
    seen = torch.where(target == 1, 0, target)
    assert not torch.equal(given, network(x, t, condition(seen, (True, False, True))))
    # an empty class that is known is not one that is unknown
    assert not torch.equal(
        network(x, t, condition(hidden, (True, True, True))),
        network(x, t, condition(hidden, (True, False, True))),
    )
    given = network(x, t, condition(target, (False,) * 3, (True, False, False)))
    nothing = network(x, t, Condition.nothing(1, 3, 8))
    assert not torch.equal(given, nothing)
    assert torch.equal(nothing, network(x, t, condition(target, (False,) * 3)))


def test_folding_gathers_a_cell_and_is_undone():
    latents = torch.arange(2 * 2 * 6**3).view(2, 2, 6, 6, 6)
    for edge in (1, 2, 3):
        assert torch.equal(unfolded(folded(latents, edge), edge), latents)
    cell = folded(latents, 3)[1, :, 0, 1, 0]
    assert torch.equal(cell, latents[1, :, :3, 3:, :3].reshape(-1))


@torch.no_grad()
def test_guidance_moves_along_the_difference():
    network = denoiser()
    x, t = torch.randn(1, 2, 4, 4, 4), torch.tensor([500.0])
    given = condition(torch.zeros(1, 8, 8, 8, dtype=torch.uint8), (False,) * 3, (True,) * 3)
    plain, without = network(x, t, given), network(x, t, given.without_volumes())
    assert torch.equal(guided(network, given, 1.0)(x, t), plain)
    strong = guided(network, given, 3.0)(x, t)
    assert torch.allclose(strong - without, 3 * (plain - without), atol=1e-5)
    nothing = Condition.nothing(1, 3, 8)
    assert torch.equal(guided(network, nothing, 3.0)(x, t), network(x, t, nothing))


def test_a_field_has_no_conditions():
    network = LatentDenoiser(SMALL, latent_channels=2, classes=0, factor=2)
    assert not network.completes and not network.follows_volumes
    out = network(torch.randn(1, 2, 4, 4, 4), torch.tensor([1.0]), Condition.nothing(1, 0, 8))
    assert out.shape == (1, 2, 4, 4, 4)
