"""Split the cohort by patient into train, validation and test.

    python split_cohort.py --cases results/acme/cases.tsv \\
        --points results/acme/points --out results/acme/split

A patient's place is a seeded hash of the patient id: adding a case never moves another.
Writes train.csv, val.csv and test.csv with the columns case_id, patient_id, path.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import splits
from cardiform.cohort.table import OK, read_checked_cases
from cardiform.options.cohort import SplitOptions

log = logging.getLogger("split_cohort")


def main() -> None:
    parser = cli.build_parser(__doc__, SplitOptions)
    parser.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    parser.add_argument("--points", required=True, type=Path, help="folder of the points files")
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, SplitOptions)

    cases = [c for c in read_checked_cases(args.cases, needs="") if c.status == OK]
    parts = splits.split_cases(cases, options)
    for part, members in parts.items():
        splits.write_split(args.out / f"{part}.csv", members, args.points)
        log.info("%s: %d cases", part, len(members))


if __name__ == "__main__":
    cli.run(main)
