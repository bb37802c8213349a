"""Snakemake in a process of its own per call, its import paid once.

The import takes longer than the planning of a small DAG. This program imports it, and what the
project's Snakefile imports, then answers each request by a fork: a call has the state of a fresh
process, and so has the next one.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

LONGEST_S = 3600
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
# What every plan imports on its way: Snakemake's own, and modules of workflow/rules/common.smk.
LATER = (
    "argparse_dataclass", "graphlib", "jsonschema", "packaging.version", "platformdirs",
    "smart_open", "snakemake.profiles", "snakemake.report.html_reporter", "snakemake.storage",
    "yte",
)  # fmt: skip
LIBRARY = (
    "apply.models", "cli", "cohort.splits", "geometry.window_names", "labels",
    "ldm.option_checks", "options.checks", "options.config_files",
)  # fmt: skip


class Planner:
    """The program below, running; ``close`` ends it."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, arguments, cwd, env) -> subprocess.CompletedProcess:
        """As ``subprocess.run`` of snakemake with captured text."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder) / name for name in ("out", "err"))
            request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "env": dict(env)}
            request |= {"out": str(out), "err": str(err)}
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            code = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


@functools.cache
def planner() -> Planner:
    """What the calls of Snakemake of all tests of this process go through."""
    started = Planner()
    atexit.register(started.close)
    return started


def answer(request: dict) -> None:
    """In the child: become the call."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    signal.alarm(LONGEST_S)  # ends a call that hangs
    if str(ROOT / "workflow" / "Snakefile") not in request["arguments"]:
        for name in [n for n in sys.modules if n.split(".")[0] == "cardiform"]:
            del sys.modules[name]  # a copy of the checkout has a library of its own
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [str(Path(sys.executable).parent / "snakemake"), *request["arguments"]]
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    sys.path.insert(0, str(SCRIPTS))
    for name in (*LATER, *(f"cardiform.{module}" for module in LIBRARY)):
        importlib.import_module(name)
    sys.path.remove(str(SCRIPTS))
    gc.freeze()  # a collection in a fork would copy the pages of all these objects
    for line in sys.stdin:
        child = os.fork()
        if not child:
            answer(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    from snakemake import cli

    main()
