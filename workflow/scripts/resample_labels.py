"""Label maps to the coarse grid of latent diffusion: one cube for the whole cohort, antialiased.

    python resample_labels.py --cases results/acme/cases.tsv --out results/acme/ldm/labels/voxels \\
        --manifest results/acme/ldm/labels/voxels/manifest.tsv --voxel-size 64

Writes <out>/<case>.nii.gz (label map, isotropic, axes of RAS, in its place in the world) and
<out>/grid.json (size, spacing and classes, the same for all). The cube is as large as the largest
heart; every heart lies in its middle and keeps its size. Finished cases are skipped.
"""

from __future__ import annotations

import functools

from cardiform import case_runs, cli, cohort, labels
from cardiform.files import write_json
from cardiform.options import LdmOptions


def main() -> None:
    parser = cli.build_parser(__doc__, LdmOptions)
    case_runs.add_case_arguments(parser)
    options, args = cli.parse(parser, LdmOptions)

    from cardiform.geometry import coarse

    table = coarse.taking_part(labels.load_label_table(args.labels), options.drop_classes)
    cases = cohort.read_checked_cases(args.cases, args.select)
    boxes = args.out / "boxes"
    case_runs.run_cases(
        cases,
        functools.partial(coarse.box_case, table=table, out=boxes),
        inputs=lambda case: [case.labels],
        parameters={"labels": table.as_dicts()},
        state=boxes / "state",
        manifest=boxes / "manifest.tsv",
        processes=args.processes,
    )
    found = [boxes / f"{case.case_id}.json" for case in cases if case.status == cohort.OK]
    grid = coarse.label_grid(found, options, table)
    write_json(args.out / "grid.json", grid.as_dict())
    case_runs.run_cases(
        cases,
        functools.partial(coarse.resample_case, grid=grid, boxes=boxes, out=args.out),
        inputs=lambda case: [case.labels, boxes / f"{case.case_id}.json"],
        parameters=grid.as_dict(),
        state=args.out / "state",
        manifest=args.manifest,
        processes=args.processes,
    )


if __name__ == "__main__":
    cli.run(main)
