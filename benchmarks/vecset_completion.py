"""Missing classes, made by a VecSet that was trained with parts hidden, and by one that was not.

    python benchmarks/vecset_completion.py --out /tmp/parts --ways plain hidden

Procedural hearts, the same for all trainings. Each way is a training of the same length from the
same seed:

plain    all classes are encoded (hidden_share 0); completion is asked of it all the same
bare     in half of the samples 1 to 5 classes are hidden and asked for (hidden_share 0.5), and
         nothing is in their place
hidden   the same, with points where the classes usually lie in their place: what the training does

Prints, on test hearts, the Dice of each class from all classes (reconstruction) and from all others
(completion, beside the mean shape), and how far the frame of a heart moves with what is hidden.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.phantom.scans import PERIOD, draw_scan
from cardiform.vecset import parts
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable()
HIDDEN = {"hidden_share": 0.5}
WAYS = {"plain": ({}, 0.0), "bare": (HIDDEN, 0.0), "hidden": (HIDDEN, parts.GUESS_SHARE)}
POINTS = PointsOptions(
    surface_points=20_000, min_class_points=800, near_points=20_000, volume_points=20_000
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--train", type=int, default=80, help="hearts to train on")
    parser.add_argument("--validation", type=int, default=4, help="hearts to validate")
    parser.add_argument("--test", type=int, default=12, help="hearts to measure")
    parser.add_argument("--spacing-mm", type=float, default=3.0, help="voxel edge")
    parser.add_argument("--steps", type=int, default=1400, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of each training")
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--processes", type=int, default=1, help="hearts at a time")
    parser.add_argument("--device", default="cpu", help="of the trainings")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    numbers = range(args.train + args.validation + args.test)
    with ProcessPoolExecutor(args.processes) as pool:
        cases = list(pool.map(partial(make_ready, args), numbers))
    ends = np.cumsum([args.train, args.validation, args.test])
    groups = dict(zip(("train", "val", "test"), np.split(np.array(cases, object), ends[:-1])))
    for part, found in groups.items():
        write_split(args.out / f"{part}.csv", list(found), args.out / "points")
    print(json.dumps(frames(args, groups), indent=1))
    for way in args.ways:
        print(json.dumps({way: measure(args, way, groups)}, indent=1), flush=True)


def make_ready(args, number: int) -> Case:
    """A phantom's label map and points, in their files."""
    name = f"h{number:03d}"
    path = args.out / "labels" / f"{name}.nii.gz"
    case = Case(case_id=name, patient_id=name, labels=str(path))
    if not (args.out / "points" / f"{name}.npz").is_file():
        save_label_map(path, *draw_scan(PERIOD * number, args.spacing_mm, seed=7))
        meshes = args.out / "meshes"
        mesh_case(case, table=TABLE, options=MeshesOptions(), out=meshes)
        sample_case(case, table=TABLE, options=POINTS, meshes=meshes, out=args.out / "points")
    return case


def points_of(args, case: Case) -> Path:
    return args.out / "points" / f"{case.case_id}.npz"


def usual_of(args, groups):
    from cardiform.vecset.data import load_case_points
    from cardiform.vecset.parts import Usual

    found = (
        load_case_points(points_of(args, c), c.case_id, TABLE, keep=1) for c in groups["train"]
    )
    return Usual.of(list(found))


def frames(args, groups) -> dict:
    """How far test hearts of which classes are hidden lie from where they lie without: scale, per
    cent, and shift, hundredths of the unit frame (a heart has radius 95); mean and worst."""
    from cardiform.vecset.data import load_case_points
    from cardiform.vecset.parts import hidden_at_random, without

    usual, rng = usual_of(args, groups), np.random.default_rng(0)
    rows: dict[str, list] = {}
    for case in groups["test"]:
        surface = load_case_points(points_of(args, case), case.case_id, TABLE, keep=1).surface
        whole = usual.placing(surface.points, surface.channels)
        hidden = {name: without(surface, [k]) for k, name in enumerate(TABLE.names)}
        hidden |= {f"1 to 5 at random, {k}": hidden_at_random(surface, 5, rng) for k in range(8)}
        for name, part in hidden.items():
            move = usual.placing(part.points, part.channels)
            scale = move.scale / whole.scale
            shift = np.linalg.norm(move.shift - whole.shift * scale)
            rows.setdefault(name.split(",")[0], []).append((abs(scale - 1) * 100, shift * 100))
        # and without the map at all: the unit frame of the training
        rows.setdefault("unit frame", []).append(
            (abs(whole.scale - 1) * 100, np.linalg.norm(whole.shift) * 100)
        )
    return {
        name: [round(float(x), 2) for x in (*np.mean(found, axis=0), *np.max(found, axis=0))]
        for name, found in rows.items()
    }


def measure(args, way: str, groups) -> dict:
    """Train one way, reconstruct and complete the test hearts."""
    import torch

    from cardiform.completion.figures import summarise
    from cardiform.metrics.overlap import overlap
    from cardiform.training.job import run
    from cardiform.vecset.complete import PartCompleter, UsualShapes, evaluate_case
    from cardiform.vecset.reconstruct import Reconstructor, load_frame
    from cardiform.vecset.train import level_chooser, vecset_job

    torch.set_num_threads(1)
    more, parts.GUESS_SHARE = WAYS[way]
    folder = args.out / f"{way}_{args.seed}"
    folder.mkdir(exist_ok=True)
    options = VecsetOptions(
        preset="demo", input_points=2048, volume_queries=512, near_queries=768,
        surface_queries=256, weight_eikonal=0.0, weight_volume=10.0, seed=args.seed,
        steps=args.steps, batch_size=4, lr=4e-3, warmup_steps=30, ema_decay=0.98,
        validate_every=args.steps // 4, checkpoint_every=args.steps, preview_every=0, log_every=50,
        workers=0, device=args.device, **more,
    )  # fmt: skip
    start = time.process_time()
    files = (args.out / "train.csv", args.out / "val.csv", folder / "shared")
    job = vecset_job(options, TABLE, *files)
    run(job, folder, chosen=level_chooser(job, options))
    seconds = time.process_time() - start
    network = Reconstructor.load(
        folder / "model.pt", VecsetReconstructOptions(device=args.device), torch.device(args.device)
    )
    usual = network.usual or usual_of(args, groups)
    rows = []
    for case in groups["test"]:
        truth, points = load_label_map(case.labels), points_of(args, case)
        made = network.sample(network.encode(points, case.case_id), load_frame(points), truth)
        rows.append(overlap(truth.data, made.labels(TABLE.values), TABLE))
    training = [(case, points_of(args, case)) for case in groups["train"]]
    shapes = UsualShapes.of(training, TABLE, usual)
    for case in groups["test"]:
        evaluate_case(
            case,
            points={case.case_id: points_of(args, case)},
            completer=PartCompleter(network, usual),
            mean_shape=shapes,
            out=folder / "completion",
        )
    figures = summarise([c.case_id for c in groups["test"]], folder / "completion", TABLE.names)
    return {
        "training CPU s": round(seconds),
        "reconstruction": {n: _mean(row[n]["dice"] for row in rows) for n in TABLE.names},
        "completion": {n: _pair(figures["mean"][n]) for n in TABLE.names},
    }


def _mean(values) -> float:
    return round(float(np.mean([v for v in values if v is not None])), 4)


def _pair(row) -> dict:
    return {m: {k: round(v, 4) for k, v in row[m].items()} for m in ("model", "mean_shape")}


if __name__ == "__main__":
    main()
