"""A VecSet's latents of every case, once: set-latent diffusion then trains on these alone.

    python encode_set_latents.py --vecset results/acme/vecset/model.pt \\
        --voxels results/acme/set_diffusion/voxels/manifest.tsv \\
        --grid results/acme/set_diffusion/voxels/grid.json \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --out results/acme/set_diffusion/latents \\
        --manifest results/acme/set_diffusion/latents/manifest.tsv

Writes <out>/slots.npz (the mean heart, whose order all latents have), <out>/<case>.npz (latents,
where the heart lies in its cube, class volumes, columns), and what the VecSet makes of each case,
<out>/reconstructions/<case>.nii.gz. Hearts are encoded as they are. Finished cases are skipped.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case, splits
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import sha256_file
from cardiform.options.sections import memory_advice
from cardiform.options.set_diffusion import SetLatentsOptions
from cardiform.options.vecset import VecsetReconstructOptions

log = logging.getLogger("encode_set_latents")


def main() -> None:
    parser = cli.build_parser(__doc__, SetLatentsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--vecset", required=True, type=Path, help="model.pt of train_vecset")
    group.add_argument("--voxels", required=True, type=Path, help="manifest of the voxels")
    group.add_argument("--grid", required=True, type=Path, help="grid.json beside the voxels")
    cli.add_split_arguments(group, "train", "validation", "test")
    group.add_argument("--table", default="", help="the case table with the columns of --columns")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    options, args = cli.parse(parser, SetLatentsOptions)
    if options.columns and not args.table:
        raise InputError("--columns needs the case table that has these columns; give --table")

    from cardiform.ldm.hearts_on_grid import box_path, cut_classes, load_grid
    from cardiform.set_diffusion import encode
    from cardiform.set_diffusion.decoded import FINE_MM
    from cardiform.set_diffusion.latents import SET_LATENTS
    from cardiform.training.distributed import choose_device
    from cardiform.vecset.reconstruct import Reconstructor

    how = VecsetReconstructOptions(
        input_points=options.input_points, query_batch=options.query_batch, seed=options.seed
    )
    network = Reconstructor.load(args.vecset, how, choose_device(options.device))
    encode.refuse_unplaced(network, args.vecset)
    grid = load_grid(args.grid)
    encode.refuse_other_classes(network.table, args.vecset, grid, args.grid)
    rows = splits.read_splits({p: getattr(args, p) for p in ("train", "validation", "test")})
    points = {name: path for part in rows.values() for name, path in part}
    voxels = {f.case_id: f.path for f in made_files([args.voxels], points, ".nii.gz")}
    training = {name: path for name, path in rows["train"] if name in voxels}
    columns = encode.columns_of(args.table, options.columns, list(voxels))
    slots = encode.slots_of(network, training)
    cut = cut_classes(args.voxels, voxels, grid)
    encoder = encode.Encoder(network, slots, grid)
    per_case.run_cases(
        per_case.CaseRun(
            [Case(case_id=n, patient_id=n, labels=str(path)) for n, path in voxels.items()],
            args.out,
            args.manifest,
        ),
        functools.partial(
            encode.encode_case,
            points=points,
            voxels=voxels,
            columns=columns,
            cut=cut,
            encoder=encoder,
            out=args.out,
        ),
        inputs=lambda case: [
            case.labels,
            points[case.case_id],
            args.vecset,
            *([box_path(args.voxels, case.case_id)] if case.case_id in cut else []),
        ],
        parameters=lambda case: {
            "options": cli.flags(options),  # with the names of the columns
            "slots": slots.digest(),
            "columns": [repr(value) for value in columns[case.case_id].tolist()],
            "format": SET_LATENTS.version,
            "finest_mm": FINE_MM,
        },
        memory=memory_advice(SetLatentsOptions),
    )
    slots.save(args.out / "slots.npz", options.columns, sha256_file(args.vecset))
    log.info("%d slots of a mean heart of %d cases", len(slots.places), len(training))


if __name__ == "__main__":
    cli.run(main)
