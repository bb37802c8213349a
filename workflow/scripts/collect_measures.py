"""The measures of all hearts in one table, the norms of the cohort, z-scores, groups compared.

    python collect_measures.py --cases results/acme/cases.tsv \\
        --manifest results/acme/measures/manifest/*.tsv --out results/acme/measures
    python collect_measures.py ... --table cohort.tsv --groups x_sex,x_age

Writes <out>/measures.csv, norms.csv, zscores.csv and groups.csv; docs/measures.md says what is in
them. --reference takes the norms of another cohort for the z-scores.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import OK, read_checked_cases
from cardiform.errors import InputError, again, together
from cardiform.options.measures import NormsOptions

log = logging.getLogger("collect_measures")


def main() -> None:
    parser = cli.build_parser(__doc__, NormsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    group.add_argument("--manifest", required=True, nargs="+", help="manifests of measure_shapes")
    group.add_argument("--table", default="", help="the case table with the columns of --groups")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, NormsOptions)
    if options.groups and not args.table:
        raise InputError("--groups needs the case table that has these columns; give --table")

    import pandas as pd

    from cardiform.measures import groups, norms, table

    names = [case.case_id for case in read_checked_cases(args.cases) if case.status == OK]
    files = made_files(args.manifest, names, "/measures.csv", again("measure_shapes"))
    reference, columns, parts = together(
        lambda: norms.read_norms(options.reference) if options.reference else None,
        lambda: groups.read_columns(args.table, options.groups, names) if options.groups else {},
        lambda: together(*(functools.partial(table.read_measures, f.path) for f in files)),
    )
    empty = pd.DataFrame(columns=list(table.COLUMNS)).astype({"value": float, "cut": bool})
    measures = pd.concat(parts, ignore_index=True) if parts else empty
    usual = norms.norms_of(measures, options.least_cases)
    scores = norms.scores_of(measures, usual if reference is None else reference)
    compared, notes = groups.compare(
        measures,
        columns,
        permutations=options.permutations,
        correction=options.correction,
        seed=options.seed,
    )
    for line in [*norms.summary_lines(measures, usual, scores), *notes]:
        log.info("%s", line)
    written = {"norms": usual, "zscores": scores, "groups": compared, "measures": measures}
    for name, frame in written.items():
        table.write_frame(args.out / f"{name}.csv", frame)


if __name__ == "__main__":
    cli.run(main)
