"""Centrelines of coronary trees with radii, cut into branches and named by position.

    python trace_coronary.py --cases results/acme/cases.tsv \\
        --out results/acme/coronary/trees --manifest results/acme/coronary/trees/all.tsv
    python trace_coronary.py --label-maps mine/*.nii.gz --out trees --manifest trees/all.tsv

Writes <out>/<case>/tree.swc, tree.vtp (both RAS mm), branches.csv, summary.json and tree.png. Names
need myocardium or left ventricle, right ventricle and both atria; a case without them, or without
the structure, has a note in its summary.json. --structure names another class (with --names false).
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.found_files import without_ending
from cardiform.cohort.table import Case, id_remedy
from cardiform.errors import InputError, problem
from cardiform.options.checks import check_classes
from cardiform.options.coronary import CoronaryTraceOptions


def cases_of(paths: list[Path]) -> list[Case]:
    """A case for each label map, called like its file; InputError with all names that cannot be."""
    cases: dict[str, Case] = {}
    problems = []
    for path in paths:
        name = without_ending(path.name, "labels") or path.name
        if remedy := id_remedy(name):
            problems.append(problem(path, f"{name} is no name of a case", remedy))
        elif name in cases:
            fact = f"is called like {cases[name].labels}"
            problems.append(problem(path, fact, "rename one of them"))
        cases.setdefault(name, Case(case_id=name, patient_id=name, labels=str(path)))
    if problems:
        raise InputError(problems)
    return list(cases.values())


def main() -> None:
    parser = cli.build_parser(__doc__, CoronaryTraceOptions)
    cli.add_case_arguments(parser, cases_required=False)
    group = parser.add_argument_group("without a case table")
    group.add_argument("--label-maps", nargs="+", type=Path, default=[], help="NIfTI files")
    options, args = cli.parse(parser, CoronaryTraceOptions)
    if bool(args.cases) == bool(args.label_maps):
        raise InputError("name --cases or --label-maps: see --help")
    if args.select and args.label_maps:
        raise InputError("--select needs --cases; with --label-maps list only those to trace")

    from cardiform.coronary.trace_case import trace_case

    table = labels.load_label_table(args.labels)
    check_classes({"coronary_trace": options}, table.names, args.labels, labels.BUILT_IN)
    table.channel(options.structure)  # refused at once if it is unknown
    if args.cases:
        run = cli.case_run(args)
    else:
        run = per_case.CaseRun(cases_of(args.label_maps), args.out, args.manifest, args.processes)
    per_case.run_cases(
        run,
        functools.partial(trace_case, table=table, options=options, out=args.out),
        inputs=lambda case: [case.labels],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
    )


if __name__ == "__main__":
    cli.run(main)
