"""Stage 2 of the sparse VQ-VAE: train encoder, decoder and codebook together.

    python train_vqvae.py --weights results/acme/vqvae/stage1/model.pt \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage2

Writes model.pt, metrics.json, metrics.jsonl, curves.png, usage.png, checkpoints/ and
tensorboard/ to --out. The same command resumes an interrupted training (exit code 75: stopped
on request). Several GPUs: torchrun --nproc-per-node N train_vqvae.py ...
"""

from __future__ import annotations

from cardiform import cli, labels
from cardiform.errors import InputError
from cardiform.options.checks import unfreezing_faults
from cardiform.options.vqvae import VqvaeJointOptions, VqvaeOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaeJointOptions)
    group = cli.add_training_arguments(parser, weights="model.pt of stage 1")
    group.add_argument(
        "--windows", nargs="*", default=[], help="CT windows to train together, name=level/width"
    )
    group.add_argument("--linked", action="store_true", help="each with the others of its scan")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaeJointOptions)
    if faults := list(unfreezing_faults(stage)):
        raise InputError(faults)

    from cardiform.vqvae.train import Sets, train_jointly
    from cardiform.vqvae.trained import check_start
    from cardiform.vqvae.windows import WindowSet

    windows = WindowSet.parse(args.windows, args.linked)
    check_start(args.weights, options, windows)
    table = labels.load_label_table(args.labels)
    sets = Sets.load(
        args.manifest, args.train, args.validation, table, options, stage.seed, windows
    )
    train_jointly(options, stage, sets, args.weights, args.out)


if __name__ == "__main__":
    cli.run(main)
