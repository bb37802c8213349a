"""Stage 0 of the sparse VQ-VAE: train its encoder and decoder as a continuous autoencoder.

    python pretrain_vqvae.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage0

--weights names the model.pt of a coarser resolution to start from.

Writes model.pt, metrics.json, metrics.jsonl, curves.png, checkpoints/ and tensorboard/ to
--out. The same command resumes an interrupted training (exit code 75: stopped on request).
Several GPUs: torchrun --nproc-per-node N pretrain_vqvae.py ...
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli, labels
from cardiform.options.vqvae import VqvaeOptions, VqvaePretrainOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaePretrainOptions)
    group = cli.add_training_arguments(parser)
    group.add_argument("--weights", type=Path, help="model.pt to start from; default: random")
    group.add_argument(
        "--windows", nargs="*", default=[], help="CT windows to train together, name=level/width"
    )
    group.add_argument("--linked", action="store_true", help="each with the others of its scan")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaePretrainOptions)
    if stage.coarser or stage.coarser_steps or stage.coarser_voxels:
        parser.error(
            "--coarser and the like are of the workflow; train each resolution by a call of its "
            "own, with --weights of the one before"
        )

    from cardiform.vqvae.train import Sets, pretrain
    from cardiform.vqvae.trained import check_continuous
    from cardiform.vqvae.windows import WindowSet

    windows = WindowSet.parse(args.windows, args.linked)
    if args.weights:
        check_continuous(args.weights, options, windows)
    table = labels.load_label_table(args.labels)
    sets = Sets.load(
        args.manifest, args.train, args.validation, table, options, stage.seed, windows
    )
    pretrain(options, stage, sets, args.out, args.weights)


if __name__ == "__main__":
    cli.run(main)
