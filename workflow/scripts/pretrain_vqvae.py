"""Stage 0 of the sparse VQ-VAE: train its encoder and decoder as a continuous autoencoder.

    python pretrain_vqvae.py --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage0

Writes model.pt, metrics.json, metrics.jsonl, curves.png, checkpoints/ and tensorboard/ to
--out. The same command resumes an interrupted training (exit code 75: stopped on request).
Several GPUs: torchrun --nproc-per-node N pretrain_vqvae.py ...
"""

from __future__ import annotations

from cardiform import cli
from cardiform.options.vqvae import VqvaeOptions, VqvaePretrainOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaePretrainOptions)
    cli.add_training_arguments(parser)
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaePretrainOptions)

    import torch

    from cardiform.training.distributed import is_main
    from cardiform.vqvae.model import SparseVQVAE
    from cardiform.vqvae.task import VqvaeTask
    from cardiform.vqvae.train import Sets, run_stage, write_model

    sets = Sets.load(args, options, stage.seed)
    torch.manual_seed(stage.seed)
    task = VqvaeTask(SparseVQVAE.from_options(options), options, stage)
    outcome, figures = run_stage(task, sets, stage, args.out, weights=None)
    if is_main():
        write_model(outcome.out, outcome.weights, options, None, sets, figures)


if __name__ == "__main__":
    cli.run(main)
