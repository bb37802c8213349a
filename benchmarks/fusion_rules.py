"""What fusion and its rules do to label maps with known faults.

    OMP_NUM_THREADS=1 python benchmarks/fusion_rules.py --hearts 16 --spacing-mm 1.5

Scans of the demo (a mirrored grid, thick slices, an oblique grid, a missing appendage, a cut heart
among them), each with one kind of fault at a time, go through fusion and all rules:

none       the truth itself
noise      the noisy coronaries of the demo, no mask
repaired   the same, fused with the repaired coronaries
blobs      coronaries painted over every structure and over all borders, fused with the true mask,
           which gives them up
holes, islands, gaps, swapped, leaks    in all structures (cardiform/phantom/faults.py), no mask

Prints for every kind the voxels that the rules took and added, in the truth and not, and how Dice
changed: the mean over classes and hearts, and where it gained and lost most. (Of a class that a
mask replaces, from the mask on, which is not the work of the rules.) Then the voxels rule by rule.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.cohort.table import Case
from cardiform.coronary.repair_case import repair_case
from cardiform.fusion.merge import fused
from cardiform.fusion.rules import RULES, consistent
from cardiform.labels import LabelTable
from cardiform.metrics.overlap import overlap
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.options.fusion import FusionOptions
from cardiform.phantom.faults import FAULTS, faulty
from cardiform.phantom.scans import draw_scan, noisy_coronaries
from cardiform.volumes import LabelMap, load_label_map, save_label_map, spacing_of

TABLE = LabelTable()
CORONARY = TABLE[TABLE.channel("coronary")].value
KINDS = ("none", "noise", "repaired", "blobs", *(k for k in FAULTS if k != "blobs"))
VERDICTS = ("taken_true", "taken_false", "added_true", "added_false")
BOUND = 0.005  # of Dice


def damaged(truth: LabelMap, kind: str, rng) -> tuple[np.ndarray, dict[int, LabelMap]]:
    """The label map with a kind of fault, and the masks that replace classes."""
    spacing = spacing_of(truth.affine)
    if kind == "none":
        return truth.data, {}
    if kind == "blobs":
        mask = LabelMap(truth.data == CORONARY, truth.affine)
        return faulty(truth.data, kind, spacing, rng), {CORONARY: mask}
    if kind in FAULTS:
        return faulty(truth.data, kind, spacing, rng), {}
    noisy = noisy_coronaries(truth.data, spacing, 1.0, rng)
    if kind == "noise":
        return noisy, {}
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.nii.gz"
        save_label_map(labels, noisy, truth.affine)
        case = Case(case_id="a", patient_id="a", labels=str(labels))
        options = CoronaryRepairOptions(spacing_mm=1.0)
        repair_case(case, table=TABLE, options=options, out=Path(folder))
        return noisy, {CORONARY: load_label_map(Path(folder) / "a.nii.gz")}


def measured(truth: LabelMap, kind: str, rng) -> tuple[list[dict], dict[str, float]]:
    """What each rule took and added; class -> change of Dice."""
    given, masks = damaged(truth, kind, rng)
    base = LabelMap(given, truth.affine)
    merged = fused(base, masks, TABLE)
    result, rules = consistent(
        merged,
        base.spacing,
        TABLE,
        FusionOptions(),
        given=given,
        replaced=tuple(masks),
        truth=truth.data,
    )
    before, masked, after = (overlap(truth.data, m, TABLE) for m in (given, merged, result))
    before |= {c.name: masked[c.name] for c in TABLE if c.value in masks}
    names = [name for name in TABLE.names if before[name]["volume_error"] is not None]
    return rules, {name: after[name]["dice"] - before[name]["dice"] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hearts", type=int, default=16, help="scans of the demo")
    parser.add_argument("--spacing-mm", type=float, default=1.5, help="voxel edge")
    parser.add_argument("--seed", type=int, default=0, help="of scans and faults")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    args = parser.parse_args()
    by_kind, by_rule = defaultdict(Counter), defaultdict(Counter)
    change, harmed = defaultdict(dict), Counter()
    for number in range(args.hearts):
        truth = LabelMap(*draw_scan(number, args.spacing_mm, args.seed))
        for kind in args.kinds:
            rng = np.random.default_rng([args.seed, number, KINDS.index(kind)])
            rules, dice = measured(truth, kind, rng)
            for entry in rules:
                voxels = {what: sum(entry[what].values()) for what in VERDICTS}
                by_kind[kind].update(voxels)
                by_rule[entry["rule"]].update(voxels)
                wrong = voxels["taken_true"] > voxels["taken_false"]
                harmed[entry["rule"]] += wrong
                if wrong:
                    print(f"  {entry['rule']} harms heart {number}, {kind}: {voxels}", flush=True)
            change[kind] |= {(number, name): value for name, value in dice.items()}
    head = "taken, true | taken, false | added, true | added, false |"
    print(f"\n| fault | {head} Dice, mean change | best | worst | classes worse by {BOUND:g} |")
    print("|---" + "|---:" * 8 + "|")
    for kind, counts in by_kind.items():
        worst, best = (f(change[kind], key=change[kind].get) for f in (min, max))
        values = list(change[kind].values())
        print(
            f"| {kind} | {' | '.join(f'{counts[what]:,}' for what in VERDICTS)} | "
            f"{np.mean(values):+.4f} | {change[kind][best]:+.4f} ({best[1]}) | "
            f"{change[kind][worst]:+.4f} ({worst[1]}) | "
            f"{sum(v < -BOUND for v in values)} of {len(values)} |"
        )
    print(f"\n| rule | {head} hearts x faults where more true was taken than false |")
    print("|---" + "|---:" * 5 + "|")
    for rule in RULES:
        counts = " | ".join(f"{by_rule[rule][what]:,}" for what in VERDICTS)
        print(f"| `{rule}` | {counts} | {harmed[rule]} of {args.hearts * len(args.kinds)} |")


if __name__ == "__main__":
    main()
