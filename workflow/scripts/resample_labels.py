"""Label maps to the coarse grid of latent diffusion: one cube for the whole cohort, antialiased.

    python resample_labels.py --cases results/acme/cases.tsv --out results/acme/ldm/labels/voxels \\
        --manifest results/acme/ldm/labels/voxels/manifest.tsv --voxel-size 64

Writes <out>/<case>.nii.gz (label map, isotropic, axes of RAS, in its place in the world) and
<out>/grid.json (size, spacing and classes, the same for all). The cube is as large as the largest
heart, unless that is far larger than nearly all others; what is cut of a heart then is logged. The
middle of its chambers lies in the middle; every heart keeps its size. Finished cases are skipped.
"""

from __future__ import annotations

import functools

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.table import OK
from cardiform.files import write_json
from cardiform.options.ldm import LdmOptions


def main() -> None:
    parser = cli.build_parser(__doc__, LdmOptions)
    cli.add_case_arguments(parser)
    options, args = cli.parse(parser, LdmOptions)

    from cardiform.ldm.hearts_on_grid import (
        BOX,
        box_case,
        case_centers,
        label_grid,
        resample_case,
        taking_part,
    )
    from cardiform.ldm.outside import report_hearts

    table = taking_part(labels.load_label_table(args.labels), options.drop_classes)
    run = cli.case_run(args)
    boxes = args.out / "boxes"
    per_case.run_cases(
        per_case.CaseRun(run.cases, boxes, boxes / "manifest.tsv", run.processes),
        functools.partial(box_case, table=table, out=boxes),
        inputs=lambda case: [case.labels],
        parameters={"labels": table.as_dicts(), "keys": sorted(BOX.keys)},
    )
    found = [boxes / f"{case.case_id}.json" for case in run.cases if case.status == OK]
    grid = label_grid(found, options, table)
    write_json(args.out / "grid.json", grid.stored())
    centers = case_centers(found, grid.table)
    report_hearts(run.cases, centers, boxes, grid)
    per_case.run_cases(
        run,
        functools.partial(resample_case, grid=grid, boxes=boxes, out=args.out, centers=centers),
        inputs=lambda case: [case.labels, boxes / f"{case.case_id}.json"],
        # the rule: hearts of the version before, whose classes grew, are made again
        parameters=lambda case: {
            **grid.as_dict(),
            "center": centers[case.case_id].tolist(),
            "rule": "volumes",
        },
    )


if __name__ == "__main__":
    cli.run(main)
