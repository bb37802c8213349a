"""The training loop: order of things, exact resume, refusal of what cannot go well."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
from toy_training import QUICK, KilledAt, Lines, ToyTask, options, run

from cardiform import cli
from cardiform.errors import InputError
from cardiform.options.vecset import VecsetOptions
from cardiform.options.vqvae import VqvaeOptions
from cardiform.training import engine, sampling
from cardiform.training.checkpoint import Checkpoints, load
from cardiform.training.distributed import World
from cardiform.training.engine import Data, Loop, train
from cardiform.training.interruption import EXIT_RESUMABLE
from cardiform.training.optimisation import WeightAverage, build_optimizer, learning_rate
from cardiform.training.runlog import RunLog, Window, truncate
from cardiform.training.task import TrainingError

ALONE = World(0, 1, torch.device("cpu"))


def events(folder, kind=None):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [e for e in lines if kind in (None, e["event"])]


def comparable(folder):
    """Events without the clock, and without the marks of an interruption."""
    clock = {"seconds", "steps_per_s", "wait"}
    return [
        {k: v for k, v in e.items() if k not in clock}
        for e in events(folder)
        if e["event"] not in ("resume", "stop")
    ]


def assert_equal(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


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


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_exits_75_and_the_same_call_goes_on(tmp_path, number):
    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "cut", KilledAt(4, signal.Signals[number]))
    assert stopped.value.code == EXIT_RESUMABLE == 75
    assert load(tmp_path / "cut" / "checkpoints" / "last.pt", "")["step"] == 5
    resumed = run(tmp_path / "cut")
    assert_equal(whole.weights, resumed.weights)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "cut")
    assert events(tmp_path / "cut", "resume")[0]["step"] == 5


def test_a_time_limit_saves_and_exits_75(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, max_minutes=1e-6)
    assert stopped.value.code == 75
    while True:  # a step at a time, and still the same
        try:
            outcome = run(tmp_path, max_minutes=1e-6)
            break
        except SystemExit as again:
            assert again.code == 75
    assert_equal(outcome.weights, run(tmp_path / "whole").weights)


def test_a_finished_training_is_not_run_again(tmp_path):
    first, task = run(tmp_path), ToyTask()
    second = run(tmp_path, task)
    assert not task.seen
    assert_equal(first.weights, second.weights)
    assert second.best == first.best and second.baseline == first.baseline


def test_figures_name_the_code_that_took_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "sha256_sources", lambda: "old")
    with pytest.raises(SystemExit):
        run(tmp_path, max_minutes=1e-6)
    monkeypatch.setattr(engine, "sha256_sources", lambda: "new")
    assert run(tmp_path).source == "new"
    monkeypatch.setattr(engine, "sha256_sources", lambda: "newer")
    assert run(tmp_path).source == "new", "no step was left to take"


def test_a_checkpoint_that_does_not_name_its_code_goes_on(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, max_minutes=1e-6)
    last = tmp_path / "checkpoints" / "last.pt"
    state = load(last, "")
    del state["source"]
    torch.save(state, last)
    assert run(tmp_path).source


def test_changed_options_start_afresh_and_keep_the_old_run(tmp_path, caplog):
    run(tmp_path)
    old = load(tmp_path / "checkpoints" / "best.pt", "")["weights"]
    with caplog.at_level("INFO"):
        outcome = run(tmp_path, lr=0.03, weight_decay=0.0)
    assert outcome.steps == 12 and len(events(tmp_path, "validation")) == 4
    assert "lr 0.02 -> 0.03" in caplog.text and "weight_decay 0.01 -> 0.0" in caplog.text
    aside = tmp_path / "checkpoints.1"
    assert_equal(load(aside / "best.pt", "")["weights"], old)
    assert (aside / "metrics.jsonl").exists()


def test_changed_data_start_afresh(tmp_path):
    run(tmp_path)
    task = ToyTask()
    train(
        task, Lines(), Lines(4), options=options(), out=tmp_path, identity={"data": "other lines"}
    )
    assert task.seen and (tmp_path / "checkpoints.1").is_dir()


def test_options_that_do_not_matter_resume(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, KilledAt(5, 15))
    task = ToyTask()
    run(tmp_path, task, log_every=3, checkpoint_every=50)
    assert task.seen[0][0] == 6 and not (tmp_path / "checkpoints.1").exists()


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    one = run(tmp_path / "1", ToyTask(dropout=0))
    two = run(tmp_path / "2", ToyTask(dropout=0), accumulate=2)
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name], rtol=1e-4, atol=1e-6)
    # AdamW would hide a gradient of twice the size
    norms = [events(tmp_path / n, "log")[0]["figures"]["grad_norm"] for n in ("1", "2")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_resumed_log_forgets_what_the_killed_run_wrote_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"event": "log", "step": n}) + "\n" for n in (1, 2, 3)]
    path.write_text("".join(lines) + '{"event": "lo')
    truncate(path, 2)
    assert path.read_text() == "".join(lines[:2])
    truncate(path, None)
    assert path.read_text() == ""


@contextlib.contextmanager
def full_stream(mode):
    """A file on a disk that is always full."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full, which is always full")
    stream = open("/dev/full", mode)  # noqa: SIM115 - closing it fails
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with (
        full_stream("w") as text,
        full_stream("wb") as binary,
        RunLog(tmp_path, options=options(steps=1), resumed_at=None, enabled=True) as runlog,
    ):
        runlog._stream.close()
        runlog._stream = text
        with pytest.raises(InputError, match=r"could not be written \(No space left"):
            runlog.event("log", 1)
        record = runlog._board._writer._py_recordio_writer
        record._writer.close()
        record._writer = binary
        with pytest.raises(InputError, match=r"tensorboard: could not be written"):
            runlog.scalars("train", 1, {"loss": 1.0})


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


def test_updates_that_share_or_lack_parameters_are_refused(tmp_path):
    task = ToyTask(("model", "other"))
    task.parameters = lambda update: task.module["head"].parameters()
    with pytest.raises(InputError, match="parameters of another update"):
        run(tmp_path, task)
    task.parameters = lambda update: task.module["frozen"].parameters()
    with pytest.raises(InputError, match="every parameter is frozen"):
        run(tmp_path, task)


def test_a_loss_that_is_not_finite_names_step_and_cases_and_moves_nothing(tmp_path):
    task = ToyTask()
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    with pytest.raises(InputError, match=r"step 0: .*not finite.*case2.*--lr"):
        run(tmp_path, task, Lines(4, bad=2))
    assert_equal(task.module.state_dict(), before)


def test_a_gradient_that_is_not_finite_is_told_apart(tmp_path):
    class Steep(ToyTask):
        def loss(self, batch, update, step):
            loss, figures = super().loss(batch, update, step)
            zero = self.module["head"].bias.sum() * 0
            return loss + torch.sqrt(zero), figures  # the slope of a root at zero is infinite

    with pytest.raises(InputError, match="loss is finite, its gradient is not"):
        run(tmp_path, Steep())


def test_an_empty_training_set_and_odd_batches_are_refused(tmp_path):
    with pytest.raises(InputError, match="training split is empty"):
        run(tmp_path, train_set=EmptyLines())
    with pytest.raises(
        InputError, match=r"--batch-size is 5: not a multiple.*or start fewer ranks"
    ):
        run(tmp_path, batch_size=5, accumulate=2)


class EmptyLines(Lines):
    def __bool__(self):
        return True

    def __len__(self):
        return 0


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


class Short(ToyTask):
    """Runs out of memory in a step of the training, or in a validation."""

    def __init__(self, error, place="loss"):
        super().__init__()
        self.error, self.place = error, place

    def loss(self, batch, update, step):
        if self.place == "loss" and step == 4:
            raise self.error
        return super().loss(batch, update, step)

    def evaluate(self, batches):
        if self.place == "evaluate" and self.seen:
            raise self.error
        return super().evaluate(batches)


ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize("place", ["loss", "evaluate"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), ALLOCATOR, MemoryError()],
)
def test_exhausted_memory_names_the_keys_to_lower(tmp_path, error, place):
    with pytest.raises(TrainingError, match=r"step 4: the memory .*is exhausted") as caught:
        run(tmp_path, Short(error, place))
    (line,) = caught.value.problems
    assert "raise training.accumulate, or lower training.batch_size, or give" in line
    assert load(tmp_path / "checkpoints" / "last.pt", "")["step"] == 3, "the last one is kept"


def test_the_keys_to_lower_are_those_of_the_training(tmp_path):
    task = Short(MemoryError())
    task.memory_options = (VqvaeOptions,)
    vecset = cli.checked(VecsetOptions, QUICK)
    with pytest.raises(TrainingError) as caught:
        train(task, Lines(), None, options=vecset, out=tmp_path, identity={})
    for key in ("vecset.accumulate", "vecset.input_points", "vqvae.max_voxels"):
        assert key in str(caught.value)
    assert "or set vecset.checkpointing, vqvae.checkpointing to true" in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path, Short(RuntimeError("shapes do not fit")))


class Damaged(Lines):
    """A sample whose file is damaged, or whose reader is killed, from some draw on."""

    def __init__(self, kill=False):
        super().__init__()
        self.kill = kill

    def __getitem__(self, key):
        if key[1] >= 20 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if key[1] == 22:
            raise InputError("points/case.npz: cannot be read; run sample_sdf again")
        return super().__getitem__(key)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_gets_damaged_is_named_without_a_traceback(tmp_path, workers):
    with pytest.raises(InputError) as caught:
        run(tmp_path, train_set=Damaged(), workers=workers)
    assert caught.value.problems == ["points/case.npz: cannot be read; run sample_sdf again"]
    assert not multiprocessing.active_children(), "at exit Python would wait for them"
    assert load(tmp_path / "checkpoints" / "last.pt", "")["step"] == 3


def test_a_killed_loader_process_is_told_in_one_line(tmp_path):
    with pytest.raises(TrainingError, match="a loader process was killed, most likely") as caught:
        run(tmp_path, train_set=Damaged(kill=True), workers=2)
    assert len(caught.value.problems[0].splitlines()) == 1
    assert not multiprocessing.active_children()


def test_a_finished_training_that_is_run_again_has_the_same_figures(tmp_path):
    """Else its model.pt would be another file, and all that follows would be made again."""
    first, second = run(tmp_path), run(tmp_path)
    assert first.seconds == second.seconds > 0
    one, other = (dataclasses.asdict(o) for o in (first, second))
    assert_equal(one.pop("weights"), other.pop("weights"))
    assert one == other


@pytest.mark.parametrize("name", ["save_best", "save_last"])
def test_a_kill_between_both_checkpoints_changes_nothing(tmp_path, monkeypatch, name):
    whole = run(tmp_path / "whole")
    real = getattr(Checkpoints, name)

    def killed(self, *arguments):
        if 8 in arguments:  # the validated step
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", checkpoint_every=2)
    resumed = run(tmp_path / "cut", checkpoint_every=2)
    assert_equal(whole.weights, resumed.weights)
    assert (resumed.best, resumed.best_step) == (whole.best, whole.best_step)


def test_figures_are_those_of_the_weights_that_are_shipped(tmp_path):
    """A killed run's best.pt may be newer than what last.pt knows of."""
    run(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(9, {"loss": 0.25}, checkpoints.load_best()["weights"])
    outcome = run(tmp_path)
    assert (outcome.best_step, outcome.best) == (9, {"loss": 0.25})


def test_another_rank_goes_on_without_a_look_at_its_folder(tmp_path):
    """On another node the folder may not be there, and best.pt may be large."""
    with pytest.raises(SystemExit):
        run(tmp_path, KilledAt(5, signal.SIGTERM))
    state = Checkpoints(tmp_path).load_last()
    second = World(1, 1, torch.device("cpu"))
    data = Data(Lines(), Lines(4), None, options(), second)
    silent = RunLog(tmp_path, options=options(), resumed_at=5, enabled=False)
    elsewhere = Checkpoints(tmp_path / "elsewhere")
    loop = Loop(ToyTask(), data, options(), second, silent, elsewhere, {})
    loop.begin(state)
    assert state["best"] and loop.best == state["best"] and loop.step == state["step"]


def test_a_lost_best_checkpoint_is_said_and_sought_again(tmp_path, caplog):
    with pytest.raises(SystemExit):
        run(tmp_path, KilledAt(5, signal.SIGTERM))
    (tmp_path / "checkpoints" / "best.pt").unlink()
    outcome = run(tmp_path)
    assert "best.pt is gone: the best validation after step 6" in caplog.text
    assert outcome.best_step > 6 and outcome.weights


def test_a_checkpoint_is_due_by_steps_or_by_minutes(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoints, "save_last", lambda self, key, step, state: saved.append(step))
    run(tmp_path / "steps", checkpoint_every=5)
    assert saved == [5, 10, 12]
    saved.clear()
    run(tmp_path / "minutes", checkpoint_every=100, checkpoint_minutes=1e-9)
    assert saved == list(range(1, 13))


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


def test_clocks_do_not_count(tmp_path):
    """Checkpoints from the future, as after a clock that was set back."""
    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", KilledAt(4, signal.SIGTERM))
    later = time.time() + 20 * 365 * 86400
    for path in (tmp_path / "cut").rglob("*"):
        os.utime(path, (later, later))
    resumed = run(tmp_path / "cut")
    assert_equal(whole.weights, resumed.weights)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "cut")


# --- trials of a search -----------------------------------------------------------------------


def test_a_training_that_ends_early_is_a_part_of_the_whole_one(tmp_path):
    """The schedule is that of all steps, and the next rung resumes in a folder of its own."""
    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "rung_0", until=5)
    assert cut.steps == 5 and not cut.diverged
    assert events(tmp_path / "rung_0", "validation")[-1]["step"] == 5
    last = tmp_path / "rung_0" / "checkpoints" / "last.pt"
    again = run(tmp_path / "rung_0", until=5)
    assert again.best == cut.best and again.steps == 5, "a finished rung is known"
    rest = run(tmp_path / "rung_1", until=12, resume_from=str(last))
    assert events(tmp_path / "rung_1", "resume")[0]["step"] == 5
    assert_equal(rest.weights, whole.weights)
    assert rest.best == whole.best
    assert run(tmp_path / "more", until=99).steps == 12


def test_a_shorter_rung_starts_again(tmp_path):
    """Figures of more steps would be ranked with those of the rung."""
    run(tmp_path, until=5)
    shorter = run(tmp_path, until=3)
    assert shorter.steps == 3 and events(tmp_path, "validation")[-1]["step"] == 3
    assert events(tmp_path / "checkpoints.1", "validation")[-1]["step"] == 5


def test_a_trial_that_diverges_ends_and_is_no_error(tmp_path):
    bad = Lines(bad=3)
    with pytest.raises(TrainingError):
        run(tmp_path / "training", train_set=bad)
    outcome = run(tmp_path / "trial", train_set=Lines(bad=3), until=12)
    assert outcome.diverged and outcome.steps < 12
    assert all(torch.isfinite(weight).all() for weight in outcome.weights.values())
    again = run(tmp_path / "trial", train_set=Lines(bad=3), until=12)
    assert again.diverged and again.steps == outcome.steps and again.best == outcome.best


def test_a_rehearsal_of_a_trial_takes_its_own_steps(tmp_path):
    assert run(tmp_path, until=5, fast_dev_run=7).steps == 7
