"""Train the diffusion of a VecSet's latents.

    python train_set_diffusion.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/set_diffusion/latents/manifest.tsv \\
        --slots results/acme/set_diffusion/latents/slots.npz \\
        --vecset results/acme/vecset/model.pt \\
        --grid results/acme/set_diffusion/voxels/grid.json \\
        --out results/acme/set_diffusion/model

Writes model.pt (with the VecSet, the slots and the statistics: nothing else is needed to sample),
metrics.json, metrics.jsonl, curves.png, checkpoints/ and tensorboard/ to --out.
The same command resumes an interrupted training; exit code 75: it was stopped on request.
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli
from cardiform.options.set_diffusion import SetDiffusionOptions


def main() -> None:
    parser = cli.build_parser(__doc__, SetDiffusionOptions)
    group = cli.add_training_arguments(parser, manifest="1", labels=False)
    group.add_argument("--slots", required=True, type=Path, help="of encode_set_latents")
    group.add_argument("--vecset", required=True, type=Path, help="model.pt of it")
    group.add_argument("--grid", required=True, type=Path, help="grid.json of the voxels")
    options, args = cli.parse(parser, SetDiffusionOptions)

    from cardiform.set_diffusion.train import set_diffusion_job, strength_chooser
    from cardiform.training import job

    made = set_diffusion_job(
        options,
        args.manifest,
        args.train,
        args.validation,
        args.slots,
        args.vecset,
        args.grid,
    )
    job.run(made, args.out, chosen=strength_chooser(made))


if __name__ == "__main__":
    cli.run(main)
