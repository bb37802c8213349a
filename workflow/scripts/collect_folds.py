"""Sum up a k-fold: what the model of each fold makes of the cases that it is tested on.

    python collect_folds.py --rule reconstruct_vecset \\
        --metrics results/acme/folds/*/vecset/reconstructions/metrics.json \\
        --out results/acme/folds/vecset

Writes cases.csv (a row per case, class and figure: every case once) and summary.csv (a row per
class and figure: mean over the folds, its 95 % interval, standard deviation).
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli

log = logging.getLogger("collect_folds")
RULES = ("reconstruct_vecset", "reconstruct_vqvae")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--rule", required=True, choices=RULES, help="what made the figures")
    group.add_argument(
        "--metrics", required=True, nargs="+", type=Path, help="metrics.json of each fold, in order"
    )
    group.add_argument("--out", required=True, type=Path, help="output folder")
    (args,) = cli.parse(parser)

    from cardiform.metrics import folds

    named = [(str(number), path) for number, path in enumerate(args.metrics)]
    found = folds.read_folds(named, args.rule)
    rows = folds.summary_rows(found)
    folds.write_rows(args.out / "cases.csv", folds.CASE_COLUMNS, folds.case_rows(found))
    folds.write_rows(args.out / "summary.csv", folds.COLUMNS, rows)
    cases = sum(len(fold.cases) for fold in found)
    log.info("%d folds, %d cases\n%s", len(found), cases, folds.table_of_folds(rows))


if __name__ == "__main__":
    cli.run(main)
