"""Look at every file of the case table: what is wrong with it, and what is in it.

    python check_cases.py --cases cohort.tsv --out results/acme/qc \\
        --manifest results/acme/qc/manifest/all.tsv

Writes <out>/cases/<case>.json: problems, warnings, shape, spacing, and volume, components and
cut edges of every class. Bad cases are no failure here (check_cohort judges them); files with
a date in the future are.
"""

from __future__ import annotations

from cardiform import cli, labels
from cardiform.cohort.table import read_case_table
from cardiform.errors import InputError


def main() -> None:
    parser = cli.build_parser(__doc__)
    cli.add_case_arguments(parser, cases="case table, TSV or CSV")
    (args,) = cli.parse(parser)

    from cardiform.cohort.checks import check_cases, late_files
    from cardiform.geometry.mesh_repair import look_at_mesh

    cases = read_case_table(args.cases, args.select)
    if late := late_files(cases, args.labels):
        raise InputError(late)
    check_cases(
        cases,
        labels.load_label_table(args.labels),
        out=args.out,
        manifest=args.manifest,
        processes=args.processes,
        look_at_mesh=look_at_mesh,
    )


if __name__ == "__main__":
    cli.run(main)
