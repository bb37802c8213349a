"""Encode every case once: diffusion then trains on latents alone.

    python encode_latents.py --autoencoder results/acme/ldm/labels/autoencoder/model.pt \\
        --voxels results/acme/ldm/labels/voxels/manifest.tsv \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --out results/acme/ldm/labels/latents \\
        --manifest results/acme/ldm/labels/latents/manifest.tsv

Writes <out>/<case>.npz (mean and deviation of the latents, for training cases of augmented copies
too), <out>/statistics.json (per channel, over the training cases), and what the autoencoder makes
of each case, reconstructions/<case>.nii.gz. Finished cases are skipped.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case, splits
from cardiform.cohort.manifest import made_files
from cardiform.cohort.table import Case
from cardiform.files import read_json, sha256_file, write_json
from cardiform.options.ldm import LatentsOptions
from cardiform.options.sections import memory_advice

log = logging.getLogger("encode_latents")


def main() -> None:
    parser = cli.build_parser(__doc__, LatentsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--autoencoder", required=True, type=Path, help="model.pt of its training")
    group.add_argument("--voxels", required=True, type=Path, help="manifest of the voxels")
    cli.add_split_arguments(group, "train", "validation", "test")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    options, args = cli.parse(parser, LatentsOptions)

    from cardiform.ldm.coder import ShapeCoder
    from cardiform.ldm.data import LATENTS
    from cardiform.ldm.encode import encode_case, statistics_of
    from cardiform.ldm.hearts_on_grid import box_path, cut_classes
    from cardiform.training.distributed import choose_device

    coder = ShapeCoder.load(args.autoencoder).to(choose_device(options.device))
    files = {part: getattr(args, part) for part in ("train", "validation", "test")}
    parts = {part: [name for name, _ in rows] for part, rows in splits.read_splits(files).items()}
    names = [name for part in parts.values() for name in part]
    voxels = {f.case_id: f.path for f in made_files([args.voxels], names, ".nii.gz")}
    training = {name for name in parts["train"] if name in voxels}
    cut = cut_classes(args.voxels, voxels, coder.grid)
    for channel, name in enumerate(coder.grid.table.names):
        if number := sum(bool(listed[channel]) for listed in cut.values()):
            log.info("the scan cuts %s in %d cases: no volumes of it count", name, number)
    cases = [Case(case_id=n, patient_id=n, labels=str(path)) for n, path in voxels.items()]
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest),
        functools.partial(
            encode_case,
            voxels=voxels,
            training=training,
            coder=coder,
            options=options,
            out=args.out,
            cut=cut,
        ),
        inputs=lambda case: [
            case.labels,
            args.autoencoder,
            *([box_path(args.voxels, case.case_id)] if case.case_id in cut else []),
        ],
        parameters={
            "options": cli.flags(options),
            "training": sorted(training),
            "format": LATENTS.version,
        },
        memory=memory_advice(LatentsOptions),
    )
    made = {f.case_id: f.path for f in made_files([args.manifest], names, ".npz")}
    found = statistics_of(made, sorted(training), coder, sha256_file(args.autoencoder))
    write_json(args.out / "statistics.json", found.as_dict())
    log.info("latents %s, deviation of the channels %s", found.shape, _text(found.std))
    for part in ("validation", "test"):
        paths = [args.out / "reconstructions" / f"{n}.json" for n in parts[part] if n in voxels]
        dice = [value for path in paths if (value := read_json(path)["dice"]) is not None]
        if dice:
            log.info("%s: mean Dice of the reconstructions %.3f", part, sum(dice) / len(dice))


def _text(values) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    cli.run(main)
