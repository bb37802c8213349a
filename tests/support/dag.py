"""Snakemake's decisions: a project of twelve cases and a stand-in ``python`` on PATH."""

from __future__ import annotations

import os
import re
from pathlib import Path

import load
from planner import planner
from stand_in import write_stand_in

ROOT = Path(__file__).resolve().parents[2]


def make_project(folder, *columns) -> Path:
    """A working directory with twelve cases and a config.

    columns : of the case table, beside the label maps.
    """
    write_stand_in(folder / "bin")
    (folder / "data").mkdir()
    write_table(folder, 12, *columns)
    write_config(folder)
    return folder


def write_table(folder, cases, *columns):
    lines = ["\t".join(["case_id", "patient_id", "labels", *columns])]
    for i in range(cases):
        names = [f"data/{i}.nii.gz", *(f"data/{i}.{column}" for column in columns)]
        for name in names:
            if not (folder / name).exists():
                (folder / name).write_text(f"labels {i}")
        lines.append("\t".join([f"case{i}", f"p{i}", *names]))
    (folder / "cohort.tsv").write_text("\n".join(lines) + "\n")


def write_config(folder, text="", chunks=4):
    (folder / "mine.yaml").write_text(
        f"cohort:\n  name: acme\n  table: cohort.tsv\n  chunks: {chunks}\n{text}"
    )


def snakemake(folder, *arguments, profile="default"):
    """A call in a project.    profile : of the checkout, or a path; None: what a call finds."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    places = ["--configfile", "mine.yaml", "-s", ROOT / "workflow" / "Snakefile"]
    places += ["--profile", ROOT / "profiles" / profile, "--cores", "2"] if profile else []
    return planner()([*places, *arguments], folder, environment)


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
