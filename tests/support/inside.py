"""Scripts run in this process: the libraries that take seconds to import are imported once."""

from __future__ import annotations

import contextlib
import io
import logging
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


@dataclass
class Result:
    """What subprocess.run would tell."""

    returncode: int
    stderr: str


def run_inside(name: str, *arguments) -> Result:
    """Run a script as ``__main__``; its exit code and what it wrote to stderr."""
    handlers, broken_pipe = logging.root.handlers[:], signal.getsignal(signal.SIGPIPE)
    logging.root.handlers.clear()
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    written, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stderr(written):
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.argv, logging.root.handlers[:] = before, handlers
        signal.signal(signal.SIGPIPE, broken_pipe)
    return Result(code, written.getvalue())
