"""Networks trained on procedural hearts, asked about real ones.

    OMP_NUM_THREADS=1 python benchmarks/real_hearts.py --hearts FOLDER --out real \\
        --config config/demo.yaml --set normals=false hidden_share=0
    OMP_NUM_THREADS=1 python benchmarks/real_hearts.py --hearts FOLDER --out real \\
        --config config/demo.yaml benchmarks/real_hearts.yaml --set normals=false hidden_share=0 \\
        --start real/demo/vecset/model.pt

FOLDER holds label maps (.nii.gz) in the class numbers of the label table. Draws the cohort of the
config (sections demo, points; as many hearts as demo.cases), trains its VecSet (section vecset) and
prints the Dice of each class of each heart on its own grid, and the volume of what was made as a
share of the label map's; a class that a heart lacks counts nowhere. It is not the config's
workflow: labels are the true ones (demo.coronary_noise does nothing), the last three hearts
validate (split does nothing), and section training is not read. What is in --out is not made
again; what other settings, hearts or weights made is refused.

--set KEY=VALUE ...  options of the VecSet beside the config's, and --name, the folder of this
                  training: several trainings share the cohort
--test N          asks about N procedural hearts, too, that are not trained on

--model FILE      asks this network and trains none; a config is read for its name alone
--tune HEART ...  trains the network further on these hearts (--steps), and a fresh network for as
                  many steps, and asks both about the other hearts
--complete HEART ...  trains the network further on its cohort with classes hidden (--steps; with 0
                  it must have learned so: --set hidden_share=0.5), and asks for each class of these
                  hearts from the others
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.options.cohort import DemoOptions
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.phantom.scans import draw_scan
from cardiform.training.job import run
from cardiform.vecset.complete import PartCompleter
from cardiform.vecset.reconstruct import Reconstructor, load_frame
from cardiform.vecset.train import level_chooser, vecset_job
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable()
GROUPS = {
    "chambers and great vessels": TABLE.names[:7],
    "appendage": ("left_atrial_appendage",),
    "veins": ("pulmonary_veins",),
    "coronaries": ("coronary",),
}
VALIDATION = 3  # hearts of the cohort that choose the weights
QUERIES = 16_384  # points that a network is asked about at once


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hearts", required=True, type=Path, help="folder of label maps")
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--config", nargs="+", type=Path, required=True)
    parser.add_argument(
        "--start", default="", help="model.pt whose weights the training begins with"
    )
    parser.add_argument("--model", type=Path, help="model.pt that is asked; none is trained")
    parser.add_argument("--latents", type=int, default=0, help="asked with (0: as in training)")
    parser.add_argument("--points", type=int, default=0, help="encoded (0: as in training)")
    parser.add_argument("--tune", nargs="+", default=[], help="hearts to train on further")
    parser.add_argument("--steps", type=int, default=200, help="of the further training")
    parser.add_argument("--volumes", action="store_true", help="of the classes, and no more")
    parser.add_argument("--complete", nargs="+", default=[], help="hearts to complete")
    parser.add_argument("--name", default="vecset", help="folder of the training")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the VecSet")
    parser.add_argument("--test", type=int, default=0, help="procedural hearts that are asked, too")
    parser.add_argument("--processes", type=int, default=1, help="hearts prepared at a time")
    parser.add_argument("--workers", type=int, default=0, help="loaders of a training")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.model and (args.tune or args.test or args.volumes):
        parser.error("--model asks the real hearts alone: no --tune, --test, --volumes")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    sections = merged(args.config)
    for given in args.set:
        key, value = given.split("=", 1)
        sections["vecset"][key] = yaml.safe_load(value)
    hearts = real_cases(args)
    folder = args.out / args.config[-1].stem
    cohort = [] if args.model else drawn(args, sections, folder)
    if args.volumes:
        print_volumes({"real": hearts, args.config[-1].stem: cohort})
        return
    cohort, test = cohort[: len(cohort) - args.test], cohort[len(cohort) - args.test :]
    model = args.model or trained(args, sections, cohort, folder)
    place = args.out / args.name if args.model else model.parent
    how = VecsetReconstructOptions(
        device=args.device, latents=args.latents, input_points=args.points, query_batch=QUERIES
    )
    show("trained on phantoms", model, hearts, place, how)
    if test:
        show("trained on phantoms, other phantoms", model, test, place / "test", how)
    if args.complete:
        further = args.steps and not args.model
        completer = completing(args, sections, model, cohort) if further else model
        wanted = [(c, p) for c, p in hearts + test if c.case_id in args.complete]
        made = completed(completer, wanted, place / "made", how)
        report("each class from the others", made)
    if args.tune:
        tuned(args, sections, model, hearts, how)


def merged(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The sections of several configs; later ones win key by key."""
    sections: dict[str, dict[str, Any]] = {}
    for path in paths:
        for name, keys in yaml.safe_load(path.read_text()).items():
            sections.setdefault(name, {}).update(keys)
    return sections


def real_cases(args) -> list[tuple[Case, Path]]:
    """The real hearts with their points files (points as by default, not by the config)."""
    cases = []
    for path in sorted(args.hearts.glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        cases.append(Case(case_id=name, patient_id=name, labels=str(path)))
    make = partial(points_of, folder=args.out / "real", options=PointsOptions())
    with ProcessPoolExecutor(args.processes) as pool:
        return list(zip(cases, pool.map(make, cases)))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_make(path: Path, **key: Any) -> bool:
    """Whether a file is still to be made; one that another ``key`` made ends the program."""
    beside = path.with_name(f"{path.name}.key.json")
    text = json.dumps(key, indent=1)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        return True
    before = beside.read_text() if beside.is_file() else "{}"
    if before != text:
        old, new = json.loads(before), json.loads(text)
        names = ", ".join(name for name in new if old.get(name) != new[name])
        raise SystemExit(
            f"{path}: made with other settings ({names}); give those again, or another --out"
        )
    return False


def points_of(case: Case, folder: Path, options: PointsOptions) -> Path:
    """The points file of a case, made where it is not there yet."""
    path = folder / "points" / f"{case.case_id}.npz"
    if to_make(path, labels=digest(Path(case.labels)), points=asdict(options)):
        mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
        sample_case(
            case, table=TABLE, options=options, meshes=folder / "meshes", out=folder / "points"
        )
    return path


def drawn(args, sections: Mapping[str, Mapping], folder: Path) -> list[tuple[Case, Path]]:
    """The procedural hearts of a config, and those of --test, with their points files."""
    demo = DemoOptions(**sections.get("demo", {}))
    points = PointsOptions(**sections.get("points", {}))
    make = partial(draw_one, folder=folder, demo=demo, points=points)
    with ProcessPoolExecutor(args.processes) as pool:
        return list(pool.map(make, range(demo.cases + args.test)))


def draw_one(
    number: int, folder: Path, demo: DemoOptions, points: PointsOptions
) -> tuple[Case, Path]:
    """One procedural heart and its points file, made where they are not there yet."""
    name = f"phantom_{number:03d}"
    path = folder / "labels" / f"{name}.nii.gz"
    case = Case(case_id=name, patient_id=name, labels=str(path))
    settings = (number, demo.spacing_mm, demo.seed, demo.variety)
    if to_make(path, drawn=settings):
        save_label_map(path, *draw_scan(*settings))
    return case, points_of(case, folder, points)


def print_volumes(cohorts: Mapping[str, Sequence[tuple[Case, Path]]]) -> None:
    """Smallest, middle and largest volume of each class, ml, of the hearts that have it."""
    for title, hearts in cohorts.items():
        rows = []
        for case, _ in hearts:
            found = load_label_map(case.labels)
            counts = np.bincount(found.data.ravel(), minlength=256)
            rows.append(counts[list(TABLE.values)] * abs(np.linalg.det(found.affine[:3, :3])) / 1e3)
        for name, column in zip(TABLE.names, np.array(rows).T):
            there = column[column > 0]
            if not len(there):
                print(f"{title} {name}: none")
                continue
            low, middle, high = np.percentile(there, (0, 50, 100))
            print(f"{title} {name}: {low:.0f} {middle:.0f} {high:.0f} ml, {len(there)} hearts")


def trained(args, sections: Mapping[str, Mapping], cohort, folder: Path) -> Path:
    """model.pt of the config's training."""
    given = dict(sections["vecset"]) | ({"pretrained": args.start} if args.start else {})
    options = VecsetOptions(**given, workers=args.workers, device=args.device)
    return train(parts_of(cohort), folder / "points", options, folder / args.name)


def parts_of(cohort: Sequence[tuple[Case, Path]]) -> dict[str, list[Case]]:
    """The cohort's split: the last hearts validate."""
    cases = [case for case, _ in cohort]
    return {"train": cases[:-VALIDATION], "val": cases[-VALIDATION:]}


def train(parts, points: Path, options: VecsetOptions, out: Path) -> Path:
    """model.pt of a training; nothing is done where it is there."""
    model, start = out / "model.pt", options.pretrained
    settings = asdict(options) | {"pretrained": ""}  # its path says nothing
    hearts = {part: {c.case_id: digest(Path(c.labels)) for c in parts[part]} for part in parts}
    began = digest(Path(start)) if start else ""
    if to_make(model, options=settings, start=began, hearts=hearts):
        for part, cases in parts.items():
            write_split(out / f"{part}.csv", cases, points)
        begin, clock = time.process_time(), time.monotonic()
        job = vecset_job(options, TABLE, out / "train.csv", out / "val.csv", out / "shared")
        run(job, out, chosen=level_chooser(job, options))
        seconds, wall = time.process_time() - begin, time.monotonic() - clock
        length = f"{options.steps} steps, {seconds:.0f} CPU s, {wall:.0f} s"
        print(f"{out}: {len(parts['train'])} hearts, {length}", flush=True)
    return model


def asked(
    model: Path, hearts: Sequence[tuple[Case, Path]], out: Path, how: VecsetReconstructOptions
) -> dict[str, dict]:
    """Heart -> class -> Dice of its reconstruction on its own grid; label maps go to ``out``."""
    network = Reconstructor.load(model, how, torch.device(how.device))
    rows, weights, asking = {}, digest(model), asdict(how)
    out.mkdir(parents=True, exist_ok=True)
    for case, points in hearts:
        truth, kept = load_label_map(case.labels), out / f"{case.case_id}.nii.gz"
        if to_make(kept, model=weights, options=asking, points=digest(points)):
            latents = network.encode(points, case.case_id)
            made = network.sample(latents, load_frame(points), truth).labels(TABLE.values)
            save_label_map(kept, made, truth.affine)
        found = overlap(truth.data, load_label_map(kept).data, TABLE)
        rows[case.case_id] = {name: found[name]["dice"] for name in TABLE.names}
    (out / "dice.json").write_text(json.dumps(rows, indent=1))
    return rows


def shares(hearts: Sequence[tuple[Case, Path]], out: Path) -> dict[str, dict]:
    """Heart -> class -> volume of the reconstruction in ``out`` over that of the label map."""
    rows = {}
    for case, _ in hearts:
        truth = load_label_map(case.labels).data
        made = load_label_map(out / f"{case.case_id}.nii.gz").data
        there, found = (np.bincount(x.ravel(), minlength=256) for x in (truth, made))
        rows[case.case_id] = {
            name: float(found[value] / there[value]) if there[value] else None
            for name, value in zip(TABLE.names, TABLE.values)
        }
    return rows


def show(title: str, model: Path, hearts, folder: Path, how: VecsetReconstructOptions) -> None:
    """Ask a network about the hearts, and print its Dice and volumes."""
    out = folder / f"reconstructions_{how.latents}_{how.input_points}"
    report(title, asked(model, hearts, out, how))
    table(f"{title}: volume, 1 is the label map's", shares(hearts, out))


def table(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """A line for each heart."""
    print(f"\n| {title} | {' | '.join(TABLE.names)} |\n|---|{'---:|' * len(TABLE)}")
    for heart, row in rows.items():
        cells = ["" if row[n] is None else f"{row[n]:.3f}" for n in TABLE.names]
        print(f"| {heart} | {' | '.join(cells)} |")


def report(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """A line for each heart, and the mean over the hearts that have a class."""
    table(title, rows)
    for group, names in GROUPS.items():
        found = {h: [r[n] for n in names if r[n] is not None] for h, r in rows.items()}
        means = {heart: np.mean(values) for heart, values in found.items() if values}
        if means:
            print(f"{group}: {np.mean(list(means.values())):.3f}, mean of {len(means)} hearts")


def completed(
    model: Path, hearts: Sequence[tuple[Case, Path]], out: Path, how: VecsetReconstructOptions
) -> dict[str, dict]:
    """Heart -> class -> Dice of what is made of the class from the heart's other classes."""
    network = Reconstructor.load(model, how, torch.device(how.device))
    completer = PartCompleter.of(network, model, MeshesOptions(), PointsOptions())
    rows = {}
    for case, _ in hearts:
        truth = load_label_map(case.labels)
        there = [n for n, v in zip(TABLE.names, TABLE.values) if (truth.data == v).any()]
        row: dict[str, float | None] = dict.fromkeys(TABLE.names)
        for name, made in zip(there, completer.complete(truth, [[name] for name in there])):
            save_label_map(out / f"{case.case_id}_{name}.nii.gz", made, truth.affine)
            row[name] = overlap(truth.data, made, TABLE)[name]["dice"]
        rows[case.case_id] = row
    return rows


def shorter(args, sections: Mapping[str, Mapping]) -> VecsetOptions:
    """The options of the config's training with --steps steps."""
    length = {
        "steps": args.steps, "warmup_steps": max(1, args.steps // 10), "validate_every": 0,
        "checkpoint_every": args.steps, "eikonal_start": args.steps // 5,
    }  # fmt: skip
    given = dict(sections["vecset"]) | length
    return VecsetOptions(**given, workers=args.workers, device=args.device)


def completing(args, sections: Mapping[str, Mapping], model: Path, cohort) -> Path:
    """The network trained further to complete hearts."""
    base = shorter(args, sections)
    options = replace(base, pretrained=str(model), lr=base.lr / 2, hidden_share=0.5)
    folder = model.parent.parent
    return train(parts_of(cohort), folder / "points", options, folder / f"{args.name}_completing")


def tuned(args, sections, model: Path, hearts, how: VecsetReconstructOptions) -> None:
    """The network trained further on some of the hearts, and a fresh one for as many steps."""
    chosen = [case for case, _ in hearts if case.case_id in args.tune]
    others = [(case, points) for case, points in hearts if case.case_id not in args.tune]
    base = shorter(args, sections)
    ways = {
        "fine-tuned": replace(base, pretrained=str(model), lr=base.lr / 4),
        "from scratch": replace(base, pretrained=""),
    }
    for name, options in ways.items():
        out = model.parent.parent / f"{args.name}_{name.replace(' ', '_')}"
        parts = {"train": chosen, "val": chosen}  # validate_every 0: these choose nothing
        made = train(parts, args.out / "real" / "points", options, out)
        show(name, made, others, out, how)


if __name__ == "__main__":
    main()
