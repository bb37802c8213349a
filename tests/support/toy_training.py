"""A training of seconds: a small network on noisy lines. Also a script, to be killed by tests."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from cardiform import cli  # noqa: E402
from cardiform.options.training import TrainingOptions  # noqa: E402
from cardiform.training.engine import Outcome, train  # noqa: E402

DROPOUT = 0.2  # makes the course depend on the random state
QUICK = {
    "steps": 12,
    "batch_size": 4,
    "lr": 0.02,
    "warmup_steps": 3,
    "validate_every": 4,
    "checkpoint_every": 3,
    "log_every": 2,
    "preview_every": 0,
    "ema_decay": 0.9,
    "workers": 0,
    "device": "cpu",
}


class Lines:
    """Samples y = 2 x - 1 + noise; ``draw`` alone decides the noise."""

    def __init__(self, size: int = 10, bad: int | None = None):
        self.size, self.bad = size, bad
        self.draws: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        self.draws.append(key)
        x = np.random.default_rng((7, draw)).normal(size=4).astype(np.float32) + index
        y = 2 * x - 1
        if index == self.bad:
            y = y * np.nan
        return {"x": x, "y": y, "case_id": f"case{index}"}


class ToyTask:
    """One network, or two that are trained in turn; some of it frozen."""

    def __init__(self, updates: tuple[str, ...] = ("model",), dropout: float = DROPOUT):
        torch.manual_seed(0)
        self.updates = updates
        self.module = nn.ModuleDict(
            {
                "frozen": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
                "model": nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(dropout)),
                "head": nn.Linear(16, 4),
                "other": nn.Linear(4, 4),
            }
        )
        self.module["frozen"].requires_grad_(False)
        if len(updates) == 1:
            self.module["other"].requires_grad_(False)
        self.seen: list[tuple[int, str, bool]] = []
        self.validation_seconds = 0.0

    def parameters(self, update: str):
        if update == "other":
            return list(self.module["other"].parameters())
        return [*self.module["model"].parameters(), *self.module["head"].parameters()]

    def predict(self, x):
        self.module["frozen"].eval()  # freezing is the task's affair
        return self.module["head"](self.module["model"](x + 0 * self.module["frozen"](x)))

    def loss(self, batch, update, step):
        self.seen.append((step, update, self.module["other"].weight.requires_grad))
        if update == "other":
            loss = (self.module["other"](batch["x"]) - batch["y"]).square().mean()
            return loss, {}
        error = (self.predict(batch["x"]) - batch["y"]).square().mean()
        return error, {"error": error.detach()}

    def evaluate(self, batches):
        time.sleep(self.validation_seconds)
        errors = [(self.predict(b["x"]) - b["y"]).square().mean().item() for b in batches]
        return {"loss": sum(errors) / len(errors)}


def options(**changes) -> TrainingOptions:
    return cli.checked(TrainingOptions, {**QUICK, **changes})


def run(out: Path, task: ToyTask | None = None, train_set=None, **changes) -> Outcome:
    return train(
        task or ToyTask(),
        train_set or Lines(),
        Lines(4),
        options=options(**changes),
        out=out,
        identity={"data": "lines"},
    )


class KilledAt(ToyTask):
    """Gets a signal before the loss of a step, as from a scheduler or a power cut."""

    def __init__(self, step: int, number: int, dropout: float = DROPOUT):
        super().__init__(dropout=dropout)
        self.at, self.number = step, number

    def loss(self, batch, update, step):
        if step == self.at:
            os.kill(os.getpid(), self.number)
        return super().loss(batch, update, step)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--signal-at", type=int, default=-1)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--validation-seconds", type=float, default=0.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changes = {k: float(v) if "." in v else int(v) for k, v in (s.split("=") for s in args.set)}
    dropout = changes.pop("dropout", DROPOUT)
    task = KilledAt(args.signal_at, signal.Signals[args.signal], dropout)
    task.validation_seconds = args.validation_seconds
    run(args.out, task, **changes)


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


if __name__ == "__main__":
    cli.run(main)
