"""Vessel trees of label maps, traced once: what the vessels of generated hearts are learned from.

    python encode_vessels.py --cases results/acme/cases.tsv \\
        --voxels results/acme/ldm/labels/voxels/manifest.tsv \\
        --out results/acme/ldm/labels/vessels/trees \\
        --manifest results/acme/ldm/labels/vessels/trees/manifest.tsv

Writes <out>/<case>.npz: the nodes of the trees with their radii, mm from the middle of the cube in
which the heart lies, and whether the scan cuts them. The options are those of trace_coronary. Cases
without the structure have a tree without a node. Finished cases are skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import OK
from cardiform.options.checks import check_classes
from cardiform.options.coronary import CoronaryTraceOptions

log = logging.getLogger("encode_vessels")


def main() -> None:
    parser = cli.build_parser(__doc__, CoronaryTraceOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--voxels", required=True, type=Path, help="manifest of resample_labels")
    options, args = cli.parse(parser, CoronaryTraceOptions)

    from cardiform.coronary.trace_case import traced_with_cut
    from cardiform.ldm.vessels.tree import TREE, encode_case

    table = labels.load_label_table(args.labels)
    check_classes({"coronary_trace": options}, table.names, args.labels, labels.BUILT_IN)
    table.channel(options.structure)
    run = cli.case_run(args)
    names = [case.case_id for case in run.cases if case.status == OK]
    voxels = {f.case_id: f.path for f in made_files([args.voxels], names, ".nii.gz")}
    run = dataclasses.replace(run, cases=[c for c in run.cases if c.case_id in voxels])
    per_case.run_cases(
        run,
        functools.partial(
            encode_case,
            trace=functools.partial(traced_with_cut, table=table, options=options),
            structure=options.structure,
            voxels=voxels,
            out=args.out,
        ),
        inputs=lambda case: [case.labels, voxels[case.case_id]],
        parameters={
            "options": cli.flags(options),
            "labels": table.as_dicts(),
            "format": TREE.version,
        },
    )


if __name__ == "__main__":
    cli.run(main)
