"""A real SLURM on this machine, in namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from scontrol import described

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter")
# sacct has no data base to ask here, and a test does not wait as long as a cluster should.
POLLING = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "8"]


class Cluster:
    """Two nodes with 32 CPUs and four fake GPUs each."""

    def __init__(self, folder: Path):
        self.log = folder / "out.log"
        script = Path(__file__).with_name("cluster.sh")
        command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "bash", str(script), str(folder), "2"], stdout=log, stderr=log
            )
        for _ in range(300):
            if self.process.poll() is not None or (folder / "ready").exists():
                break
            time.sleep(0.2)
        if not (folder / "ready").exists():
            self.stop()
            raise RuntimeError(f"SLURM did not start:\n{self.log.read_text()}")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.enter = ["nsenter", "--mount", "--pid", "--target", children.split()[0]]

    def stop(self):
        self.process.kill()  # and with it all that runs in its namespaces
        self.process.wait()

    def call(self, *command) -> str:
        """Output of a command inside; it must succeed."""
        command = [*self.enter, *map(str, command)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def jobs(self, name: str, folder: Path) -> list[dict[str, str]]:
        """``scontrol show job`` of all jobs of a rule in a folder, the newest last."""
        found = [described(line) for line in self.call("scontrol", "-o", "show", "job").split("\n")]
        found = [
            job
            for job in found
            if job.get("Comment", "").split("_wildcards_")[0] == name
            and job["WorkDir"] == str(folder)
        ]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def snakemake(
        self, folder: Path, config: dict, *arguments, profile="slurm", python=None, **environment
    ):
        """Start Snakemake with a profile and the project's Snakefile in ``folder``.

        python : the program that runs it, and that its jobs take for their Snakemake too.
        """
        (folder / "mine.yaml").write_text(yaml.safe_dump(config))
        executor = [] if profile == "default" else POLLING
        program = [BIN / "snakemake"] if python is None else [python, "-m", "snakemake"]
        return subprocess.Popen(
            [*self.enter, "env", f"--chdir={folder}", *map(str, program), *arguments]
            + ["-s", str(ROOT / "workflow" / "Snakefile"), "--latency-wait", "5"]
            + ["--profile", str(ROOT / "profiles" / profile), *executor]
            + ["--configfile", "mine.yaml"],
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        pytest.skip(f"no SLURM here ({', '.join(missing)} missing); docs/development.md")
    if os.geteuid():
        pytest.skip("a SLURM of its own needs root")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"]).returncode:
        pytest.skip("this machine lets nobody make namespaces")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


@pytest.fixture
def events():
    """The events of a training that was started in ``folder``, as they stand now."""

    def read(folder: Path, kind: str) -> list[dict]:
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [e for e in map(json.loads, lines) if e["event"] == kind]

    return read
