"""Refined masks of a thin structure: on each label map's own grid, and at a finer resolution.

    python refine_coronary.py --model results/acme/coronary/cardiform/model.pt \\
        --cases results/acme/cases.tsv --manifest results/acme/coronary/repaired/manifest/*.tsv \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --out results/acme/coronary/refined

Writes <out>/<case>.nii.gz, fine/<case>.nii.gz, <case>.json, <case>.png, manifest.tsv, and
metrics.json with three columns that must not be mixed up: Dice on the training's points, Dice
against the noisy label (how much was changed) and figures against the truth, where the case
table names one: on the isotropic grid, and under own_grid on that of the label map. New cases need
no training: the network is frozen. --preset repair needs no --model. Finished cases are skipped.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case, splits
from cardiform.cohort.table import read_checked_cases
from cardiform.errors import InputError
from cardiform.options.coronary import (
    CoronaryRefineOptions,
    CoronaryRepairOptions,
    refinement_faults,
)
from cardiform.options.sections import memory_advice

MASKS = 4  # version of what is written for a case: those of the version before are made again
log = logging.getLogger("refine_coronary")


def parse() -> tuple:
    """Options and files of the command line."""
    parser = cli.build_parser(__doc__, CoronaryRefineOptions, CoronaryRepairOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", type=Path, help="model.pt of train_coronary, same preset")
    group.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    group.add_argument("--select", nargs="+", default=[], metavar="CASE", help="default: all")
    group.add_argument("--manifest", required=True, nargs="+", help="manifests of repair_coronary")
    cli.add_split_arguments(group, "train", "validation", "test", required=False)
    group.add_argument("--held-out", action="store_true", help="the cases of --test alone")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, repair, args = cli.parse(parser, CoronaryRefineOptions, CoronaryRepairOptions)
    problems = refinement_faults(options, "--latent-steps")
    if (args.model is None) != (options.preset == "repair"):
        problems.append(f"--preset {options.preset} and --model do not go together: see --help")
    if args.held_out and args.test is None:
        problems.append("--held-out is of the cases of --test; give that, too")
    if problems:
        raise InputError(problems)
    return options, repair, args


def main() -> None:
    options, repair, args = parse()

    from cardiform.artefact.model import load_model
    from cardiform.coronary.cases import (
        missed_cases,
        refine_case,
        remove_refined,
        summarise,
        table_of_figures,
    )
    from cardiform.coronary.data import find_repaired, without_structure
    from cardiform.coronary.refine import load_refiner
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.training.distributed import choose_device

    table = labels.load_label_table(args.labels)
    given = {part: getattr(args, part) for part in ("train", "validation", "test")}
    split = splits.read_splits({part: path for part, path in given.items() if path is not None})
    chosen = [case_id for case_id, _ in split["test"]] if args.held_out else args.select
    none = args.held_out and not chosen  # no id at all would mean all
    cases = [] if none else read_checked_cases(args.cases, chosen)
    files = {f.case_id: f.path for f in find_repaired(args.manifest, [c.case_id for c in cases])}
    refiner = load_refiner(args.model, options, repair, choose_device(options.device))
    ids = without_structure(args.manifest)
    absent = [case for case in cases if case.case_id in ids]
    for case in absent:
        remove_refined(case.case_id, args.out)
    having = [case for case in cases if case.case_id in files]
    per_case.run_cases(
        per_case.CaseRun(having, args.out, args.out / "manifest.tsv"),
        functools.partial(refine_case, files=files, refiner=refiner, table=table, out=args.out),
        inputs=lambda case: [
            *([args.model] if args.model else []),
            files[case.case_id],
            case.labels,
            *([case.truth] if case.truth else []),
        ],
        parameters={
            "options": cli.flags(options),
            "repair": cli.flags(repair),
            "labels": table.as_dicts(),
            "masks": MASKS,
        },
        memory=memory_advice(CoronaryRefineOptions),
    )
    missed = missed_cases(absent, table[table.channel(repair.structure)].value)
    known = dict.fromkeys([*files, *missed])
    parts = {part: [c for c, _ in rows if c in known] for part, rows in split.items()}
    parts = parts or {"all": list(known)}
    trained = {} if args.model is None else load_model(args.model).figures
    figures = summarise(parts, args.out, trained, missed)
    for line in table_of_figures(figures):
        log.info("%s", line)
    write_held_out_figures(args.out / "metrics.json", "refine_coronary", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
