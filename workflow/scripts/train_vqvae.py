"""Stage 2 of the sparse VQ-VAE: train encoder, decoder and codebook together.

    python train_vqvae.py --weights results/acme/vqvae/stage1/model.pt \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage2

Writes model.pt, metrics.json, metrics.jsonl, curves.png, usage.png, checkpoints/ and
tensorboard/ to --out. The same command resumes an interrupted training (exit code 75: stopped
on request). Several GPUs: torchrun --nproc-per-node N train_vqvae.py ...
"""

from __future__ import annotations

import logging

from cardiform import cli
from cardiform.options.vqvae import VqvaeJointOptions, VqvaeOptions

log = logging.getLogger("train_vqvae")


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaeJointOptions)
    cli.add_training_arguments(parser, weights="model.pt of stage 1")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaeJointOptions)

    from cardiform.training.distributed import choose_device, is_main
    from cardiform.vqvae.task import VqvaeTask
    from cardiform.vqvae.train import (
        Sets,
        cached_latents,
        load_quantized,
        run_stage,
        training_usage,
        write_model,
    )

    sets = Sets.load(args, options, stage.seed)
    model, codebook = load_quantized(args.weights, options)
    task = VqvaeTask.joint(model, options, stage, codebook)
    outcome, figures = run_stage(task, sets, stage, args.out, args.weights)
    if not is_main():
        return
    model.load_state_dict(outcome.weights)
    device = choose_device(stage.device)
    latents = cached_latents(model, sets.train, stage, device)
    figures["train"] = training_usage(model, latents, outcome.out)
    if figures["train"]["usage"] < codebook.min_usage:
        line = "the training latents use %.1f %% of the codes: the codebook has collapsed"
        log.warning(line, 100 * figures["train"]["usage"])
    write_model(outcome.out, outcome.weights, options, codebook, sets, figures)


if __name__ == "__main__":
    cli.run(main)
