"""The training of a set-latent diffusion, from files to a job."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..artefact.model import load_model
from ..cohort import splits
from ..cohort.manifest import MadeFile, cases_of, made_files
from ..errors import InputError, problem, together
from ..files import sha256_file, sha256_json
from ..ldm.hearts_on_grid import load_grid
from ..options.set_diffusion import SetDiffusionOptions
from ..options.vecset import VecsetOptions
from ..training.distributed import choose_device
from ..training.engine import Outcome
from ..training.job import Job
from ..vecset.model import VECSET
from .data import SetBatch, SetDataset
from .latents import SetLatents, load_in_slots
from .model import SET_DIFFUSION, frozen_weights
from .option_checks import check_set_diffusion
from .slots import Slots, check_made_by, load_slots
from .statistics import Statistics
from .task import SetDiffusionTask

log = logging.getLogger(__name__)
Hearts = Mapping[str, list[tuple[MadeFile, SetLatents]]]


def set_diffusion_job(
    options: SetDiffusionOptions,
    manifest: Path,
    train: Path,
    validation: Path,
    slots_file: Path,
    vecset: Path,
    grid_file: Path,
) -> Job:
    """Latents of a manifest; the model holds the VecSet too, so that it samples alone.

    manifest : of encode_set_latents.    slots_file : slots.npz beside it.
    vecset : model.pt of the VecSet that made the latents.    grid_file : of the hearts.

    Raises
    ------
    InputError
        Options do not fit each other, the latents are another VecSet's, there are fewer than two
        training cases.
    """
    check_set_diffusion(options)
    (slots, columns, made_by), stored, grid = together(
        lambda: load_slots(slots_file),
        lambda: load_model(vecset, VECSET),
        lambda: load_grid(grid_file),
    )
    check_made_by(slots_file, made_by, vecset)
    hearts = _hearts(manifest, train, validation, slots, len(columns), len(stored.table))
    statistics = Statistics.of([heart for _, heart in hearts["train"]], options.modes)
    torch.manual_seed(options.seed)
    task = SetDiffusionTask(options, slots, statistics, len(stored.table))
    frozen = frozen_weights(stored.weights, slots, statistics)
    files = {part: [file for file, _ in found] for part, found in hearts.items()}
    sets = {
        part: SetDataset(cases_of(files[part]), [heart for _, heart in found], statistics)
        for part, found in hearts.items()
    }
    return Job(
        kind=SET_DIFFUSION,
        task=task,
        network=task.network,
        train_set=sets["train"],
        validation_set=sets["validation"],
        options=options,
        sections={
            "set_diffusion": options,
            "vecset": stored.section("vecset", VecsetOptions),
        },
        labels=stored.table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["validation"]),
        identity={
            "slots": sha256_file(slots_file),
            "data": sha256_json({p: [(f.case_id, f.sha256) for f in v] for p, v in files.items()}),
        },
        shipped=lambda weights: weights | frozen,
        extra={"grid": grid.as_dict(), "columns": list(columns)},
    )


def strength_chooser(made: Job) -> Callable[[Outcome], dict[str, float]] | None:
    """What :func:`cardiform.training.job.run` asks of the shipped weights; None: nothing is held
    out."""
    task, held_out = made.task, made.validation_set
    if not len(held_out):
        return None
    assert isinstance(task, SetDiffusionTask)

    def chosen(outcome: Outcome) -> dict[str, float]:
        device = choose_device(task.options.device)
        own = {name: outcome.weights[name] for name in task.network.state_dict()}
        task.network.load_state_dict(own)
        task.network.to(device).eval()
        torch.manual_seed(task.options.seed)
        items = [held_out[index, 0] for index in range(len(held_out))]
        batches = [
            SetBatch(
                case_id=[item["case_id"]],
                heart=item["heart"][None].to(device),
                asked=item["asked"][None].to(device),
            )
            for item in items
        ]
        strength = task.strength(batches)
        log.info("of what the network adds %.2f is taken: the best on the validation", strength)
        return {"strength": strength}

    return chosen


def _hearts(
    manifest: Path, train: Path, validation: Path, slots: Slots, columns: int, classes: int
) -> Hearts:
    """Part of the split -> files and latents of the cases that have every class of the slots."""
    rows = splits.read_splits({"train": train, "validation": validation})
    load = functools.partial(load_in_slots, slots=slots, columns=columns, classes=classes)
    needed = sorted(set(slots.channels.tolist()))
    result = {}
    for part, found in rows.items():
        files = made_files([manifest], [name for name, _ in found], ".npz")
        loaded = together(*(functools.partial(load, file.path) for file in files))
        kept = [(f, h) for f, h in zip(files, loaded) if h.present[needed].all()]
        if lost := len(files) - len(kept):
            log.info("%s: %d of %d cases lack a class and are left out", part, lost, len(files))
        result[part] = kept
    if len(result["train"]) < 2:
        fact = f"has {len(result['train'])} whole cases in {manifest}; two are needed at least"
        raise InputError(problem(train, fact, "lower split.validation or .test, or add cases"))
    return result
