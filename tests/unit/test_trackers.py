"""Weights & Biases and MLflow: what is sent, which run is continued, and what a failure costs.

Neither is installed with the project, so the tests put small modules in their place.
"""

import signal
import sys
import types

import pytest
from toy_training import KilledAt, run

from cardiform.errors import InputError


class Wandb(types.ModuleType):
    """What is used of wandb; runs by id, with the figures of every step."""

    def __init__(self, fails_at=None):
        super().__init__("wandb")
        self.runs, self.fails_at, self.ended = {}, fails_at, 0

    def init(self, *, project, name, id, resume, dir, config):
        assert project == "cardiform" and resume == "allow" and config["steps"] == 12
        figures = self.runs.setdefault(id, {})

        def log(found, step):
            if step == self.fails_at:
                raise ConnectionError("no route")
            figures.setdefault(step, {}).update(found)

        return types.SimpleNamespace(id=id, log=log, finish=self.finish)

    def finish(self):
        self.ended += 1


class Mlflow(types.ModuleType):
    """The same of mlflow."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.current, self.experiment = {}, None, None

    def set_experiment(self, name):
        self.experiment = name

    def start_run(self, run_id, run_name):
        self.current = run_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.current, {})
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=self.current))

    def log_params(self, settings):
        assert settings["steps"] == 12

    def log_metrics(self, found, step):
        self.runs[self.current].setdefault(step, {}).update(found)

    def end_run(self):
        self.current = None


@pytest.fixture(params=[Wandb, Mlflow])
def library(request, monkeypatch):
    made = request.param()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_every_figure_is_sent_and_a_resumed_training_continues_its_run(library, tmp_path):
    name = library.__name__
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", KilledAt(5, signal.SIGTERM), tracker=name)
    run(tmp_path / "cut", tracker=name)
    (sent,) = library.runs.values()
    assert set(sent) == {0, 1, 2, 4, 6, 8, 10, 12}
    assert sent[4].keys() == {"train/loss", "train/error", "train/grad_norm", "train/lr"} | {
        "validation/loss"
    }
    run(tmp_path / "cut", tracker=name, lr=0.01)  # another training in the same folder
    assert len(library.runs) == 2


def test_nothing_is_sent_unless_it_is_asked_for(library, tmp_path):
    run(tmp_path)
    run(tmp_path, tracker=library.__name__, fast_dev_run=2)
    assert not library.runs and not (tmp_path / "tracker.txt").exists()


def test_a_tracker_that_fails_does_not_stop_the_training(monkeypatch, tmp_path, caplog):
    wandb = Wandb(fails_at=4)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert run(tmp_path, tracker="wandb").steps == 12
    assert caplog.text.count("wandb failed (no route): the training continues without it") == 1
    assert max(next(iter(wandb.runs.values()))) == 2


def test_one_that_is_not_there_or_does_not_start_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match="mlflow is not installed; pip install mlflow"):
        run(tmp_path, tracker="mlflow")

    def refused(**_):
        raise RuntimeError("api_key not\nconfigured")

    wandb = Wandb()
    wandb.init = refused
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(
        InputError, match=r"wandb does not start \(api_key not configured\); log in"
    ):
        run(tmp_path, tracker="wandb")
