"""Calls of Snakemake by benchmarks/load.py, without the time of its import."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import load
import pytest
from planner import planner

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def calls_of_load(monkeypatch):
    """``load.call`` as it is, but for the CPU seconds, which no test looks at."""

    def call(folder, *arguments) -> tuple[int, str, float]:
        places = ["-s", ROOT / "workflow" / "Snakefile", "--configfile", "mine.yaml"]
        places += ["--profile", ROOT / "profiles" / "default"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        result = planner()([*places, *arguments], folder, environment)
        return result.returncode, result.stdout + result.stderr, 0.0

    monkeypatch.setattr(load, "call", call)
