"""Limits of the machine that loader processes meet: one line that says what to set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from answers import refused
from mounts import run_with_disk

TOY = Path(__file__).resolve().parents[1] / "support" / "toy_training.py"
SHARED = Path("/dev/shm")
TRAINING = ("--set", "workers=2", "steps=1", "warmup_steps=0")


def train(out, shell):
    """Two loader processes; shell : what is said before."""
    command = ["sh", "-c", f'{shell} && exec "$@"', "sh", sys.executable, TOY, out, *TRAINING]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)


def test_too_few_open_files(tmp_path):
    result = train(tmp_path, "ulimit -n 40")
    refused(result, "no more than 40 files may be open at once", "ulimit -n 4096", "fewer workers")


def test_the_limit_is_raised_where_the_system_allows_it(tmp_path):
    result = train(tmp_path, "ulimit -S -n 40")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("size", ["64k", "8k"])
def test_a_small_shared_memory(tmp_path, size):
    command = [sys.executable, TOY, tmp_path, *TRAINING]
    result = run_with_disk("full", SHARED, command, size=size)
    refused(result, "/dev/shm", "workers: 0")
    assert "more memory" not in result.stderr


def test_a_shared_memory_that_cannot_be_written(tmp_path):
    command = [sys.executable, TOY, tmp_path, *TRAINING]
    refused(
        run_with_disk("read_only", SHARED, command), "/dev/shm: cannot be written", "workers: 0"
    )
    result = run_with_disk("read_only", SHARED, [sys.executable, TOY, tmp_path / "alone"])
    assert result.returncode == 0, result.stderr
    assert os.access(SHARED, os.W_OK), "that of this process is as it was"
