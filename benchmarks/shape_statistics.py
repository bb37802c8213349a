"""Modes of variation of phantoms whose measures are known, or of any meshed cohort.

    python benchmarks/shape_statistics.py designed --out /tmp/designed
    python benchmarks/shape_statistics.py drawn --out /tmp/drawn --hearts 36
    python benchmarks/shape_statistics.py designed --out /tmp/designed --peer /tmp/pycpd
    python benchmarks/shape_statistics.py designed --out /tmp/designed --vecset-steps 900

`designed`: three measures vary, each on its own (size, atria, elongation of the left ventricle: its
length times the measure, its radius by the root of it); `long`: the length of the left ventricle
alone in place of the last, which makes the heart larger, too; `drawn`: all of them, as in the demo.
Digitises the hearts, runs check_cohort, extract_meshes and shape_statistics as the rules do, and
prints how the scores go along with the measures, the figures of statistics.json, and the time.
--peer: a folder with pycpd (pip install --target /tmp/pycpd pycpd), whose coherent point drift then
puts the template onto the same hearts. --vecset-steps: trains a VecSet of the preset demo on the
training hearts and prints the same of the modes of its latents. A finished step is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))
# cohort -> measures that vary, each on its own
DESIGN = {
    "designed": ("size", "atria", "lv_elongation"),
    "long": ("size", "atria", "lv_length"),
}
# of the logarithm
SPREAD = {"size": 0.10, "atria": 0.12, "lv_elongation": 0.05, "lv_length": 0.07}
POINTS = (
    "--surface-points", 20_000, "--min-class-points", 800, "--near-points", 20_000,
    "--volume-points", 20_000,
)  # fmt: skip
VECSET = (
    "--preset", "demo", "--input-points", 2048, "--volume-queries", 512, "--near-queries", 768,
    "--surface-queries", 256, "--weight-eikonal", 0, "--weight-volume", 10, "--batch-size", 4,
    "--lr", 4e-3, "--warmup-steps", 30, "--ema-decay", 0.98, "--preview-every", 0, "--workers", 0,
)  # fmt: skip
PEER_POINTS = 250  # of each class; its cost grows with their square


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", choices=(*DESIGN, "drawn"))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--hearts", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of measures and poses (default: 1)")
    parser.add_argument("--spacing-mm", type=float, default=2.0)
    parser.add_argument("--peer", type=Path, help="folder in which pycpd is installed")
    parser.add_argument("--vecset-steps", type=int, default=0, help="0: no modes of latents")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--grid-mm", help="as of shape_statistics.py")
    parser.add_argument("--leave-out", help="as of shape_statistics.py")
    parser.add_argument("--variance", help="as of shape_statistics.py")
    args = parser.parse_args()
    given = {
        "--grid-mm": args.grid_mm,
        "--leave-out": args.leave_out,
        "--variance": args.variance,
    }
    more = [word for flag, value in given.items() if value for word in (flag, value)]
    measures = write_cohort(args)
    out = args.out / "shape_statistics"
    started = time.process_time(), time.perf_counter()
    run_stages(args, out, more)
    print(f"wall time of all stages {time.perf_counter() - started[1]:.0f} s\n")
    record = json.loads((out / "statistics.json").read_text())
    print_scores(pd.read_csv(out / "scores.csv", dtype={"case_id": str}), measures)
    print_record(record)
    if args.peer:
        compare_peer(args, out, record)
    if args.vecset_steps:
        out = make_latent_modes(args.out, args.vecset_steps, args.leave_out, args.variance)
        print_scores(pd.read_csv(out / "scores.csv", dtype={"case_id": str}), measures)
        record = json.loads((out / "statistics.json").read_text())
        print(f"explained: {', '.join(f'{share:.3f}' for share in record['explained'])}")
        print_modes(record)
        print(f"without modes: {record['ceiling']}")


def write_cohort(args) -> pd.DataFrame:
    """Label maps, cases.tsv and a split; the measures of every heart."""
    from cardiform.phantom.anatomy import Anatomy
    from cardiform.phantom.heart import Phantom, draw_phantom
    from cardiform.phantom.scans import Oddity, _grid
    from cardiform.volumes import save_label_map

    rng = np.random.default_rng(args.seed)
    names = [f"h{k:03d}" for k in range(args.hearts)]
    parts = (args.hearts - args.held_out, args.held_out)
    columns = np.concatenate([unlike(rng, hearts) for hearts in parts if hearts])
    rows = []
    for k, name in enumerate(names):
        phantom = draw_phantom(1000 * args.seed + k, missing=("coronary",))
        if args.cohort in DESIGN:
            design = DESIGN[args.cohort]
            row = {n: float(np.exp(SPREAD[n] * columns[k, c])) for c, n in enumerate(design)}
            size, atria, third = row.values()
            wide = third**-0.5 if "lv_elongation" in row else 1.0
            anatomy = Anatomy(lv_length=82.0 * third, lv_radius=24.5 * wide, la=atria, ra=atria)
            phantom = Phantom(
                seed=k, anatomy=anatomy, rotation=phantom.rotation, shift=phantom.shift, size=size,
                missing=("coronary",),
            )  # fmt: skip
            rows.append(row)
        else:
            found = dataclasses.asdict(phantom.anatomy)
            rows.append({"size": phantom.size} | {
                key: value for key, value in found.items() if isinstance(value, float)
            })  # fmt: skip
        path = args.out / "labels" / f"{name}.nii.gz"
        if not path.exists():
            shape, affine = _grid(phantom.bounds(), np.full(3, args.spacing_mm), Oddity())
            save_label_map(path, phantom.label_map(shape, affine), affine)
    measured = columns_of(args)
    header = "\t".join(["case_id", "labels", *(f"x_{name}" for name in measured)])
    lines = [
        "\t".join([n, f"labels/{n}.nii.gz", *(f"{row[name]:.5f}" for name in measured)])
        for n, row in zip(names, rows)
    ]
    (args.out / "table.tsv").write_text("\n".join([header, *lines]) + "\n")
    (args.out / "split").mkdir(exist_ok=True)
    parts = {"train": names[: -args.held_out], "val": [], "test": names[-args.held_out :]}
    for part, own in parts.items():
        text = "\n".join(["case_id,patient_id,path", *(f"{n},{n},-" for n in own)])
        (args.out / "split" / f"{part}.csv").write_text(text + "\n")
    return pd.DataFrame(rows, index=names)


def unlike(rng: np.random.Generator, hearts: int) -> np.ndarray:
    """(hearts, 3) of mean 0 and sd 1; no two measures go together."""
    drawn = rng.normal(size=(hearts, 4))
    drawn[:, 0] = 1
    columns = np.linalg.qr(drawn)[0][:, 1:]
    return columns / columns.std(axis=0)


def columns_of(args) -> list[str]:
    """Measures that become columns of the case table."""
    return list(DESIGN.get(args.cohort, ("size",)))


def run_stages(args, out: Path, more: list[str]) -> None:
    folder, cases = args.out, args.out / "cases.tsv"
    columns = ",".join(f"x_{name}" for name in columns_of(args))
    run("check_cohort.py", "--table", folder / "table.tsv", "--out", folder)
    meshes = folder / "meshes"
    run(
        "extract_meshes.py", "--cases", cases, "--out", meshes,
        "--manifest", meshes / "manifest.tsv", "--processes", args.processes,
    )  # fmt: skip
    split = folder / "split"
    run(
        "shape_statistics.py", "--cases", cases, "--meshes", meshes, "--out", out,
        "--train", split / "train.csv", "--validation", split / "val.csv",
        "--test", split / "test.csv", "--table", folder / "table.tsv", "--columns", columns,
        "--processes", args.processes, *more,
    )  # fmt: skip


def make_latent_modes(
    folder: Path, steps: int, leave_out: str | None, variance: str | None
) -> Path:
    """Points, a VecSet, its latents and their statistics, as the rules make them; the folder."""
    cases, meshes, points = folder / "cases.tsv", folder / "meshes", folder / "points"
    run("sample_sdf.py", "--cases", cases, "--meshes", meshes, *manifest(points), *POINTS)
    for part in ("train", "val", "test"):
        rows = (folder / "split" / f"{part}.csv").read_text().splitlines()
        names = [row.split(",")[0] for row in rows[1:]]
        lines = [rows[0], *(f"{name},{name},{points / name}.npz" for name in names)]
        path = folder / "points_split" / f"{part}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    flags = ("--train", "--validation", "--test")
    files = [folder / "points_split" / f"{part}.csv" for part in ("train", "val", "test")]
    split = [word for pair in zip(flags, files) for word in pair]
    vecset = folder / "vecset"
    if not (vecset / "model.pt").exists():
        more = ("--steps", steps, "--validate-every", steps // 2, "--checkpoint-every", steps)
        run("train_vecset.py", *split[:4], "--out", vecset, *VECSET, *more)
    voxels, latents, out = folder / "voxels", folder / "latents", folder / "latent_statistics"
    size = ("--voxel-size", 48)
    run("resample_labels.py", "--cases", cases, *manifest(voxels), "--sources", "labels", *size)
    grid = ("--voxels", voxels / "manifest.tsv", "--grid", voxels / "grid.json")
    model = ("--vecset", vecset / "model.pt", *split)
    run("encode_set_latents.py", *model, *grid, *manifest(latents), *size)
    given = {"--leave-out": leave_out, "--variance": variance}
    run(
        "latent_statistics.py", *model, "--latents", latents / "manifest.tsv",
        "--slots", latents / "slots.npz", "--out", out,
        *(word for flag, value in given.items() if value for word in (flag, value)),
    )  # fmt: skip
    return out


def manifest(folder: Path) -> tuple:
    return "--out", folder, "--manifest", folder / "manifest.tsv"


def run(script: str, *arguments) -> None:
    started = time.perf_counter()
    subprocess.run([sys.executable, str(SCRIPTS / script), *map(str, arguments)], check=True)
    print(f"{script}: {time.perf_counter() - started:.0f} s")


def print_scores(scores: pd.DataFrame, measures: pd.DataFrame) -> None:
    """For each measure: the mode that goes along with it most, and all modes together."""
    scores = scores.set_index("case_id")
    modes = [name for name in scores.columns if name.startswith("mode_")]
    scores = scores.loc[scores.index.isin(measures.index)]
    print("| measure | mode | r | r of held-out hearts | of all modes (R, left out) |")
    print("|---|---|---:|---:|---:|")
    held_out = scores["part"] != "train"
    for name, values in measures.loc[scores.index].items():
        r = [np.corrcoef(scores[mode], values)[0, 1] for mode in modes]
        best = int(np.argmax(np.abs(r)))
        rest = np.corrcoef(scores[modes[best]][held_out], values[held_out])[0, 1]
        print(
            f"| {name} | {best + 1} | {r[best]:+.3f} | {rest:+.3f} | "
            f"{left_out(scores[modes].to_numpy(), values.to_numpy()):.3f} |"
        )


def left_out(scores: np.ndarray, values: np.ndarray) -> float:
    """Correlation of a measure with what the scores say of it, each heart left out in turn."""
    told = np.zeros(len(values))
    for k in range(len(values)):
        others = np.arange(len(values)) != k
        rows = np.column_stack([np.ones(others.sum()), scores[others]])
        weights = np.linalg.solve(
            rows.T @ rows + 0.1 * np.eye(rows.shape[1]), rows.T @ values[others]
        )
        told[k] = np.concatenate([[1.0], scores[k]]) @ weights
    return float(np.corrcoef(told, values)[0, 1])


def print_record(record: dict) -> None:
    place = record["registration"]
    print(f"\nregistration: {place['mean_mm']:.2f} mm, worst {place['worst']['mm']:.2f} mm, folded "
          f"{place['folded_share']:.2%}")  # fmt: skip
    print(", ".join(f"{k} {v:.2f}" for k, v in place["by_class_mm"].items()))
    print(f"explained: {', '.join(f'{share:.3f}' for share in record['explained'])}\n")
    print_modes(record)
    print(f"columns: {record['columns']}")


def print_modes(record: dict) -> None:
    print("| model | modes | compactness | held out (mm) | training (mm) | specificity (mm) |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rows in record["by_modes"].items():
        for row in rows:
            held_out = row["generalisation_mm"]
            text = "-" if held_out is None else f"{held_out:.2f}"
            print(f"| {name} | {row['modes']} | {row['compactness']:.3f} | {text} | "
                  f"{row['training_mm']:.2f} | {row['specificity_mm']:.2f} |")  # fmt: skip
    for name, found in record["interpolated"].items():
        print(f"valid between two hearts, {name}: {found}")
    for key in ("valid_training", "valid_held_out"):
        print(f"{key}: {record.get(key)}")


def compare_peer(args, out: Path, record: dict) -> None:
    """The same figures where coherent point drift makes the correspondences, class by class."""
    sys.path.insert(0, str(args.peer))
    from pycpd import DeformableRegistration
    from scipy.interpolate import RBFInterpolator

    from cardiform.labels import LabelTable
    from cardiform.options.statistics import ShapeStatisticsOptions
    from cardiform.statistics.cohort import Cohort, compared
    from cardiform.statistics.quality import GridTruth
    from cardiform.statistics.template import Template

    template = Template.load(out / "template.npz")
    scores = pd.read_csv(out / "scores.csv", dtype={"case_id": str})
    parts = dict(zip(scores["case_id"], scores["part"]))
    cohort = Cohort.load(template, out / "registered", parts)
    labels, hearts, seconds = template.vertex_labels, {}, 0.0
    rng = np.random.default_rng(0)
    for case_id, heart in cohort.hearts.items():
        truth = GridTruth.of(cohort.on_grid(case_id), template)
        moved = template.mesh.vertices.copy()
        started = time.process_time()
        for value in template.values:
            own = np.flatnonzero(labels == value)
            picked = rng.permutation(own)[:PEER_POINTS]
            target = rng.permutation(truth.points[value])[: 2 * PEER_POINTS]
            source = template.mesh.vertices[picked].astype(float)
            found, _ = DeformableRegistration(
                X=target.astype(float), Y=source, alpha=2.0, beta=30.0, max_iterations=40
            ).register()
            spread = RBFInterpolator(source, found - source, neighbors=30, smoothing=1.0)
            moved[own] += spread(template.mesh.vertices[own].astype(float)).astype(np.float32)
        seconds += time.process_time() - started
        hearts[case_id] = dataclasses.replace(heart, vertices=moved)
    other = Cohort(template, hearts, cohort.parts, cohort.folder)
    options = ShapeStatisticsOptions(**{
        key: tuple(v) if isinstance(v, list) else v for key, v in record["options"].items()
    })  # fmt: skip
    figures, _ = compared(other, other.fit(options), LabelTable(), options)
    print(f"\npycpd: {seconds / len(hearts):.1f} s of CPU time per heart")
    for row in figures["by_modes"]["correspondences"]:
        print("pycpd", {key: round(value, 3) for key, value in row.items() if value is not None})
    print("pycpd, between two hearts:", figures["interpolated"]["correspondences"])


if __name__ == "__main__":
    main()
