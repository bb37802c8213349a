"""The training of the VecSet autoencoder, from split files to a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..artefact.model import load_model
from ..cohort import splits
from ..errors import InputError, problem
from ..files import sha256_json
from ..labels import LabelTable
from ..options.checks import slices_problem
from ..options.vecset import VecsetOptions
from ..training.distributed import choose_device
from ..training.engine import Outcome
from ..training.job import Job
from .data import CasePoints, Draw, PointDataset
from .levels import chosen_levels
from .model import VECSET, VecSet
from .parts import PartDataset, Usual
from .shared import shared_cases
from .task import VecsetTask

LEAST_SCALE = 0.75  # of a heart that is put where its parts usually lie, unit frame


def vecset_job(
    options: VecsetOptions, table: LabelTable, train: Path, validation: Path, shared: Path
) -> Job:
    """Points of the cases of two split CSVs, and the network with its first weights.

    shared : folder of what all processes share beside the points.

    Raises
    ------
    InputError
        There is no training case, slices are to be seen without normals, a points file is missing,
        damaged or of other classes, or the weights to start from do not fit.
    """
    if problem_of := slices_problem(options):
        raise InputError(problem_of)
    # an item that is scaled down brings its distances nearer
    truncation = options.truncation / (1 - options.augment_scale)
    # and so does a part of a heart, where it is put as if it were smaller
    if options.hidden_share or options.slices_share:
        truncation /= LEAST_SCALE
    rows = splits.read_splits({"train": train, "validation": validation})
    cases = {
        part: shared_cases(found, table, shared, options.cached_points, truncation, options.normals)
        for part, found in rows.items()
    }
    if not cases["train"]:
        raise InputError(problem(train, "has no cases", "lower split.validation or .test"))
    torch.manual_seed(options.seed)
    task = VecsetTask(options, table)
    if options.pretrained:
        start_from(task.model, options.pretrained, table)
    sets, extra = _sets(options, table, cases, task.model.starts)
    return Job(
        kind=VECSET,
        task=task,
        network=task.model,
        train_set=sets["train"],
        validation_set=sets["validation"],
        options=options,
        sections={"vecset": options},
        labels=table,
        train_cases=[case.case_id for case in cases["train"]],
        validation_cases=[case.case_id for case in cases["validation"]],
        identity=planes_of(cases["train"], options)
        | {
            "labels": sha256_json(table.as_dicts()),
            "training data": sha256_json([case.digest() for case in cases["train"]]),
            "validation data": sha256_json([case.digest() for case in cases["validation"]]),
        },
        extra=extra,
    )


def _sets(
    options: VecsetOptions,
    table: LabelTable,
    cases: Mapping[str, Sequence[CasePoints]],
    starts: int,
) -> tuple[dict[str, PointDataset], dict[str, Any]]:
    """The samples of both parts of the split, and what model.pt has to know of them."""
    sets = {
        part: PointDataset(
            found,
            Draw.from_options(options, starts, augment=part == "train"),
            completing=part == "train" and options.behind_cuts,
        )
        for part, found in cases.items()
    }
    if not (options.hidden_share or options.slices_share):
        return sets, {}
    usual = Usual.of(cases["train"])
    sets["train"] = PartDataset(
        cases["train"],
        sets["train"].draw,
        options.behind_cuts,
        usual=usual,
        share=options.hidden_share,
        most=options.hidden_classes,
        slices=options.slices_share,
    )
    return sets, {"usual": usual.as_dict(table)}


def level_chooser(made: Job, options: VecsetOptions) -> Callable[[Outcome], dict] | None:
    """What :func:`cardiform.training.job.run` asks of the shipped weights; None: all of every heart
    was seen."""
    hearts, held_out = made.train_set, made.validation_set
    if not isinstance(hearts, PartDataset):
        return None

    def chosen(outcome: Outcome) -> dict[str, Any]:
        network = VecSet.from_options(options, len(made.labels))
        network.load_state_dict(outcome.weights)
        network = network.to(choose_device(options.device)).eval()
        draw = held_out.draw
        return {"levels": chosen_levels(network, held_out.cases, hearts.usual, draw, made.labels)}

    return chosen


def start_from(model: VecSet, path: str, table: LabelTable) -> None:
    """Give a network the weights of a model.pt; InputError where they are of other sizes, of
    other classes, or of points with normals and without."""
    stored = load_model(path, VECSET)
    reads = stored.section("vecset", VecsetOptions).normals
    if reads != model.normals:
        fact = f"was trained {'with' if reads else 'without'} the normals of the points"
        raise InputError(problem(path, fact, f"set vecset.normals to {str(reads).lower()}"))
    if stored.table.values != table.values:
        fact = f"was made for the classes {stored.table.values}, the label table has {table.values}"
        raise InputError(problem(path, fact, "give one of this label table"))
    stored.fill(model)


def planes_of(cases: Sequence[CasePoints], options: VecsetOptions) -> dict[str, str]:
    """Which planes the hearts are encoded behind, if they are (part of the resume key)."""
    if not options.behind_cuts:
        return {}
    return {"planes": sha256_json([[] if c.planes is None else c.planes.tolist() for c in cases])}
