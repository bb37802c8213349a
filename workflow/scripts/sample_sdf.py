"""Draw surface, near and volume points with their signed distances to all classes.

    python sample_sdf.py --cases results/acme/cases.tsv --meshes results/acme/meshes \\
        --out results/acme/points --manifest results/acme/points/manifest/all.tsv

Writes <out>/<case>.npz, in the unit frame of the case (see docs/architecture.md).
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.options.geometry import PointsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, PointsOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    options, args = cli.parse(parser, PointsOptions)

    from cardiform.geometry.cases import sample_case
    from cardiform.geometry.meshed import mesh_files

    table = labels.load_label_table(args.labels)
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(
            sample_case, table=table, options=options, meshes=args.meshes, out=args.out
        ),
        inputs=lambda case: [case.labels, *mesh_files(case, args.meshes)],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
        made={args.meshes: "extract_meshes"},
    )


if __name__ == "__main__":
    cli.run(main)
