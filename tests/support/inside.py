"""Scripts run in this process: the libraries that take seconds to import are imported once."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import runpy
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"

LONGEST_S = 120


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


def apart(work: Callable, *arguments):
    """What ``work`` returns, from a fork: C++ that reads damaged input may crash its process.

    Raises
    ------
    AssertionError
        The process was killed, as it is after LONGEST_S, or ``work`` raised.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(LONGEST_S)
        try:
            answer = True, work(*arguments)
        except BaseException as error:
            answer = False, f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0 and content, f"killed by signal {-status}"
    good, answer = pickle.loads(content)
    assert good, answer
    return answer
