"""A stop that reaches every process of a job at once: the script saves, and its log says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands for a training: asked to stop it takes a moment, writes what it has, and says so.
TRAINING = """#!{python}
import pathlib, signal, sys, time
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("--out") + 1])
def stop(number, frame):
    print("finishing the step", flush=True)
    time.sleep(0.5)
    print("stopped by", signal.Signals(number).name, flush=True)
    (out / "checkpoint").write_text("all of it")
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
out.mkdir(parents=True, exist_ok=True)
(out / "started").touch()
print("first step", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stop_of_the_whole_job_lets_the_script_save_and_say_so(tmp_path, number):
    """As SLURM ends a job, or Ctrl-C a run: the shell and tee get the signal as well."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(TRAINING.format(python=sys.executable))
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "labels.nii.gz").touch()
    (tmp_path / "cohort.tsv").write_text("case_id\tlabels\na\tlabels.nii.gz\n")
    (tmp_path / "mine.yaml").write_text("cohort: {name: acme, table: cohort.tsv}\n")
    results = tmp_path / "results" / "acme" / "qc"
    run = subprocess.Popen(
        [str(Path(sys.executable).parent / "snakemake"), "results/acme/qc/manifest/a.tsv"]
        + ["-s", str(ROOT / "workflow" / "Snakefile"), "--configfile", "mine.yaml"]
        + ["--profile", str(ROOT / "profiles" / "default"), "--cores", "1"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell's background job would ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        for _ in range(1200):
            if (results / "started").exists():
                break
            time.sleep(0.05)
        time.sleep(0.2)
        os.killpg(run.pid, number)
        text, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode not in (0, -number), text
    log = (tmp_path / "logs" / "acme" / "check_cases" / "a.log").read_text()
    assert log.splitlines() == ["first step", "finishing the step", f"stopped by {number.name}"]
    assert (results / "checkpoint").exists()
