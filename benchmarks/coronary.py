"""Refined coronaries against the truth, on phantoms with noise that no training saw.

    python3 run.py test && python benchmarks/coronary.py --work /tmp/coronary

Draws coronary trees, lays noise over them, repairs and trains as the workflow does, and measures
every way on other trees: with the kinds of noise of the training, with the same but worse, and
with other kinds. The classical ways are tuned on training trees. Finished parts of --work are
used again. Figures are means over the test trees, on the isotropic grid, against the truth;
"to label" is Dice against the noisy label: how much was changed, no quality.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from measuring import ROOT, timed
from scipy import ndimage

NOISE = {
    "kinds of the training": {"jagged": 1.0, "breaks": 1.0, "blobs": 1.0, "speckle": 1.0},
    "the same, worse": {"jagged": 1.4, "breaks": 1.8, "blobs": 1.6, "speckle": 2.0},
    "other kinds": {
        "coarse": 1.0, "slabs": 1.0, "dilation": 0.6, "missing_ends": 0.5, "breaks": 1.0,
        "speckle": 1.0,
    },
}  # fmt: skip
SPACING = 0.6
TEST_FIRST = 1000
ROWS = ("dice", "cl_dice", "component_error", "hd95_mm", "assd_mm", "centreline_overlap")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--train", type=int, default=12, help="training trees")
    parser.add_argument("--test", type=int, default=4, help="test trees of each kind of noise")
    parser.add_argument("--steps", type=int, default=900, help="steps of cardiform")
    parser.add_argument("--near-steps", type=int, default=300, help="steps of near")
    parser.add_argument("--latent-steps", type=int, default=20, help="of cardiform, a row apart")
    parser.add_argument("--flags", default="", help="further options of train_coronary cardiform")
    parser.add_argument("--skip-near", action="store_true")
    args = parser.parse_args()
    prepare(args.work, args.train)
    models = {"cardiform": train(args, "cardiform")}
    if not args.skip_near:
        models["near"] = train(args, "near")
    tuned = tune(args.work, min(args.train, 2))
    print(f"tuned: {tuned}")
    for name, noise in NOISE.items():
        print(f"\n**{name}** ({', '.join(f'{k} {v:g}' for k, v in noise.items())})\n", flush=True)
        table(measured(args, noise, tuned, models))


def repair_options():
    from cardiform.options.coronary import CoronaryRepairOptions

    return CoronaryRepairOptions(spacing_mm=SPACING)


def tree(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The true coronaries of a phantom on an isotropic grid about them, and its affine."""
    from cardiform.phantom import draw_phantom
    from cardiform.phantom.heart import LABELS

    others = tuple(n for n in LABELS.names if n != "coronary")
    heart = draw_phantom(seed, least_vessel_radius=0.8, missing=others)
    low, high = heart.bounds()
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = low - 8
    shape = tuple(int(n) for n in np.ceil((high - low + 16) / SPACING))
    return heart.label_map(shape, affine) > 0, affine


def noisy_tree(seed: int, noise: dict):
    """Truth and what repair_coronary makes of its noisy label."""
    from cardiform.anatomy.corruption import corrupt
    from cardiform.anatomy.repair import repair
    from cardiform.coronary.thin_structure import ThinStructure

    truth, affine = tree(seed)
    label = corrupt(truth, np.full(3, SPACING), noise, np.random.default_rng(seed))
    repaired, _ = repair(label, SPACING, repair_options())
    return truth, ThinStructure(label, repaired, np.ones_like(label), affine)


def prepare(work: Path, number: int) -> None:
    """The training trees as files of repair_coronary, with a manifest and a split."""
    from cardiform.cohort.manifest import write_manifest
    from cardiform.files import sha256_file

    names = [f"tree_{seed:03d}" for seed in range(number)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(prepare_one, work), range(number)))
    paths = [work / "repaired" / f"{name}.npz" for name in names]
    rows = [[n, str(p), p.stat().st_size, sha256_file(p), "ok"] for n, p in zip(names, paths)]
    write_manifest(work / "manifest.tsv", rows)
    held = max(number // 6, 1)
    for part, some in (("train", names[held:]), ("val", names[:held])):
        lines = ["case_id,patient_id,path", *(f"{n},{n},unused" for n in some)]
        (work / f"{part}.csv").write_text("\n".join(lines) + "\n")


def prepare_one(work: Path, seed: int) -> None:
    path = work / "repaired" / f"tree_{seed:03d}.npz"
    if not path.exists():
        noisy_tree(seed, NOISE["kinds of the training"])[1].save(path)


def train(args, preset: str) -> Path:
    """model.pt of a preset, through train_coronary."""
    out = args.work / preset
    command = [sys.executable, ROOT / "workflow" / "scripts" / "train_coronary.py"]
    command += ["--preset", preset, "--train", args.work / "train.csv", "--out", out]
    command += ["--validation", args.work / "val.csv", "--manifest", args.work / "manifest.tsv"]
    command += ["--workers", "0", "--preview-every", "0", "--log-every", "50"]
    if preset == "cardiform":
        command += ["--steps", args.steps, "--warmup-steps", "20", "--batch-size", "8"]
        command += ["--channels", "16,24,32", "--blocks", "1,1,1", "--lr", "4e-3"]
        command += ["--ema-decay", "0.98", "--validate-every", max(args.steps // 3, 1)]
        command += ["--spacing-mm", SPACING, *shlex.split(args.flags)]
    else:
        command += ["--steps", args.near_steps, "--warmup-steps", "10", "--points", "16384"]
        command += ["--validate-every", max(args.near_steps // 3, 1)]
    subprocess.run(list(map(str, command)), check=True)
    return out / "model.pt"


def classical(name: str, value: tuple, thin) -> np.ndarray:
    """One of the classical ways with its parameters (mm, mm^3)."""
    from cardiform.anatomy.components import largest, without_small
    from cardiform.anatomy.repair import bridged, closed

    mask, voxel = thin.label, SPACING**3

    def blurred(of, sigma, level):
        return ndimage.gaussian_filter(of.astype(np.float32), sigma / SPACING) > level

    if name == "largest two":
        return largest(mask, 2)
    if name == "Gaussian + threshold":
        return blurred(mask, *value)
    if name == "median":
        return ndimage.median_filter(mask, value[0])
    if name == "closing":
        return closed(mask, SPACING, value[0])
    dust, radius, sigma, level, second = value
    result = blurred(closed(without_small(mask, dust / voxel), SPACING, radius), sigma, level)
    if name.endswith("bridging"):
        result, _ = bridged(result, SPACING, repair_options())
    return without_small(result, second / voxel)


CHAIN = list(itertools.product((1, 3), (0.9, 1.2, 1.8), (0.42, 0.6, 0.8), (0.4, 0.45, 0.5), (10,)))
GRIDS = {
    "largest two": [()],
    "Gaussian + threshold": list(
        itertools.product((0.3, 0.42, 0.6, 0.8, 1.0), (0.3, 0.35, 0.4, 0.45, 0.5))
    ),
    "median": [(3,)],
    "closing": [(0.6,), (0.9,), (1.2,), (1.8,)],
    "dust + closing + Gaussian": CHAIN,
    "the same + bridging": CHAIN,
}


def tune(work: Path, number: int) -> dict[str, tuple]:
    """The parameters of each classical way with the best Dice on training trees."""
    path = work / "tuned.json"
    if path.exists():
        return {name: tuple(value) for name, value in json.loads(path.read_text()).items()}
    pairs = [noisy_tree(seed, NOISE["kinds of the training"]) for seed in range(number)]

    def dice(name, value):
        scores = [
            2 * (t & m).sum() / (t.sum() + m.sum())
            for t, m in ((t, classical(name, value, thin)) for t, thin in pairs)
        ]
        return np.mean(scores)

    tuned = {}
    for name, grid in GRIDS.items():
        known = tuned.get("dust + closing + Gaussian") if name.endswith("bridging") else None
        tuned[name] = known or max(grid, key=lambda value, name=name: dice(name, value))
    path.write_text(json.dumps(tuned))
    return tuned


def ways(args, tuned: dict, models: dict[str, Path], thin):
    """Name and mask of every way, on one structure."""
    import torch

    from cardiform.coronary.refine import load_refiner, mended
    from cardiform.options.coronary import CoronaryRefineOptions

    yield "noisy label", thin.label
    for name, value in tuned.items():
        yield name, classical(name, value, thin)
    yield "repair_coronary", thin.repaired
    repair = repair_options()
    for preset, model in models.items():
        latent = 100 if preset == "near" else 0
        options = CoronaryRefineOptions(preset=preset, latent_steps=latent)
        refiner = load_refiner(model, options, repair, torch.device("cpu"))
        field = refiner.field("", thin)
        yield f"{preset}, network alone", field.mask
        yield f"{preset}", mended(field, repair).mask
        if preset == "cardiform":
            stepping = replace(refiner, options=replace(options, latent_steps=args.latent_steps))
            moved = mended(stepping.field("", thin), repair).mask
            yield f"{preset}, {args.latent_steps} latent steps", moved
            fixed = replace(thin, label=thin.repaired)
            name = "repair + cardiform (the network sees the repair alone)"
            yield name, mended(refiner.field("", fixed), repair).mask


def measured(args, noise: dict, tuned: dict, models: dict[str, Path]) -> dict[str, list[dict]]:
    """Way -> figures of each test tree."""
    from cardiform.coronary.cases import figures_against

    rows: dict[str, list[dict]] = {}
    for seed in range(TEST_FIRST, TEST_FIRST + args.test):
        truth, thin = noisy_tree(seed, noise)
        for name, mask in ways(args, tuned, models, thin):
            both = 2 * (mask & thin.label).sum() / max(mask.sum() + thin.label.sum(), 1)
            row = {**figures_against(truth, mask, thin), "to label": both}
            rows.setdefault(name, []).append(row)
    return rows


def table(rows: dict[str, list[dict]]) -> None:
    print("| | Dice | clDice | component error | HD95 mm | ASSD mm | overlap | to label |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, figures in rows.items():
        means = []
        for row in (*ROWS, "to label"):
            values = [f[row] for f in figures if f[row] is not None]
            means.append(
                f"{np.mean(values):.1f}"
                if row == "component_error" and values
                else (f"{np.mean(values):.3f}" if values else "-")
            )
        print(f"| {name} | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    seconds, _ = timed(main)
    print(f"\n{seconds:.0f} CPU seconds")
