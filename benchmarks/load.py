"""A cohort of very small cases for real: what the workflow itself costs, case by case.

    python benchmarks/load.py --cases 1000

Makes label maps of 24 x 16 x 16 voxels with two classes and takes them through
profiles/default: check, meshes, points, sparse voxels and split. Then nothing is changed, one
case is added, and every stage is asked to look at all its finished cases again. Prints user +
system seconds and jobs of each call.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

CONFIG = {
    "cohort": {"name": "load", "table": "cohort.tsv"},
    "points": {
        "surface_points": 400,
        "min_class_points": 50,
        "near_points": 2000,
        "volume_points": 200,
    },
    "voxels": {"resolution": 32},
}
FEW = 100  # below, a part of the split may be empty
SHAPE = (24, 16, 16)
TARGETS = ("points", "voxels", "results/load/split/train.csv")
STAGES = ("qc", "meshes", "points", "sparse/32")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = make_cohort(Path(name), args.cases, args.chunks)
        print("| call | CPU s | jobs | cases computed |\n|---|---|---|---|")
        report(folder, "all cases")
        report(folder, "nothing changed")
        add_case(folder, args.cases)
        report(folder, "one case more")
        report(folder, "every stage looks again", "--forceall")


def report(folder: Path, what: str, *arguments: str) -> None:
    seconds, jobs, cases = load(folder, *arguments)
    counts = ", ".join(f"{rule} {number}" for rule, number in jobs.items()) or "none"
    print(f"| {what} | {seconds:.1f} | {counts} | {cases} |", flush=True)


def make_cohort(folder: Path, cases: int, chunks: int = 64, **changes) -> Path:
    """A project of ``cases`` cases in ``folder``: label maps, table and config."""
    (folder / "data").mkdir(parents=True)
    (folder / "cohort.tsv").write_text("case_id\tpatient_id\tlabels\n")
    for number in range(cases):
        add_case(folder, number)
    config = json.loads(json.dumps(CONFIG))
    config["cohort"] |= {"chunks": chunks, **changes}
    if cases < FEW:
        config["split"] = {"validation": 0.0, "test": 0.0}
    (folder / "mine.yaml").write_text(json.dumps(config))
    return folder


def add_case(folder: Path, number: int) -> None:
    """Write the label map of a case, two ellipsoids that differ from case to case, and its row."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    data = np.zeros(SHAPE, np.uint8)
    for value, x in ((3, 6.5), (4, 17.0)):
        center = np.array([x, 7.5, 7.5]) + rng.uniform(-0.5, 0.5, 3)
        inside = (grid - center[:, None, None, None]) / rng.uniform(4.5, 5.5, (3, 1, 1, 1))
        data[np.linalg.norm(inside, axis=0) < 1] = value
    image = nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
    nib.save(image, folder / "data" / f"{number}.nii.gz")
    with (folder / "cohort.tsv").open("a") as stream:
        stream.write(f"case{number:05d}\tp{number:05d}\tdata/{number}.nii.gz\n")


def load(folder: Path, *arguments: str) -> tuple[float, dict[str, int], int]:
    """One call of the workflow: its CPU seconds, its jobs, and how many times a stage
    computed a case."""
    before = stamps(folder)
    code, text, seconds = call(folder, *arguments, "--", *TARGETS)
    if code:
        sys.exit(text[-3000:])
    return seconds, executed(text), len(set(stamps(folder).items()) - set(before.items()))


def call(folder: Path, *arguments: str) -> tuple[int, str, float]:
    """Exit code, output and CPU seconds of a call of Snakemake with its jobs."""
    binaries = Path(sys.executable).parent
    command = [str(binaries / "snakemake"), "-s", str(ROOT / "workflow" / "Snakefile")]
    command += ["--configfile", "mine.yaml", "--profile", str(ROOT / "profiles" / "default")]
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
    return child.returncode, text, usage.ru_utime + usage.ru_stime


def executed(text: str) -> dict[str, int]:
    """Rule -> number of jobs that ran, off Snakemake's output."""
    counts: dict[str, int] = {}
    for name in re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", text, re.M):
        counts[name] = counts.get(name, 0) + 1
    return counts


def stamps(folder: Path) -> dict[Path, int]:
    """When each stage last computed each case."""
    results = folder / "results" / "load"
    return {
        path: path.stat().st_mtime_ns
        for stage in STAGES
        for path in (results / stage / "state").glob("*.json")
    }


if __name__ == "__main__":
    main()
