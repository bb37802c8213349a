"""Which signals say how good a label map is, without its truth.

    OMP_NUM_THREADS=1 python benchmarks/confidence.py --work confidence

Trains a small VecSet on phantoms (hearts of the demo, without noise) and puts other phantoms, with
faults of one kind in all classes, through it:

set-up  holes, swapped borders, gaps (phantom/faults.py), dilation, jagged (anatomy/corruption.py)
test    islands, leaks, blobs; erosion, slabs, coarse, speckle: these were looked at while signals
        were sought
weak    breaks, missing ends, lumps (anatomy/corruption.py): these were not, but most of them
        change less than 0.01 of Dice
strong  the same kinds and hearts, stronger

(Strengths are high because voxels are large: what moves a wall by less than half a voxel does
nothing.) Otherwise no kind and no heart is in two of them. Prints Spearman's rank correlation with
the error of Dice of the label map against its truth: over all rows of a case and a class, and as
the mean over classes, within which size and shape of a class say nothing. First of each signal
alone, then of those that count together, with weights by non-negative least squares on the set-up,
and of the library's ``confidence``. A signal counts where it reaches 0.5 on the set-up, both ways.

reconstruction  Dice with what the VecSet makes of the label map without its specks
contact         what the class touches, against the mean over the training
uncleaned       as reconstruction, of the label map with its specks
rules           Dice with what the rules of fusion leave
smoothed        Dice with the label map smoothed by 4 mm
parts           share of the class in its largest parts, as many as expected
size            its share of the heart, in deviations over the training
latent          distance of the latents of the case to those of the training
draws           Dice between reconstructions of two draws of points (on the set-up alone)

What has been computed in --work is not computed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measuring import ROOT
from scipy.optimize import nnls
from scipy.stats import spearmanr

from cardiform.anatomy.corruption import corrupt
from cardiform.cohort import splits
from cardiform.cohort.table import Case
from cardiform.fusion.rules import consistent
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.labels import LabelTable
from cardiform.metrics.confidence import (
    cleaned,
    confidence,
    doubts,
    in_expected_parts,
    signals,
    smoothed,
    typical_signals,
    usual_contact,
)
from cardiform.metrics.overlap import overlap
from cardiform.options.fusion import FusionOptions
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.options.vecset import VecsetReconstructOptions
from cardiform.phantom.faults import FAULTS, faulty
from cardiform.phantom.scans import draw_scan
from cardiform.vecset.reconstruct import Reconstructor, load_frame
from cardiform.volumes import load_label_map, save_label_map, spacing_of

TABLE = LabelTable()
CPU = torch.device("cpu")
NONE = ("none", 0.0)
# (kind, strength): how often a fault of phantom/faults.py strikes, else as anatomy/corruption.py
PARTS = {
    "set-up": (
        NONE, ("holes", 3), ("swapped", 3), ("gaps", 2), ("dilation", 3.5), ("jagged", 5),
    ),
    "test": (
        NONE, ("islands", 2), ("islands", 6), ("leaks", 1), ("leaks", 4), ("blobs", 1),
        ("erosion", 3.5), ("erosion", 9.5), ("slabs", 4), ("slabs", 8), ("coarse", 4),
        ("coarse", 6), ("speckle", 1), ("speckle", 4),
    ),
    "weak": (
        NONE, ("breaks", 4), ("breaks", 12), ("missing_ends", 1), ("missing_ends", 2), ("lumps", 3),
        ("lumps", 9),
    ),
    "strong": (NONE, ("breaks", 120), ("missing_ends", 2.5), ("lumps", 200)),
}  # fmt: skip
OTHERS = ("class", "error", "confidence")  # of a row, which are no signals
COUNT = ("reconstruction", "contact")
# Numbers of the first hearts; those of the training begin at 0.
FIRST = {"set-up": 1000, "test": 2000, "weak": 3000, "strong": 3000}
POINTS = {"surface_points": 30_000, "min_class_points": 1_000}
TRAINING = (
    "--preset demo --input-points 4096 --volume-queries 512 --near-queries 1024 "
    "--surface-queries 256 --eikonal-queries 64 --weight-eikonal 0 --weight-volume 10 "
    "--batch-size 4 --lr 4e-3 --warmup-steps 30 --ema-decay 0.98 --preview-every 0 --workers 0 "
    "--device cpu --log-every 50"
)


@dataclass(frozen=True)
class Training:
    """What is known of the training cases.

    latents : of each. usual : of their label maps, see usual_contact. sizes : class -> mean and
    deviation of the logarithm of its share of the heart.
    """

    latents: list[np.ndarray]
    usual: dict[str, np.ndarray]
    sizes: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, network: Reconstructor, work: Path) -> Training:
        rows = splits.read_split(work / "split" / "train.csv")
        files = [work / "demo" / "labels" / f"{name}.nii.gz" for name, _ in rows]
        maps = [load_label_map(path).data for path in files]
        shares = [log_shares(labels) for labels in maps]
        found = {n: [x[n] for x in shares if n in x] for n in TABLE.names}
        return cls(
            [network.encode(path, name)[0].numpy() for name, path in rows],
            usual_contact(maps, TABLE),
            {n: (float(np.mean(x)), float(np.std(x))) for n, x in found.items()},
        )


def script(name: str, *arguments) -> None:
    """Run a script of the workflow."""
    path = ROOT / "workflow" / "scripts" / f"{name}.py"
    subprocess.run([sys.executable, str(path), *map(str, arguments)], check=True)


def trained(work: Path, hearts: int, spacing_mm: float, steps: int) -> Path:
    """model.pt of a VecSet that was trained on phantoms; what is there is kept."""
    model = work / "vecset" / "model.pt"
    if model.exists():
        return model
    demo = ("--out", work / "demo", "--cases", hearts, "--spacing-mm", spacing_mm)
    script("make_demo_cohort", *demo, "--coronary-noise", 0)
    script("check_cohort", "--table", work / "demo" / "cases.tsv", "--out", work)
    each = ("--cases", work / "cases.tsv")
    meshes, points = work / "meshes", work / "points"
    script("extract_meshes", *each, "--out", meshes, "--manifest", meshes / "manifest" / "all.tsv")
    number = [w for n, v in POINTS.items() for w in (f"--{n.replace('_', '-')}", v)]
    number += ["--near-points", 40_000, "--volume-points", 20_000, "--meshes", meshes]
    files = ("--out", points, "--manifest", points / "manifest" / "all.tsv")
    script("sample_sdf", *each, *files, *number)
    shares = ("--validation", 0.1, "--test", 0)
    script("split_cohort", *each, "--points", points, "--out", work / "split", *shares)
    split = ("--train", work / "split" / "train.csv", "--validation", work / "split" / "val.csv")
    often = ("--steps", steps, "--validate-every", steps)
    script("train_vecset", *split, "--out", work / "vecset", *TRAINING.split(), *often)
    return model


def damaged(labels: np.ndarray, spacing, kind: str, strength: float, rng) -> np.ndarray:
    """A copy of a label map with faults of one kind in all classes."""
    if kind in FAULTS:
        for _ in range(int(strength)):
            labels = faulty(labels, kind, spacing, rng)
        return labels
    result = labels.copy()
    sign = -1 if kind == "erosion" else 1
    kind = {"erosion": "dilation", "lumps": "blobs"}.get(kind, kind)
    for label in sorted(TABLE, key=lambda c: c.priority, reverse=True):
        mask = labels == label.value
        if kind != "none" and mask.any():
            found = corrupt(mask, spacing, {kind: sign * strength}, rng)
            result[mask & ~found & (result == label.value)] = 0
            result[found & ~mask & ((result == 0) | (kind == "slabs"))] = label.value
    return result


def case_of(folder: Path, labels: np.ndarray, affine: np.ndarray) -> tuple[Case, Path]:
    """A label map as a case, and its points file."""
    path = folder / "a.nii.gz"
    save_label_map(path, labels, affine)
    case = Case(case_id="a", patient_id="a", labels=str(path), cut="none")
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
    options = PointsOptions(**POINTS, near_points=100, volume_points=100)
    meshes = folder / "meshes"
    (points,) = sample_case(case, table=TABLE, options=options, meshes=meshes, out=folder)
    return case, points


def measured(network: Reconstructor, training: Training, number: int, fault, args) -> dict:
    """Signals and true Dice of a phantom with a fault."""
    truth, affine = draw_scan(number, args.test_spacing_mm, args.seed)
    spacing, (kind, strength) = spacing_of(affine), fault
    rng = np.random.default_rng([args.seed, number, sum(map(ord, kind)), int(10 * strength)])
    given = damaged(truth, spacing, kind, strength, rng)
    clean = cleaned(given, spacing, TABLE)
    made, encoded = put_through(network, clean, affine)
    found = signals(given, made, TABLE, training.usual)
    rules, _ = consistent(given, spacing, TABLE, FusionOptions())
    others = {"uncleaned": put_through(network, given, affine)[0], "rules": rules}
    others["smoothed"] = smoothed(given, spacing, TABLE)
    agreeing = {signal: overlap(given, other, TABLE) for signal, other in others.items()}
    parts, shares = in_expected_parts(given, TABLE), log_shares(given)
    for name in shares:
        mean, spread = training.sizes[name]
        found[name] |= {signal: rows[name]["dice"] or 0.0 for signal, rows in agreeing.items()}
        found[name]["parts"] = parts[name]
        found[name]["size"] = 1 / max(abs(shares[name] - mean) / max(spread, 0.05), 1.0)
        found[name]["latent"] = 1 / max(latent_distance(encoded, training.latents), 1.0)
    if number < FIRST["test"]:
        other = put_through(
            replace(network, options=replace(network.options, seed=1)), clean, affine
        )
        for name, row in overlap(made, other[0], TABLE).items():
            if found[name] is not None:
                found[name]["draws"] = row["dice"] or 0.0
    dice = {name: row["dice"] for name, row in overlap(truth, given, TABLE).items()}
    return {"heart": number, "kind": kind, "strength": strength, "signals": found, "dice": dice}


def put_through(
    network: Reconstructor, labels: np.ndarray, affine
) -> tuple[np.ndarray, np.ndarray]:
    """What a VecSet makes of a label map, on its grid; and its latents (M, W)."""
    with tempfile.TemporaryDirectory() as folder:
        case, points = case_of(Path(folder), labels, affine)
        encoded = network.encode(points, "a")
        sampled = network.sample(encoded, load_frame(points), load_label_map(case.labels))
    return sampled.labels(TABLE.values), encoded[0].numpy()


def log_shares(labels: np.ndarray) -> dict[str, float]:
    """Logarithms of the shares of the classes that are there in all labelled voxels."""
    voxels = np.bincount(labels.ravel(), minlength=256)
    total = sum(voxels[value] for value in TABLE.values)
    return {c.name: float(np.log(n / total)) for c in TABLE if (n := voxels[c.value])}


def latent_distance(latents: np.ndarray, training: Sequence[np.ndarray]) -> float:
    """How far the latents of a case lie from those of training: 1 is as far as these from each
    other.

    latents : (M, W), a set: its mean and deviation are compared, each in deviations of training.
    training : of at least three training cases.
    """
    pooled = np.array([np.r_[x.mean(0), x.std(0)] for x in training])
    scale = pooled.std(axis=0) + 1e-6
    own = np.r_[latents.mean(0), latents.std(0)]
    away = np.linalg.norm((pooled - own) / scale, axis=1).min()
    between = np.linalg.norm((pooled[:, None] - pooled) / scale, axis=2)
    np.fill_diagonal(between, np.inf)
    return float(away / np.median(between.min(axis=1)))


def all_measured(
    network: Reconstructor, training: Training, part: str, hearts: int, args
) -> list[dict]:
    """Every heart with every fault of a part; what is there is read."""
    results = []
    for number in range(FIRST[part], FIRST[part] + hearts):
        for fault in PARTS[part]:
            path = args.work / "signals" / f"{number}_{fault[0]}_{fault[1]:g}.json"
            if not path.exists():
                started = time.monotonic()
                content = measured(network, training, number, fault, args)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(content))
                print(f"{path.stem}: {time.monotonic() - started:.1f} s", flush=True)
            results.append(json.loads(path.read_text()))
    return results


def rows_of(results: list[dict], typical: dict) -> list[dict]:
    """A row per case and class that the label map has: doubts, confidence, error of Dice."""
    rows = []
    for result in results:
        doubted = doubts(result["signals"], typical)
        sure = confidence(result["signals"], typical)
        for name, dice in result["dice"].items():
            if doubted[name] is not None:
                row = {"class": name, "error": 1 - dice, "confidence": sure[name]}
                rows.append(row | doubted[name])
    return rows


def spearman(rows: list[dict], value: Callable) -> float:
    """Rank correlation of a value of each row with its error; NaN where all are the same."""
    values = [value(row) for row in rows]
    return (
        float(spearmanr(values, [r["error"] for r in rows])[0]) if len(set(values)) > 1 else np.nan
    )


def in_cells(parts: dict[str, list[dict]], value: Callable) -> str:
    """The correlations of all parts, over all rows and within classes, as cells of a table."""
    cells = []
    for rows in parts.values():
        if any(value(row) is None for row in rows):
            cells += ["-", "-"]
            continue
        inner = [spearman([r for r in rows if r["class"] == n], value) for n in TABLE.names]
        known = [x for x in inner if not np.isnan(x)]
        whole = f"{spearman(rows, value):.2f}".replace("nan", "-")
        cells += [whole, f"{np.mean(known):.2f}" if known else "-"]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of what is computed")
    parser.add_argument("--training-hearts", type=int, default=24)
    parser.add_argument("--steps", type=int, default=700, help="of the training")
    parser.add_argument("--spacing-mm", type=float, default=3.0, help="of the training hearts")
    parser.add_argument("--test-spacing-mm", type=float, default=3.0)
    parser.add_argument("--set-up-hearts", type=int, default=2)
    parser.add_argument("--test-hearts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7, help="of the hearts with faults")
    args = parser.parse_args()
    model = trained(args.work, args.training_hearts, args.spacing_mm, args.steps)
    network = Reconstructor.load(model, VecsetReconstructOptions(device="cpu"), CPU)
    training = Training.of(network, args.work)
    hearts = dict.fromkeys(PARTS, args.test_hearts) | {"set-up": args.set_up_hearts}
    found = {p: all_measured(network, training, p, hearts[p], args) for p in PARTS}
    typical = typical_signals([r["signals"] for r in found["set-up"] if r["kind"] == "none"])
    parts = {part: rows_of(results, typical) for part, results in found.items()}
    matrix = {p: np.array([[row[n] for n in COUNT] for row in rows]) for p, rows in parts.items()}
    weights, _ = nnls(matrix["set-up"], np.array([row["error"] for row in parts["set-up"]]))
    print("\nrows: " + ", ".join(f"{len(rows)} of the {part}" for part, rows in parts.items()))
    print("weights: " + ", ".join(f"{n} {w:.2f}" for n, w in zip(COUNT, weights)))
    for part, rows in parts.items():
        low, middle, high = np.percentile([row["error"] for row in rows], [10, 50, 90])
        print(f"errors of {part}: median {middle:.3f}, 10 to 90 %: {low:.3f} to {high:.3f}")
    print("\n| signal | " + " | ".join(f"{p}, all | {p}, within" for p in parts) + " |")
    print("|---" + "|---:" * 2 * len(parts) + "|")
    for name in (n for n in parts["set-up"][0] if n not in OTHERS):
        print(f"| {name} | {in_cells(parts, lambda row, name=name: row.get(name))} |")
    fitted = dict(zip(COUNT, weights))
    print(
        f"| the first two | {in_cells(parts, lambda r: sum(w * r[n] for n, w in fitted.items()))} |"
    )
    print(f"| `confidence` | {in_cells(parts, lambda row: 1 - row['confidence'])} |")
    half = [row["confidence"] for row in parts["test"] if 0.4 < row["error"] < 0.6]
    print(f"\nconfidence where 0.4 to 0.6 of Dice is lost (test): median {np.median(half):.2f}")
    for part in ("test", "strong"):
        inner = {n: [r for r in parts[part] if r["class"] == n] for n in TABLE.names}
        pairs = {n: spearman(rows, lambda r: 1 - r["confidence"]) for n, rows in inner.items()}
        print(f"\n{part}: " + ", ".join(f"{n} {value:.2f}" for n, value in pairs.items()))


if __name__ == "__main__":
    main()
