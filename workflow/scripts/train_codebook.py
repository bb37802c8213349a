"""Stage 1 of the sparse VQ-VAE: the codebook alone; encoder and decoder stay as they are.

    python train_codebook.py --weights results/acme/vqvae/stage0/model.pt \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage1

Writes model.pt, metrics.json and usage.png to --out. Fails where less than half of the codes
is used.
"""

from __future__ import annotations

from cardiform import cli, labels
from cardiform.options.vqvae import VqvaeCodebookOptions, VqvaeOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaeCodebookOptions)
    group = cli.add_training_arguments(parser, weights="model.pt of stage 0")
    group.add_argument(
        "--windows", nargs="*", default=[], help="CT windows to train together, name=level/width"
    )
    group.add_argument("--linked", action="store_true", help="each with the others of its scan")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaeCodebookOptions)

    from cardiform.vqvae.train import Sets, train_codebook
    from cardiform.vqvae.trained import check_start
    from cardiform.vqvae.windows import WindowSet

    windows = WindowSet.parse(args.windows, args.linked)
    check_start(args.weights, options, windows, stage)
    table = labels.load_label_table(args.labels)
    sets = Sets.load(
        args.manifest, args.train, args.validation, table, options, stage.seed, windows
    )
    train_codebook(options, stage, sets, args.weights, args.out)


if __name__ == "__main__":
    cli.run(main)
