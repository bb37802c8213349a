"""Appendages that the scan cuts off: what is learned from them, and how they are completed.

    python benchmarks/cut_hearts.py --out /tmp/cut_hearts

Phantoms whose truth is known are cropped at a random plane, across a random axis, so that the left
atrial appendage loses a quarter to a half of its volume and the heart no more than a sixth of its
own; a third of the training hearts are, as in STACOM-2025. The same VecSet is trained twice on the
same hearts:

capped   the cut is taken for the end of the structure (column ``cut`` of the case table: none)
open     it is not: no points on caps, no distances behind them

Held-out hearts are reconstructed whole, and, cropped, completed past the field of view. Prints the
median absolute error of the appendage's volume in per cent of the truth as the scan shows it, and
completed by both; and the mean Dice of whole held-out hearts.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.geometry.field_of_view import cuts_of
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.phantom.scans import PERIOD, draw_scan
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable()
APPENDAGE = TABLE[TABLE.channel("left_atrial_appendage")].value
LOST, LOST_OF_HEART = (0.25, 0.5), 1 / 6
BEYOND_MM = 40.0
WAYS = {"capped": "none", "open": "", "behind": ""}  # -> column cut
POINTS = PointsOptions(
    surface_points=20_000, min_class_points=800, near_points=20_000, volume_points=20_000
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--train", type=int, default=36, help="hearts to train on")
    parser.add_argument("--held-out", type=int, default=10, help="hearts to measure")
    parser.add_argument("--spacing-mm", type=float, default=3.0, help="voxel edge")
    parser.add_argument("--steps", type=int, default=1400, help="of each training")
    parser.add_argument("--batch-size", type=int, default=4, help="of each training")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--stage", choices=("points", "all"), default="all", help="stop there")
    parser.add_argument("--processes", type=int, default=2, help="hearts at a time")
    parser.add_argument("--workers", type=int, default=0, help="of the trainings' loaders")
    parser.add_argument("--device", default="cpu", help="of the trainings")
    parser.add_argument("--ldm", type=Path, help="model.pt of train_diffusion: complete with it")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    numbers = range(args.train + args.held_out)
    wanted = [(k, k % 3 == 0) for k in range(args.train)]
    wanted += [(k, cropped) for k in numbers[args.train :] for cropped in (False, True)]
    with ProcessPoolExecutor(args.processes) as pool:
        names = list(pool.map(partial(draw, args), *zip(*wanted)))
        for way in ("capped", "open"):
            list(pool.map(partial(points_of, args, way), names))
    training, rest = names[: args.train], names[args.train :]
    held_out = list(zip(rest[::2], rest[1::2]))
    if args.stage == "points":
        return
    if args.ldm:
        errors = list(by_ldm(args, held_out))
        shown = np.abs([1 - seen for seen, _ in shares(args, held_out)])
        print(f"as the scan shows it: {100 * np.median(shown):.1f} % of the volume are missing")
        print(f"completed: error {100 * np.median(np.abs(errors)):.1f} % (mean ", end="")
        print(f"{100 * np.abs(errors).mean():.1f} %), signed {100 * np.mean(errors):+.1f} %")
        return
    figures = {way: measure(args, way, training, held_out) for way in args.ways}
    print(json.dumps(figures, indent=1))
    shown = np.abs([1 - seen for seen, _ in shares(args, held_out)])
    print(f"as the scan shows it: {100 * np.median(shown):.1f} % of the volume are missing")
    (args.out / f"figures_{'_'.join(args.ways)}.json").write_text(json.dumps(figures))
    for way, found in figures.items():
        errors = np.abs(list(found["errors"].values()))
        print(
            f"{way}: completed, error {100 * np.median(errors):.1f} % (mean "
            f"{100 * errors.mean():.1f} %); whole hearts, Dice {found['dice']:.4f}, appendage "
            f"{found['dice_appendage']:.4f}"
        )


def draw(args, number: int, cropped: bool) -> str:
    """Write the label map of a phantom, and its cropped one; the name of the one asked for."""
    name = f"h{number:03d}" + ("_cut" if cropped else "")
    path = args.out / "labels" / f"{name}.nii.gz"
    if not path.is_file():
        data, affine = draw_scan(PERIOD * number, args.spacing_mm, seed=7)
        if cropped:
            data, affine = crop(data, affine, np.random.default_rng([7, number]))
        save_label_map(path, data, affine)
    return name


def crop(data: np.ndarray, affine: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """The part of a label map before a random plane through the appendage."""
    fallback = (np.inf, data, affine)
    for axis, high in rng.permutation([(a, h) for a in range(3) for h in (0, 1)]):
        layers = (data == APPENDAGE).sum(axis=tuple(a for a in range(3) if a != axis))
        gone = np.cumsum(layers[::-1] if high else layers) / layers.sum()
        end = int(np.searchsorted(gone, rng.uniform(*LOST)))
        part = [slice(None)] * 3
        part[axis] = slice(None, len(layers) - end) if high else slice(end, None)
        found = data[tuple(part)]
        moved = affine.copy()
        moved[:3, 3] += 0 if high else affine[:3, axis] * end
        lost = 1 - (found > 0).sum() / (data > 0).sum()
        if lost <= LOST_OF_HEART:
            return np.ascontiguousarray(found), moved
        fallback = min(fallback, (lost, np.ascontiguousarray(found), moved), key=lambda f: f[0])
    return fallback[1:]


def case_of(args, name: str, cut: str) -> Case:
    path = args.out / "labels" / f"{name}.nii.gz"
    return Case(case_id=name, patient_id=name, labels=str(path), cut=cut)


def points_of(args, way: str, name: str) -> Path:
    case, folder = case_of(args, name, WAYS[way]), args.out / way
    path = folder / "points" / f"{name}.npz"
    same = args.out / "capped" / "points" / path.name
    if way == "open" and not name.endswith("_cut"):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(same, path)
    elif not path.is_file():
        mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
        sample_case(
            case, table=TABLE, options=POINTS, meshes=folder / "meshes", out=folder / "points"
        )
    return path


def shares(args, held_out) -> list[tuple[float, float]]:
    """Of each held-out heart: the share of the appendage, and of the heart, that is shown."""
    found = []
    for pair in held_out:
        whole, cut = (load_label_map(args.out / "labels" / f"{n}.nii.gz") for n in pair)
        found.append(
            (
                (cut.data == APPENDAGE).sum() / (whole.data == APPENDAGE).sum(),
                (cut.data > 0).sum() / (whole.data > 0).sum(),
            )
        )
    return found


def by_ldm(args, held_out) -> Iterator[float]:
    """Error of the appendage's volume, of each held-out heart."""
    import torch

    from cardiform.completion.files import complete_beyond
    from cardiform.ldm.complete import Completer
    from cardiform.options.ldm import CompletionOptions

    completer = Completer(args.ldm, CompletionOptions(), torch.device(args.device))
    for whole, cut in held_out:
        truth = load_label_map(args.out / "labels" / f"{whole}.nii.gz")
        path = args.out / "labels" / f"{cut}.nii.gz"
        made = complete_beyond(path, args.out / "by_ldm", mm=BEYOND_MM, completer=completer)
        volume = (truth.data == APPENDAGE).sum()
        yield float((load_label_map(made).data == APPENDAGE).sum() / volume - 1)


def measure(args, way: str, training: list[str], held_out) -> dict:
    """Train one way, reconstruct and complete."""
    import torch

    from cardiform.metrics.overlap import overlap
    from cardiform.training.job import run
    from cardiform.vecset.reconstruct import Reconstructor, load_frame
    from cardiform.vecset.train import vecset_job

    torch.set_num_threads(1)
    folder, of = args.out / way, "open" if way == "behind" else way
    points = args.out / of / "points"
    folder.mkdir(exist_ok=True)
    for part, names in (("train", training), ("val", [pair[0] for pair in held_out[:2]])):
        cases = [case_of(args, n, WAYS[way]) for n in names]
        write_split(folder / f"{part}.csv", cases, points)
    options = VecsetOptions(
        preset="demo", input_points=2048, volume_queries=512, near_queries=768,
        surface_queries=256, weight_eikonal=0.0, weight_volume=10.0,
        steps=args.steps, batch_size=args.batch_size, lr=4e-3, warmup_steps=30, ema_decay=0.98,
        validate_every=args.steps, checkpoint_every=args.steps, preview_every=0, log_every=50,
        workers=args.workers, device=args.device, behind_cuts=way == "behind",
    )  # fmt: skip
    run(
        vecset_job(options, TABLE, folder / "train.csv", folder / "val.csv", folder / "shared"),
        folder,
    )
    options = VecsetReconstructOptions(device=args.device)
    network = Reconstructor.load(folder / "model.pt", options, torch.device(args.device))
    dice, errors = [], {}
    for whole, cut in held_out:
        truth, points = load_label_map(case_of(args, whole, "").labels), points_of(args, of, whole)
        made = network.sample(network.encode(points, whole), load_frame(points), truth)
        dice.append(overlap(truth.data, made.labels(TABLE.values), TABLE))
        seen, points = load_label_map(case_of(args, cut, "").labels), points_of(args, of, cut)
        latents, frame = network.encode(points, cut), load_frame(points)
        grown = network.completed(latents, frame, seen, cuts_of(seen, TABLE), BEYOND_MM)
        volume = (truth.data == APPENDAGE).sum()
        errors[cut] = float((grown.data == APPENDAGE).sum() / volume - 1)
    values = [[row[n]["dice"] for n in TABLE.names] for row in dice]
    appendage = [row["left_atrial_appendage"]["dice"] for row in dice]
    return {
        "errors": errors,
        "dice": float(np.mean(values)),
        "dice_appendage": float(np.mean(appendage)),
    }


if __name__ == "__main__":
    main()
