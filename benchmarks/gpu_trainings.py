"""Step time, throughput and peak memory of every training on one CUDA device.

    python benchmarks/gpu_trainings.py --config config/full.yaml --steps 10
    python benchmarks/gpu_trainings.py --tiny

The networks, batches and optimiser steps of a config file on synthetic samples of full size, in
each precision; a training and a precision have a process of their own. Where a step does not fit
the memory it is cut into twice as many micro-batches, until it does. --tiny takes
config/demo.yaml and one step: a check that all of it runs, on the CPU too.

Loading of samples is left out: the processors beside the GPU do it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
import yaml

from cardiform import cli
from cardiform.coronary.data import Cells
from cardiform.coronary.task import DenoiserTask, NearAutoDecoderTask
from cardiform.labels import LabelTable
from cardiform.ldm.autoencoder_task import AutoencoderTask
from cardiform.ldm.diffusion_model import LatentStatistics
from cardiform.ldm.diffusion_task import DiffusionTask
from cardiform.ldm.hearts_on_grid import LABELS, Grid
from cardiform.ldm.vessels.field import CHANNELS
from cardiform.ldm.vessels.task import VesselTask
from cardiform.options.sections import SECTIONS
from cardiform.options.training import TrainingOptions
from cardiform.options.vecset import ANCHORED, LATENTS
from cardiform.set_diffusion.slots import Slots
from cardiform.set_diffusion.statistics import Statistics
from cardiform.set_diffusion.task import SetDiffusionTask
from cardiform.training.distributed import World, choose_device
from cardiform.training.runlog import Window
from cardiform.training.steps import Stepper
from cardiform.training.task import TrainingError
from cardiform.vecset.task import VecsetTask
from cardiform.vqvae.model import SparseVQVAE
from cardiform.vqvae.task import VqvaeTask

ROOT = measuring.ROOT
TABLE = LabelTable()
CASES = 1000  # of the cohort: the auto-decoder has a vector for each
TINY_POINTS = 4096  # of near: 128^3 by default
BALLS = 8  # samples of a step of the sparse VQ-VAE; all in one micro-batch they fill it
MODES = 100  # of the hearts of a set diffusion: as many as there are, up to 512
SET_WIDTH = 35  # of a latent of the preset local: its place and its code
VESSEL_VOXELS = 8  # radius of the cells about a vessel


@dataclasses.dataclass(frozen=True)
class Training:
    """A task, its options, and how to make one of ``parts`` equal micro-batches of a step.

    samples : of a step.
    """

    task: Any
    options: TrainingOptions
    batch: Callable[[int], dict]
    samples: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "full.yaml")
    parser.add_argument("--tiny", action="store_true", help="config/demo.yaml, one step")
    parser.add_argument("--steps", type=int, default=10, help="measured, after a first one")
    parser.add_argument("--trainings", nargs="+", choices=tuple(MAKERS), default=tuple(MAKERS))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.config, args.steps = ROOT / "config" / "demo.yaml", 1
    if args.child:
        print(json.dumps(measure(*args.child, args)))
        return
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "CPU, fp32 alone"
    print(f"{device}; torch {torch.__version__}; {args.config.name}\n")
    heads = ("parameters", "precision", "samples a step", "micro-batches", "ms a step")
    print(f"| training | {' | '.join(heads)} | samples/s | peak GiB |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for name in args.trainings:
        for precision in (args.precisions or ("fp32", "bf16", "fp16")) if cuda else ("fp32",):
            more = ["--tiny"] if args.tiny else ["--config", args.config, "--steps", args.steps]
            print(row(name, precision, measuring.run_child(__file__, name, precision, *more)))


def row(name: str, precision: str, found: dict) -> str:
    """A line of the table."""
    start = f"| {name} | {found['parameters'] / 1e6:.1f} M | {precision} | {found['samples']} |"
    if "seconds" not in found:
        return f"{start} does not fit | | | |"
    rate = found["samples"] / found["seconds"]
    cells = f"{found['parts']} | {found['seconds'] * 1e3:,.0f} | {rate:,.1f} | {found['peak']:.2f}"
    return f"{start} {cells} |"


def measure(name: str, precision: str, args: argparse.Namespace) -> dict:
    """Median seconds of a step and peak GiB, with as few micro-batches as fit."""
    device = choose_device("auto")
    torch.manual_seed(0)
    training = MAKERS[name](load(args.config, args.tiny))
    found = {
        "parameters": sum(p.numel() for p in training.task.module.parameters()),
        "samples": training.samples,
    }
    parts = training.options.accumulate
    while parts <= training.samples:
        options = dataclasses.replace(training.options, accumulate=parts, precision=precision)
        try:
            return found | {"parts": parts} | timed_steps(training, options, device, args.steps)
        except (TrainingError, torch.OutOfMemoryError) as error:
            if "memory" not in str(error):
                raise
        torch.cuda.empty_cache()
        parts *= 2
    return found


def timed_steps(
    training: Training, options: TrainingOptions, device: torch.device, steps: int
) -> dict:
    stepper = Stepper(training.task, options, World(0, 1, device))
    batches = [training.batch(options.accumulate) for _ in range(options.accumulate)]
    cuda = device.type == "cuda"
    if cuda:  # as the loader does
        batches = [{k: pinned(v) for k, v in batch.items()} for batch in batches]
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number in range(steps + 1):
        start = time.perf_counter()
        # from the middle of the training: every term of the loss counts there
        stepper.step(options.steps // 2 + number, batches, Window())
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else measuring.peak_mib() * 2**20
    return {"seconds": statistics.median(seconds[1:]), "peak": peak / 2**30}


def pinned(value):
    return value.pin_memory() if isinstance(value, torch.Tensor) else value


def load(path: Path, tiny: bool) -> dict:
    """The options of a config file, by section."""
    options = cli.from_config(SECTIONS, yaml.safe_load(path.read_text()))
    if tiny:
        near = dataclasses.replace(options["coronary_near"], points=TINY_POINTS)
        options["coronary_near"] = near
    return options


def vecset(options: dict) -> Training:
    o = options["vecset"]
    task = VecsetTask(o, TABLE)
    latents = task.model.shape.latents

    def batch(parts: int) -> dict:
        size, classes = o.batch_size // parts, len(TABLE)
        on_ball = torch.nn.functional.normalize(torch.randn(size, o.input_points, 3), dim=-1)
        channels = torch.randint(classes, (size, o.input_points))
        one_hot = torch.nn.functional.one_hot(channels, classes).float()
        return {
            "points": torch.cat([0.9 * on_ball, one_hot, *[on_ball] * o.normals], dim=-1),
            "fps": torch.arange(latents).expand(size, -1).clone(),
            "volume": torch.rand(size, o.volume_queries, 3) * 2 - 1,
            "volume_sdf": torch.randn(size, o.volume_queries, classes) * o.truncation,
            "near": torch.rand(size, o.near_queries, 3) * 2 - 1,
            "near_sdf": torch.randn(size, o.near_queries, classes) * o.truncation,
            "surface": torch.rand(size, o.surface_queries, 3) * 2 - 1,
            "surface_channel": torch.randint(classes, (size, o.surface_queries)),
            "annotated": torch.ones(size, classes, dtype=torch.bool),
        }

    return Training(task, o, batch, o.batch_size)


def vqvae(stage: str, trained: str, quantised: bool, options: dict) -> Training:
    network, o, codebook = options["vqvae"], options[stage], options["vqvae_codebook"]
    if trained == "quantizer":  # by k-means there would be no step
        codebook = o = dataclasses.replace(codebook, method="gradient")
    model = SparseVQVAE.from_options(network, codebook if quantised else None)
    task = VqvaeTask(model, network, o, codebook if quantised else None, trained)
    band = options["voxels"].band_voxels

    def batch(parts: int) -> dict:
        coords, sdf = ball(network.max_voxels / BALLS, band)
        size = BALLS // parts
        return {
            "coords": by_sample(coords, size),
            "sdf": sdf.repeat(size, 1),
            "samples": size,
            "resolution": -(-int(coords.max() + 1) // 8) * 8,
            "band_voxels": band,
        }

    return Training(task, o, batch, BALLS)


def ball(voxels: float, band: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A band about a ball with about so many voxels: (N, 3) int32, and (N, 1) in half-bands."""
    radius = (voxels / (8 * torch.pi * band)) ** 0.5
    edge = int(2 * (radius + band)) + 2
    axis = torch.arange(edge) - (edge - 1) / 2
    squares = axis.square()
    away = (squares[:, None, None] + squares[:, None] + squares).sqrt() - radius
    inside = away.abs() <= band
    return inside.nonzero().int(), (away[inside] / band)[:, None]


def coronary(options: dict) -> Training:
    o = options["coronary"]
    task = DenoiserTask(o)
    axis = torch.arange(o.patch) - o.patch / 2
    near = (axis[:, None, None].square() + axis[:, None].square()).sqrt() < VESSEL_VOXELS
    cells = near.expand(o.patch, o.patch, o.patch).nonzero().int()

    def batch(parts: int) -> dict:
        size = o.batch_size // parts
        places = cells[torch.randint(len(cells), (o.points,))].float()
        return {
            "samples": size,
            "coords": by_sample(cells, size),
            "inputs": torch.rand(size * len(cells), Cells.channels(o)) * 2 - 1,
            "points": by_sample(places, size),
            "values": torch.rand(size * o.points) * 2 - 1,
        }

    return Training(task, o, batch, o.batch_size)


def by_sample(rows: torch.Tensor, samples: int) -> torch.Tensor:
    """The rows for every sample, its number first."""
    numbered = [torch.nn.functional.pad(rows, (1, 0), value=i) for i in range(samples)]
    return torch.cat(numbered)


def coronary_near(options: dict) -> Training:
    o = options["coronary_near"]

    def batch(parts: int) -> dict:
        size = o.batch_size // parts
        return {
            "index": torch.randint(CASES, (size,)),
            "points": torch.rand(size, o.points, 3) * 2 - 1,
            "occupied": (torch.rand(size, o.points) < 0.01).float(),
        }

    return Training(NearAutoDecoderTask(o, CASES), o, batch, o.batch_size)


def grid_of(options: dict) -> Grid:
    kept = [label for label in TABLE if label.name not in options["ldm"].drop_classes]
    return Grid(LABELS, options["ldm"].voxel_size, 200.0, LabelTable(tuple(kept)))


def hearts(size: int, grid: Grid) -> torch.Tensor:
    shape = (size, *[grid.size] * 3)
    return torch.randint(len(grid.table) + 1, shape, dtype=torch.uint8)


def autoencoder(options: dict, **changes) -> Training:
    o, grid = dataclasses.replace(options["autoencoder"], **changes), grid_of(options)
    task = AutoencoderTask(o, grid, CASES)
    return Training(
        task,
        o,
        lambda parts: {"target": hearts(o.batch_size // parts, grid)},
        o.batch_size,
    )


def adversarial(options: dict) -> Training:
    return autoencoder(options, adversarial_weight=0.01, autoencoder_warm_up_n_epochs=0)


def diffusion(options: dict) -> Training:
    o, coder, grid = options["diffusion"], options["autoencoder"], grid_of(options)
    edge = grid.size // 2 ** (len(coder.channels) - 1)
    shape, classes = (coder.latent_channels, edge, edge, edge), len(grid.table)
    flat, volumes = ((0.0,) * shape[0], (1.0,) * shape[0]), ((1.0,) * classes,) * 2
    task = DiffusionTask(o, LatentStatistics(shape, *flat, *volumes, {}, (), ""), grid, None)

    def batch(parts: int) -> dict:
        size = o.batch_size // parts
        mu, volumes = torch.randn(size, *shape), torch.ones(size, classes)
        return {
            "mu": mu,
            "sigma": mu.abs() / 10,
            "target": hearts(size, grid),
            "volumes": volumes,
        }

    return Training(task, o, batch, o.batch_size)


def vessels(options: dict) -> Training:
    o, grid = options["vessels"], grid_of(options)

    def batch(parts: int) -> dict:
        size = o.batch_size // parts
        field = torch.randn(size, CHANNELS, *[grid.size] * 3)
        return {"field": field, "heart": hearts(size, grid)}

    return Training(VesselTask(o, grid.classes), o, batch, o.batch_size)


def set_diffusion(options: dict) -> Training:
    o, preset = options["set_diffusion"], options["vecset"].preset
    classes, number = len(TABLE), LATENTS[preset if preset in ANCHORED else "local"]
    shape, zeros, ones = (number, SET_WIDTH), torch.zeros, torch.ones
    slots = Slots(np.zeros((number, 3), np.float32), (np.arange(number) % classes).astype(np.uint8))
    normal = zeros(*shape), ones(SET_WIDTH), zeros(4), ones(4), zeros(classes), ones(classes)
    modes = torch.randn(MODES, number * SET_WIDTH + 4)
    statistics = Statistics(*normal, modes, zeros(classes, MODES))
    task = SetDiffusionTask(o, slots, statistics, classes)

    def batch(parts: int) -> dict:
        size = o.batch_size // parts
        heart = torch.randn(size, number * SET_WIDTH + 4)
        return {"heart": heart, "asked": zeros(size, classes)}

    return Training(task, o, batch, o.batch_size)


MAKERS: dict[str, Callable[[dict], Training]] = {
    "vecset": vecset,
    "vqvae_pretrain": lambda options: vqvae("vqvae_pretrain", "all", False, options),
    "vqvae_codebook": lambda options: vqvae("vqvae_codebook", "quantizer", True, options),
    "vqvae_joint": lambda options: vqvae("vqvae_joint", "all", True, options),
    "coronary": coronary,
    "coronary_near": coronary_near,
    "autoencoder": autoencoder,
    "adversarial autoencoder": adversarial,
    "diffusion": diffusion,
    "vessels": vessels,
    "set_diffusion": set_diffusion,
}


if __name__ == "__main__":
    main()
