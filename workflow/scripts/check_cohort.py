"""Check the case table and every file in it before any compute is spent.

    python check_cohort.py --table cohort.tsv --out results/acme

Writes cases.tsv (one row per case with its status), qc/cohort.json (volumes, spacing,
components, cut classes) and qc/cases/<case>.json. All problems are told at once.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import case_runs, cli, cohort, labels
from cardiform.files import future_problems, write_json
from cardiform.options import CohortOptions

log = logging.getLogger("check_cohort")


def main() -> None:
    parser = cli.build_parser(__doc__, CohortOptions)
    parser.add_argument("--out", required=True, type=Path, help="results folder of the cohort")
    parser.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, CohortOptions)
    if not options.table:
        parser.error("name the case table with --table")

    from cardiform import cohort_check

    cases = cohort.read_case_table(options.table)
    table = labels.load_label_table(options.labels)
    folder = args.out / "qc" / "cases"
    case_runs.run_cases(
        cases,
        functools.partial(cohort_check.check_case, table=table, folder=folder),
        inputs=lambda case: [path for path in case.files if Path(path).is_file()],
        parameters={"labels": table.as_dicts()},
        state=args.out / "qc" / "state",
        manifest=args.out / "qc" / "manifest.tsv",
        processes=args.processes,
    )
    tables = filter(None, (options.table, options.labels))
    judged, reports = cohort_check.judge(
        cases,
        [folder / f"{case.case_id}.json" for case in cases],
        on_bad_case=options.on_bad_case,
        max_bad_cases=options.max_bad_cases,
        others=future_problems([*tables, *(path for case in cases for path in case.files)]),
    )
    good = [r for r in reports if not r["problems"]]
    for line in cohort_check.notes(good):
        log.info("note: %s", line)
    for case in judged:
        if case.status != cohort.OK:
            log.warning("skipped: %s: %s", case.case_id, case.reason)
    write_json(
        args.out / "qc" / "cohort.json",
        {"classes": cohort_check.summarise(good, table), "cases": reports},
    )
    cohort.write_cases(args.out / "cases.tsv", judged)
    log.info("%d of %d cases are usable", len(good), len(judged))


if __name__ == "__main__":
    cli.run(main)
