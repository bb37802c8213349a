"""A diffusion step on cached latents against encoding the hearts in the loop.

    python benchmarks/latent_cache.py --sizes 32 64

The same networks, hearts and losses in one run: latents drawn from the cached mean and deviation,
encoded once in every step (LatentDiffusionInferer's way), and encoded twice (once more for the
shape of the noise, as an earlier code did).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics

import measuring
import numpy as np
import torch

from cardiform.labels import LabelTable
from cardiform.ldm.autoencoder_model import ShapeAutoencoder
from cardiform.ldm.diffusion_model import LatentStatistics
from cardiform.ldm.diffusion_task import DiffusionTask
from cardiform.ldm.hearts_on_grid import LABELS, Grid
from cardiform.options.ldm import AutoencoderOptions, DiffusionOptions

AUTOENCODER = AutoencoderOptions(channels=(32, 64, 64))
DIFFUSION = DiffusionOptions(
    channels=(32, 64, 128), num_res_blocks=1, num_head_channels=64, norm_num_groups=16
)
WAYS = ("cached", "encoded once", "encoded twice")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    ways = " | ".join(f"{way}, CPU s" for way in WAYS)
    print(f"| grid | batch | completion | {ways} | ratios |\n|---|---:|---|---:|---:|---:|---:|")
    for size in args.sizes:
        batch = 4 if size <= 32 else 2
        for known_share in (0.0, 0.5):
            spent = measure(size, batch, known_share, args.repeats)
            cells = " | ".join(f"{spent[way]:.3f}" for way in WAYS)
            ratios = ", ".join(f"{spent[way] / spent['cached']:.1f}x" for way in WAYS[1:])
            trained = "trained too" if known_share else "no"
            print(f"| {size}³ | {batch} | {trained} | {cells} | {ratios} |", flush=True)


def measure(size: int, batch: int, known_share: float, repeats: int) -> dict[str, float]:
    """Median CPU seconds of a step: forward, backward, optimiser; the ways take turns."""
    torch.manual_seed(0)
    table = LabelTable()
    grid = Grid(LABELS, size, 200.0, table)
    encoder = ShapeAutoencoder(AUTOENCODER, len(table)).eval().requires_grad_(False)
    edge = size // encoder.factor
    shape = (AUTOENCODER.latent_channels, edge, edge, edge)
    flat = {"mean": (0.0,) * shape[0], "std": (1.0,) * shape[0]}
    volumes = {"volume_mean": (1.0,) * len(table), "volume_std": (1.0,) * len(table)}
    found = LatentStatistics(
        shape=shape, **flat, **volumes, centroids={}, incomplete=(), autoencoder_sha256=""
    )
    options = dataclasses.replace(DIFFUSION, known_share=known_share)
    task = DiffusionTask(options, found, grid, None)
    optimiser = torch.optim.AdamW(task.parameters("model"), 1e-4)
    labels = np.random.default_rng(0).integers(0, len(table) + 1, (batch, size, size, size))
    target = torch.from_numpy(labels.astype(np.uint8))
    with torch.no_grad():
        mu, sigma = encoder.encode(target)
    stored = {"mu": mu, "sigma": sigma, "volumes": torch.ones(batch, len(table))}

    def step(encodings: int, number: int) -> None:
        torch.manual_seed(number)  # the same conditions for every way
        sample = {**stored, "target": target}
        with torch.no_grad():
            for _ in range(encodings):
                sample["mu"], sample["sigma"] = encoder.encode(target)
        optimiser.zero_grad()
        task.loss(sample, "model", 0)[0].backward()
        optimiser.step()

    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(repeats + 1):
        for encodings, way in enumerate(WAYS):
            spent, _ = measuring.timed(step, encodings, turn)
            if turn:  # the first turn warms up
                times[way].append(spent)
    return {way: statistics.median(seconds) for way, seconds in times.items()}


if __name__ == "__main__":
    main()
