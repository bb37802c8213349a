"""Running the real workflow in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import forked_python
import pytest
import stand_in_conda
import yaml
from planner import planner

from cardiform.cohort import splits
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.options.cohort import SplitOptions

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """A folder with a ``python`` that has the large libraries imported when a script begins."""
    folder = tmp_path_factory.mktemp("forked")
    forked_python.install(folder / "python", BIN / "python", forked_python.COARSE)
    return folder


@pytest.fixture(scope="session")
def run_workflow(forked):
    """Run Snakemake in ``folder`` with a config, on top of a config file of the project.

    ``path`` comes first on PATH, ``root`` is a copy of the checkout; returns what was printed.
    """

    def run(
        folder, config, *arguments, base=None, path="", root=ROOT, cores=2, succeeds=True
    ) -> str:
        (folder / "mine.yaml").write_text(yaml.safe_dump(config))
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(path or forked), str(BIN), os.environ["PATH"]]),
            # Snakemake gives each job OMP_NUM_THREADS; waiting threads leave the cores to the
            # other tests in place of spinning.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        files = [str(ROOT / "config" / base)] if base else []
        places = ["-s", root / "workflow" / "Snakefile", "--profile", ROOT / "profiles" / "default"]
        configs = ["--configfile", *files, "mine.yaml", "--cores", cores]
        result = planner()([*arguments, *places, *configs], folder, environment)
        text = result.stdout + result.stderr
        assert (result.returncode == 0) == succeeds, text[-6000:]
        return text

    return run


@pytest.fixture(scope="session")
def conda(tmp_path_factory):
    """Folder of the stand-in's programs, and where the environments go."""
    base = tmp_path_factory.mktemp("conda")
    return stand_in_conda.install(base), base / "environments"


@pytest.fixture(scope="session")
def run_in_conda(conda, run_workflow):
    """Run the workflow with an environment per rule; other arguments go to run_workflow."""
    programs, prefix = conda

    def run(folder, config, *arguments, **others) -> str:
        options = ("--sdm", "conda", "--conda-prefix", str(prefix))
        return run_workflow(folder, config, *arguments, *options, path=programs, **others)

    return run


@pytest.fixture(scope="session")
def seed_that_fills_every_part():
    """The first split seed with a case in each part; so small a cohort needs a choice."""

    def find(names, **shares) -> int:
        members = [Case(case_id=n, patient_id=n, labels="x") for n in names]
        for seed in range(1000):
            try:
                splits.split_cases(members, SplitOptions(seed=seed, **shares))
                return seed
            except InputError:
                continue
        raise AssertionError("no seed fills every part")

    return find
