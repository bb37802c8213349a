"""Vessels in generated hearts: label maps with all classes on a fine grid, and centrelines.

    python draw_vessels.py --model results/acme/ldm/labels/vessels/model/model.pt \\
        --samples results/acme/ldm/labels/samples/metrics.json \\
        --voxels results/acme/ldm/labels/voxels/manifest.tsv --test results/acme/split/test.csv \\
        --trees results/acme/ldm/labels/vessels/trees/manifest.tsv \\
        --out results/acme/ldm/labels/vessels/hearts \\
        --manifest results/acme/ldm/labels/vessels/hearts/manifest.tsv

--samples are generated hearts, --voxels with --test real ones: name either, or both.
Writes nifti/<heart>.nii.gz, trees/<heart>/tree.swc, tree.vtp and branches.csv (named, RAS mm),
tree.npz and tree.png, and figures/<heart>.json. Every vessel is connected to the aorta: places that
the network finds are joined along the cheapest ways from there, and what lies too far away is left
out and counted. A seed and a heart give the same vessels. votes/ holds what the network says of
each heart: where a heart is drawn otherwise it is not asked again. Finished hearts are skipped.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import Case
from cardiform.errors import InputError, problem
from cardiform.options.sections import memory_advice
from cardiform.options.vessels import VesselDrawingOptions

log = logging.getLogger("draw_vessels")


def main() -> None:
    parser = cli.build_parser(__doc__, VesselDrawingOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of train_vessels")
    group.add_argument("--samples", type=Path, help="metrics.json of sample_diffusion")
    group.add_argument("--voxels", type=Path, help="manifest of resample_labels, of real hearts")
    cli.add_split_arguments(group, "test", required=False)
    group.add_argument("--trees", type=Path, help="manifest of encode_vessels, of real hearts")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="hearts at a time (default: 1)")
    options, args = cli.parse(parser, VesselDrawingOptions)
    if not (args.samples or args.voxels) or bool(args.voxels) != bool(args.test):
        raise InputError("name --samples, or --voxels with --test, or all of them: see --help")

    from cardiform.ldm.vessels.draw_case import remove_others
    from cardiform.ldm.vessels.hearts import generated, real
    from cardiform.ldm.vessels.model import VesselGenerator
    from cardiform.training.distributed import choose_device

    table = labels.load_label_table(args.labels)
    generator = VesselGenerator.load(args.model, choose_device(options.device))
    generator.label_in(table, args.labels)  # an error before anything is computed
    cases = generated(args.samples) if args.samples else []
    known = real(args.voxels, args.test) if args.voxels else []
    names = [case.case_id for case in known]
    if twice := sorted({case.case_id for case in cases} & set(names)):
        fact = f"has cases called like samples: {', '.join(twice)}"
        raise InputError(problem(args.test, fact, "draw them in two calls, to two folders"))
    cases += known
    truth = {}
    if args.trees:
        truth = {f.case_id: f.path for f in made_files([args.trees], names, ".npz")}
    votes = ask(generator, cases, options, args)
    draw(generator, cases, votes, truth, table, options, args)
    remove_others(args.out, votes)


def ask(generator, cases: list[Case], options: VesselDrawingOptions, args) -> dict[str, Path]:
    """Case id -> file of what the network says of it."""
    from cardiform.ldm.vessels.model import votes_case

    found = args.out / "votes"
    per_case.run_cases(
        per_case.CaseRun(cases, found, found / "manifest.tsv"),
        functools.partial(
            votes_case,
            generator=generator,
            seed=options.seed,
            steps=options.num_inference_steps,
            out=found,
        ),
        inputs=lambda case: [case.labels, args.model],
        parameters={"seed": options.seed, "steps": options.num_inference_steps},
        memory=memory_advice(VesselDrawingOptions),
    )
    return {case.case_id: found / f"{case.case_id}.npz" for case in cases}


def draw(generator, cases: list[Case], votes, truth, table, options, args) -> None:
    """Trees and label maps from the votes."""
    from cardiform.coronary.trace_case import write_trees
    from cardiform.ldm.vessels.draw_case import DRAWN, coded_on_grid, draw_case, on_grid
    from cardiform.ldm.vessels.growth import Limits

    label, grid = generator.label_in(table, args.labels), generator.grid
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest, args.processes),
        functools.partial(
            draw_case,
            votes=votes,
            canvas=functools.partial(on_grid, grid=grid, label=label, spacing=options.spacing_mm),
            spacing=grid.spacing,
            label=label,
            limits=Limits(options.gap_mm, options.branch_mm, options.smooth_mm),
            write_trees=functools.partial(
                write_trees, structure=label.name, names=label.name == "coronary"
            ),
            out=args.out,
            coded=functools.partial(coded_on_grid, trees=truth, grid=grid),
        ),
        inputs=lambda case: [
            case.labels,
            votes[case.case_id],
            *([truth[case.case_id]] if case.case_id in truth else []),
        ],
        parameters={
            "options": cli.flags(options),
            "labels": table.as_dicts(),
            "format": DRAWN.version,
            "rule": "origins",  # hearts of the version before, of another rule, are drawn again
        },
        memory=memory_advice(VesselDrawingOptions),
    )


if __name__ == "__main__":
    cli.run(main)
