"""Real coronary labels, corrupted by every kind of noise and refined: do they come back?

    python benchmarks/coronary_real.py --label-maps anatomy.nii.gz --work FOLDER --model model.pt

The label as it is counts as the truth; no training saw it. Each kind of noise alone, twice as
strong as a typical label, and the mixes of benchmarks/coronary.py, whose --work holds the classical
ways that were tuned there, on procedural trees. Row: mean over --draws of the noise, on the label
map's own grid; volume is a multiple of the label's. "none" is the label without any noise: what a
way does to a sound label.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import coronary
import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

ALONE = {
    kind: {kind: 2.0}
    for kind in (
        "jagged", "dilation", "missing_ends", "breaks", "blobs", "speckle", "slabs", "coarse",
    )
}  # fmt: skip
COLUMNS = ("dice", "cl_dice", "component_error", "hd95_mm", "volume")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--label-maps", required=True, nargs="+", type=Path)
    parser.add_argument("--work", required=True, type=Path, help="of benchmarks/coronary.py")
    parser.add_argument(
        "--model", nargs="*", type=Path, default=[], help="model.pt of cardiform, each a row"
    )
    parser.add_argument("--draws", type=int, default=4, help="of each noise")
    parser.add_argument("--processes", type=int, default=2, help="draws at a time")
    parser.add_argument("--tune", type=int, default=2, help="trees, where --work is not tuned yet")
    args = parser.parse_args()
    args.brief = True
    args.work.mkdir(parents=True, exist_ok=True)
    if len({p.parent.name for p in args.model}) < len(args.model):
        parser.error("the folders of --model are the names of their rows; two have the same name")
    for path in args.label_maps:
        print(f"\n**{path.name}**\n")
        print("| noise | way | Dice | clDice | component error | HD95 mm | volume |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for name, noise in ({"none": {}} | ALONE | coronary.NOISE).items():
            row(args, path, name, noise)


def row(args, path: Path, name: str, noise: dict) -> None:
    tuned_on = name if name in coronary.NOISE else coronary.TRAINED
    tuned = coronary.tune(args, tuned_on, coronary.NOISE[tuned_on], (coronary.SPACING,) * 3)
    one = partial(measure_one, args, path, noise, tuned)
    with ProcessPoolExecutor(args.processes) as pool:
        found = list(pool.map(one, range(args.draws if noise else 1)))
    for way in found[0]:
        means = [np.mean([rows[way][c] for rows in found]) for c in COLUMNS]
        cells = " | ".join(f"{m:.{1 if 'error' in c else 3}f}" for c, m in zip(COLUMNS, means))
        print(f"| {name} | {way} | {cells} |", flush=True)


def measure_one(args, path: Path, noise: dict, tuned: dict, seed: int) -> dict[str, dict]:
    """Way -> figures of one draw of the noise."""
    import torch

    from cardiform.coronary.figures import own_figures
    from cardiform.coronary.own_label import OwnLabel
    from cardiform.labels import LabelTable
    from cardiform.volumes import load_label_map

    torch.set_num_threads(1)
    table = LabelTable()
    value = table[table.channel("coronary")].value
    truth = load_label_map(path)
    noisy, thin = coronary.corrupted(truth, value, noise, seed)
    given = noisy.data == value
    models = {f"cardiform {p.parent.name}": p for p in args.model}
    on_own, rows = OwnLabel(given, noisy.affine, thin, coronary.repair_options()), {}
    for way, field in coronary.ways(args, tuned, models, thin):
        same = way == "noisy label"
        own = given if same else on_own.mask(field)
        rows[way] = own_figures(truth, value, {"own": own}, noisy.affine)["own"]
        rows[way]["volume"] = own.sum() / (truth.data == value).sum()
    return rows


if __name__ == "__main__":
    main()
