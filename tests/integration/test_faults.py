"""Faults put in on purpose: what was finished is kept, and one line says what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mounts import run_with_disk
from toy_training import ToyTask, run

from cardiform.errors import InputError

SUPPORT = Path(__file__).resolve().parents[1] / "support"


class Filling(ToyTask):
    """A training during which somebody else fills the disk."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def loss(self, batch, update, step):
        if step == 5:
            with (self.folder / "filler").open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(4096))
                except OSError:
                    pass
        return super().loss(batch, update, step)


def train_on_a_full_disk(disk: Path, whole: Path) -> None:
    """Until it is full, then again with room; report as JSON."""
    expected = run(whole)
    problems = []
    try:
        run(disk / "out", Filling(disk))
    except InputError as error:
        problems = error.problems
    left = sorted(p.name for p in (disk / "out" / "checkpoints").iterdir())
    (disk / "filler").unlink()
    outcome = run(disk / "out")
    equal = all(torch.equal(v, outcome.weights[n]) for n, v in expected.weights.items())
    json.dump({"problems": problems, "left": left, "equal": equal}, sys.stdout)


def inside(function, disk, *arguments, **how):
    """The JSON that a function of this file reports from a process with a disk of its own."""
    name = Path(__file__).stem
    words = f"import sys, {name} as t; from pathlib import Path; t.{function.__name__}"
    code = f"{words}(*map(Path, sys.argv[1:]))"
    paths = os.pathsep.join([str(Path(__file__).parent), str(SUPPORT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, disk, *arguments]
    result = run_with_disk("full", disk, command, env=environment, **how)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_a_disk_that_fills_up_during_a_training_costs_no_finished_step(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    found, text = inside(train_on_a_full_disk, disk, tmp_path / "whole", size="4m")
    (line,) = found["problems"]
    assert "No space left" in line or "the disk has" in line
    assert "make room" in line and "run the same command again" in line
    assert found["left"] == ["best.pt", "last.pt"], "nothing half written"
    assert found["equal"], "it goes on as if nothing had happened"
    assert "Traceback" not in text


def start_toy(out, *arguments):
    command = [sys.executable, SUPPORT / "toy_training.py", out, *arguments]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    """As after a Snakemake that was killed, whose jobs go on."""
    first = start_toy(tmp_path, "--signal-at", 2, "--signal", "SIGSTOP")
    os.waitpid(first.pid, os.WUNTRACED)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"process {first.pid} on .* trains here; wait for it"):
        run(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    first.send_signal(signal.SIGKILL)
    first.communicate()
    outcome = run(tmp_path)  # the lock went with the process
    expected = run(tmp_path / "whole")
    assert all(torch.equal(v, outcome.weights[n]) for n, v in expected.weights.items())
