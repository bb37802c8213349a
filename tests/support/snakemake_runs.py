"""Snakemake on the project's workflow in a folder of a test, as a process that can be watched."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from planner import planner

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments) -> list[str]:
    """The call of a user, with the default profile and the config ``mine.yaml``."""
    return [
        str(Path(sys.executable).parent / "snakemake"), "-s", str(ROOT / "workflow" / "Snakefile"),
        "--profile", str(ROOT / "profiles" / "default"), "--configfile", "mine.yaml",
        *map(str, arguments),
    ]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Programs of ``folder/bin`` go before those of this Python."""
    path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def call(folder: Path, *arguments) -> tuple[int, str]:
    """Exit code and all output."""
    _, *words = command("--cores", 2, *arguments)
    result = planner()(words, folder, environment(folder))
    return result.returncode, result.stdout + result.stderr


def wait_for(path: Path, seconds: float = 60) -> None:
    """Until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)
