"""Refined coronaries against the truth, on phantoms with noise that no training saw.

    python3 run.py test && python benchmarks/coronary.py --work /tmp/coronary

Draws coronary trees, lays noise over them, repairs and trains as the workflow does, and measures
every way on other trees: with the kinds of noise of the training, with the same but worse, and
with other kinds. The classical ways are tuned for each of them, on trees that are neither trained
nor tested on; "best classical" is the one with the best Dice there. Finished parts of --work are
used again. Figures are means over the test trees against the truth, with 95 % intervals from
bootstrap samples of the trees: on the isotropic grid, and (own) on the grid of the label map
(--edges), to which every way is carried as refine_coronary does it. "to label" is Dice against the
noisy label: how much was changed, no quality.

    python benchmarks/coronary.py --work /tmp/coronary --leave-one-out

trains once for every kind of noise, without that kind, and tests on that kind alone; the
classical ways are tuned without it, too.

    python benchmarks/coronary.py --work /tmp/coronary --alone

tests the network of the first call on kinds of noise that no training has, one at a time; the
classical ways are tuned on each of them, on other trees.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
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
TRAINED = "kinds of the training"
ALONE = {"coarse": 1.5, "slabs": 1.5, "dilation": 1.0, "missing_ends": 1.5}  # one does little
SPACING = 0.6
TUNING_FIRST, TEST_FIRST = 500, 1000
ROWS = ("dice", "cl_dice", "component_error", "hd95_mm", "assd_mm", "centreline_overlap")
OWN = ("dice", "cl_dice", "component_error", "hd95_mm")
BEST = "best classical"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--train", type=int, default=12, help="training trees")
    parser.add_argument("--test", type=int, default=20, help="test trees of each kind of noise")
    parser.add_argument("--tune", type=int, default=2, help="trees of the classical ways")
    parser.add_argument(
        "--edges", default="0.6,0.6,0.6", help="voxel edges of the label maps, mm: x,y,z"
    )
    parser.add_argument(
        "--leave-one-out", nargs="*", metavar="KIND", help="tables of kinds left out; none: of each"
    )
    parser.add_argument(
        "--alone", action="store_true", help="tables of kinds that no training has, one at a time"
    )
    parser.add_argument("--brief", action="store_true", help="the rows that decide alone")
    parser.add_argument("--bootstrap", type=int, default=1000, help="samples of the trees")
    parser.add_argument("--steps", type=int, default=900, help="steps of cardiform")
    parser.add_argument("--near-steps", type=int, default=300, help="steps of near")
    parser.add_argument("--latent-steps", type=int, default=20, help="of cardiform, a row apart")
    parser.add_argument("--flags", default="", help="further options of train_coronary cardiform")
    parser.add_argument("--skip-near", action="store_true")
    parser.add_argument("--processes", type=int, default=2, help="trees at a time")
    parser.add_argument("--workers", default="0", help="of the trainings' loaders")
    parser.add_argument("--more", nargs="*", default=[], help="models beside: NAME=model.pt")
    args = parser.parse_args()
    edges = tuple(map(float, args.edges.split(",")))
    prepare(args, edges)
    if args.leave_one_out is not None:
        leave_one_out(args, edges)
        return
    models = {"cardiform": train(args, "cardiform")}
    if not args.skip_near:
        models["near"] = train(args, "near")
    models |= {name: Path(path) for name, path in (more.split("=") for more in args.more)}
    met = {f"{kind} alone": {kind: most} for kind, most in ALONE.items()}
    for name, noise in (met if args.alone else NOISE).items():
        tuned = tune(args, name, noise, edges)
        print(f"\n**{name}** ({described(noise)})\n", flush=True)
        table(measured(args, name, noise, tuned, models, edges), args.bootstrap)
        print(f"\ntuned: {tuned}")


def described(noise: Mapping[str, float]) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in noise.items())


def leave_one_out(args, edges) -> None:
    """One table: every kind of the training's noise, met by what never saw it."""
    every = NOISE[TRAINED]
    for kind in args.leave_one_out or every:
        others = {k: v for k, v in every.items() if k != kind}
        model = train(args, "cardiform", f"without_{kind}", ("--kinds", ",".join(others)))
        noise = {kind: 1.5 * every[kind]}  # alone it does little
        name = f"without_{kind}"
        tuned = tune(args, name, others, edges)
        print(f"\n**{kind} left out** ({described(noise)})\n", flush=True)
        found = measured(args, name, noise, tuned, {"cardiform": model}, edges)
        table(found, args.bootstrap)


def repair_options():
    from cardiform.options.coronary import CoronaryRepairOptions

    return CoronaryRepairOptions(spacing_mm=SPACING)


def tree(seed: int, edges: tuple[float, ...]):
    """The true coronaries of a phantom, alone in a label map about them."""
    from cardiform.phantom import draw_phantom
    from cardiform.phantom.heart import LABELS
    from cardiform.volumes import LabelMap

    others = tuple(n for n in LABELS.names if n != "coronary")
    heart = draw_phantom(seed, least_vessel_radius=0.8, missing=others)
    low, high = heart.bounds()
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = low - 8
    shape = tuple(int(n) for n in np.ceil((high - low + 16) / edges))
    return LabelMap(heart.label_map(shape, affine), affine)


def noisy_tree(seed: int, noise: dict, edges: tuple[float, ...] = (SPACING,) * 3):
    """Truth and noisy label as label maps, and what repair_coronary makes of the label."""
    truth = tree(seed, edges)
    return truth, *corrupted(truth, truth.data.max(), noise, seed)


def corrupted(truth, value: int, noise: dict, seed: int):
    """A label map with one structure corrupted, and what repair_coronary makes of that."""
    from cardiform.anatomy.corruption import corrupt
    from cardiform.anatomy.repair import repair
    from cardiform.coronary.repair_case import thin_structure
    from cardiform.labels import LabelTable
    from cardiform.volumes import LabelMap

    before = truth.data == value
    label = corrupt(before, truth.spacing, noise, np.random.default_rng(seed))
    others = np.where(before, 0, truth.data)
    noisy = LabelMap(np.where(label, value, others).astype(np.uint8), truth.affine)
    thin = thin_structure(noisy, LabelTable(), repair_options())
    repaired, _ = repair(thin.label, SPACING, repair_options(), thin.supported, thin.roots)
    return noisy, replace(thin, repaired=repaired)


def prepare(args, edges: tuple[float, ...]) -> None:
    """The training trees as files of repair_coronary, with a manifest and a split."""
    from cardiform.cohort.manifest import write_manifest
    from cardiform.files import sha256_file

    work, number = args.work, args.train
    names = [f"tree_{seed:03d}" for seed in range(number)]
    with ProcessPoolExecutor(args.processes) as pool:
        list(pool.map(partial(prepare_one, work, edges), range(number)))
    paths = [work / "repaired" / f"{name}.npz" for name in names]
    rows = [[n, str(p), p.stat().st_size, sha256_file(p), "ok"] for n, p in zip(names, paths)]
    write_manifest(work / "manifest.tsv", rows)
    held = max(number // 6, 1)
    for part, some in (("train", names[held:]), ("val", names[:held])):
        lines = ["case_id,patient_id,path", *(f"{n},{n},unused" for n in some)]
        (work / f"{part}.csv").write_text("\n".join(lines) + "\n")


def prepare_one(work: Path, edges: tuple[float, ...], seed: int) -> None:
    path = work / "repaired" / f"tree_{seed:03d}.npz"
    if not path.exists():
        noisy_tree(seed, NOISE[TRAINED], edges)[2].save(path)


def train(args, preset: str, folder: str = "", more: tuple[str, ...] = ()) -> Path:
    """model.pt of a preset, through train_coronary."""
    out = args.work / (folder or preset)
    command = [sys.executable, ROOT / "workflow" / "scripts" / "train_coronary.py"]
    command += ["--preset", preset, "--train", args.work / "train.csv", "--out", out]
    command += ["--validation", args.work / "val.csv", "--manifest", args.work / "manifest.tsv"]
    command += ["--workers", args.workers, "--preview-every", "0", "--log-every", "50"]
    if preset == "cardiform":
        command += ["--steps", args.steps, "--warmup-steps", "20", "--batch-size", "8"]
        command += ["--channels", "16,24,32", "--blocks", "1,1,1", "--lr", "4e-3"]
        command += ["--ema-decay", "0.98", "--validate-every", max(args.steps // 3, 1)]
        command += ["--spacing-mm", SPACING, *shlex.split(args.flags), *more]
    else:
        command += ["--steps", args.near_steps, "--warmup-steps", "10", "--points", "16384"]
        command += ["--validate-every", max(args.near_steps // 3, 1)]
    subprocess.run(list(map(str, command)), check=True)
    return out / "model.pt"


def kept_if_same(thin, parameters: tuple, made: Callable[[], np.ndarray]) -> np.ndarray:
    """A stage of a chain that several parameters share; of the last structures alone."""
    key = (id(thin), *parameters)
    if key not in STAGES:
        if len(STAGES) > 60:
            STAGES.clear()
        STAGES[key] = (thin, made())  # the structure stays: its number is not given again
    return STAGES[key][1]


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
    smooth = kept_if_same(
        thin, (dust, radius), lambda: closed(without_small(mask, dust / voxel), SPACING, radius)
    )
    smooth = kept_if_same(
        thin,
        (dust, radius, sigma),
        lambda: ndimage.gaussian_filter(smooth.astype(np.float32), sigma / SPACING),
    )
    result = smooth > level
    if name.endswith("bridging"):
        result, _ = bridged(result, SPACING, repair_options())
    return without_small(result, second / voxel)


STAGES: dict[tuple, tuple] = {}
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


def tune(args, name: str, noise: dict, edges) -> dict[str, tuple]:
    """The parameters of each classical way with the best Dice on other trees with such noise.

    The way with the best Dice of all stands under :data:`BEST`, by its name.
    """
    path = args.work / f"tuned_{name.replace(' ', '_').replace(',', '')}.json"
    if path.exists():
        return {way: tuple(value) for way, value in json.loads(path.read_text()).items()}
    seeds = range(TUNING_FIRST, TUNING_FIRST + args.tune)
    pairs = [noisy_tree(seed, noise, edges) for seed in seeds]
    truths = [on_thin(truth, thin) for truth, _, thin in pairs]

    def dice(way, value):
        masks = [classical(way, value, thin) for _, _, thin in pairs]
        return np.mean([2 * (t & m).sum() / (t.sum() + m.sum()) for t, m in zip(truths, masks)])

    tuned: dict[str, tuple] = {}
    scores = {}
    for way, grid in GRIDS.items():
        known = tuned.get("dust + closing + Gaussian") if way.endswith("bridging") else None
        tuned[way] = known or max(grid, key=lambda value, way=way: dice(way, value))
        scores[way] = dice(way, tuned[way])
    tuned[BEST] = (max(scores, key=scores.__getitem__),)
    path.write_text(json.dumps(tuned))
    return tuned


def on_thin(truth, thin) -> np.ndarray:
    """The truth on the isotropic grid of a structure."""
    from cardiform.geometry.isotropic import mask_of

    return mask_of(truth, int(truth.data.max()), thin.label.shape, thin.affine)


def field_of(mask: np.ndarray, thin):
    """A mask on the isotropic grid as a field."""
    from cardiform.coronary.field import repaired_field

    return repaired_field(replace(thin, repaired=mask))


def ways(args, tuned: dict, models: dict[str, Path], thin) -> Iterator[tuple]:
    """Name and field of every way, on one structure."""
    import torch

    from cardiform.coronary.refine import load_refiner, mended
    from cardiform.options.coronary import CoronaryRefineOptions

    yield "noisy label", field_of(thin.label, thin)
    for name, value in tuned.items():
        if name != BEST and not args.brief:
            yield name, field_of(classical(name, value, thin), thin)
    best = tuned[BEST][0]
    yield f"{BEST}", field_of(classical(best, tuned[best], thin), thin)
    yield "repair_coronary", field_of(thin.repaired, thin)
    repair = repair_options()
    for name, model in models.items():
        preset = "near" if name == "near" else "cardiform"
        latent = 100 if preset == "near" else 0
        options = CoronaryRefineOptions(preset=preset, latent_steps=latent)
        refiner = load_refiner(model, options, repair, torch.device("cpu"))
        field = refiner.field("", thin)
        if not args.brief:
            yield f"{name}, network alone", field
        yield name, mended(field, repair)
        if preset == "cardiform":
            plain = replace(refiner, level=0.0)
            yield f"{name}, cut at 0", mended(plain.field("", thin), repair)
        if name == "cardiform" and not args.brief:
            stepping = replace(refiner, options=replace(options, latent_steps=args.latent_steps))
            moved = mended(stepping.field("", thin), repair)
            yield f"{preset}, {args.latent_steps} latent steps", moved
            fixed = replace(thin, label=thin.repaired)
            name = "repair + cardiform (the network sees the repair alone)"
            alone = mended(refiner.field("", fixed), repair)
            yield name, replace(alone, thin=thin)


def measured(args, name: str, noise: dict, tuned: dict, models: dict[str, Path], edges) -> dict:
    """Way -> figures of each test tree."""
    seeds = range(TEST_FIRST, TEST_FIRST + args.test)
    one = partial(measure_one, args, name, noise, tuned, models, edges)
    rows: dict[str, list[dict]] = {}
    with ProcessPoolExecutor(args.processes) as pool:
        for found in pool.map(one, seeds):
            for way, row in found.items():
                rows.setdefault(way, []).append(row)
    return rows


def measure_one(args, name, noise, tuned, models, edges, seed: int) -> dict[str, dict]:
    """Way -> figures of one test tree."""
    import torch

    from cardiform.coronary.figures import fine_figures, own_figures
    from cardiform.coronary.own_label import OwnLabel
    from cardiform.files import sha256_json

    torch.set_num_threads(1)
    weights = {n: [str(p), p.stat().st_mtime] for n, p in models.items()}
    settings = [noise, tuned, weights, edges, args.brief, args.latent_steps]
    path = (
        args.work / "figures" / f"{name}_{seed}_{sha256_json(settings)[:8]}.json".replace(" ", "_")
    )
    if path.exists():
        return json.loads(path.read_text())
    truth, noisy, thin = noisy_tree(seed, noise, edges)
    value, given = int(truth.data.max()), noisy.data > 0
    on_own, rows = OwnLabel(given, noisy.affine, thin, repair_options()), {}
    for way, field in ways(args, tuned, models, thin):
        fine = {} if args.brief else fine_figures(truth, value, {"fine": field.mask}, thin)["fine"]
        same = way == "noisy label"
        own = given if same else on_own.mask(field)
        found = own_figures(truth, value, {"own": own}, noisy.affine)["own"]
        both = 2 * (own & given).sum() / max(own.sum() + given.sum(), 1)
        rows[way] = {**fine, **{f"own {k}": found[k] for k in OWN}, "to label": float(both)}
    STAGES.clear()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows))
    return rows


def table(rows: dict[str, list[dict]], samples: int) -> None:
    """Means and 95 % intervals over the trees."""
    columns = (*ROWS, *(f"own {name}" for name in OWN), "to label")
    titles = ("Dice", "clDice", "component error", "HD95 mm", "ASSD mm", "overlap")
    titles += ("own Dice", "own clDice", "own component error", "own HD95 mm", "to label")
    print(f"| | {' | '.join(titles)} |\n|---|{'---:|' * len(titles)}")
    for name, figures in rows.items():
        cells = [
            interval([f.get(name) for f in figures], samples, 1 if "component" in name else 3)
            for name in columns
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def interval(values: list, samples: int, digits: int) -> str:
    """Mean (lower to upper end of the bootstrap interval) of what is known."""
    known = np.array([v for v in values if v is not None], float)
    if not len(known):
        return "-"
    rng = np.random.default_rng(0)
    means = known[rng.integers(len(known), size=(samples, len(known)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{known.mean():.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    seconds, _ = timed(main)
    print(f"\n{seconds:.0f} CPU seconds")
