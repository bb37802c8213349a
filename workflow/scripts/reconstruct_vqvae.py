"""Reconstruct the validation and test cases with a trained sparse VQ-VAE, and measure how well.

    python reconstruct_vqvae.py --model results/acme/vqvae/stage2/model.pt \\
        --stage1 results/acme/vqvae/stage1/model.pt \\
        --continuous results/acme/vqvae/stage0/model.pt \\
        --validation results/acme/split/val.csv --test results/acme/split/test.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --cases results/acme/cases.tsv \\
        --meshes results/acme/meshes --out results/acme/vqvae/reconstructions

Every structure is encoded to codes and decoded from them alone: the decoder finds its voxels
itself. Per case: labels.nii.gz, a mesh per class, codes.npz, compare.png and figures.json, and
metrics.json over all. Without --cases and --meshes the given voxels are the truth. Cases that
are finished already are skipped.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case, splits
from cardiform.cohort.table import Case, read_checked_cases
from cardiform.errors import InputError, together
from cardiform.options.vqvae import VqvaeReconstructOptions

log = logging.getLogger("reconstruct_vqvae")


def parse() -> tuple:
    """Options and files of the command line."""
    parser = cli.build_parser(__doc__, VqvaeReconstructOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of stage 2")
    group.add_argument("--stage1", required=True, type=Path, help="model.pt of stage 1")
    group.add_argument("--continuous", required=True, type=Path, help="model.pt of stage 0")
    cli.add_split_arguments(group, "validation", "test")
    group.add_argument("--manifest", required=True, nargs="+", help="manifests of the samples")
    group.add_argument("--cases", type=Path, help="cases.tsv of check_cohort")
    group.add_argument("--meshes", type=Path, help="output of extract_meshes")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, VqvaeReconstructOptions)
    if (args.cases is None) != (args.meshes is None):
        parser.error("--cases and --meshes go together")
    return options, args


def main() -> None:
    options, args = parse()

    from cardiform import held_out
    from cardiform.geometry.meshed import mesh_files
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.training.distributed import choose_device
    from cardiform.vqvae.data import find_instances, foreign_to
    from cardiform.vqvae.reconstruct import METHODS, BandNetwork, reconstruct_case
    from cardiform.vqvae.trained import load_network

    device = choose_device(options.device)
    weights = {"model": args.model, "stage1": args.stage1, "continuous": args.continuous}
    table = labels.load_label_table(args.labels)
    loaded = together(
        *(
            functools.partial(load_network, path, method != "continuous", table)
            for method, path in weights.items()
        )
    )
    networks = {method: BandNetwork(n.to(device), device) for method, n in zip(weights, loaded)}
    rows = splits.read_splits({part: getattr(args, part) for part in ("validation", "test")})
    instances: dict[str, list] = {}
    for instance in find_instances(args.manifest, [c for p in rows.values() for c, _ in p]):
        instances.setdefault(instance.case_id, []).append(instance)
    every = [instance for found in instances.values() for instance in found]
    if foreign := [line for n in loaded for line in foreign_to(n.windows, every)]:
        raise InputError(dict.fromkeys(foreign))
    names = {part: [c for c, _ in found if c in instances] for part, found in rows.items()}
    held = [row for found in rows.values() for row in found if row[0] in instances]
    if args.cases is None:
        cases = [Case(case_id=c, patient_id=c, labels="") for c, _ in held]
    else:
        known = {case.case_id: case for case in read_checked_cases(args.cases)}
        cases = [case for case, _ in held_out.checked_cases(held, known, args.cases)]
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.out / "manifest.tsv"),
        functools.partial(
            reconstruct_case,
            instances=instances,
            networks=networks,
            table=table,
            meshes=args.meshes,
            out=args.out,
        ),
        inputs=lambda case: [
            *weights.values(),
            *(i.path for i in instances[case.case_id]),
            *([case.labels, *mesh_files(case, args.meshes)] if args.meshes else []),
        ],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
        made={args.meshes: "extract_meshes"} if args.meshes else None,
    )
    figures = held_out.summarise(names, args.out, METHODS)
    for part, found in figures.items():
        if names[part]:
            lines = held_out.table_of_figures(found, list(found["model"]["mean"]), "continuous")
            log.info("%s, %d cases\n%s", part, len(names[part]), lines)
    write_held_out_figures(args.out / "metrics.json", "reconstruct_vqvae", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
