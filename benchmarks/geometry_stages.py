"""CPU seconds, peak memory and bytes of every stage that makes training data of one label map.

    python benchmarks/geometry_stages.py

Two cases: a procedural heart of ten classes on 512 x 512 x 300 voxels, as in geometry_case.py, and
one of the demo. Every stage runs in a process of its own with one thread, imports included, as the
workflow starts it; 500,000 surface, near and volume points each. Last, what a check takes beside
one decompression of the label map and one pass over its voxels: in turn in one process, least of
five.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from geometry_case import draw, read_case
from measuring import ROOT, peak_mib, run_child, timed

STAGES = ("check_cases", "extract_meshes", "sample_sdf", "voxelize_labels")
POINTS = 500_000
RESOLUTIONS = (512, 256)
CHECKED = "check"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        stage, folder, resolution = args.child
        ask = compare_check if stage == CHECKED else measure
        print(json.dumps(ask(stage, Path(folder), int(resolution))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("512 x 512 x 300", draw), ("demo", draw_demo)):
            place = Path(folder) / name.replace(" ", "")
            place.mkdir()
            print(f"{name}: {make(place, 0)}", flush=True)
            print("| stage | CPU s | peak MiB | MB |\n|---|---:|---:|---:|")
            for stage in STAGES:
                for resolution in RESOLUTIONS if stage == STAGES[-1] else RESOLUTIONS[:1]:
                    found = run_child(__file__, stage, place, resolution)
                    title = f"{stage}, {resolution}³" if stage == STAGES[-1] else stage
                    cells = f"{found['seconds']:.1f} | {found['peak']:,.0f} | {found['mb']:.1f}"
                    print(f"| {title} | {cells} |", flush=True)
            print(run_child(__file__, CHECKED, place, 0), flush=True)


def draw_demo(folder: Path, points: int) -> dict:
    """A label map of the demo, and its case table."""
    from cardiform.cohort.table import Case, read_case_table, write_cases

    script = ROOT / "workflow" / "scripts" / "make_demo_cohort.py"
    command = [sys.executable, script, "--out", folder / "demo", "--cases", "3"]
    subprocess.run(command, check=True, capture_output=True)
    case = read_case_table(folder / "demo" / "cases.tsv")[0]
    found = Case(case_id="heart", patient_id="heart", labels=case.labels, status="ok")
    write_cases(folder / "cases.tsv", [found])
    return {"bytes": Path(case.labels).stat().st_size}


def measure(stage: str, folder: Path, resolution: int) -> dict:
    """What one stage took and wrote."""
    work, paths = stages(folder, resolution)[stage]
    work()
    found = [path for pattern in paths for path in folder.glob(pattern)]
    return {
        "seconds": time.process_time(),  # from the start of the process: imports, too
        "peak": peak_mib(),
        "mb": sum(path.stat().st_size for path in found) / 1e6,
    }


def compare_check(stage: str, folder: Path, resolution: int) -> dict:
    """CPU seconds of a check, and of the least that must be done to look at every voxel."""
    from cardiform.cohort.checks import check_case
    from cardiform.labels import LabelTable

    case = read_case(folder)

    def unpack_and_count():
        content = gzip.decompress(Path(case.labels).read_bytes())
        np.bincount(np.frombuffer(content, np.uint8))

    ways = {
        "check_case": lambda: check_case(case, LabelTable(), folder / "qc" / "cases"),
        "gunzip and one pass": unpack_and_count,
    }
    rounds = [{name: timed(way)[0] for name, way in ways.items()} for _ in range(5)]
    least = {name: min(taken[name] for taken in rounds) for name in ways}
    return least | {"ratio": least["check_case"] / least["gunzip and one pass"]}


def stages(folder: Path, resolution: int) -> dict:
    """Stage -> how it is run, and the files that it writes."""
    from cardiform.cohort.checks import check_cases
    from cardiform.geometry.cases import mesh_case, sample_case, voxelize_case
    from cardiform.labels import LabelTable
    from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions

    case, table, meshes = read_case(folder), LabelTable(), folder / "meshes"
    points = PointsOptions(surface_points=POINTS, near_points=POINTS, volume_points=POINTS)
    voxels = VoxelsOptions(resolution=resolution)
    qc, sparse = folder / "qc", folder / "sparse" / str(resolution)
    return {
        "check_cases": (
            lambda: check_cases([case], table, out=qc, manifest=qc / "all.tsv", processes=1),
            ["qc/cases/*"],
        ),
        "extract_meshes": (
            lambda: mesh_case(case, table=table, options=MeshesOptions(), out=meshes),
            ["meshes/*/*"],
        ),
        "sample_sdf": (
            lambda: sample_case(
                case, table=table, options=points, meshes=meshes, out=folder / "points"
            ),
            ["points/*"],
        ),
        "voxelize_labels": (
            lambda: voxelize_case(case, table=table, options=voxels, meshes=meshes, out=sparse),
            [f"sparse/{resolution}/*/*"],
        ),
    }


if __name__ == "__main__":
    main()
