"""The training loop: exact resume, checkpoints, trials of a search."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time

import pytest
import torch
from toy_training import (
    KilledAt,
    Lines,
    ToyTask,
    assert_equal,
    comparable,
    events,
    options,
    run,
)

from cardiform.training.checkpoint import Checkpoints, load
from cardiform.training.distributed import World
from cardiform.training.engine import Data, Loop, train
from cardiform.training.interruption import EXIT_RESUMABLE
from cardiform.training.runlog import RunLog, truncate
from cardiform.training.task import TrainingError

ALONE = World(0, 1, torch.device("cpu"))


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


def test_a_resumed_log_forgets_what_the_killed_run_wrote_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"event": "log", "step": n}) + "\n" for n in (1, 2, 3)]
    path.write_text("".join(lines) + '{"event": "lo')
    truncate(path, 2)
    assert path.read_text() == "".join(lines[:2])
    truncate(path, None)
    assert path.read_text() == ""


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
