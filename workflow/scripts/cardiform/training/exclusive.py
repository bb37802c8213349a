"""One training at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import outputs
from ..errors import InputError, problem
from ..files import write_problem

LEASE_S = 180.0  # so long a network file system keeps the locks of a machine that died
TICK_S = 5.0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` within the block.

    A killed Snakemake leaves its jobs running: without the lock the next run would start the
    same training beside them. The kernel frees it when the process ends, however it ends; the
    file stays. Where the file system knows no locks, there is none.

    Raises
    ------
    InputError
        Another process holds it (on another machine: for longer than a dead one could), or
        the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        outputs.enter(path)
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(write_problem(path, error) or str(error)) from error
    with stream:
        _lock(stream, path)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}")
        stream.flush()
        yield


def _lock(stream, path: Path) -> None:
    end = time.monotonic() + LEASE_S
    while holder := _holder(stream):
        if holder.endswith(f" on {platform.node()}") or time.monotonic() > end:
            remedy = "wait for it, or end it, and run the same command again"
            if not holder.endswith(f" on {platform.node()}"):
                remedy += f"; if its machine is gone, delete {path}"
            raise InputError(problem(path.parent, f"{holder} trains here", remedy))
        time.sleep(TICK_S)


def _holder(stream) -> str:
    """Who else holds the lock; empty: it is ours, or there are no locks here."""
    try:
        # by process, not by open file as flock has it: loader processes that outlive a killed
        # training for seconds would hold that
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        stream.seek(0)
        return stream.read() or "another process"
    except OSError:
        pass
    return ""
