"""Train the VecSet autoencoder: labelled surface points to signed distances of all classes.

    python train_vecset.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv --out results/acme/vecset --steps 100000

Writes model.pt, metrics.json, metrics.jsonl, curves.png, checkpoints/, shared/ and tensorboard/ to
--out. The same command resumes an interrupted training; exit code 75 says that it was stopped
on request. Several GPUs: torchrun --nproc-per-node N train_vecset.py ...
"""

from __future__ import annotations

from cardiform import cli, labels
from cardiform.options.vecset import VecsetOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VecsetOptions)
    cli.add_training_arguments(parser, manifest="")
    options, args = cli.parse(parser, VecsetOptions)

    from cardiform.training import job
    from cardiform.training.shared import FOLDER
    from cardiform.vecset.train import level_chooser, vecset_job

    table = labels.load_label_table(args.labels)
    made = vecset_job(options, table, args.train, args.validation, args.out / FOLDER)
    job.run(made, args.out, chosen=level_chooser(made, options))


if __name__ == "__main__":
    cli.run(main)
