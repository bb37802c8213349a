"""Calls of Snakemake by benchmarks/load.py, without the time of its imports and its jobs'."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import forked_python
import load
import pytest
from planner import planner

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# of the stages that benchmarks/load.py runs: their import takes longer than a chunk of tiny cases
LIBRARIES = (
    "cc3d", "concurrent.futures.process", "edt", "logging.handlers", "nibabel", "numpy",
    "scipy.interpolate", "scipy.ndimage", "scipy.sparse.csgraph", "scipy.spatial",
    "skimage.measure", "trimesh", "yaml",
)  # fmt: skip


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """A folder with a ``python`` whose scripts begin with these libraries imported."""
    folder = tmp_path_factory.mktemp("forked")
    forked_python.install(folder / "python", BIN / "python", LIBRARIES)
    return folder


@pytest.fixture(autouse=True)
def calls_of_load(monkeypatch, forked):
    """``load.call`` as it is, but for the CPU seconds, which no test looks at."""

    def call(folder, *arguments) -> tuple[int, str, float]:
        places = ["-s", ROOT / "workflow" / "Snakefile", "--configfile", "mine.yaml"]
        places += ["--profile", ROOT / "profiles" / "default"]
        path = f"{forked}:{BIN}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        result = planner()([*places, *arguments], folder, environment)
        return result.returncode, result.stdout + result.stderr, 0.0

    monkeypatch.setattr(load, "call", call)
