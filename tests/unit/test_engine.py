"""The training loop: order of things, what it writes, what it optimises."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from toy_training import (
    KilledAt,
    Lines,
    ToyTask,
    assert_equal,
    events,
    options,
    run,
)

from cardiform.errors import InputError
from cardiform.training import engine, sampling
from cardiform.training.checkpoint import load
from cardiform.training.distributed import World
from cardiform.training.engine import train
from cardiform.training.optimisation import WeightAverage, build_optimizer, learning_rate
from cardiform.training.runlog import Window

ALONE = World(0, 1, torch.device("cpu"))


def test_a_training_learns_and_leaves_its_files(tmp_path):
    outcome = run(tmp_path, ToyTask(dropout=0), steps=150)
    assert outcome.best["loss"] < 0.2 * outcome.baseline["loss"]
    assert outcome.steps == 150 and outcome.out == tmp_path
    (end,) = events(tmp_path, "end")
    assert (end["best_step"], end["best"]) == (outcome.best_step, outcome.best)
    start = events(tmp_path, "start")[0]
    assert start["total"] == start["trainable"] + start["frozen"] and start["frozen"] > 0
    assert [e["step"] for e in events(tmp_path, "validation")][:3] == [0, 4, 8]
    assert [e["step"] for e in events(tmp_path, "log")][:4] == [1, 2, 4, 6]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


def test_the_rate_in_the_log_is_that_of_the_steps(tmp_path):
    start = time.monotonic()
    run(tmp_path, steps=10)
    elapsed = time.monotonic() - start
    logged = {e["step"]: e["steps_per_s"] for e in events(tmp_path, "log")}
    assert all("loss" in e["figures"] for e in events(tmp_path, "log"))
    assert all(rate > 0 for rate in logged.values())
    # the steps' own time is a part of the whole
    ways = itertools.pairwise([0, *logged])
    assert sum((step - last) / logged[step] for last, step in ways) <= elapsed


def test_the_rate_counts_the_wait_for_samples(tmp_path, monkeypatch):
    quick = Lines.__getitem__

    def slow(self, key):
        time.sleep(0.02)
        return quick(self, key)

    monkeypatch.setattr(Lines, "__getitem__", slow)
    run(tmp_path, steps=6, batch_size=2)
    for event in events(tmp_path, "log"):
        assert event["wait"] <= 1 and event["steps_per_s"] < 1 / 0.04  # two samples a step
        assert event["wait"] / event["steps_per_s"] > 0.04  # seconds of a step that were waited


def test_the_weights_of_the_best_validation_are_shipped(tmp_path):
    outcome = run(tmp_path, lr=0.3)  # so high that the last is not the best
    best = min(events(tmp_path, "validation")[1:], key=lambda e: e["figures"]["loss"])
    assert outcome.best_step == best["step"] and outcome.best == best["figures"]
    task = ToyTask()
    task.module.load_state_dict(outcome.weights)
    task.module.eval()
    batches = sampling.validation_batches(Lines(4), options(), ALONE)
    assert task.evaluate(batches)["loss"] == outcome.best["loss"]


def test_frozen_parts_stay_bit_equal_and_trained_ones_move(tmp_path):
    before = {k: v.clone() for k, v in ToyTask().module.state_dict().items()}
    after = run(tmp_path).weights
    for name, value in before.items():
        frozen = name.startswith(("frozen", "other"))
        assert torch.equal(after[name], value) == frozen, name


def test_figures_name_the_code_that_took_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "sha256_sources", lambda: "old")
    with pytest.raises(SystemExit):
        run(tmp_path, max_minutes=1e-6)
    monkeypatch.setattr(engine, "sha256_sources", lambda: "new")
    assert run(tmp_path).source == "new"
    monkeypatch.setattr(engine, "sha256_sources", lambda: "newer")
    assert run(tmp_path).source == "new", "no step was left to take"


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    one = run(tmp_path / "1", ToyTask(dropout=0))
    two = run(tmp_path / "2", ToyTask(dropout=0), accumulate=2)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name], rtol=1e-4, atol=1e-6)
    # AdamW would hide a gradient of twice the size
    norms = [events(tmp_path / n, "log")[0]["figures"]["grad_norm"] for n in ("1", "2")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_loader_processes_change_nothing(tmp_path):
    assert_equal(
        run(tmp_path / "0", steps=4).weights, run(tmp_path / "2", steps=4, workers=2).weights
    )


def test_two_updates_take_turns_and_train_their_own(tmp_path):
    task = ToyTask(("model", "other"))
    run(tmp_path, task, steps=3)
    assert task.seen == [(s, u, u == "other") for s in range(3) for u in ("model", "other")]
    figures = events(tmp_path, "log")[0]["figures"]
    assert {"model_loss", "other_loss", "model_grad_norm", "other_grad_norm"} <= figures.keys()


def test_no_validation_set_ships_the_last_averaged_weights(tmp_path):
    task = ToyTask()
    outcome = train(task, Lines(), None, options=options(), out=tmp_path, identity={})
    state = load(tmp_path / "checkpoints" / "last.pt", "")
    name = "head.weight"
    assert torch.equal(outcome.weights[name], state["average"][name])
    assert not torch.equal(outcome.weights[name], state["module"][name])


def test_a_rehearsal_leaves_the_real_run_alone(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    outcome = run(tmp_path, fast_dev_run=2)
    assert outcome.steps == 2 and outcome.out == tmp_path / "fast_dev_run"
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_after_step_and_previews_are_called(tmp_path):
    class Curious(ToyTask):
        def after_step(self, step):
            self.after = [*getattr(self, "after", []), step]

        def preview(self, batches, folder, step):
            (folder / f"{step}.txt").write_text(str(len(list(batches))))

    task = Curious()
    run(tmp_path, task, steps=4, preview_every=2)
    assert task.after == [0, 1, 2, 3]
    assert sorted(p.name for p in (tmp_path / "previews").iterdir()) == ["2.txt", "4.txt"]


def test_the_first_loss_is_looked_at(tmp_path, caplog):
    run(tmp_path, steps=1)
    assert "scale of inputs or loss" in caplog.text


def test_every_sample_comes_once_per_epoch_and_draws_never_repeat(tmp_path):
    lines = Lines(10)
    run(tmp_path, train_set=lines, steps=10)
    assert [draw for _, draw in lines.draws] == list(range(40))
    for epoch in range(4):
        part = [index for index, _ in lines.draws[10 * epoch : 10 * epoch + 10]]
        assert sorted(part) == list(range(10)) and part != sorted(part)


def fp16_on_the_cpu(monkeypatch):
    """The CPU computes in fp32; here it also scales the gradients, as fp16 on CUDA does."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler("cpu"))


def test_a_training_of_the_cpu_goes_on_where_gradients_are_scaled(tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        run(tmp_path, KilledAt(4, 15))
    fp16_on_the_cpu(monkeypatch)
    assert run(tmp_path).steps == 12


def test_the_cpu_scales_no_gradients(tmp_path):
    run(tmp_path, precision="fp16")
    assert load(tmp_path / "checkpoints" / "last.pt", "")["scaler"] == {}


def test_two_updates_under_one_scale(tmp_path, monkeypatch):
    plain = run(tmp_path / "plain", ToyTask(("model", "other")))
    fp16_on_the_cpu(monkeypatch)
    scaled = run(tmp_path / "scaled", ToyTask(("model", "other")))
    for name, value in plain.weights.items():
        torch.testing.assert_close(scaled.weights[name], value, rtol=1e-4, atol=1e-6)
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", KilledAt(4, 15))
    assert load(tmp_path / "cut" / "checkpoints" / "last.pt", "")["scaler"]["scale"] == 2.0**16


def test_gradients_that_no_scale_makes_finite_end_the_training(tmp_path, monkeypatch):
    class Steep(ToyTask):
        def loss(self, batch, update, step):
            loss, figures = super().loss(batch, update, step)
            return loss + torch.sqrt(self.module["head"].bias.sum() * 0), figures

    fp16_on_the_cpu(monkeypatch)
    with pytest.raises(InputError, match=r"no scale gives the model update .* in fp16"):
        run(tmp_path, Steep(), steps=100)
    assert "grad_norm" not in events(tmp_path, "log")[0]["figures"]


def test_an_optimizer_keeps_the_kernels_of_its_own_device(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", KilledAt(4, 15))
    path = tmp_path / "cut" / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    for group in state["optimizers"]["model"]["param_groups"]:
        group["fused"] = True  # as CUDA saves it
    torch.save(state, path)
    assert_equal(run(tmp_path / "cut").weights, run(tmp_path / "whole").weights)
    saved = load(path, "")["optimizers"]["model"]["param_groups"]
    assert [group["fused"] for group in saved] == [False, False]


def test_random_numbers_follow_the_micro_batch_and_the_update(tmp_path):
    class Drawing(ToyTask):
        drawn: tuple = ()

        def loss(self, batch, update, step):
            self.drawn = (*self.drawn, float(torch.rand(())))
            return super().loss(batch, update, step)

    task = Drawing(("model", "other"))
    run(tmp_path, task, steps=2, accumulate=2)
    assert len(set(task.drawn)) == 2 * 2 * 2


def test_random_numbers_after_a_step_do_not_follow_from_those_within(tmp_path):
    class Drawing(ToyTask):
        def __init__(self, number):
            super().__init__()
            self.number, self.drawn = number, []

        def loss(self, batch, update, step):
            torch.rand(self.number)
            return super().loss(batch, update, step)

        def after_step(self, step):
            self.drawn.append(float(torch.rand(())))

    one, other = Drawing(1), Drawing(2)
    run(tmp_path / "one", one, steps=3)
    run(tmp_path / "other", other, steps=3)
    assert one.drawn == other.drawn and len(set(one.drawn)) == 3


def test_a_log_line_holds_the_mean_of_its_steps():
    window = Window()
    for value in (1.0, 2.0, 6.0):
        window.add("loss", torch.tensor(value))
    window.add("error", 4.0)
    assert window.reduced(ALONE).means() == {"loss": 3.0, "error": 4.0}


def test_schedule():
    o = options(steps=100, warmup_steps=10, lr=1.0, final_lr=0.1)
    rates = [learning_rate(step, o) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(0.1)
    assert rates[10 + 89 // 2] == pytest.approx(0.55, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    scaled = options(steps=100, warmup_steps=0, lr=1.0, batch_size=8, lr_reference_batch=4)
    assert learning_rate(0, scaled) == pytest.approx(2.0)


def test_only_matrices_decay():
    layer = torch.nn.Linear(3, 3)
    groups = build_optimizer(layer.parameters(), options(), torch.device("cpu")).param_groups
    assert {g["weight_decay"]: len(g["params"]) for g in groups} == {0.01: 1, 0.0: 1}
    assert groups[1]["params"][0] is layer.bias


def test_the_average_follows_its_formula():
    weight = torch.nn.Parameter(torch.zeros(2))
    average, expected = WeightAverage({"w": weight}, 0.9), torch.zeros(2)
    for step in range(30):
        weight.data += 1
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.data
    torch.testing.assert_close(average.values["w"], expected)
    with average.applied():
        torch.testing.assert_close(weight.data, expected)
    assert float(weight[0].detach()) == 30.0


class Worsening(ToyTask):
    """Its validations get worse after the second one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.found = 0

    def evaluate(self, batches):
        assert list(batches)
        self.found += 1
        return {"loss": float(abs(self.found - 3))}  # one comes before the first step


def test_a_training_without_progress_ends_where_patience_does(tmp_path, caplog):
    caplog.set_level("INFO")
    ended = run(tmp_path, Worsening(), steps=40, validate_every=2, patience=3)
    assert ended.best_step == 4 and ended.steps == 10
    assert "no lower loss in 3 validations: the training ends after step 10" in caplog.text
    again = run(tmp_path, Worsening(), steps=40, validate_every=2, patience=3)
    assert (again.steps, again.best_step) == (10, 4)
    assert_equal(ended.weights, again.weights)
    whole = run(tmp_path / "whole", Worsening(), steps=40, validate_every=2)
    assert whole.steps == 40
