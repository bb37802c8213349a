"""Time of ``snakemake -n`` over the number of cases.

    python benchmarks/dry_run.py --cases 10 1000 10000 --runs 5
    python benchmarks/dry_run.py --columns image pointcloud truth --targets all fused vqvae_windows

Each size is planned in a folder of its own with a generated case table and empty files; the
sizes take turns, so that a busy machine slows all of them alike. With --finished everything is
there already (a stand-in for python makes it). Prints user + system seconds (median), the ratio to
the first size, the peak memory and the number of jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The peak memory of a process counts from before its program began, with that of the process
# that started it: a small one has to.
METER = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000]), flush=True)
os._exit(os.waitstatus_to_exitcode(status) & 255)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--columns", nargs="*", default=[], help="beside labels")
    parser.add_argument("--targets", nargs="*", default=["all"])
    parser.add_argument("--finished", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projects = {n: make_project(Path(folder) / str(n), n, args.columns) for n in args.cases}
        if args.finished:
            for project in projects.values():
                finish(project, args.targets)
        times = {n: [] for n in args.cases}
        peaks, jobs = dict.fromkeys(args.cases, 0.0), {}
        for turn in range(args.runs + 1):
            for number, project in projects.items():
                seconds, peak, jobs[number] = dry_run(project, args.targets)
                if turn:  # the first turn warms the caches
                    times[number].append(seconds)
                    peaks[number] = max(peaks[number], peak)
    first = statistics.median(times[args.cases[0]])
    print("| cases | CPU s (median) | ratio | peak MB | jobs |\n|---|---|---|---|---|")
    for number in args.cases:
        median = statistics.median(times[number])
        ratio = median / first
        print(f"| {number:,} | {median:.2f} | {ratio:.2f} | {peaks[number]:.0f} | {jobs[number]} |")


def make_project(folder: Path, cases: int, columns: Sequence[str] = ()) -> Path:
    """A project with a case table of label maps and ``columns``; all files are empty."""
    (folder / "data").mkdir(parents=True)
    columns = ("labels", *columns)
    lines = ["\t".join(("case_id", "patient_id", *columns))]
    for i in range(cases):
        paths = [f"data/{i}.{column}" for column in columns]
        for path in paths:
            (folder / path).touch()
        lines.append("\t".join((f"case{i:05d}", f"patient{i:05d}", *paths)))
    (folder / "cohort.tsv").write_text("\n".join(lines) + "\n")
    (folder / "mine.yaml").write_text("cohort:\n  name: acme\n  table: cohort.tsv\n")
    return folder


def dry_run(project: Path, targets: Sequence[str] = ("all",)) -> tuple[float, float, int]:
    """CPU seconds, peak memory (MB) and planned jobs of one dry-run."""
    done = subprocess.run(
        [sys.executable, "-c", METER, *snakemake("-n", "--quiet", "rules"), *targets],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"the dry-run failed\n{done.stdout[-3000:]}")
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    total = re.search(r"^total +(\d+)", done.stdout, re.M)
    return seconds, megabytes, int(total[1]) if total else 0


def finish(project: Path, targets: Sequence[str]) -> None:
    """Make every output with a stand-in for python."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from stand_in import write_stand_in

    write_stand_in(project / "bin")
    environment = os.environ | {"PATH": f"{project / 'bin'}:{os.environ['PATH']}"}
    command = [*snakemake("--quiet", "all"), *targets]
    subprocess.run(command, cwd=project, env=environment, check=True)


def snakemake(*arguments: str) -> list[str]:
    command = [str(Path(sys.executable).parent / "snakemake"), *arguments]
    command += ["-s", str(ROOT / "workflow" / "Snakefile"), "--configfile", "mine.yaml"]
    return [*command, "--profile", str(ROOT / "profiles" / "default"), "--"]


if __name__ == "__main__":
    main()
