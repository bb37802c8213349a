"""Snakemake's decisions: a project of twelve cases and a stand-in ``python`` on PATH, which makes
the outputs of every script at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import load

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """#!{python}
import sys, pathlib, hashlib
arguments = sys.argv[1:]
name = next(pathlib.Path(a).stem for a in arguments if a.endswith(".py") and "launch" not in a)
value = lambda flag: pathlib.Path(arguments[arguments.index(flag) + 1])
content = hashlib.sha256(" ".join(arguments).encode()).hexdigest()
def put(path, text=content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
out = value("--out")
if name == "check_cohort":
    put(out / "cases.tsv", value("--table").read_text())
    put(out / "qc" / "cohort.json")
elif name == "split_cohort":
    for part in ("train", "val", "test"):
        put(out / (part + ".csv"), value("--cases").read_text())
elif name == "collect_fused":
    put(out / "cases.tsv"); put(out / "summary.json")
elif name.startswith(("train_", "pretrain_")):
    put(out / "model.pt"); put(out / "metrics.json")
elif name in ("reconstruct_vqvae", "refine_coronary", "sample_diffusion", "complete_labels"):
    put(out / "metrics.json")
elif name == "evaluate_samples":
    put(out)
elif name in ("resample_labels", "convert_pointclouds", "encode_latents"):
    put(value("--manifest")); put(out / "grid.json"); put(out / "statistics.json")
    put(out / "cases.tsv")
elif name == "reconstruct_vecset":
    put(value("--metrics"))
else:
    put(value("--manifest"))
"""


def make_project(folder) -> Path:
    """A working directory with twelve cases and a config."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    stand_in = bin_folder / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    (folder / "data").mkdir()
    write_table(folder, 12)
    write_config(folder)
    return folder


def write_table(folder, cases, first=0):
    lines = ["case_id\tpatient_id\tlabels"]
    for i in range(first, cases):
        path = folder / "data" / f"{i}.nii.gz"
        if not path.exists():
            path.write_text(f"labels {i}")
        lines.append(f"case{i}\tp{i}\tdata/{i}.nii.gz")
    (folder / "cohort.tsv").write_text("\n".join(lines) + "\n")


def write_config(folder, text="", chunks=4):
    (folder / "mine.yaml").write_text(
        f"cohort:\n  name: acme\n  table: cohort.tsv\n  chunks: {chunks}\n{text}"
    )


def snakemake(folder, *arguments, profile="default"):
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(Path(sys.executable).parent / "snakemake"), "-s", str(ROOT / "workflow" / "Snakefile")]
        + ["--profile", str(ROOT / "profiles" / profile)]
        + ["--configfile", "mine.yaml", "--cores", "2", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def planned(folder, *arguments) -> dict[str, int]:
    """Rule -> number of jobs that a dry-run lists."""
    result = snakemake(folder, "-n", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    table = re.search(
        r"^job +count\n-.*?\n(.*?)\ntotal", result.stderr + result.stdout, re.M | re.S
    )
    return (
        {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()} if table else {}
    )


def run(folder, *arguments) -> dict[str, int]:
    """Run, and rule -> number of jobs that ran."""
    result = snakemake(folder, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return load.executed(result.stdout + result.stderr)
