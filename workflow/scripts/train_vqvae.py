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

from cardiform import case_runs, cli
from cardiform.options import VqvaeJointOptions, VqvaeOptions

log = logging.getLogger("train_vqvae")


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaeJointOptions)
    case_runs.add_training_arguments(parser, weights="model.pt of stage 1")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaeJointOptions)

    from cardiform import vqvae_stages
    from cardiform.tasks.vqvae import VqvaeTask
    from cardiform.training.distributed import choose_device, is_main

    sets = vqvae_stages.Sets.load(args, options, stage.seed)
    model, codebook = vqvae_stages.load_quantized(args.weights, options)
    task = VqvaeTask(model, options, stage, codebook)
    outcome, figures = vqvae_stages.run_stage(task, sets, stage, args.out, args.weights)
    if not is_main():
        return
    model.load_state_dict(outcome.weights)
    device = choose_device(stage.device)
    latents = vqvae_stages.cached_latents(model, sets.train, stage, device)
    figures["train"] = vqvae_stages.training_usage(model, latents, outcome.out)
    if figures["train"]["usage"] < codebook.min_usage:
        line = "the training latents use %.1f %% of the codes: the codebook has collapsed"
        log.warning(line, 100 * figures["train"]["usage"])
    vqvae_stages.write_model(outcome.out, outcome.weights, options, codebook, sets, figures)


if __name__ == "__main__":
    cli.run(main)
