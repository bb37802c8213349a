"""One new case through trained models: apply against the workflow's own stages, on the CPU.

    python benchmarks/apply_case.py --results results/demo --case phantom_003
    python benchmarks/apply_case.py --results results/demo --confidence A.nii.gz B.nii.gz

Both routes begin with the label map alone. The stages are what the workflow runs for a case of its
split: a process per stage, figures beside untrained networks and earlier stages included. Wall and
CPU seconds, and the most memory of any process of a route. With --confidence the second instead:
what the confidence adds to the reconstruction of some label maps.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT

sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from cardiform import cli
from cardiform.apply.stages import find_stages
from cardiform.cohort.table import read_checked_cases, write_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--case")
    which.add_argument("--confidence", nargs="+", type=Path, metavar="LABELS")
    args = parser.parse_args()
    if args.confidence:
        measure_confidence(args.results, args.confidence)
        return
    (case,) = read_checked_cases(args.results / "cases.tsv", [args.case])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_cases(work / "cases.tsv", [case])
        for part, names in (("train", []), ("val", []), ("test", [case.case_id])):
            rows = [f"{n},{n},{work / 'points' / n}.npz" for n in names]
            (work / f"{part}.csv").write_text("\n".join(["case_id,patient_id,path", *rows]) + "\n")
        stages = [measured(*call) for call in calls(args.results, work)]
        report("the workflow's stages", stages)
        for tasks in ("refine,fuse,reconstruct", "refine,fuse,reconstruct,encode"):
            words = ["--models", args.results, "--labels", case.labels, "--tasks", tasks]
            words += ["--out", work / tasks.replace(",", "_"), "--device", "cpu"]
            report(f"apply, {tasks}", [measured("apply_models.py", *words)])


def measure_confidence(results: Path, files: list[Path]) -> None:
    """Reconstruction of label maps with confidence.json and without it, in turns."""
    place = Path("vecset") / "reconstructions"
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / results.name
        (bare / place).mkdir(parents=True)
        for path in results.iterdir():
            if path.name != "vecset":
                (bare / path.name).symlink_to(path.resolve())
        for name in ("vecset/model.pt", place / ".cardiform"):
            (bare / name).symlink_to((results / name).resolve())
        for number, labels in enumerate(files):
            for title, models in (("without", bare), ("with", results)):
                words = ["--models", models, "--labels", labels, "--tasks", "reconstruct"]
                out = Path(folder) / f"{title}_{number}"
                found = measured("apply_models.py", *words, "--out", out, "--device", "cpu")
                report(f"{labels.name}, {title} confidence", [found])


def calls(results: Path, work: Path):
    """The stages of the workflow for one case, in order."""
    found = find_stages(results)

    def flags(*names):
        return [w for n in names for w in shlex.split(cli.flags(found[n]))]

    def stage(script, place, section, *more, cases="cases.tsv"):
        out = work / place
        words = ["--cases", work / cases, "--out", out, "--manifest", out / "manifest.tsv"]
        return [script, *words, *more, *flags(section)]

    meshes = ["--meshes", work / "meshes"]
    parts = ["--validation", work / "val.csv", "--test", work / "test.csv"]
    refined = work / "refined"
    yield stage("repair_coronary.py", "repaired", "coronary_repair")
    yield [
        "refine_coronary.py", "--model", results / "coronary" / "cardiform" / "model.pt",
        "--cases", work / "cases.tsv", "--manifest", work / "repaired" / "manifest.tsv",
        "--out", refined, *flags("coronary_refine", "coronary_repair"),
    ]  # fmt: skip
    yield stage("fuse_labels.py", "fused", "fusion", "--masks", f"coronary={refined}")
    cases = "cases.tsv"
    if found.refined:
        cases = "fused/cases.tsv"
        yield [
            "collect_fused.py", "--cases", work / "cases.tsv", "--out", work / "fused",
            "--manifest", work / "fused" / "manifest.tsv",
        ]  # fmt: skip
    yield stage("extract_meshes.py", "meshes", "meshes", cases=cases)
    yield stage("sample_sdf.py", "points", "points", *meshes, cases=cases)
    yield stage("voxelize_labels.py", "sparse", "voxels", *meshes, cases=cases)
    out = work / "vecset"
    yield [
        "reconstruct_vecset.py", "--model", results / "vecset" / "model.pt",
        "--train", work / "train.csv", *parts, "--cases", work / cases, *meshes, "--out", out,
        "--metrics", out / "metrics.json", *flags("vecset_reconstruct"), "--device", "cpu",
    ]  # fmt: skip
    steps = zip(("--model", "--stage1", "--continuous"), (2, 1, 0))
    models = [w for flag, k in steps for w in (flag, results / f"vqvae/stage{k}/model.pt")]
    yield [
        "reconstruct_vqvae.py", *models, *parts, "--manifest", work / "sparse" / "manifest.tsv",
        "--cases", work / cases, *meshes, "--out", work / "vqvae", "--device", "cpu",
    ]  # fmt: skip


def measured(script: str, *arguments) -> tuple[str, float, float, float]:
    """Script, wall seconds, CPU seconds and peak MiB of a process of its own, with one thread."""
    words = [str(a) for a in arguments]
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / script), *words]
    began = time.monotonic()
    child = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{script} failed:\n{said}")
    cpu = used.ru_utime + used.ru_stime
    return script, time.monotonic() - began, cpu, used.ru_maxrss / 1024


def report(title: str, found: list[tuple[str, float, float, float]]) -> None:
    for script, wall, cpu, memory in found if len(found) > 1 else []:
        print(f"    {script:24}{wall:8.1f} s{cpu:8.1f} s CPU{memory:8.0f} MiB")
    wall, cpu = sum(f[1] for f in found), sum(f[2] for f in found)
    print(f"{title}: {wall:.1f} s, {cpu:.1f} CPU s, at most {max(f[3] for f in found):.0f} MiB")


if __name__ == "__main__":
    main()
