"""Memory of training steps of latent diffusion, per sample, at 64^3 and 128^3.

    python benchmarks/ldm_memory.py

Each setting runs one step in fp32 in a process of its own, at batch 1 and 2: the difference of the
two peaks is what a sample costs, the rest is weights, optimiser and libraries.
"""

from __future__ import annotations

import argparse
import json

import measuring
import torch

SETTINGS = {
    "autoencoder 64": ("autoencoder", 64, (32, 64, 64), False),
    "autoencoder 64, checkpointing": ("autoencoder", 64, (32, 64, 64), True),
    "autoencoder 128": ("autoencoder", 128, (32, 64, 128), False),
    "autoencoder 128, checkpointing": ("autoencoder", 128, (32, 64, 128), True),
    "diffusion 64": ("diffusion", 64, (64, 128, 256), False),
    "diffusion 128": ("diffusion", 128, (64, 128, 256), False),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--child", nargs=2, metavar=("SETTING", "BATCH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], int(args.child[1]))))
        return
    print("| training | parameters | a sample, GiB | beside it, GiB |\n|---|---:|---:|---:|")
    for name in args.settings:
        one, two = (measuring.run_child(__file__, name, batch) for batch in (1, 2))
        sample = two["peak"] - one["peak"]
        print(
            f"| {name} | {one['parameters'] / 1e6:.1f} M | {sample / 1024:.2f} | "
            f"{(one['peak'] - sample) / 1024:.2f} |",
            flush=True,
        )


def child(name: str, batch: int) -> dict:
    """Peak MiB of a process that takes one step."""
    from cardiform.labels import LabelTable
    from cardiform.ldm.autoencoder_task import AutoencoderTask
    from cardiform.ldm.diffusion_model import LatentStatistics
    from cardiform.ldm.diffusion_task import DiffusionTask
    from cardiform.ldm.hearts_on_grid import LABELS, Grid
    from cardiform.options.ldm import AutoencoderOptions, DiffusionOptions

    kind, size, channels, checkpointing = SETTINGS[name]
    table = LabelTable()
    grid = Grid(LABELS, size, 200.0, table)
    target = torch.randint(0, len(table) + 1, (batch, size, size, size), dtype=torch.uint8)
    if kind == "autoencoder":
        options = AutoencoderOptions(channels=channels, checkpointing=checkpointing)
        task, sample = AutoencoderTask(options, grid, batch), {"target": target}
    else:
        shape = (4, size // 4, size // 4, size // 4)
        statistics = LatentStatistics(
            shape, (0.0,) * 4, (1.0,) * 4, (1.0,) * 10, (1.0,) * 10, {}, (), ""
        )
        task = DiffusionTask(DiffusionOptions(channels=channels), statistics, grid, None)
        latents = torch.randn(batch, *shape)
        volumes = torch.ones(batch, len(table))
        sample = {"mu": latents, "sigma": latents.abs(), "target": target, "volumes": volumes}
    update = task.updates[0]
    optimiser = torch.optim.AdamW(task.parameters(update), 1e-4)
    task.loss(sample, update, 0)[0].backward()
    optimiser.step()
    parameters = sum(p.numel() for p in task.parameters(update))
    return {"peak": measuring.peak_mib(), "parameters": parameters}


if __name__ == "__main__":
    main()
