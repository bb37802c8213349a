"""Measure every structure of every heart: size, shape, vessels, wall, appendage.

    python measure_shapes.py --cases results/acme/cases.tsv --meshes results/acme/meshes \\
        --trees results/acme/coronary/trees --out results/acme/measures \\
        --manifest results/acme/measures/manifest/all.tsv

Writes <out>/<case>/measures.csv (a row per class, part and measure, with its unit and whether the
scan cuts what is measured), wall_thickness.vtp (thickness and segments on the inner wall of the
left ventricle) and <class>.swc and .vtp (centrelines of the vessels). docs/measures.md says what
each of them is.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.options.checks import check_classes
from cardiform.options.measures import MeasuresOptions


def main() -> None:
    parser = cli.build_parser(__doc__, MeasuresOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    parser.add_argument(
        "--trees", type=Path, help="output of trace_coronary; without it no thin vessel is measured"
    )
    options, args = cli.parse(parser, MeasuresOptions)

    from cardiform.geometry.meshed import mesh_files
    from cardiform.measures.case import measure_case, tree_inputs

    table = labels.load_label_table(args.labels)
    check_classes({"measures": options}, table.names, args.labels, labels.BUILT_IN)
    made = {args.meshes: "extract_meshes"}
    if args.trees:
        made[args.trees] = "trace_coronary"
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(
            measure_case,
            table=table,
            options=options,
            meshes=args.meshes,
            trees=args.trees,
            out=args.out,
        ),
        inputs=lambda case: [
            case.labels,
            *mesh_files(case, args.meshes),
            *(tree_inputs(case, args.trees) if args.trees else []),
        ],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
        made=made,
    )


if __name__ == "__main__":
    cli.run(main)
