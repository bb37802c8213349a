"""Stage 1 of the sparse VQ-VAE: the codebook alone; encoder and decoder stay as they are.

    python train_codebook.py --weights results/acme/vqvae/stage0/model.pt \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --manifest results/acme/sparse/512/manifest/*.tsv --out results/acme/vqvae/stage1

Writes model.pt, metrics.json and usage.png to --out. Fails where less than half of the codes
is used.
"""

from __future__ import annotations

from cardiform import cli
from cardiform.options.vqvae import VqvaeCodebookOptions, VqvaeOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VqvaeOptions, VqvaeCodebookOptions)
    cli.add_training_arguments(parser, weights="model.pt of stage 0")
    options, stage, args = cli.parse(parser, VqvaeOptions, VqvaeCodebookOptions)

    import torch

    from cardiform.training.distributed import choose_device, is_main
    from cardiform.vqvae.model import SparseVQVAE
    from cardiform.vqvae.task import VqvaeTask
    from cardiform.vqvae.train import (
        Sets,
        cached_latents,
        check_usage,
        fit_codebook,
        load_weights,
        run_stage,
        training_usage,
        write_model,
    )

    sets = Sets.load(args, options, stage.seed)
    torch.manual_seed(stage.seed)
    model = SparseVQVAE.from_options(options, stage)
    load_weights(model, args.weights)
    task = VqvaeTask(model, options, stage, stage, trained="quantizer")
    device, out = choose_device(stage.device), args.out
    by_gradient = stage.quantizer == "fsq" or stage.method == "gradient"
    if by_gradient:
        outcome, figures = run_stage(task, sets, stage, out, args.weights)
        out = outcome.out
        model.load_state_dict(outcome.weights)
    elif stage.fast_dev_run:
        out = out / "fast_dev_run"  # a rehearsal leaves the real training's files alone
    if not is_main():
        return
    latents = cached_latents(model, sets.train, stage, device)
    if not by_gradient:
        figures = fit_codebook(task, latents, sets, stage, device)
    out.mkdir(parents=True, exist_ok=True)
    figures["train"] = training_usage(model, latents, out)
    check_usage(figures["train"]["usage"], stage.min_usage, out)
    write_model(out, model.state_dict(), options, stage, sets, figures)


if __name__ == "__main__":
    cli.run(main)
