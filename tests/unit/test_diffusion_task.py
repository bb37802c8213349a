"""Training of the diffusion: its conditions, and what it is measured by."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hearts import FIELD_GRID, GRID
from tiny_latents import STATISTICS, TINY, Decoder, batch

from cardiform.errors import InputError
from cardiform.ldm import train
from cardiform.ldm.diffusion_model import Condition
from cardiform.ldm.diffusion_task import FIXED_TIMES, DiffusionTask
from cardiform.ldm.samples import volume_condition
from cardiform.options.ldm import DiffusionOptions


def task(grid=GRID, **keys):
    torch.manual_seed(0)
    return DiffusionTask(DiffusionOptions(**{**TINY, **keys}), STATISTICS, grid, Decoder())


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_the_untrained_network_predicts_the_mean(objective):
    made = task(objective=objective)
    made.module.eval()
    torch.manual_seed(5)
    figures = made.evaluate([batch()])
    assert figures["loss"] == pytest.approx(figures["mean_loss"], rel=1e-5), "its last layer is 0"
    assert figures["mean_loss"] == pytest.approx(2.0 if objective == "flow" else 1.0, rel=0.15)
    torch.manual_seed(5)
    assert made.evaluate([batch()]) == figures
    assert len(made.process.fixed_times(FIXED_TIMES)) == FIXED_TIMES


def test_completion_has_a_figure_where_it_is_trained():
    assert "completion_loss" in task().evaluate([batch()])
    assert "completion_loss" not in task(known_share=0.0).evaluate([batch()])
    assert "completion_loss" not in task(FIELD_GRID).evaluate([batch()])


def test_conditions_of_the_training():
    made = task(known_share=0.5, volumes_share=0.3)
    torch.manual_seed(0)
    drawn = [made.training_condition(batch(64, lacking=(2,))) for _ in range(8)]
    known = torch.cat([c.known for c in drawn])
    given = torch.cat([c.given for c in drawn])
    assert not known[:, 2].any() and not given[:, 2].any(), "what is not there is not known"
    assert known[:, :2].any()
    nothing_seen = float((~known.any(1)).float().mean())
    assert 0.45 < nothing_seen < 0.85
    assert 0.05 < float(given.any(1).float().mean()) < 0.3
    assert torch.allclose(drawn[0].volumes[:, 0], torch.zeros(64))
    blind = task(known_share=0.0).training_condition(batch(64))
    assert not blind.known.any() and not blind.given.any()
    everything = torch.cat(
        [task(known_share=1.0).training_condition(batch(64)).known for _ in range(4)]
    )
    assert not everything.all(1).any(), "something is left to make"
    assert float(everything.any(1).float().mean()) > 0.6


def test_volumes_that_no_training_heart_has_cannot_be_asked_for():
    """The scan cuts the class in all of them: no mean and no deviation are known."""
    never = replace(STATISTICS, volume_mean=(48.0, 8.0, 0.0))
    generator = SimpleNamespace(
        grid=GRID,
        statistics=never,
        network=SimpleNamespace(follows_volumes=True),
        unconditional=lambda number: Condition.nothing(number, 3, 8),
    )
    asked = volume_condition(generator, {"myocardium": 58.0}, 2)
    assert asked.given.tolist() == [[True, False, False]] * 2 and asked.volumes[0, 0] == 2
    with pytest.raises(InputError, match="no training heart has a volume of left_ventricle"):
        volume_condition(generator, {"myocardium": 58.0, "left_ventricle": 120.0}, 2)


def test_a_few_steps_lower_the_error():
    made = task(lr=1e-2, known_share=0.0)
    optimiser = torch.optim.Adam(made.parameters("model"), 5e-3)
    torch.manual_seed(0)
    made.module.eval()
    before = made.evaluate([batch()])["loss"]
    for step in range(40):
        loss, _ = made.loss(batch(), "model", step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.manual_seed(0)
    assert made.evaluate([batch()])["loss"] < 0.85 * before


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_previews_are_drawn(tmp_path, objective):
    made = task(objective=objective, num_train_timesteps=100, num_samples_to_generate=2)
    made.module.eval()
    made.preview([], tmp_path, 3)
    assert (tmp_path / "0000003.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("keys", "grid"),
    [({}, GRID), ({"fast_dev_run": 1}, GRID), ({"until": 2}, GRID), ({"volume_hearts": 0}, GRID),
     ({}, FIELD_GRID)],
)  # fmt: skip
def test_volumes_are_kept_with_the_shipped_weights(monkeypatch, keys, grid):
    made = task(grid, device="cpu", **keys)
    made.coder.to = lambda device: made.coder
    weights = {n: v + 1 for n, v in made.network.state_dict().items()}
    hearts = SimpleNamespace(volumes=lambda: [4.0, 5.0, 6.0])
    seen = []

    def bonus(generator, volumes, number):
        state = generator.network.state_dict()
        assert all(torch.equal(state[n], weights[n]) for n in weights)
        assert not generator.network.training and generator.coder is made.coder
        seen.append((volumes, number))
        return [0.0, 0.1, 0.2, 0.3]

    monkeypatch.setattr(train, "drawn_bonus", bonus)
    job = SimpleNamespace(task=made, options=made.options, train_set=hearts)
    found = train.volume_chooser(job)(SimpleNamespace(weights=weights))
    if keys or grid is FIELD_GRID:
        assert found == {} and not seen
    else:
        assert found == {"volume_bonus": [0.0, 0.1, 0.2, 0.3]}
        assert seen == [([4.0, 5.0, 6.0], 256)]
