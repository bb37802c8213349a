"""Given, repaired, refined and fused masks of a cohort with a truth, on both grids.

    snakemake fused --profile profiles/default --configfile config/demo.yaml
    python benchmarks/coronary_fused.py --results results/demo

To be called where snakemake was: paths of cases are relative to that. Means over the cases of each
part of the split: on the label map's own grid, which later stages use, and on the isotropic grid
that the refinement works on, to which the fused mask is carried as the given label is. Last: in how
many of all cases fused is better than given, and the least gain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

ROWS = {
    "given label": "label_against_truth",
    "repair": "repair_against_truth",
    "refined": "against_truth",
    "fused": "fused",
}
COLUMNS = {
    "Dice": "dice", "clDice": "cl_dice", "component error": "component_error",
    "HD95 mm": "hd95_mm", "ASSD mm": "assd_mm",
}  # fmt: skip
GRIDS = {"own_grid": "On the label map's own grid", "fine": "On the isotropic grid"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the cohort")
    parser.add_argument(
        "--structure",
        default="coronary",
        help="the class that was refined, of the default label table",
    )
    args = parser.parse_args()
    every = {case.case_id: figures(args, case) for case in cases_with_truth(args.results)}
    found = {case: known for case, known in every.items() if known}
    for part in ("train", "val", "test"):
        rows = [found[case] for case in part_of(args.results, part) if case in found]
        for grid, title in GRIDS.items() if rows else ():
            print(f"\n**{title}**, {part}, {len(rows)} cases\n")
            table([row[grid] for row in rows])
    for name in ("Dice", "clDice"):
        known = [row["own_grid"] for row in found.values()]
        given, fused = (
            np.array([row[way][COLUMNS[name]] for row in known])
            for way in ("label_against_truth", "fused")
        )
        better, least = (fused > given).sum(), (fused - given).min()
        print(f"\n{name}, own grid, all cases: {given.mean():.3f} to {fused.mean():.3f}; ", end="")
        print(f"better in {better} of {len(known)}, least gain {least:+.3f}")


def cases_with_truth(results: Path) -> list:
    from cardiform.cohort.table import read_checked_cases

    return [case for case in read_checked_cases(results / "cases.tsv") if case.truth]


def part_of(results: Path, part: str) -> list[str]:
    from cardiform.cohort.splits import read_split

    return [case for case, _ in read_split(results / "split" / f"{part}.csv")]


def figures(args, case) -> dict[str, dict]:
    """Grid -> way -> figures of one case: those of refine_coronary, and of the fused mask; empty
    where the truth lacks the structure."""
    from cardiform.coronary.figures import fine_figures, own_figures
    from cardiform.coronary.thin_structure import ThinStructure
    from cardiform.geometry.isotropic import mask_of
    from cardiform.labels import LabelTable
    from cardiform.volumes import load_label_map

    table = LabelTable()
    value = table[table.channel(args.structure)].value
    folder = args.results / args.structure
    known = json.loads((folder / "refined" / f"{case.case_id}.json").read_text())
    if not known["against_truth"]:
        return {}
    thin = ThinStructure.load(folder / "repaired" / f"{case.case_id}.npz")
    truth = load_label_map(case.truth)
    fused = load_label_map(args.results / "fused" / f"{case.case_id}.nii.gz")
    carried = mask_of(fused, value, thin.label.shape, thin.affine)
    fine = fine_figures(truth, value, {"fused": carried}, thin)
    own = own_figures(truth, value, {"fused": fused.data == value}, fused.affine)
    given = {way: known[way] for way in list(ROWS.values())[:-1]}
    return {"fine": given | fine, "own_grid": known["own_grid"] | own}


def table(rows: list[dict]) -> None:
    print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    for way, name in ROWS.items():
        cells = []
        for column in COLUMNS.values():
            values = [row[name][column] for row in rows if row[name][column] is not None]
            digits = 1 if column == "component_error" else 3
            cells.append(f"{np.mean(values):.{digits}f}" if values else "-")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
