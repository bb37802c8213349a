"""Apply trained models to new label maps: no split, no truth and no training.

    python apply_models.py --models results/acme --labels new/*.nii.gz --out out

Writes <out>/vecset/<case>/: labels.nii.gz on the label map's own grid, a mesh per class, latents.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.found_files import without_ending
from cardiform.cohort.table import Case, read_case_table
from cardiform.options.apply import ApplyOptions


def main() -> None:
    parser = cli.build_parser(__doc__, ApplyOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--models", required=True, nargs="+", type=Path, help="results folders")
    group.add_argument("--labels", nargs="+", default=[], help="label maps")
    group.add_argument("--table", default="", help="case table")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, ApplyOptions)

    from cardiform.apply.case import apply_case
    from cardiform.apply.models import find_folds
    from cardiform.apply.networks import load_networks
    from cardiform.training.distributed import choose_device

    models = find_folds(args.models)
    tasks = options.tasks or ("reconstruct",)
    networks = load_networks(models, tasks, choose_device(options.device))
    if args.table:
        cases = read_case_table(args.table)
    else:
        names = {without_ending(Path(p).name, "labels"): p for p in args.labels}
        cases = [Case(case_id=n, patient_id=n, labels=p) for n, p in names.items()]
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.out / "manifest.tsv"),
        functools.partial(apply_case, networks=networks, tasks=tasks, out=args.out),
        inputs=lambda case: [case.labels, *networks.files],
        parameters={"options": cli.flags(options)},
    )


if __name__ == "__main__":
    cli.run(main)
