"""Missing structures of label maps, made from those that are there by a VecSet.

    python complete_vecset.py --model results/acme/vecset/model.pt \\
        --label-maps mine/*.nii.gz --missing left_atrial_appendage --out completed
    python complete_vecset.py --model results/acme/vecset/model.pt \\
        --label-maps stack.nii.gz --slices --out completed
    python complete_vecset.py --model results/acme/vecset/model.pt \\
        --cases results/acme/cases.tsv --train results/acme/split/train.csv \\
        --test results/acme/split/test.csv --out results/acme/vecset/completion

The first form writes each label map with the missing classes (default: those without a voxel) to
--out; known voxels stay as they are. The second makes the heart between annotated slices: those
among layers without a label, or all of a stack of thick slices, which becomes finer. The third
measures: every class of every test case is dropped, made from the others, and compared, beside the
mean shape of the training cases. The model must have been trained with vecset.hidden_share above 0,
for slices with vecset.slices_share.
"""

from __future__ import annotations

import functools
import logging

from cardiform import cli
from cardiform.cohort import per_case, splits
from cardiform.cohort.table import read_checked_cases
from cardiform.completion import arguments
from cardiform.errors import InputError
from cardiform.options.sections import memory_advice
from cardiform.options.vecset import VecsetReconstructOptions

log = logging.getLogger("complete_vecset")


def parse() -> tuple:
    """Options and files of either form."""
    parser = cli.build_parser(__doc__, VecsetReconstructOptions)
    group = arguments.add_arguments(parser, "train_vecset")
    group.add_argument("--slices", action="store_true", help="only some slices are annotated")
    cli.add_split_arguments(group, "train", "test", required=False)
    options, args = cli.parse(parser, VecsetReconstructOptions)
    arguments.check_form(args, "cases", "train", "test")
    if args.slices and not args.label_maps:
        raise InputError("--slices needs --label-maps")
    return options, args


def main() -> None:
    options, args = parse()

    from cardiform import held_out
    from cardiform.apply.stages import find_stages
    from cardiform.completion.between import complete_between
    from cardiform.completion.figures import summarise, table_of_summary
    from cardiform.completion.files import check_names, complete_file, complete_files
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.training.distributed import choose_device
    from cardiform.vecset.complete import PartCompleter, UsualShapes, evaluate_case
    from cardiform.vecset.reconstruct import Reconstructor

    check_names(args.label_maps, args.out)
    network = Reconstructor.load(args.model, options, choose_device(options.device))
    stages = find_stages(args.model.absolute().parent.parent)
    shares = ["slices_share"] if args.slices else []
    shares += [] if args.slices and not args.missing else ["hidden_share"]
    completer = PartCompleter.of(network, args.model, stages["meshes"], stages["points"], shares)
    if args.label_maps:
        one = complete_between if args.slices else complete_file
        how = functools.partial(one, missing=args.missing, completer=completer)
        complete_files(args.label_maps, args.out, how)
        return
    known = {case.case_id: case for case in read_checked_cases(args.cases)}
    rows = splits.read_splits({"train": args.train, "test": args.test})
    training, tested = (held_out.checked_cases(rows[p], known, args.cases) for p in rows)
    points = {case.case_id: path for case, path in tested}
    log.info("mean shape of %d training cases", len(training))
    per_case.run_cases(
        per_case.CaseRun([case for case, _ in tested], args.out, args.out / "manifest.tsv"),
        functools.partial(
            evaluate_case,
            points=points,
            completer=completer,
            mean_shape=UsualShapes.of(training, network.table, completer.usual),
            out=args.out,
        ),
        inputs=lambda case: [case.labels, points[case.case_id], args.model, args.train],
        parameters={"options": cli.flags(options)},
        memory=memory_advice(VecsetReconstructOptions),
    )
    figures = summarise([case.case_id for case, _ in tested], args.out, network.table.names)
    for line in table_of_summary(figures):
        log.info("%s", line)
    write_held_out_figures(args.out / "metrics.json", "complete_vecset", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
