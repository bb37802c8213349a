"""Sum up what apply_models made of the chunks of a case table.

    python collect_applied.py --manifest results/acme/applied/manifest/*.tsv \\
        --applied results/acme/applied --out results/acme/applied/summary.csv

Writes a CSV with a row per case, task, class and figure.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort.manifest import read_manifests
from cardiform.cohort.table import OK

log = logging.getLogger("collect_applied")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--manifest", required=True, nargs="+", help="manifests of apply_models")
    group.add_argument("--applied", required=True, type=Path, help="output folder of apply_models")
    group.add_argument("--out", required=True, type=Path, help="table to write, CSV")
    (args,) = cli.parse(parser, out_is_file=True)

    from cardiform.apply.record import figures_path, write_summary

    rows = read_manifests(args.manifest)
    for row in rows:
        if row["status"] != OK:
            log.warning("left out: %s: %s", row["case_id"], row["status"])
    cases = dict.fromkeys(row["case_id"] for row in rows if row["status"] == OK)
    write_summary(args.out, [figures_path(args.applied, case_id) for case_id in cases])
    log.info("%s: %d cases", args.out, len(cases))


if __name__ == "__main__":
    cli.run(main)
