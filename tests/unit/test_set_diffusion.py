"""Set-latent diffusion: slots that hearts share, the fitted distribution, network and guards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardiform.errors import InputError
from cardiform.ldm.copies import z_u
from cardiform.options.set_diffusion import (
    SetDiffusionOptions,
    SetLatentsOptions,
    SetSamplingOptions,
)
from cardiform.set_diffusion import option_checks
from cardiform.set_diffusion.latents import SetLatents
from cardiform.set_diffusion.mean_heart import mean_heart
from cardiform.set_diffusion.model import process_of, settled
from cardiform.set_diffusion.slots import Slots
from cardiform.set_diffusion.statistics import Asked, Statistics, asked_of
from cardiform.set_diffusion.task import SetDiffusionTask, starts_of

CLASSES, WIDTH = 2, 5


def ellipsoids(rng, number=900):
    """Two labelled ellipsoids side by side, of random sizes."""
    parts, channels = [], []
    for channel in range(CLASSES):
        on_ball = rng.normal(size=(number, 3))
        on_ball /= np.linalg.norm(on_ball, axis=1, keepdims=True)
        middle = np.array([0.5 * channel - 0.25, 0.1 * rng.normal(), 0])
        parts.append(on_ball * rng.uniform(0.15, 0.25, 3) + middle)
        channels.append(np.full(number, channel))
    order = rng.permutation(CLASSES * number)
    return (
        np.concatenate(parts)[order].astype(np.float32),
        np.concatenate(channels)[order].astype(np.int64),
    )


@pytest.fixture(scope="module")
def hearts():
    rng = np.random.default_rng(0)
    return [ellipsoids(rng) for _ in range(6)]


@pytest.fixture(scope="module")
def slots(hearts):
    return mean_heart(hearts, 40)


def latents(number=8, slots=40, seed=0) -> list[SetLatents]:
    """Hearts that two numbers make: latents in two directions; the first is a volume, too."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, slots, WIDTH))
    found = []
    for a, b in np.random.default_rng(seed + 1).normal(size=(number, 2)):
        volumes = np.array([100 * np.exp(0.1 * a), np.nan])
        places = (a * first + b * second).astype(np.float32)
        frame = np.array([a, b, 0.0, 4.0])
        found.append(SetLatents(places, frame, np.ones(CLASSES, bool), volumes, np.array([b])))
    return found


# --- slots -------------------------------------------------------------------------------


def test_slots_lie_on_their_class_and_in_every_heart_at_the_same_place(hearts, slots):
    assert np.bincount(slots.channels).tolist() == [20, 20]
    for points, channels in hearts:
        rows = slots.rows(points, channels)
        assert (channels[rows] == slots.channels).all()
        for k in range(CLASSES):
            own = slots.channels == k
            there, usual = points[rows[own]], slots.places[own]
            there, usual = (x - x.mean(axis=0) for x in (there, usual))
            # the direction from the middle is the same: the tenth slot is at the tenth place
            turned = (there * usual).sum(axis=1)
            turned /= np.linalg.norm(there, axis=1) * np.linalg.norm(usual, axis=1)
            assert np.median(turned) > 0.95, turned


def test_slots_spread_over_the_whole_surface(hearts, slots):
    """No part of a class is far from every slot, as none is of farthest points."""
    points, channels = hearts[0]
    taken = points[slots.rows(points, channels)]
    away = np.linalg.norm(points[:, None] - taken[None], axis=-1).min(axis=1)
    assert away.max() < 0.2


def test_slots_do_not_follow_the_order_of_the_points(hearts, slots):
    points, channels = hearts[1]
    order = np.random.default_rng(3).permutation(len(points))
    one = points[slots.rows(points, channels)]
    other = points[order][slots.rows(points[order], channels[order])]
    assert np.linalg.norm(one - other, axis=1).max() < 1e-6


def test_a_class_that_is_missing_takes_the_nearest_points(hearts, slots):
    points, channels = hearts[0]
    only = channels == 0
    rows = slots.rows(points[only], channels[only])
    assert len(rows) == len(slots.places) and rows.max() < only.sum()


# --- the fitted distribution -------------------------------------------------------------


def test_the_fitted_distribution_has_the_spread_of_the_hearts():
    hearts = latents(40)
    statistics = Statistics.of(hearts, 0)
    assert statistics.modes.shape[0] == 2, "two numbers make these hearts"
    asked = Asked.nothing(4000, 3)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    made, middle = statistics.starts(noise, asked)
    found, _ = statistics.hearts(made)
    true = np.stack([heart.latents for heart in hearts])
    assert not middle.any()
    np.testing.assert_allclose(found.mean(dim=0), true.mean(axis=0), atol=0.15)
    spread = found.std(dim=0).numpy() / true.std(axis=0, ddof=1)
    assert np.abs(spread - 1).max() < 0.1


def test_what_is_asked_for_moves_the_distribution():
    hearts = latents(60)
    statistics = Statistics.of(hearts, 0)
    wanted = torch.tensor([[np.log(125.0), np.nan, np.nan]]).float().expand(2000, -1)
    asked = statistics.scores(wanted)
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    made, middle = statistics.starts(noise, asked)
    _, frames = statistics.hearts(made)
    a, b = frames[:, 0], frames[:, 1]  # the numbers that make the hearts
    assert abs(float(a.mean()) - 10 * np.log(1.25)) < 0.5, "volume = 100 exp(0.1 a)"
    assert float(a.std()) < 0.5 and float(b.std()) > 0.7, "b stays free"
    np.testing.assert_allclose(made.mean(dim=0), middle[0], atol=0.1)


def test_what_is_not_known_counts_nowhere():
    hearts = latents(10)
    statistics = Statistics.of(hearts, 0)
    assert torch.isfinite(statistics.links).all() and not statistics.links[1].any()
    scores = statistics.scores(torch.from_numpy(asked_of(hearts[0]))[None])
    assert scores.given.tolist() == [[True, False, True]] and float(scores.seen[0, 1]) == 0


def test_rows_and_hearts_are_inverse():
    hearts = latents(5)
    statistics = Statistics.of(hearts, 0)
    stacked = torch.from_numpy(np.stack([h.latents for h in hearts]))
    frames = torch.from_numpy(np.stack([h.frame for h in hearts])).float()
    back, again = statistics.hearts(statistics.rows(stacked, frames))
    torch.testing.assert_close(back, stacked)
    torch.testing.assert_close(again, frames)


# --- process, network and task -----------------------------------------------------------


@pytest.mark.parametrize("noise", ["fitted", "white"])
def test_without_a_network_hearts_end_as_what_they_begin_as(slots, noise):
    options = SetDiffusionOptions(dim=8, depth=1, heads=2, noise=noise)
    statistics = Statistics.of(latents(), 0)
    numbers = statistics.modes.shape[0 if noise == "fitted" else 1]
    begun, middle = starts_of(options, statistics, torch.randn(3, numbers), Asked.nothing(3, 3))
    process = process_of(options)

    def predict(noisy, times):
        return settled(times / process.times, middle, noisy.flatten(1))[..., None, None, None]

    made = process.sample(predict, begun[..., None, None, None], [0, 1, 2], "flow", 200).flatten(1)
    torch.testing.assert_close(made, begun, rtol=0.02, atol=0.02)


def task_of(slots, **changes):
    torch.manual_seed(0)
    options = SetDiffusionOptions(dim=16, depth=1, heads=2, **changes)
    return SetDiffusionTask(options, slots, Statistics.of(latents(), 0), CLASSES)


def batch(task, hearts):
    stacked = torch.from_numpy(np.stack([h.latents for h in hearts]))
    frames = torch.from_numpy(np.stack([h.frame for h in hearts])).float()
    asked = torch.from_numpy(np.stack([asked_of(h) for h in hearts])).float()
    return {"heart": task.statistics.rows(stacked, frames), "asked": asked}


def test_an_untrained_network_is_the_fitted_distribution(slots):
    task = task_of(slots)
    found = task.evaluate([batch(task, latents(3, seed=5))])
    assert found["loss"] == pytest.approx(found["fitted_loss"])


def test_every_parameter_learns_and_the_loss_falls(slots):
    task = task_of(slots, known_share=0.5)
    optimiser = torch.optim.Adam(task.parameters("model"), 5e-3)
    data = batch(task, latents(8))
    losses = []
    for step in range(120):
        optimiser.zero_grad()
        loss, _ = task.loss(data, "model", step)
        loss.backward()
        if step == 60:
            untouched = [n for n, p in task.network.named_parameters() if not p.grad.any()]
            assert not untouched
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


def test_what_a_network_adds_counts_as_far_as_it_holds_for_other_hearts(slots):
    task = task_of(slots)
    data = [batch(task, latents(3, seed=5))]
    assert task.strength(data) == 1, "it adds nothing"
    added = {}

    def instead(noisy, times, asked, heart, known):
        lacking = heart - added["begun"] - settled(times, 0, noisy)
        return lacking * added["share"]

    def starts(*arguments):
        begun, middle = starts_of(*arguments)
        added["begun"] = begun
        return begun, middle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardiform.set_diffusion.task.starts_of", starts)
        patch.setattr(task.network, "forward", instead)
        for share, strength in ((0.5, 1.0), (1.0, 1.0), (4.0, 0.25), (-1.0, 0.0)):
            added["share"] = share
            assert task.strength(data) == pytest.approx(strength)


def test_the_order_of_the_slots_means_nothing(slots):
    """The network, with slots and tokens in another order, gives the same in that order."""
    task = task_of(slots)
    for parameter in task.parameters("model"):
        torch.nn.init.normal_(parameter, std=0.1)
    order = torch.randperm(len(slots.places))
    other = task_of(Slots(slots.places[order], slots.channels[order]))
    other.network.load_state_dict(task.network.state_dict())
    rows, frame = torch.randn(2, len(order), WIDTH), torch.randn(2, 4)
    known = torch.tensor([[True, False], [False, False]])
    asked, times = Asked(torch.randn(2, 3), torch.ones(2, 3).bool()), torch.tensor([0.2, 0.7])

    def ask(network, tokens):
        x = torch.cat([tokens.flatten(1), frame], dim=1)
        found = network(x, times, asked, x, known)
        return found[:, :-4].unflatten(1, (-1, WIDTH)), found[:, -4:]

    one, one_frame = ask(task.network, rows)
    two, two_frame = ask(other.network, rows[:, order])
    torch.testing.assert_close(one[:, order], two)
    torch.testing.assert_close(one_frame, two_frame)


def test_known_classes_and_what_is_asked_for_reach_the_network(slots):
    task = task_of(slots)
    for parameter in task.parameters("model"):
        torch.nn.init.normal_(parameter, std=0.1)
    x, times = torch.randn(1, len(slots.places) * WIDTH + 4), torch.tensor([0.5])
    heart, none = torch.randn_like(x), torch.zeros(1, CLASSES).bool()
    nothing = Asked.nothing(1, 3)
    plain = task.network(x, times, nothing, heart, none)
    assert torch.equal(plain, task.network(x, times, nothing, -heart, none)), "nothing is seen"
    one = torch.tensor([[True, False]])
    assert not torch.allclose(plain, task.network(x, times, nothing, heart, one))
    asked = Asked(torch.ones(1, 3), torch.tensor([[True, False, False]]))
    assert not torch.allclose(plain, task.network(x, times, asked, heart, none))


# --- guards ------------------------------------------------------------------------------


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"set_diffusion\.heads is 3: no divisor of dim"):
        option_checks.check_set_diffusion(SetDiffusionOptions(dim=16, heads=3))
    with pytest.raises(InputError, match=r"vecset\.preset is base, whose latents have no places"):
        option_checks.check_preset("base")
    with pytest.raises(InputError, match="voxel_size is 128: target set_diffusion compares"):
        option_checks.check_voxels(SetSamplingOptions(voxel_size=128))
    with pytest.raises(InputError, match=r"set_sampling\.known is aorta: target set_diffusion"):
        option_checks.check_nothing_known(SetSamplingOptions(known=("aorta",)))
    option_checks.check_nothing_known(SetSamplingOptions())
    sampling = SetSamplingOptions(volumes=("a=0", "b"), columns=("x_age=old",))
    with pytest.raises(InputError) as caught:
        option_checks.check_sampling(SetLatentsOptions(), SetDiffusionOptions(), sampling)
    assert "set_sampling.volumes: 'b'; write class=ml" in str(caught.value)
    assert "set_sampling.columns: 'x_age=old'" in str(caught.value)
    asking = SetSamplingOptions(volumes=("a=1",), columns=("x_age=1",))
    with pytest.raises(InputError) as caught:
        option_checks.check_sampling(
            SetLatentsOptions(), SetDiffusionOptions(asked_share=0.0), asking
        )
    assert "x_age is none of set_latents.columns (none)" in str(caught.value)
    assert "trained to be asked" in str(caught.value)


def test_z_u_says_whether_a_set_is_nearer_to_training_than_unseen_hearts():
    rng = np.random.default_rng(0)
    unseen = rng.normal(1.0, 0.1, 40)
    assert abs(z_u(rng.normal(1.0, 0.1, 40), unseen)) < 2
    assert z_u(rng.normal(0.5, 0.1, 40), unseen) < -7
    assert z_u(rng.normal(1.5, 0.1, 40), unseen) > 7
    assert z_u(unseen, unseen) == 0


def test_z_u_is_that_of_the_mann_whitney_test():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(1)
    made, unseen = rng.normal(1.0, 0.1, 30), rng.normal(1.05, 0.1, 20)
    found = mannwhitneyu(made, unseen, method="asymptotic", use_continuity=False)
    from scipy.stats import norm

    assert 2 * norm.sf(abs(z_u(made, unseen))) == pytest.approx(found.pvalue)
