"""The two trainings of latent diffusion, from files to a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cohort import splits
from ..cohort.manifest import MadeFile, cases_of, made_files
from ..errors import InputError, again, problem
from ..files import sha256_file, sha256_json
from ..options.ldm import AutoencoderOptions, DiffusionOptions
from ..training.distributed import choose_device
from ..training.engine import Outcome
from ..training.job import Job
from .autoencoder_model import AUTOENCODER
from .autoencoder_task import AutoencoderTask
from .coder import ShapeCoder
from .data import LatentDataset, ShapeDataset, complete_only, load_latents
from .diffusion_model import AUTOENCODER_PREFIX, DIFFUSION, LatentStatistics
from .diffusion_task import DiffusionTask
from .encode import LEAST_DEVIATION_ML, USUAL_DEVIATION
from .generator import VOLUME_BONUS, ShapeGenerator
from .hearts_on_grid import load_grid
from .keeping import drawn_bonus, keeping_volumes
from .option_checks import check_autoencoder, check_diffusion, check_sizes

log = logging.getLogger(__name__)

Files = dict[str, list[MadeFile]]  # part of the split -> its cases


def autoencoder_job(
    options: AutoencoderOptions,
    manifest: Path,
    train: Path,
    validation: Path,
    grid_file: Path,
    shared: Path | None = None,
) -> Job:
    """Hearts on the grid of a manifest.

    manifest : of resample_labels or convert_pointclouds.    grid_file : grid.json beside it.
    shared : folder of what all processes share.

    Raises
    ------
    InputError
        Options do not fit each other or the grid; there is no training case.
    """
    check_autoencoder(options)
    grid = load_grid(grid_file)
    check_sizes(grid.size, len(options.channels), 1)
    files = _files(manifest, train, validation, ".nii.gz")
    torch.manual_seed(options.seed)
    task = AutoencoderTask(options, grid, len(files["train"]))
    kept: dict[str, Any] = {"cache_rate": options.cache_rate, "shared": shared}
    return Job(
        kind=AUTOENCODER,
        task=task,
        network=task.model,
        train_set=ShapeDataset(files["train"], grid, ranges=options, seed=options.seed, **kept),
        validation_set=ShapeDataset(files["validation"], grid, ranges=None, **kept),
        options=options,
        sections={"autoencoder": options},
        labels=grid.table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["validation"]),
        identity={"grid": sha256_json(grid.as_dict()), "data": _identity(files)},
        shipped=lambda weights: keeping_volumes(
            _without_adversary(weights), options, grid, [f.path for f in files["train"]]
        ),
        extra={"grid": grid.as_dict()},
    )


def diffusion_job(
    options: DiffusionOptions,
    manifest: Path,
    train: Path,
    validation: Path,
    statistics_file: Path,
    autoencoder: Path,
    shared: Path | None = None,
) -> Job:
    """Latents of a manifest; the model holds the autoencoder too, so that it samples alone.

    manifest : of encode_latents.    statistics_file : statistics.json beside it.
    autoencoder : model.pt of the autoencoder that made the latents.
    shared : folder of what all processes share.

    Raises
    ------
    InputError
        Options do not fit each other or the grid, the latents are another autoencoder's, there
        is no training case.
    """
    check_diffusion(options)
    statistics = LatentStatistics.load(statistics_file)
    coder = ShapeCoder.load(autoencoder)
    if sha256_file(autoencoder) != statistics.autoencoder_sha256:
        fact = "is of another autoencoder than --autoencoder"
        raise InputError(problem(statistics_file, fact, "run encode_latents again"))
    grid = coder.grid
    check_sizes(grid.size, len(coder.options.channels), len(options.channels), options.fold)
    files = _files(manifest, train, validation, ".npz")
    _refuse_unknown_moves(files["train"], statistics, statistics_file)
    if options.complete_cases and grid.has_classes:
        files = {part: _complete(part, found, statistics) for part, found in files.items()}
    statistics = statistics.used(options)
    torch.manual_seed(options.seed)
    task = DiffusionTask(options, statistics, grid, coder)
    rate, seed = options.cache_rate, options.seed
    # the validation measures completion, too
    kept: dict[str, Any] = {"targets": task.network.completes, "cache_rate": rate, "seed": seed}
    kept["shared"] = shared
    frozen = {f"{AUTOENCODER_PREFIX}{n}": v for n, v in coder.model.state_dict().items()}
    return Job(
        kind=DIFFUSION,
        task=task,
        network=task.network,
        train_set=LatentDataset(files["train"], varied=True, **kept),
        validation_set=LatentDataset(files["validation"], varied=False, **kept),
        options=options,
        sections={"diffusion": options, "autoencoder": coder.options},
        labels=grid.table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["validation"]),
        identity={"latents": latents_key(statistics, options), "data": _identity(files)},
        shipped=lambda weights: weights | frozen,
        extra={"grid": grid.as_dict(), "statistics": statistics.as_dict()},
    )


def latents_key(statistics: LatentStatistics, options: DiffusionOptions) -> str:
    """Hash of what a training reads of the statistics of its latents.

    Without volumes as a condition their deviations decide nothing: where one heart alone has a
    class, that of the version before takes their place, so that its trainings stay finished.
    """
    found = statistics.as_dict()
    if not options.volumes_share:
        pairs = zip(statistics.volume_mean, statistics.volume_std)
        found["volume_std"] = tuple(
            LEAST_DEVIATION_ML if std == USUAL_DEVIATION * mean else std for mean, std in pairs
        )
    return sha256_json(found)


def volume_chooser(job: Job) -> Callable[[Outcome], dict[str, Any]]:
    """What :func:`cardiform.training.job.run` asks of the shipped weights of a diffusion."""
    task, options = job.task, job.options
    assert isinstance(task, DiffusionTask) and isinstance(options, DiffusionOptions)

    def chosen(outcome: Outcome) -> dict[str, Any]:
        unfinished = options.fast_dev_run or options.until  # trials of a search have an end, too
        if unfinished or not (options.volume_hearts and task.grid.has_classes):
            return {}
        device = choose_device(options.device)
        task.network.load_state_dict(outcome.weights)
        network, coder = task.network.to(device).eval(), task.coder.to(device)
        generator = ShapeGenerator(options, task.statistics, coder, network)
        return {
            VOLUME_BONUS: drawn_bonus(generator, job.train_set.volumes(), options.volume_hearts)
        }

    return chosen


def _without_adversary(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's own weights: discriminator and deep features served the training."""
    return {n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")}


def _files(manifest: Path, train: Path, validation: Path, ending: str) -> Files:
    rows = splits.read_splits({"train": train, "validation": validation})
    files = {
        p: made_files([manifest], [name for name, _ in found], ending) for p, found in rows.items()
    }
    if not files["train"]:
        raise InputError(problem(train, f"has no case in {manifest}", "run its stage again"))
    return files


def _complete(part: str, files: list[MadeFile], statistics: LatentStatistics) -> list[MadeFile]:
    """The cases of a part of the split that have every class."""
    kept = set(complete_only(cases_of(files), statistics.incomplete))
    left = [f for f in files if f.case_id in kept]
    if kept & set(statistics.incomplete):
        log.warning("every %s case lacks a class: drop classes that are often missing", part)
    if lost := len(files) - len(left):
        log.info("%s: %d of %d cases lack a class and are left out", part, lost, len(files))
    return left


def _refuse_unknown_moves(files: list[MadeFile], statistics: LatentStatistics, where: Path) -> None:
    """InputError for augmented copies of which nobody says how they were moved: a diffusion that
    is not told makes hearts that are moved, too."""
    moves = load_latents(files[0].path)["moves"]
    if not statistics.moved and bool((moves != 0).any()):  # unknown ones are NaN
        fact = "is of an earlier version, which did not keep how the variants were moved"
        raise InputError(problem(where, fact, again("encode_latents")))


def _identity(files: Mapping[str, list[MadeFile]]) -> str:
    return sha256_json({part: [(f.case_id, f.sha256) for f in fs] for part, fs in files.items()})
