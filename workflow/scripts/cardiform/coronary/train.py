"""The two trainings of thin-structure refinement from files to model.pt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..cohort import splits
from ..cohort.manifest import MadeFile
from ..errors import InputError, problem
from ..files import sha256_json, write_json
from ..options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions
from ..options.training import TrainingOptions
from ..pictures.curves import plot_curves
from ..training.checkpoint import save_model
from ..training.engine import Outcome, train
from .data import NearDataset, PatchDataset, collate_patches, find_repaired, identity
from .task import CellFieldTask, NearAutoDecoderTask

log = logging.getLogger(__name__)

VALIDATION_PATCHES = 16  # of each validation case


@dataclass(frozen=True)
class Job:
    """A training that is ready to run.

    stored : what model.pt says of it beside the weights: options, and the training cases.
    """

    preset: str
    task: Any
    train_set: Any
    validation_set: Any
    options: TrainingOptions
    stored: dict
    identity: dict
    collate: Callable | None = None


def cell_field_job(options: CoronaryOptions, repair: CoronaryRepairOptions, args) -> Job:
    """Patches of the training cases; validation on patches of the validation cases."""
    parts = _files(args)
    torch.manual_seed(options.seed)
    return Job(
        "cardiform",
        CellFieldTask(options),
        PatchDataset(parts["train"], repair, options),
        PatchDataset(
            parts["validation"], repair, options, patches=VALIDATION_PATCHES, augment=False
        )
        if parts["validation"]
        else None,
        options,
        {"cardiform": vars(options), "cases": [f.case_id for f in parts["train"]]},
        {"repair": vars(repair), **identity(parts)},
        collate_patches,
    )


def near_job(options: NearOptions, args) -> Job:
    """Points of the training cases, which are its validation cases too, as documented."""
    parts = _files(args)
    torch.manual_seed(options.seed)
    return Job(
        "near",
        NearAutoDecoderTask(options, len(parts["train"])),
        NearDataset(parts["train"], options),
        NearDataset(parts["train"], options, uniform=True),
        options,
        {"near": vars(options), "cases": [f.case_id for f in parts["train"]]},
        identity({"train": parts["train"]}),
    )


def run(job: Job, out: Path) -> Outcome:
    """Train, or go on with the training that was interrupted in ``out``."""
    return train(
        job.task,
        job.train_set,
        job.validation_set,
        options=job.options,
        out=out,
        identity={"data": sha256_json(job.identity)},
        collate=job.collate,
    )


def write_model(job: Job, outcome: Outcome) -> None:
    """model.pt, metrics.json and curves.png."""
    out = outcome.out
    plot_curves(out / "metrics.jsonl", out / "curves.png")
    figures = {
        "preset": job.preset,
        "train": last_logged(out / "metrics.jsonl"),
        "validation": outcome.best or outcome.last,
        "untrained": outcome.baseline,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "parameters": sum(p.numel() for p in job.task.module.parameters()),
        "training_cases": len(job.stored["cases"]),
        "source_sha256": outcome.source,
    }
    save_model(out / "model.pt", outcome.weights, options=job.stored, labels=[], figures=figures)
    write_json(out / "metrics.json", figures)
    log.info("model.pt and metrics.json are in %s", out)


def last_logged(path: Path) -> dict[str, float]:
    """The figures of the last log line: of the training's own samples."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return next((x["figures"] for x in reversed(lines) if x["event"] == "log"), {})


def _files(args) -> dict[str, list[MadeFile]]:
    parts = {
        name: find_repaired(args.manifest, [case for case, _ in splits.read_split(path)])
        for name, path in (("train", args.train), ("validation", args.validation))
    }
    if not parts["train"]:
        fact = "has no case with the structure"
        raise InputError(problem(args.train, fact, "see the manifests of repair_coronary"))
    return parts
