"""Trainings that are killed (on several ranks: tests/integration/test_ranks.py)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_training

from cardiform.training.checkpoint import load

TOY = Path(toy_training.__file__)


def start(out, *arguments):
    return subprocess.run(
        [sys.executable, str(TOY), str(out), *map(str, arguments)],
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
