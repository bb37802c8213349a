"""A codebook for a frozen encoder: k-means on cached latents, moving means, and its use."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, problem
from ..options.vqvae import VqvaeCodebookOptions, VqvaeStageOptions
from ..pictures.curves import plot_usage
from ..training.distributed import World
from ..training.optimisation import parameter_counts
from ..training.sampling import validation_batches
from .data import VoxelDataset, collate
from .model import SparseVQVAE
from .quantizer import CodebookQuantizer, kmeans, statistics, usage_figures
from .task import VqvaeTask, band_of
from .windows import SampleWindows, WindowFigures

log = logging.getLogger(__name__)

EMA_STREAM = 1  # keeps the draws of the moving means apart from those of k-means


@dataclass(frozen=True)
class CachedLatents:
    """The latents of every sample of a split, on the CPU.

    values : (N, D) float32.
    window : (N,) int64 the window of each; None where the network knows of none.
    """

    values: Tensor
    window: Tensor | None = None


@torch.no_grad()
def fit_codebook(
    task: VqvaeTask,
    latents: Tensor,
    validation: VoxelDataset,
    stage: VqvaeCodebookOptions,
    device: torch.device,
) -> tuple[dict[str, float], dict[str, float]]:
    """Stage 1 without gradients: k-means on all training latents, then moving means.

    With the encoder frozen, the mean squared distance between latents and codes is all that
    moves a codebook, and k-means minimises just that; gradient steps from random codes end
    with a few of them in use.

    latents : (N, D) of all training samples, on the CPU (``values`` of :func:`cached_latents`).

    Returns
    -------
    Figures of the validation samples before and after.
    """
    model = task.model.to(device).eval()
    quantizer = model.quantizer
    assert isinstance(quantizer, CodebookQuantizer)
    counts = parameter_counts(model)
    log.info("parameters: %s", ", ".join(f"{n:,} {name}" for name, n in counts.items()))
    world = World(0, 1, device)
    before = task.evaluate(validation_batches(validation, stage, world, collate))
    log.info("%s training latents for %s codes", f"{len(latents):,}", f"{quantizer.size:,}")
    if stage.fast_dev_run:  # the few latents of a rehearsal, as often as there have to be any
        latents = latents.repeat(-(-quantizer.size // len(latents)), 1)
    if len(latents) < quantizer.size:
        fact = f"gives {len(latents):,} latents for {quantizer.size:,} codes"
        remedy = "lower vqvae_codebook.codebook_size to a twentieth of the latents"
        raise InputError(problem("the training split", fact, remedy))
    generator = torch.Generator().manual_seed(stage.seed)
    seen = latents
    if len(latents) > stage.kmeans_latents:
        rows = torch.randperm(len(latents), generator=generator)[: stage.kmeans_latents]
        seen = latents[rows]
    codes, members = kmeans(seen.to(device), quantizer.size, stage.kmeans_iterations, generator)
    quantizer.start(codes, members)
    if stage.method == "kmeans_ema":
        follow_latents(quantizer, latents, stage, device)
    figures = task.evaluate(validation_batches(validation, stage, world, collate))
    return before, figures


@torch.no_grad()
def cached_latents(
    model: SparseVQVAE, dataset: VoxelDataset, stage: VqvaeStageOptions, device: torch.device
) -> CachedLatents:
    """The latents of every sample, without augmentation."""
    model.to(device).eval()
    values, windows = [], []
    for batch in validation_batches(dataset.plain(), stage, World(0, 1, device), collate):
        samples = SampleWindows.of_batch(batch)
        latents = model.encode(band_of(batch), samples)
        values.append(latents.feats.float().cpu())
        if samples is not None:
            windows.append(samples.of_rows(latents.structure.coords).cpu())
    return CachedLatents(torch.cat(values), torch.cat(windows) if windows else None)


@torch.no_grad()
def training_usage(model: SparseVQVAE, latents: CachedLatents, out: Path) -> dict[str, float]:
    """usage and perplexity over all training latents, and of each window; usage.png in ``out``."""
    quantizer = model.quantizer
    assert quantizer is not None
    device = next(model.parameters()).device
    parts = latents.values.split(1 << 18)
    indices = torch.cat([quantizer.encode_indices(rows.to(device)).cpu() for rows in parts])
    counts = torch.bincount(indices, minlength=quantizer.size)
    plot_usage(counts.tolist(), out / "usage.png")
    by_window = WindowFigures(model.windows)
    if latents.window is not None:
        by_window.add_codes(latents.window, indices, quantizer.size)
    return {**usage_figures(counts), "latents": len(indices), **by_window.figures()}


def follow_latents(
    quantizer: CodebookQuantizer, latents: Tensor, stage: VqvaeCodebookOptions, device
) -> None:
    """Moving means over the cached latents in random order; codes that die are revived."""
    torch.manual_seed(stage.seed + EMA_STREAM)
    for epoch in range(stage.ema_epochs):
        revived = 0
        for rows in torch.randperm(len(latents)).split(stage.ema_batch):
            batch = latents[rows].to(device)
            counts, sums = statistics(batch, quantizer.encode_indices(batch), quantizer.size)
            revived += quantizer.follow(counts, sums, batch, stage.revive_below)
        log.info("moving means, pass %d of %d: %d revived", epoch + 1, stage.ema_epochs, revived)


def check_usage(usage: float, least: float, where: str | Path) -> None:
    """InputError where the codebook has collapsed."""
    if usage < least:
        fact = f"the training latents use {usage:.1%} of the codes, less than {least:.0%}"
        remedy = "set vqvae_codebook.method to kmeans_ema, lower its size, or train stage 0 longer"
        raise InputError(problem(where, fact, remedy))
