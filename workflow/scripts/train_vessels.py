"""Train the diffusion of vessel trees, given the heart.

    python train_vessels.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/ldm/labels/vessels/trees/manifest.tsv \\
        --voxels results/acme/ldm/labels/voxels/manifest.tsv \\
        --grid results/acme/ldm/labels/voxels/grid.json \\
        --latents results/acme/ldm/labels/latents/manifest.tsv \\
        --out results/acme/ldm/labels/vessels/model

Writes model.pt, metrics.json, metrics.jsonl, curves.png, checkpoints/ and tensorboard/ to --out.
--latents may be missing: then the network sees real hearts alone, not those of the autoencoder.
The same command resumes an interrupted training.
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli
from cardiform.options.vessels import VesselOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VesselOptions)
    group = cli.add_training_arguments(parser, manifest="1", labels=False)
    group.add_argument("--voxels", required=True, type=Path, help="manifest of resample_labels")
    group.add_argument("--grid", required=True, type=Path, help="grid.json beside the voxels")
    group.add_argument("--latents", type=Path, help="manifest of encode_latents")
    options, args = cli.parse(parser, VesselOptions)

    from cardiform.ldm.vessels.train import vessel_job
    from cardiform.training import job

    made = vessel_job(
        options,
        Path(args.manifest),
        args.voxels,
        args.grid,
        args.train,
        args.validation,
        args.latents,
    )
    job.run(made, args.out)


if __name__ == "__main__":
    cli.run(main)
