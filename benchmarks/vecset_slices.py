"""Hearts made from a few slices by a VecSet, and by interpolation between the slices.

    python benchmarks/vecset_slices.py --model results/generation/vecset/model.pt \\
        --cases results/generation/cases.tsv --test results/generation/split/test.csv --out FOLDER
    python benchmarks/vecset_slices.py --model ... --label-maps mine/*.nii.gz --out FOLDER

Of each label map a layer is kept every --mm, along its first, second or third axis in turn (of
--label-maps along each of them), the others are emptied; then the heart is made from what is left.
Prints the Dice and the volume error of each class **over the emptied layers alone**, between the
first and the last slice (`between`), and with those up to one distance past these (`ends`), which
ITK leaves empty: means with 95 % bootstrap intervals over the hearts; and CPU seconds (none of
network, which model has called already).

model    complete_vecset --slices
network  the same as the network makes it, not held to the slices
distance the signed distances to each class and to the background within the slices, interpolated
         linearly (shape-based interpolation, Raya and Udupa 1990); a class that a slice lacks is
         one slice away there
itk      morphological contour interpolation of ITK (Zukic et al. 2016), what 3D Slicer and
         ITK-SNAP fill between slices with; --peer: a folder with it
         (pip install --target /tmp/peer itk-morphologicalcontourinterpolation)
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from completions import interval
from measuring import timed

from cardiform.cohort import splits
from cardiform.cohort.table import read_checked_cases
from cardiform.completion.between import held_between, joined_between
from cardiform.geometry.between_slices import held_to_slices
from cardiform.geometry.slices import Slices, annotated_slices
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.options.vecset import VecsetReconstructOptions
from cardiform.volumes import LabelMap, load_label_map

WAYS = ("model", "network", "distance", "itk")
Way = Callable[[LabelMap, Slices], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, type=Path, help="model.pt of train_vecset")
    parser.add_argument("--cases", type=Path, help="cases.tsv")
    parser.add_argument("--test", type=Path, help="split CSV")
    parser.add_argument("--label-maps", nargs="*", type=Path, default=[])
    parser.add_argument("--hearts", type=int, default=0, help="the first so many (0: all)")
    parser.add_argument("--mm", nargs="+", type=float, default=[8.0, 16.0, 24.0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:2])
    parser.add_argument("--latents", type=int, default=0, help="0: as in training")
    parser.add_argument("--peer", type=Path, help="folder with ITK's interpolation")
    parser.add_argument("--out", required=True, type=Path, help="folder for figures.json")
    args = parser.parse_args()
    table = LabelTable()
    hearts = [(path, axis) for path in args.label_maps for axis in range(3)]
    if args.cases:
        cases = {case.case_id: case for case in read_checked_cases(args.cases)}
        rows = splits.read_split(args.test)
        hearts += [(cases[name].labels, number % 3) for number, (name, _) in enumerate(rows)]
    hearts = hearts[: args.hearts or None]
    network = network_of(args)
    ways = {name: way_of(name, args, network) for name in args.ways}
    found = []
    for mm in args.mm:
        for path, axis in hearts:
            found += compared(load_label_map(path), axis, mm, ways, table, Path(path).name)
            print(json.dumps(found[-len(ways) :]), file=sys.stderr, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "figures.json").write_text(json.dumps(found, indent=1))
    show(found, args, table)


def way_of(name: str, args, network: Way) -> Way:
    """A function of a grid and its slices to (X, Y, Z) uint8."""
    if name == "distance":
        return lambda grid, slices: held_to_slices(
            np.zeros_like(grid.data), grid.data, slices, grid.spacing, believed_vox=0.0
        )
    if name == "itk":
        return contours(args.peer)
    if name == "network":
        return network
    return lambda grid, slices: held_between(grid, network(grid, slices), slices)


def network_of(args) -> Way:
    """What the network makes, once for each grid."""
    import torch

    from cardiform.apply.stages import find_stages
    from cardiform.vecset.complete import PartCompleter
    from cardiform.vecset.reconstruct import Reconstructor

    options = VecsetReconstructOptions(
        device="cpu", latents=args.latents, input_points=12 * args.latents
    )
    network = Reconstructor.load(args.model, options, torch.device("cpu"))
    stages = find_stages(args.model.parent.parent)
    completer = PartCompleter.of(
        network, args.model, stages["meshes"], stages["points"], ["slices_share"]
    )
    last: dict = {}

    def made(grid: LabelMap, slices: Slices) -> np.ndarray:
        if last.get("grid") is not grid:
            last.update(grid=grid, made=completer.between(grid, slices))
        return last["made"]

    return made


def contours(peer: Path) -> Way:
    """ITK's interpolation."""
    sys.path.append(str(peer))
    import itk

    def made(grid: LabelMap, slices: Slices) -> np.ndarray:
        empty = np.setdiff1d(np.arange(grid.data.shape[slices.axis]), slices.layers)
        data = grid.data.copy()
        data[(slice(None),) * slices.axis + (empty,)] = 0
        image = itk.image_from_array(np.ascontiguousarray(data.T))
        found = itk.morphological_contour_interpolator(image, axis=slices.axis)
        return itk.array_from_image(found).T

    return made


def compared(truth: LabelMap, axis: int, mm: float, ways, table: LabelTable, name: str) -> list:
    """Of each way: Dice of each class over the layers that were emptied, and CPU seconds."""
    step = round(mm / truth.spacing[axis])
    if step < 2:
        raise SystemExit(
            f"{name}: its layers are {truth.spacing[axis]:g} mm thick, not below {mm:g} / 2"
        )
    there = np.flatnonzero(truth.data.any(axis=tuple(k for k in range(3) if k != axis)))
    kept = np.intersect1d(np.arange(there[0] + step // 2, there[-1] + 1, step), there)
    data = np.zeros_like(truth.data)
    place = (slice(None),) * axis + (kept,)
    data[place] = truth.data[place]
    left = LabelMap(data, truth.affine)
    grid, slices = annotated_slices(Path(name), left)
    assert slices.axis == axis and np.array_equal(slices.layers, kept), name
    size = truth.data.shape[axis]
    past, emptied = slices.past(size), ~np.isin(np.arange(size), kept)
    parts = {"between": emptied & (past == 0), "ends": emptied & (past < slices.step)}
    rows = []
    for way, make in ways.items():
        seconds, made = timed(make, grid, slices)
        made = joined_between(grid.data, made, slices)
        row = {"heart": name, "axis": axis, "mm": mm, "way": way, "seconds": round(seconds, 1)}
        for part, layers in parts.items():
            asked = (slice(None),) * axis + (layers,)
            row[part] = overlap(truth.data[asked], made[asked], table)
        rows.append(row)
    return rows


def show(rows: list, args, table: LabelTable) -> None:
    """The tables of each distance, and what the first way differs from the others by, in pairs."""
    for mm, part in itertools.product(args.mm, ("between", "ends")):
        of_way = {w: [r for r in rows if (r["mm"], r["way"]) == (mm, w)] for w in args.ways}
        took = ", ".join(
            f"{w} {np.mean([r['seconds'] for r in f]):.1f} s" for w, f in of_way.items()
        )
        print(f"\nslices every {mm:g} mm, {part}, {len(of_way[args.ways[0]])} hearts; {took}")
        print(
            "| class | " + " | ".join((*args.ways, *(f"minus {w}" for w in args.ways[1:]))) + " |"
        )
        for name in table.names:
            dice, volumes = (
                {w: np.array([r[part][name][key] for r in found], float)
                 for w, found in of_way.items()}
                for key in ("dice", "volume_error")
            )  # fmt: skip
            first = dice[args.ways[0]]
            cells = [f"{interval(dice[w][None])}, {np.nanmean(volumes[w]):+.1%}" for w in dice]
            cells += [interval((first - dice[w])[None], "+.3f") for w in args.ways[1:]]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
