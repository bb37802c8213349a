"""Judge the cohort before any compute is spent.

    python check_cohort.py --table cohort.tsv --out results/acme

Writes cases.tsv (one row per case with its status) and qc/cohort.json (volumes, spacing,
components, cut classes). All problems are reported at once. Without --manifest the files of the
cases are checked first (check_cases).
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort.manifest import read_manifests
from cardiform.cohort.table import OK, read_case_table, write_cases
from cardiform.files import write_json
from cardiform.options.cohort import CohortOptions

log = logging.getLogger("check_cohort")


def main() -> None:
    parser = cli.build_parser(__doc__, CohortOptions)
    parser.add_argument("--out", required=True, type=Path, help="results folder of the cohort")
    parser.add_argument("--manifest", nargs="+", default=[], help="manifests of check_cases")
    parser.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, CohortOptions)
    if not options.table:
        parser.error("name the case table with --table")

    from cardiform.cohort.checks import check_cases, judge, late_files, notes, summarise
    from cardiform.cohort.contents import warn_of_patients
    from cardiform.geometry.mesh_repair import look_at_mesh

    cases = read_case_table(options.table)
    table = labels.load_label_table(options.labels)
    if not args.manifest:
        args.manifest = [args.out / "qc" / "manifest" / "all.tsv"]
        check_cases(
            cases,
            table,
            out=args.out / "qc",
            manifest=args.manifest[0],
            processes=args.processes,
            look_at_mesh=look_at_mesh,
        )
    found = {
        row["case_id"]: Path(row["path"]) for row in read_manifests(args.manifest) if row["path"]
    }
    judged, reports = judge(
        cases,
        found,
        on_bad_case=options.on_bad_case,
        max_bad_cases=options.max_bad_cases,
        others=late_files(cases, options.table, options.labels),
    )
    good = [r for r in reports if not r["problems"]]
    warn_of_patients(judged, good)
    for line in notes(good):
        log.info("note: %s", line)
    for case in judged:
        if case.status != OK:
            log.warning("skipped: %s: %s", case.case_id, case.reason)
    write_json(
        args.out / "qc" / "cohort.json",
        {"classes": summarise(good, table), "cases": reports},
    )
    write_cases(args.out / "cases.tsv", judged)
    log.info("%d of %d cases are usable", len(good), len(judged))


if __name__ == "__main__":
    cli.run(main)
