"""One training from its parts to model.pt, metrics.json and curves.png; it knows no model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import outputs
from ..artefact.model import Kind, save_model
from ..errors import InputError
from ..files import write_json
from ..labels import LabelTable
from ..metrics.record import TRAINING_RECORD, refuse_other_figures
from ..options.training import TrainingOptions
from ..pictures.curves import plot_curves
from .distributed import is_main
from .engine import Outcome, train
from .task import Task

log = logging.getLogger(__name__)

# What is written to the folder of a training, besides previews and TensorBoard's files; last.pt is
# read first of all, and refused then
FILES = (
    "model.pt", "metrics.json", "options.json", "metrics.jsonl", "curves.png", "usage.png", ".lock",
    "checkpoints/best.pt", "tracker.txt",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is ready to run: all that a family says of it.

    kind : of its model.pt.
    task : what the engine trains.
    network : the part of the task that model.pt is about; its parameters are counted.
    train_set, validation_set : datasets; the latter may be None or empty.
    options : of the training; checkpoint, schedule and device follow from them.
    sections : config section -> options, of all that shaped the model.
    labels : the label table of the cohort.
    train_cases, validation_cases : ids of the cases behind the samples.
    identity : what beside ``options`` decides the result (see engine.train).
    collate : samples to batch; default: tensors are stacked, texts listed.
    shipped : state dict of the task -> weights of model.pt.
    extra : what else model.pt holds.
    """

    kind: Kind
    task: Task
    network: nn.Module
    train_set: Any
    validation_set: Any
    options: TrainingOptions
    sections: Mapping[str, Any]
    labels: LabelTable
    train_cases: Sequence[str]
    validation_cases: Sequence[str]
    identity: Mapping[str, Any]
    collate: Callable | None = None
    shipped: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    extra: Mapping[str, Any] = field(default_factory=dict)


def run(
    job: Job,
    out: Path,
    on_training_set: Callable[[Outcome], Mapping[str, float]] | None = None,
    chosen: Callable[[Outcome], Mapping[str, Any]] | None = None,
) -> None:
    """Train, or resume the training that was interrupted in ``out``, and write its files.

    on_training_set : figures of the shipped weights on the training samples, for metrics.json;
        they are added to those of the last log line. Called on the main rank alone.
    chosen : what is chosen for the shipped weights, on held-out samples say; it joins
        ``job.extra``. Called on the main rank alone.

    Raises
    ------
    InputError, TrainingError, SystemExit
        As :func:`cardiform.training.engine.train`.
    """
    refuse_foreign(out, job.options)
    outcome = train(
        job.task,
        job.train_set,
        job.validation_set,
        options=job.options,
        out=out,
        identity=job.identity,
        collate=job.collate,
    )
    if not is_main():
        return
    plot_curves(outcome.out / "metrics.jsonl", outcome.out / "curves.png")
    on_training = last_logged(outcome.out / "metrics.jsonl")
    if on_training_set:
        on_training |= on_training_set(outcome)
    if chosen:
        job = replace(job, extra={**job.extra, **chosen(outcome)})
    write_results(job, outcome, on_training)


def refuse_foreign(out: Path, options: TrainingOptions) -> None:
    """InputError where somebody else's files are in the place of a training's: before it runs."""
    folder = out / "fast_dev_run" if options.fast_dev_run else out
    if problems := outputs.problems_of(folder / name for name in FILES):
        raise InputError(problems)
    refuse_other_figures(folder / "metrics.json", "")


def write_results(job: Job, outcome: Outcome, on_training: Mapping[str, float]) -> None:
    """model.pt, metrics.json and options.json of a training, by the engine or by other means.

    on_training : figures of the training samples.
    """
    figures = {
        "format_version": TRAINING_RECORD.version,
        "kind": job.kind.name,
        "train": dict(on_training),
        "validation": outcome.best or outcome.last,
        "before": outcome.baseline,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "parameters": sum(p.numel() for p in job.network.parameters()),
        "cases": {"train": len(job.train_cases), "validation": len(job.validation_cases)},
        "samples": {"train": len(job.train_set), "validation": len(job.validation_set or ())},
        "source_sha256": outcome.source,
        **({"diverged": True} if outcome.diverged else {}),
    }
    save_model(
        outcome.out / "model.pt",
        job.kind,
        job.shipped(outcome.weights),
        options=job.sections,
        labels=job.labels,
        figures=figures,
        training_cases=job.train_cases,
        source_sha256=outcome.source,
        extra=job.extra,
    )
    write_json(outcome.out / "metrics.json", figures)
    sections = {name: vars(values) for name, values in job.sections.items()}
    write_json(outcome.out / "options.json", sections)  # for people: model.pt holds them, too
    log.info("model.pt and metrics.json are in %s", outcome.out)


def last_logged(path: Path) -> dict[str, float]:
    """The figures of the last log line: of the training's own samples."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return next((dict(x["figures"]) for x in reversed(lines) if x["event"] == "log"), {})
