"""Missing structures of label maps, made from those that are there.

    python complete_labels.py --model results/acme/ldm/labels/diffusion/model.pt \\
        --label-maps mine/*.nii.gz --missing left_atrial_appendage --out completed
    python complete_labels.py --model results/acme/ldm/labels/diffusion/model.pt \\
        --cases results/acme/cases.tsv --voxels results/acme/ldm/labels/voxels/manifest.tsv \\
        --train results/acme/split/train.csv --test results/acme/split/test.csv \\
        --out results/acme/ldm/labels/completion

The first form writes each label map with the missing classes (default: those without a voxel) to
--out; known voxels stay as they are. The second measures: every class of every test case is
dropped, made from the others, and compared, beside the mean shape of the training cases: the mean
of several draws (--draws), and each draw alone, with their spread. With --beyond-mm the first form
writes larger label maps, in which the classes that the border cuts are completed past it; what the
scan shows stays as it is.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case, splits
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import read_checked_cases
from cardiform.completion import arguments
from cardiform.errors import InputError
from cardiform.options.ldm import CompletionOptions
from cardiform.options.sections import memory_advice

log = logging.getLogger("complete_labels")


def parse() -> tuple:
    """Options and files of either form."""
    parser = cli.build_parser(__doc__, CompletionOptions)
    group = arguments.add_arguments(parser, "train_diffusion")
    group.add_argument("--voxels", type=Path, help="manifest of the voxels, to measure")
    group.add_argument(
        "--beyond-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="complete what the border cuts off up to so far past it (default: not)",
    )
    cli.add_split_arguments(group, "train", "test", required=False)
    options, args = cli.parse(parser, CompletionOptions)
    arguments.check_form(args, "cases", "voxels", "train", "test")
    if args.beyond_mm and (args.missing or not args.label_maps):
        raise InputError(
            "--beyond-mm needs --label-maps, and no --missing: it completes classes that are cut"
        )
    return options, args


def main() -> None:
    options, args = parse()

    from cardiform.completion.figures import summarise, table_of_summary
    from cardiform.completion.files import (
        check_names,
        complete_beyond,
        complete_file,
        complete_files,
    )
    from cardiform.geometry.field_of_view import check_beyond
    from cardiform.ldm.complete import ClassFrequencies, Completer, evaluate_case
    from cardiform.ldm.hearts_on_grid import cut_classes
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.training.distributed import choose_device

    check_beyond(args.beyond_mm)
    check_names(args.label_maps, args.out)
    completer = Completer(args.model, options, choose_device(options.device))
    if args.label_maps:
        if args.beyond_mm:
            how = functools.partial(complete_beyond, mm=args.beyond_mm, completer=completer)
        else:
            how = functools.partial(complete_file, missing=args.missing, completer=completer)
        complete_files(args.label_maps, args.out, how)
        return
    rows = splits.read_splits({"train": args.train, "test": args.test})
    training, tested = ([name for name, _ in rows[part]] for part in ("train", "test"))
    files = made_files([args.voxels], completer.generator.learned_from(training), ".nii.gz")
    cut = cut_classes(args.voxels, [f.case_id for f in files], completer.generator.grid)
    cases = read_checked_cases(args.cases, tested) if tested else []  # no id at all means all
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.out / "manifest.tsv"),
        functools.partial(
            evaluate_case,
            completer=completer,
            mean_shape=ClassFrequencies.of(
                [f.path for f in files], completer, [cut.get(f.case_id) for f in files]
            ),
            out=args.out,
        ),
        inputs=lambda case: [case.labels, args.model, args.train],
        # of grid and mean shape: results of the version before are made again, not mixed in
        parameters={"options": cli.flags(options), "rule": "volumes between voxels"},
        memory=memory_advice(CompletionOptions),
    )
    figures = summarise(tested, args.out, completer.table.names)
    for line in table_of_summary(figures):
        log.info("%s", line)
    write_held_out_figures(args.out / "metrics.json", "complete_labels", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
