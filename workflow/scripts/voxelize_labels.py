"""Turn label maps into sparse voxels: signed distances in a narrow band about each surface.

    python voxelize_labels.py --cases results/acme/cases.tsv --meshes results/acme/meshes \\
        --out results/acme/sparse/512 --manifest results/acme/sparse/512/manifest/all.tsv

Writes <out>/<case>/<class>.npz for every class that is there, in the unit frame of the case
(see docs/vqvae.md). For a cohort of meshes use voxelize_meshes.py.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.options.geometry import VoxelsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VoxelsOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    options, args = cli.parse(parser, VoxelsOptions)

    from cardiform.geometry.cases import voxelize_case
    from cardiform.geometry.meshed import frame_files

    table = labels.load_label_table(args.labels)
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(
            voxelize_case, table=table, options=options, meshes=args.meshes, out=args.out
        ),
        # of the meshes their frame counts, and the fields that they were made of
        inputs=lambda case: [case.labels, *frame_files(case, args.meshes)],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
        made={args.meshes: "extract_meshes"},
    )


if __name__ == "__main__":
    cli.run(main)
