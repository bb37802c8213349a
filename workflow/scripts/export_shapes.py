"""Write hearts for other programs: STL, VTP, glTF (.glb), segmentations of 3D Slicer (.seg.nrrd).

    python export_shapes.py --cases results/acme/cases.tsv --meshes results/acme/meshes \\
        --out results/acme/exports --manifest results/acme/exports/manifest/all.tsv

Writes <out>/<case>/: <class>.stl, <case>.vtp, <case>.glb, <case>.seg.nrrd and colors.ctbl; where
asked for, <case>_walls.vtp, <case>_tets.vtu and <case>.dcm.
docs/exports.md says how each is opened.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.table import read_checked_cases
from cardiform.options.exports import ExportsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, ExportsOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    options, args = cli.parse(parser, ExportsOptions)

    from cardiform.export.dicom import check_dicom, series_files
    from cardiform.export.shapes import export_case
    from cardiform.geometry.meshed import mesh_files

    run = cli.case_run(args)
    dicom = "dcm" in options.formats
    if dicom:
        check_dicom(run.cases, args.cases, read_checked_cases(args.cases))
    table = labels.load_label_table(args.labels)
    per_case.run_cases(
        run,
        functools.partial(
            export_case, table=table, options=options, meshes=args.meshes, out=args.out
        ),
        inputs=lambda case: [
            case.labels,
            *mesh_files(case, args.meshes),
            *(series_files(case) if dicom else []),
        ],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
        made={args.meshes: "extract_meshes"},
    )


if __name__ == "__main__":
    cli.run(main)
