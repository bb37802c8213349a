"""Presets of VecSet at equal CPU time on the same procedural hearts, measured on held-out ones.

    OMP_NUM_THREADS=1 python benchmarks/vecset_presets.py --out /tmp/presets --seconds 100
    OMP_NUM_THREADS=1 python benchmarks/vecset_presets.py --out /tmp/presets --groups long \\
        --seconds 400 --seeds 0

Groups of runs, each of ``--seconds`` CPU seconds on one thread and of every seed:

presets  demo, and local, small and base cut to what so little time can train (CUT)
curve    demo on 10, 30, 100 and 300 hearts
volume   demo with volume points in the cube, in the ball of radius 1.05, and half of these
         within the classes
input    demo with 8,192 and 16,384 encoded points
normals  demo, and small, cut, whose points come with the outward normals of the surface
long     demo and local, cut, for more seconds

A seed chooses the hearts, the weights and the draws; at one seed all runs of as many hearts have
the same ones. A few steps are timed first, and the schedule has as many steps as fit the time (its
cosine ends with them). Finished runs are kept in ``--out`` and not made again; ``--table`` prints
them alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.phantom.scans import PERIOD, draw_scan
from cardiform.training import sampling
from cardiform.training.distributed import World
from cardiform.training.job import Job, run
from cardiform.training.runlog import Window
from cardiform.training.steps import Stepper
from cardiform.vecset.model import PRESETS
from cardiform.vecset.reconstruct import Reconstructor, load_frame
from cardiform.vecset.train import vecset_job
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable()
LARGE = TABLE.names[:7]  # chambers and great vessels
# Hearts: to train on (first the hundred, then the rest), to choose weights by, to measure.
HUNDRED, VALIDATION, MORE = 100, 2, 200
SPACING_MM = 2.5
TRIED = 6  # steps that are timed before a run, after two of warm-up
POINTS = PointsOptions(
    surface_points=20_000, min_class_points=1_000, near_points=30_000, volume_points=20_000
)
WAYS = {
    "cube": {},
    "ball": {"volume_radius": 1.05},
    "within": {"volume_radius": 1.05, "volume_within": 0.5},
}
# A step of the whole presets takes seconds of a CPU, of base half a minute.
CUT = {
    "local": {"dim": 128, "depth": 3, "latents": 512},
    "small": {"dim": 128, "depth": 4, "latents": 256},
    "base": {"dim": 192, "depth": 6, "heads": 6, "latents": 256},
}
# As config/demo.yaml has them, with half of the points, queries and hearts of a step.
SETTINGS: dict[str, Any] = {
    "input_points": 3072, "volume_queries": 256, "near_queries": 512, "surface_queries": 128,
    "eikonal_queries": 32, "weight_volume": 10.0, "batch_size": 2, "lr": 4e-3, "ema_decay": 0.98,
    "preview_every": 0, "log_every": 50, "workers": 0, "device": "cpu",
}  # fmt: skip
RATES = {"local": 2e-3, "small": 1e-3, "base": 1e-3}  # wider and deeper networks take lower ones


@dataclass(frozen=True)
class Run:
    """A training: preset, hearts to train on, kind of volume points, other options."""

    preset: str = "demo"
    hearts: int = 30
    way: str = "cube"
    options: dict[str, Any] = field(default_factory=dict)


GROUPS: dict[str, dict[str, Run]] = {
    "presets": {
        "demo": Run(),
        "local, cut": Run("local"),
        "small, cut": Run("small"),
        "base, cut": Run("base"),
    },
    "curve": {f"{n} hearts": Run(hearts=n) for n in (10, 30, 100, 300)},
    "volume": {way: Run(way=way) for way in WAYS},
    "input": {f"{n:,} points": Run(options={"input_points": n}) for n in (8192, 16384)},
    "normals": {
        f"{preset}, normals": Run(preset, options={"normals": True}) for preset in ("demo", "small")
    },
    "long": {"demo, long": Run(), "local, cut, long": Run("local")},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--seconds", type=float, default=100.0, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", type=int, default=8, help="hearts to measure, up to 20")
    parser.add_argument("--groups", nargs="+", choices=tuple(GROUPS), default=["presets", "curve"])
    parser.add_argument("--only", nargs="+", default=[], help="runs of the groups, by their names")
    parser.add_argument("--table", action="store_true", help="print what is finished, no more")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    for name, sizes in CUT.items():
        PRESETS[name] = dataclasses.replace(PRESETS[name], **sizes)
    for seed, group in itertools.product([] if args.table else args.seeds, args.groups):
        for name, wanted in GROUPS[group].items():
            if args.only and name not in args.only:
                continue
            path = record_of(args, wanted, seed)
            if not path.is_file():
                found = measured(args, wanted, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found))
                print(seed, name, json.dumps(found), flush=True)
    for group in args.groups:
        print_table(args, group)


def record_of(args: argparse.Namespace, wanted: Run, seed: int) -> Path:
    """Where the figures of a run are: runs that several groups share have one file."""
    words = [wanted.preset, f"{wanted.hearts}", wanted.way]
    words += [f"{key}_{value}" for key, value in wanted.options.items()]
    words += [f"{args.seconds:g}s", f"{args.held_out}held", f"{seed}"]
    return args.out / "runs" / f"{'_'.join(words)}.json"


def print_table(args: argparse.Namespace, group: str) -> None:
    """Mean and range over the seeds of a group's runs."""
    print(
        f"\n| {group} | weights | steps | CPU s | chambers and great vessels | coronaries | all |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, wanted in GROUPS[group].items():
        paths = [record_of(args, wanted, seed) for seed in args.seeds]
        rows = [json.loads(path.read_text()) for path in paths if path.is_file()]
        if rows:
            cells = [f"{rows[0]['weights']:,}", spread(rows, "steps", ",.0f")]
            cells += [spread(rows, "cpu_seconds", ".0f")]
            cells += [spread(rows, key, ".3f") for key in ("large", "coronary", "all")]
            print(f"| {name} ({len(rows)} seeds) | {' | '.join(cells)} |")


def spread(rows: list[dict], key: str, form: str) -> str:
    values = [row[key] for row in rows]
    mean, low, high = (format(f(values), form) for f in (statistics.mean, min, max))
    return f"{mean} ({low} to {high})"


def numbers_of(args: argparse.Namespace, wanted: Run, seed: int) -> dict[str, list[int]]:
    """The hearts of a run: "train", "val" and "test"."""
    order = np.random.default_rng(seed).permutation(HUNDRED).tolist()
    first, last = HUNDRED + VALIDATION, HUNDRED + VALIDATION + 20
    order += range(last, last + MORE)
    return {
        "train": order[: wanted.hearts],
        "val": list(range(HUNDRED, first)),
        "test": list(range(first, first + args.held_out)),
    }


def measured(args: argparse.Namespace, wanted: Run, seed: int) -> dict:
    """Train, reconstruct the held-out hearts; Dice on their label maps' grids."""
    numbers = numbers_of(args, wanted, seed)
    folder = args.out / "trainings" / record_of(args, wanted, seed).stem
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        cases = [case_of(args, k) for k in numbers[part]]
        points = [points_of(args, case, wanted.way) for case in cases]
        write_split(folder / f"{part}.csv", cases, points[0].parent)
    job, tried = fitted_job(folder, wanted, seed, args.seconds)
    start = time.process_time()
    run(job, folder)
    seconds = time.process_time() - start
    options = VecsetReconstructOptions(device="cpu")
    network = Reconstructor.load(folder / "model.pt", options, torch.device("cpu"))
    start = time.process_time()
    rows = [asked(args, network, number) for number in numbers["test"]]
    dice = {name: float(np.mean([row[name] for row in rows])) for name in TABLE.names}
    return {
        "weights": sum(p.numel() for p in job.network.parameters()),
        "steps": job.options.steps,
        "cpu_seconds": seconds,
        "seconds_per_step": tried,
        "reconstruction_seconds": time.process_time() - start,
        "large": float(np.mean([dice[name] for name in LARGE])),
        "coronary": dice["coronary"],
        "all": float(np.mean(list(dice.values()))),
        "dice": dice,
    }


def asked(args: argparse.Namespace, network: Reconstructor, number: int) -> dict[str, float]:
    """Dice of the classes of a held-out heart."""
    case = case_of(args, number)
    points, truth = points_of(args, case, "cube"), load_label_map(case.labels)
    latents = network.encode(points, case.case_id)
    made = network.sample(latents, load_frame(points), truth).labels(TABLE.values)
    found = overlap(truth.data, made, TABLE)
    return {name: found[name]["dice"] for name in TABLE.names}


def fitted_job(folder: Path, wanted: Run, seed: int, seconds: float) -> tuple[Job, float]:
    """The training with as many steps as fit ``seconds``, and the CPU seconds of a step."""

    def job(steps: int) -> Job:
        length = {
            "steps": steps, "warmup_steps": min(30, max(1, steps // 10)),
            "validate_every": 0, "checkpoint_every": steps, "eikonal_start": steps // 5,
        }  # fmt: skip
        rate = {"lr": RATES[wanted.preset]} if wanted.preset in RATES else {}
        given = SETTINGS | rate | length | wanted.options
        options = VecsetOptions(preset=wanted.preset, seed=seed, **given)
        files = (folder / "train.csv", folder / "val.csv", folder / "shared")
        return vecset_job(options, TABLE, *files)

    trial = job(TRIED + 2)
    world = World(0, 1, torch.device("cpu"))
    stepper, times = Stepper(trial.task, trial.options, world), []
    batches = sampling.training_batches(trial.train_set, trial.options, world, 0, None)
    start = time.process_time()
    for number, micro_batches in enumerate(batches):
        stepper.step(number, micro_batches, Window())
        times.append(time.process_time() - start)
        start = time.process_time()
    each = statistics.mean(times[2:])
    return job(max(2, round(seconds / each))), each


def case_of(args: argparse.Namespace, number: int) -> Case:
    """A heart, drawn where it is not there yet: an ordinary scan with clean coronaries."""
    name = f"h{number:03d}"
    path = args.out / "labels" / f"{name}.nii.gz"
    if not path.is_file():
        save_label_map(path, *draw_scan(PERIOD * number, SPACING_MM, seed=7))
    return Case(case_id=name, patient_id=name, labels=str(path))


def points_of(args: argparse.Namespace, case: Case, way: str) -> Path:
    """The points file of a heart; one of :data:`WAYS`."""
    folder, meshes = args.out / f"points_{way}", args.out / "meshes"
    path = folder / f"{case.case_id}.npz"
    if not path.is_file():
        if not (meshes / case.case_id / "fields.npz").is_file():
            mesh_case(case, table=TABLE, options=MeshesOptions(), out=meshes)
        options = dataclasses.replace(POINTS, **WAYS[way])
        sample_case(case, table=TABLE, options=options, meshes=meshes, out=folder)
    return path


if __name__ == "__main__":
    main()
