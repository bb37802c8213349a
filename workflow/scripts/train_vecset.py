"""Train the VecSet autoencoder: labelled surface points to signed distances of all classes.

    python train_vecset.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv --out results/acme/vecset --steps 100000

Writes model.pt, metrics.json, metrics.jsonl, curves.png, checkpoints/ and tensorboard/ to
--out. The same command resumes an interrupted training; exit code 75 says that it was stopped
on request. Several GPUs: torchrun --nproc-per-node N train_vecset.py ...
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import splits
from cardiform.errors import InputError, problem
from cardiform.files import sha256_json, write_json
from cardiform.options.vecset import VecsetOptions

log = logging.getLogger("train_vecset")


def main() -> None:
    parser = cli.build_parser(__doc__, VecsetOptions)
    group = parser.add_argument_group("files")
    cli.add_split_arguments(group, "train", "validation")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, VecsetOptions)

    import torch

    from cardiform.pictures.curves import plot_curves
    from cardiform.training.checkpoint import save_model
    from cardiform.training.distributed import is_main
    from cardiform.training.engine import train
    from cardiform.vecset.data import Draw, PointDataset, load_cases
    from cardiform.vecset.task import VecsetTask

    table = labels.load_label_table(args.labels)
    train_cases = load_cases(splits.read_split(args.train), table, options.cached_points)
    validation_cases = load_cases(splits.read_split(args.validation), table, options.cached_points)
    if not train_cases:
        raise InputError(problem(args.train, "has no cases", "lower split.validation or .test"))
    torch.manual_seed(options.seed)
    task = VecsetTask(options, table)
    latents = task.model.shape.latents
    outcome = train(
        task,
        PointDataset(train_cases, Draw.from_options(options, latents, augment=True)),
        PointDataset(validation_cases, Draw.from_options(options, latents, augment=False)),
        options=options,
        out=args.out,
        identity={
            "labels": sha256_json(table.as_dicts()),
            "training data": sha256_json([case.digest() for case in train_cases]),
            "validation data": sha256_json([case.digest() for case in validation_cases]),
        },
    )
    if not is_main():
        return
    figures = {
        "validation": outcome.best or outcome.last,
        "untrained": outcome.baseline,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "parameters": sum(p.numel() for p in task.module.parameters()),
        "cases": {"train": len(train_cases), "validation": len(validation_cases)},
        "source_sha256": outcome.source,
    }
    plot_curves(outcome.out / "metrics.jsonl", outcome.out / "curves.png")
    save_model(
        outcome.out / "model.pt",
        outcome.weights,
        options=vars(options),
        labels=table.as_dicts(),
        figures=figures,
    )
    write_json(outcome.out / "metrics.json", figures)
    log.info("model.pt and metrics.json are in %s", outcome.out)


if __name__ == "__main__":
    cli.run(main)
