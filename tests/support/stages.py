"""The stages of a cohort in this process, and what each call of a script must keep to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from inside import Result, run_inside

from cardiform.cohort.table import Case, read_checked_cases

FEW_POINTS = (
    "--surface-points", 600, "--min-class-points", 20, "--near-points", 600, "--volume-points", 400,
)  # fmt: skip


def answered(result: Result) -> Result:
    """Good or refused, in lines of ``error: file: what is wrong; what to do``."""
    assert result.returncode in (0, 2), result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lines = errors_of(result)
    assert bool(lines) == (result.returncode == 2), result.stderr
    for line in lines:
        assert "defect" not in line, line
        assert len(line) < 1500, line
    return result


def errors_of(result: Result) -> list[str]:
    """The problems that a script named."""
    lines = result.stderr.splitlines()
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return found or [line for line in lines if ": error: " in line]  # of argparse


def tree(folder: Path) -> dict[str, str]:
    """Path below a folder -> hash of the file's bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Cohort:
    """A case table and its results folder."""

    table: Path
    out: Path

    def run(self, script: str, *arguments) -> Result:
        return answered(run_inside(script, *arguments))

    def check(self, on_bad_case: str = "skip") -> Result:
        more = "--on-bad-case", on_bad_case, "--max-bad-cases", 99
        return self.run("check_cohort.py", "--table", self.table, "--out", self.out, *more)

    def cases(self) -> list[Case]:
        return read_checked_cases(self.out / "cases.tsv")

    def stage(self, script: str, folder: str, *arguments, meshes: bool = True) -> Result:
        """A per-case stage: its results come below ``folder``."""
        out = self.out / folder
        places = ["--cases", self.out / "cases.tsv", "--out", out]
        places += ["--manifest", out / "manifest" / "all.tsv"]
        places += ["--meshes", self.out / "meshes"] if meshes else []
        return self.run(script, *places, *arguments)

    def geometry(self, resolution: int) -> list[Result]:
        """Meshes, points and sparse voxels of all usable cases."""
        return [
            self.stage("extract_meshes.py", "meshes", meshes=False),
            self.stage("sample_sdf.py", "points", *FEW_POINTS),
            self.stage("voxelize_labels.py", "sparse", "--resolution", resolution),
        ]
