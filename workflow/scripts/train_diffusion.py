"""Train the diffusion of cached latents.

    python train_diffusion.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/ldm/labels/latents/manifest.tsv \\
        --statistics results/acme/ldm/labels/latents/statistics.json \\
        --autoencoder results/acme/ldm/labels/autoencoder/model.pt \\
        --out results/acme/ldm/labels/diffusion

Writes model.pt (with the autoencoder and the statistics: nothing else is needed to sample),
metrics.json, metrics.jsonl, curves.png, previews/ (samples), checkpoints/, tensorboard/ to --out.
The same command resumes an interrupted training.
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli
from cardiform.options.ldm import DiffusionOptions


def main() -> None:
    parser = cli.build_parser(__doc__, DiffusionOptions)
    group = cli.add_training_arguments(parser, manifest="1", labels=False)
    group.add_argument("--statistics", required=True, type=Path, help="of encode_latents")
    group.add_argument("--autoencoder", required=True, type=Path, help="model.pt of it")
    options, args = cli.parse(parser, DiffusionOptions)

    from cardiform.ldm.train import diffusion_job, volume_chooser
    from cardiform.training import job
    from cardiform.training.shared import FOLDER

    made = diffusion_job(
        options,
        args.manifest,
        args.train,
        args.validation,
        args.statistics,
        args.autoencoder,
        args.out / FOLDER,
    )
    job.run(made, args.out, chosen=volume_chooser(made))


if __name__ == "__main__":
    cli.run(main)
