"""Time of ``snakemake -n`` over the number of cases.

    python benchmarks/dry_run.py --cases 10 1000 10000 --runs 5

Each size is planned in a folder of its own with a generated case table and empty label maps;
the sizes take turns, so that a busy machine slows all of them alike. Prints user + system
seconds (median), the ratio to the first size, and the peak memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projects = {n: make_project(Path(folder) / str(n), n) for n in args.cases}
        times = {n: [] for n in args.cases}
        peaks = dict.fromkeys(args.cases, 0)
        for turn in range(args.runs + 1):
            for number, project in projects.items():
                seconds, peak = dry_run(project)
                if turn:  # the first turn warms the caches
                    times[number].append(seconds)
                    peaks[number] = max(peaks[number], peak)
    first = statistics.median(times[args.cases[0]])
    print("| cases | CPU s (median) | ratio | peak MB |\n|---|---|---|---|")
    for number in args.cases:
        median = statistics.median(times[number])
        print(f"| {number:,} | {median:.2f} | {median / first:.2f} | {peaks[number] / 1024:.0f} |")


def make_project(folder: Path, cases: int) -> Path:
    (folder / "data").mkdir(parents=True)
    lines = ["case_id\tpatient_id\tlabels"]
    for i in range(cases):
        (folder / "data" / f"{i}.nii.gz").touch()
        lines.append(f"case{i:05d}\tpatient{i:05d}\tdata/{i}.nii.gz")
    (folder / "cohort.tsv").write_text("\n".join(lines) + "\n")
    (folder / "mine.yaml").write_text("cohort:\n  name: acme\n  table: cohort.tsv\n")
    return folder


def dry_run(project: Path) -> tuple[float, int]:
    """CPU seconds and peak memory (KiB) of one dry-run."""
    command = [str(Path(sys.executable).parent / "snakemake"), "-n", "--quiet", "all"]
    command += ["-s", str(ROOT / "workflow" / "Snakefile"), "--configfile", "mine.yaml"]
    command += ["--profile", str(ROOT / "profiles" / "default")]
    start = time.monotonic()
    child = subprocess.Popen(
        command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    message = child.stderr.read()
    child.stderr.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"the dry-run failed after {time.monotonic() - start:.0f} s\n{message.decode()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


if __name__ == "__main__":
    main()
