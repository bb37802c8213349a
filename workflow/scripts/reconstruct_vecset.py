"""Reconstruct the validation and test cases with a trained VecSet, and measure how well.

    python reconstruct_vecset.py --model results/acme/vecset/model.pt \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --cases results/acme/cases.tsv \\
        --meshes results/acme/meshes --out results/acme/vecset/reconstructions \\
        --metrics results/acme/vecset/reconstructions/metrics.json

Per case: labels.nii.gz on the label map's own grid, a mesh per class, latents.npz, compare.png
and figures.json. Cases that are finished already are skipped. The training cases serve the
mean-shape baseline and confidence.json alone: what the confidence of apply_models is held against.
With --beyond-mm, where the scan cuts a class, completed.nii.gz too: the label map on a larger grid,
the cut classes completed past the field of view.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case, splits
from cardiform.cohort.table import read_checked_cases
from cardiform.options.sections import memory_advice
from cardiform.options.vecset import VecsetReconstructOptions

log = logging.getLogger("reconstruct_vecset")


def main() -> None:
    parser = cli.build_parser(__doc__, VecsetReconstructOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of train_vecset")
    cli.add_split_arguments(group, "train", "validation", "test")
    group.add_argument("--cases", required=True, type=Path, help="cases.tsv of check_cohort")
    group.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument(
        "--beyond-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="complete what the scans cut off up to so far past the volume (default: not)",
    )
    group.add_argument("--metrics", required=True, type=Path, help="figures to write, JSON")
    options, args = cli.parse(parser, VecsetReconstructOptions)

    from cardiform import held_out
    from cardiform.geometry.field_of_view import check_beyond
    from cardiform.geometry.meshed import mesh_files
    from cardiform.training.distributed import choose_device
    from cardiform.vecset import reconstruct
    from cardiform.vecset.confidence import Sound

    check_beyond(args.beyond_mm)
    network = reconstruct.Reconstructor.load(args.model, options, choose_device(options.device))
    known = {case.case_id: case for case in read_checked_cases(args.cases)}
    rows = splits.read_splits({p: getattr(args, p) for p in ("train", "validation", "test")})
    parts = {p: held_out.checked_cases(r, known, args.cases) for p, r in rows.items()}
    rest = [*parts["validation"], *parts["test"]]
    points = {case.case_id: path for case, path in rest}
    log.info("mean shape of %d training cases", len(parts["train"]))
    mean_shape = reconstruct.MajorityLabels.of(parts["train"], network.table)
    per_case.run_cases(
        per_case.CaseRun([case for case, _ in rest], args.out, args.out / "manifest.tsv"),
        functools.partial(
            reconstruct.reconstruct_case,
            points=points,
            meshes=args.meshes,
            out=args.out,
            network=network,
            mean_shape=mean_shape,
            beyond_mm=args.beyond_mm,
        ),
        inputs=lambda case: [
            case.labels,
            points[case.case_id],
            *mesh_files(case, args.meshes),
            args.model,
            args.train,
        ],
        # the rule of the mean shape: figures of the version before are not mixed with new ones
        parameters={"options": cli.flags(options), "rule": "first of equals"}
        | ({"beyond_mm": args.beyond_mm} if args.beyond_mm else {}),
        memory=memory_advice(VecsetReconstructOptions),
        made={args.meshes: "extract_meshes"},
    )
    training, held_out_cases = ([case for case, _ in group] for group in (parts["train"], rest))
    sound = Sound.of(training, held_out_cases, args.out, network.table, args.model)
    sound.write(args.out / "confidence.json")
    write_figures(args, {p: [case.case_id for case, _ in c] for p, c in parts.items()}, network)


def write_figures(args, names, network) -> None:
    """metrics.json, and its tables in the log.    names : part of the split -> case ids."""
    from cardiform import held_out
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.vecset.reconstruct import METHODS

    names = {part: names[part] for part in ("validation", "test")}
    figures = held_out.summarise(names, args.out, METHODS)
    for part, found in figures.items():
        if names[part]:
            table = held_out.table_of_figures(found, network.table.names, "mean_shape")
            log.info("%s, %d cases\n%s", part, len(names[part]), table)
    write_held_out_figures(args.metrics, "reconstruct_vecset", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
