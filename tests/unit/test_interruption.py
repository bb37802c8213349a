"""Trainings that are killed, run out of disk, or run on several ranks."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_training

from cardiform.training.checkpoint import differences, load

TOY = Path(toy_training.__file__)


def start(out, *arguments, ranks=1):
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [*launcher, str(TOY), str(out), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )


def figures(out):
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {
        (e["event"], e["step"]): e["figures"] for e in lines if e["event"] in ("log", "validation")
    }


@pytest.mark.slow
def test_killed_at_random_and_started_again_is_bit_identical(tmp_path):
    torch.set_num_threads(1)
    whole = toy_training.run(tmp_path / "whole")
    cut = tmp_path / "cut"
    for at in sorted(random.Random(0).sample(range(12), 3)):
        killed = start(cut, "--signal-at", at)
        assert killed.returncode == -9, killed.stderr
    resumed = toy_training.run(cut)
    assert resumed.steps == whole.steps == 12
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name]), name
    last = [load(f / "checkpoints" / "last.pt", "") for f in (tmp_path / "whole", cut)]
    for name, value in last[0]["module"].items():
        assert torch.equal(value, last[1]["module"][name]), name
    assert figures(cut) == figures(tmp_path / "whole")


@pytest.mark.slow
def test_two_ranks_stopped_and_resumed_equal_one(tmp_path):
    """The same samples and random numbers in the same steps; only the order of sums differs."""
    stopped = start(tmp_path / "two", "--set", "max_minutes=0.000001", ranks=2)
    assert stopped.returncode != 0 and "the same command resumes" in stopped.stderr
    resumed = start(tmp_path / "two", ranks=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from step 1" in resumed.stderr
    toy_training.run(tmp_path / "one", accumulate=2)
    # the key holds the options that decide the result, and both runs have all but one alike
    one, two = (load(tmp_path / n / "checkpoints" / "last.pt", "") for n in ("one", "two"))
    assert differences(one["key"], two["key"]) == ["accumulate 2 -> 1"]
    a, b = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert a.keys() == b.keys()
    for event, values in a.items():
        assert values == pytest.approx(b[event], rel=1e-4), event
    for name, value in one["module"].items():
        torch.testing.assert_close(value, two["module"][name], rtol=1e-4, atol=1e-6)
