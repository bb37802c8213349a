"""What several tests share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "workflow" / "scripts"
# Small real label maps that lie beside a developer's checkout; they are not in the project.
REAL_DATA = ROOT.parent / "shared" / "data"
REAL_HEARTS = ROOT.parent / "shared" / "data2"


@pytest.fixture(scope="session")
def run_script():
    """Call a script as a user would: its exit code, stdout and stderr."""

    def run(name, *arguments, cwd=None, timeout=300):
        return subprocess.run(
            [sys.executable, str(SCRIPTS / name), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def real_data():
    """The folder of real label maps; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real label maps: the folder shared/data beside the checkout is absent")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_hearts():
    """The folder of label maps of whole hearts; the test is skipped where it is absent."""
    if not REAL_HEARTS.is_dir():
        pytest.skip("no real hearts: the folder shared/data2 beside the checkout is absent")
    return REAL_HEARTS
