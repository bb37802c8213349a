"""Disks of a test's own: full ones and read-only ones. They go with the process that has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--mount", "sh", "-c"]
MOUNT = {
    "full": 'mount -t tmpfs -o size="$1" tmpfs "$2"',
    "read_only": 'mount --bind "$2" "$2" && mount -o remount,ro,bind "$2"',
}


def run_with_disk(
    kind: str, folder: Path, command, size: str = "1m", **how
) -> subprocess.CompletedProcess:
    """Run ``command`` where ``folder`` is a small disk of its own, or cannot be written.

    No other process sees the disk, and nothing of it is left behind. Skips where this is not
    permitted.

    kind : ``full`` (an empty disk of ``size``) or ``read_only``.
    """
    if not can_mount(folder):
        pytest.skip("mounts are not permitted here: this needs root, and the command unshare")
    inside = f'{MOUNT[kind]} && shift 2 && exec "$@"'
    return subprocess.run(
        [*NAMESPACE, inside, "sh", size, str(folder), *map(str, command)],
        capture_output=True,
        text=True,
        timeout=240,
        **how,
    )


def can_mount(folder: Path) -> bool:
    """Whether disks of a test's own can be had."""
    if not shutil.which("unshare"):
        return False
    probe = [*NAMESPACE, MOUNT["full"], "sh", "100k", str(folder)]
    return subprocess.run(probe, capture_output=True).returncode == 0
