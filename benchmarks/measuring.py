"""What the benchmarks share: the library on the path, routes in processes of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))


def run_child(script: str, *arguments):
    """What ``script --child ...`` prints as JSON, in a process of its own with one thread."""
    command = [sys.executable, script, "--child", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(work, *arguments, **keywords):
    """User and system seconds, of all threads, of a call; and what it returned."""
    start = time.process_time()
    result = work(*arguments, **keywords)
    return time.process_time() - start, result


def peak_mib() -> float:
    """The most memory that this process has held so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib() -> float:
    """Memory that this process holds, MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
