"""The two trainings of latent diffusion from files to model.pt."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from ..cohort import splits
from ..errors import InputError, problem
from ..files import read_json, sha256_file, sha256_json, write_json
from ..options.ldm import AutoencoderOptions, DiffusionOptions
from ..pictures.curves import plot_curves
from ..training.checkpoint import save_model
from ..training.distributed import is_main
from ..training.engine import Outcome, train
from .autoencoder_task import AutoencoderTask
from .coder import ShapeCoder
from .data import LatentDataset, ShapeDataset, ShapeFile, find_files
from .diffusion_model import LatentStatistics
from .diffusion_task import DiffusionTask
from .hearts_on_grid import Grid, load_grid
from .option_checks import check_autoencoder, check_diffusion, check_sizes

log = logging.getLogger(__name__)


def train_autoencoder(options: AutoencoderOptions, args) -> None:
    """Train on the voxels of ``args.manifest`` and write model.pt to ``args.out``."""
    check_autoencoder(options)
    grid = load_grid(args.grid)
    check_sizes(grid.size, len(options.channels), 1)
    parts = {p: _files(args, p, ".nii.gz") for p in ("train", "validation")}
    torch.manual_seed(options.seed)
    task = AutoencoderTask(options, grid, len(parts["train"]))
    outcome = train(
        task,
        ShapeDataset(
            parts["train"], grid, ranges=options, cache_rate=options.cache_rate, seed=options.seed
        ),
        ShapeDataset(parts["validation"], grid, ranges=None, cache_rate=options.cache_rate),
        options=options,
        out=args.out,
        identity={"grid": sha256_json(grid.as_dict()), "data": _identity(parts)},
    )
    if is_main():
        weights = {
            name.removeprefix("model."): value
            for name, value in outcome.weights.items()
            if name.startswith("model.")
        }
        stored = {"autoencoder": vars(options), "grid": grid.as_dict()}
        _write(outcome, weights, stored, grid, parts, sum(v.numel() for v in weights.values()))


def train_diffusion(options: DiffusionOptions, args) -> None:
    """Train on the latents of ``args.manifest`` and write model.pt to ``args.out``."""
    check_diffusion(options)
    statistics = LatentStatistics.from_dict(read_json(args.statistics))
    coder = ShapeCoder.load(args.autoencoder)
    if sha256_file(args.autoencoder) != statistics.autoencoder_sha256:
        fact = "is of another autoencoder than --autoencoder"
        raise InputError(problem(args.statistics, fact, "run encode_latents again"))
    grid = coder.grid
    check_sizes(grid.size, len(coder.options.channels), len(options.channels))
    parts = {p: _files(args, p, ".npz") for p in ("train", "validation")}
    if options.complete_cases and grid.has_classes:
        parts["train"] = _complete(parts["train"], statistics)
    torch.manual_seed(options.seed)
    task = DiffusionTask(options, statistics, grid, coder)
    common = {"cache_rate": options.cache_rate, "seed": options.seed}
    outcome = train(
        task,
        LatentDataset(parts["train"], varied=True, **common),
        LatentDataset(parts["validation"], varied=False, **common),
        options=options,
        out=args.out,
        identity={"latents": sha256_json(statistics.as_dict()), "data": _identity(parts)},
    )
    if is_main():
        stored = {
            "diffusion": vars(options),
            "statistics": statistics.as_dict(),
            "grid": grid.as_dict(),
            "autoencoder": vars(coder.options),
            "autoencoder_weights": "autoencoder.",
        }
        weights = outcome.weights | {
            f"autoencoder.{name}": value for name, value in coder.model.state_dict().items()
        }
        _write(outcome, weights, stored, grid, parts, task.parameter_count())


def _files(args, part: str, ending: str) -> list[ShapeFile]:
    path = getattr(args, part)
    found = find_files(args.manifest, [name for name, _ in splits.read_split(path)], ending)
    if part == "train" and not found:
        raise InputError(problem(path, f"has no case in {args.manifest}", "run its stage again"))
    return found


def _complete(files, statistics: LatentStatistics) -> list[ShapeFile]:
    """The cases that have every class; those that lack one teach that hearts lack it."""
    left = [f for f in files if f.case_id not in statistics.incomplete]
    if not left:
        log.warning("every training case lacks a class: drop classes that are often missing")
        return files
    if len(left) < len(files):
        log.info("%d of %d cases lack a class and are left out", len(files) - len(left), len(files))
    return left


def _identity(parts: Mapping[str, list[ShapeFile]]) -> str:
    return sha256_json({part: [(f.case_id, f.sha256) for f in fs] for part, fs in parts.items()})


def _write(outcome: Outcome, weights, stored: Mapping, grid: Grid, parts, parameters: int) -> None:
    """model.pt, metrics.json and curves.png."""
    out = outcome.out
    figures = {
        "validation": outcome.best or outcome.last,
        "untrained": outcome.baseline,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "parameters": parameters,
        "cases": {part: len(files) for part, files in parts.items()},
        "source_sha256": outcome.source,
    }
    plot_curves(out / "metrics.jsonl", out / "curves.png")
    save_model(
        out / "model.pt", weights, options=stored, labels=grid.table.as_dicts(), figures=figures
    )
    write_json(out / "metrics.json", figures)
    log.info("model.pt and metrics.json are in %s", out)
