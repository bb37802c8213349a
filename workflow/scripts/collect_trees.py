"""The branches of all traced trees in one table, and what there is over the cohort.

    python collect_trees.py --cases results/acme/cases.tsv \\
        --manifest results/acme/coronary/trees/manifest/*.tsv --out results/acme/coronary/trees

Writes <out>/branches.csv, a row for each branch of each case, and <out>/summary.json: cases,
vessels with their lengths and radii, and the notes of each case.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import OK, read_checked_cases
from cardiform.errors import again, together
from cardiform.files import write_json

log = logging.getLogger("collect_trees")


def main() -> None:
    parser = cli.build_parser(__doc__)
    parser.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    parser.add_argument("--manifest", required=True, nargs="+", help="manifests of trace_coronary")
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    (args,) = cli.parse(parser)

    from cardiform.coronary.trace_case import SUMMARY
    from cardiform.coronary.tree_cohort import lines, summarise
    from cardiform.coronary.tree_files import read_branches, write_branches

    names = [case.case_id for case in read_checked_cases(args.cases) if case.status == OK]
    remedy = again("trace_coronary")
    tables = made_files(args.manifest, names, "/branches.csv", remedy)
    reports = made_files(args.manifest, names, "/summary.json", remedy)
    *read, summaries = together(
        *(functools.partial(read_branches, file.path) for file in tables),
        lambda: together(*(functools.partial(SUMMARY.load, file.path) for file in reports)),
    )
    rows = [row for part in read for row in part]
    summary = summarise(dict(zip([file.case_id for file in reports], summaries)), rows)
    for line in lines(summary):
        log.info("%s", line)
    write_json(args.out / "summary.json", summary)
    write_branches(args.out / "branches.csv", [list(row.values()) for row in rows])


if __name__ == "__main__":
    cli.run(main)
