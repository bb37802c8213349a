"""Sum up a k-fold: what the model of each fold makes of the cases that it is tested on.

    python collect_folds.py --rule reconstruct_vecset \\
        --metrics results/acme/folds/*/vecset/reconstructions/metrics.json \\
        --out results/acme/folds/vecset

Writes cases.csv (a row per case, class and figure: every case once), summary.csv (a row per
class and figure: mean over the folds, its 95 % interval, standard deviation) and folds.png (the
Dice of every case and class, with the means and intervals).
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import manifest, splits
from cardiform.errors import InputError

log = logging.getLogger("collect_folds")
# rule -> the figure that is printed
RULES = {
    "reconstruct_vecset": "dice",
    "reconstruct_vqvae": "dice",
    "complete_labels": "dice",
    "refine_coronary": "dice_against_label",
}


def tested_cases(test: Path, metrics: Path) -> list[str]:
    """The cases of a fold's test.csv; without those whose figures are older than its refinement,
    which lists what it made."""
    listed = manifest.listed_in(metrics.parent, ".json")
    cases = [case_id for case_id, _ in splits.read_split(test)]
    return [case_id for case_id in cases if listed is None or case_id in listed]


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--rule", required=True, choices=tuple(RULES), help="what made the figures")
    group.add_argument(
        "--metrics", required=True, nargs="+", type=Path, help="metrics.json of each fold, in order"
    )
    group.add_argument(
        "--test", nargs="*", default=[], type=Path, help="test.csv of each, for refine_coronary"
    )
    group.add_argument("--out", required=True, type=Path, help="output folder")
    (args,) = cli.parse(parser)

    from cardiform.metrics import folds
    from cardiform.pictures.spread import plot_spread

    if len(args.test) != (len(args.metrics) if args.rule == "refine_coronary" else 0):
        raise InputError("--test: give test.csv of each fold with refine_coronary, and only then")
    named = [(str(number), path) for number, path in enumerate(args.metrics)]
    tested = [tested_cases(*pair) for pair in zip(args.test, args.metrics)]
    found = folds.read_folds(named, args.rule, tested)
    rows = folds.summary_rows(found)
    every, figure = folds.case_rows(found), RULES[args.rule]
    folds.write_rows(args.out / "cases.csv", folds.CASE_COLUMNS, every)
    folds.write_rows(args.out / "summary.csv", folds.COLUMNS, rows)
    cases = sum(len(fold.cases) for fold in found)
    plot_spread(args.out / "folds.png", every, rows, figure)
    if missed := sum(fold.missed for fold in found):
        log.info("%d more, in no mean, have the structure in the truth alone", missed)
    log.info("%d folds, %d cases\n%s", len(found), cases, folds.table_of_folds(rows, figure))


if __name__ == "__main__":
    cli.run(main)
