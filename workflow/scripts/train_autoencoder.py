"""Train the autoencoder of latent diffusion on hearts in voxels.

    python train_autoencoder.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/ldm/labels/voxels/manifest.tsv \\
        --grid results/acme/ldm/labels/voxels/grid.json --out results/acme/ldm/labels/autoencoder

Writes model.pt, metrics.json, metrics.jsonl, curves.png, previews/, checkpoints/, tensorboard/ to
--out. The same command resumes an interrupted training; exit code 75 says that it was stopped on
request. Several GPUs: torchrun --nproc-per-node N train_autoencoder.py ...
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli
from cardiform.options.ldm import AutoencoderOptions


def main() -> None:
    parser = cli.build_parser(__doc__, AutoencoderOptions)
    group = cli.add_training_arguments(parser, manifest="1", labels=False)
    group.add_argument("--grid", required=True, type=Path, help="grid.json beside the voxels")
    options, args = cli.parse(parser, AutoencoderOptions)

    from cardiform.ldm.train import autoencoder_job
    from cardiform.training import job
    from cardiform.training.shared import FOLDER

    places = args.manifest, args.train, args.validation, args.grid
    made = autoencoder_job(options, *places, args.out / FOLDER)
    job.run(made, args.out)


if __name__ == "__main__":
    cli.run(main)
