"""Repair a thin structure without learning: dust, closing, smoothing, bridged gaps, fragments.

    python repair_coronary.py --cases results/acme/cases.tsv \\
        --out results/acme/coronary/repaired --manifest results/acme/coronary/repaired/all.tsv

Writes <out>/<case>.npz (given and repaired label on an isotropic grid, for train_coronary),
<case>.nii.gz (repaired, on the label map's grid) and <case>.json (what each step changed).
--structure names another class of the label table.
"""

from __future__ import annotations

import functools

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.options.checks import check_classes
from cardiform.options.coronary import CoronaryRepairOptions


def main() -> None:
    parser = cli.build_parser(__doc__, CoronaryRepairOptions)
    cli.add_case_arguments(parser)
    options, args = cli.parse(parser, CoronaryRepairOptions)

    from cardiform.coronary.repair_case import repair_case

    table = labels.load_label_table(args.labels)
    check_classes({"coronary_repair": options}, table.names, args.labels, labels.BUILT_IN)
    table.channel(options.structure)  # refused at once if it is unknown
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(repair_case, table=table, options=options, out=args.out),
        inputs=lambda case: [case.labels],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
    )


if __name__ == "__main__":
    cli.run(main)
