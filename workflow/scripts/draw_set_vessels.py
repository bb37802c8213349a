"""Vessel trees of the hearts of a set-latent diffusion, and label maps with all classes.

    python draw_set_vessels.py --model results/acme/set_diffusion/model/model.pt \\
        --samples results/acme/set_diffusion/samples/metrics.json \\
        --latents results/acme/set_diffusion/latents/manifest.tsv \\
        --train results/acme/split/train.csv --test results/acme/split/test.csv \\
        --trees results/acme/set_diffusion/vessels/trees/manifest.tsv \\
        --out results/acme/set_diffusion/vessels/hearts \\
        --manifest results/acme/set_diffusion/vessels/hearts/manifest.tsv

--samples are generated hearts, --latents with --test real ones: name either, or both. Writes
nifti/<heart>.nii.gz, trees/<heart>/tree.swc, tree.vtp and branches.csv (named, RAS mm), tree.npz
and tree.png, and figures/<heart>.json; all about the middle of the cube. The field of a heart says
where its vessels run; they are joined along the cheapest ways from the aorta, and what lies too far
away is left out and counted. How wide they are is learned from the --trees of the --train cases.
votes/ and walls/ hold what the network says: where a heart is drawn otherwise it is not asked
again. Finished hearts are skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.table import Case
from cardiform.errors import InputError, again, problem
from cardiform.options.sections import memory_advice
from cardiform.options.set_diffusion import SetVesselOptions

log = logging.getLogger("draw_set_vessels")


def main() -> None:
    parser = cli.build_parser(__doc__, SetVesselOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of train_set_diffusion")
    group.add_argument("--samples", type=Path, help="metrics.json of sample_set_diffusion")
    group.add_argument(
        "--latents", type=Path, help="manifest of encode_set_latents, of real hearts"
    )
    cli.add_split_arguments(group, "train")
    cli.add_split_arguments(group, "test", required=False)
    group.add_argument("--trees", required=True, type=Path, help="manifest of encode_vessels")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="hearts drawn at a time")
    options, args = cli.parse(parser, SetVesselOptions)
    if not (args.samples or args.latents) or bool(args.latents) != bool(args.test):
        raise InputError("name --samples, or --latents with --test, or all of them: see --help")

    from cardiform.ldm.vessels.draw_case import remove_others
    from cardiform.ldm.vessels.hearts import generated, real, trees_of
    from cardiform.set_diffusion.generator import SetGenerator
    from cardiform.set_diffusion.vessels import Asked, check_samples_of
    from cardiform.training.distributed import choose_device

    trees, structure = trees_of(args.trees, args.train)
    device = choose_device(options.device)
    generator = SetGenerator.load(args.model, device, options.query_batch)
    generator.table.channel(structure)  # an error before anything is computed
    cases = []
    if args.samples:
        check_samples_of(args.samples, args.model)
        cases = generated(args.samples, "latents/{}.npz", again("sample_set_diffusion"))
    samples = frozenset(case.case_id for case in cases)
    known = real(args.latents, args.test, ".npz") if args.latents else []
    if twice := sorted(samples & {case.case_id for case in known}):
        fact = f"has cases called like samples: {', '.join(twice)}"
        raise InputError(problem(args.test, fact, "draw them in two calls, to two folders"))
    asked = Asked(generator, structure, samples, options)
    walls = ask(asked, [*cases, *known], options, args)
    draw(asked, walls, trees, options, args)
    remove_others(args.out, [case.case_id for case in walls])


def ask(asked, cases: list[Case], options: SetVesselOptions, args) -> list[Case]:
    """The same hearts; their label maps are what the network says of the classes."""
    per_case.run_cases(
        per_case.CaseRun(cases, args.out / "walls", args.out / "walls" / "manifest.tsv"),
        functools.partial(asked.case, out=args.out),
        inputs=lambda case: [case.labels, args.model],
        parameters={
            "structure": asked.structure,
            "spacing_mm": options.spacing_mm,
            "speck_share": options.speck_share,
        },
        memory=memory_advice(SetVesselOptions),
    )
    folder = args.out / "walls"
    paths = {case.case_id: str(folder / f"{case.case_id}.nii.gz") for case in cases}
    return [Case(case_id=name, patient_id=name, labels=path) for name, path in paths.items()]


def draw(asked, cases: list[Case], trees: list, options: SetVesselOptions, args) -> None:
    """Trees and label maps from what the network said."""
    from cardiform.coronary.trace_case import write_trees
    from cardiform.ldm.vessels.calibre import Calibre
    from cardiform.ldm.vessels.draw_case import DRAWN, draw_case
    from cardiform.ldm.vessels.growth import Limits
    from cardiform.set_diffusion.vessels import SPACING_MM, walls_of, without

    table = asked.generator.table
    label = table[table.channel(asked.structure)]
    limits = Limits(options.gap_mm, options.branch_mm, options.smooth_mm)
    calibre = Calibre.fitted(trees)
    votes = {case.case_id: args.out / "votes" / f"{case.case_id}.npz" for case in cases}
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest, args.processes),
        functools.partial(
            draw_case,
            votes=votes,
            canvas=functools.partial(walls_of, table=without(table, label.name)),
            spacing=SPACING_MM,
            label=label,
            limits=limits,
            write_trees=functools.partial(
                write_trees, structure=label.name, names=label.name == "coronary"
            ),
            out=args.out,
            calibre=calibre,
        ),
        inputs=lambda case: [case.labels, votes[case.case_id]],
        parameters={
            "limits": dataclasses.asdict(limits),
            "labels": table.as_dicts(),
            "calibre": [round(float(v), 6) for v in (*calibre.weights, calibre.low, calibre.high)],
            "format": DRAWN.version,
        },
        memory=memory_advice(SetVesselOptions),
    )


if __name__ == "__main__":
    cli.run(main)
