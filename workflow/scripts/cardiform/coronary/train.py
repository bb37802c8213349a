"""The two trainings of thin-structure refinement, from files to a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..cohort import splits
from ..cohort.manifest import MadeFile, cases_of
from ..errors import InputError, problem
from ..files import sha256_json
from ..labels import LabelTable
from ..options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions
from ..training.engine import Outcome
from ..training.job import Job
from ..training.shared import each_of_all
from .data import (
    NearDataset,
    PatchDataset,
    collate_patches,
    find_repaired,
    identity,
)
from .level import chosen_level
from .model import DENOISER, NEAR, build_cell_field
from .task import DenoiserTask, NearAutoDecoderTask
from .thin_structure import STRUCTURE, Outline, check_structure

log = logging.getLogger(__name__)
VALIDATION_PATCHES = 16  # of each validation case
Files = dict[str, list[MadeFile]]  # part of the split -> its cases


def denoiser_job(
    options: CoronaryOptions,
    repair: CoronaryRepairOptions,
    files: Files,
    table: LabelTable,
    shared: Path | None = None,
) -> Job:
    """Patches of the training cases; validation on patches of the validation cases.

    shared : folder of what all processes share.

    Raises
    ------
    InputError
        The label table lacks the structure.
    """
    table.channel(repair.structure)
    torch.manual_seed(options.seed)
    task = DenoiserTask(options)
    train_set = PatchDataset(files["train"], repair, options, shared=shared)
    validation_set = None
    if files["validation"]:
        validation_set = PatchDataset(
            files["validation"],
            repair,
            options,
            patches=VALIDATION_PATCHES,
            augment=False,
            shared=shared,
        )
    return Job(
        kind=DENOISER,
        task=task,
        network=task.module,
        train_set=train_set,
        validation_set=validation_set,
        options=options,
        sections={"coronary": options, "coronary_repair": repair},
        labels=table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["validation"]),
        identity={"data": sha256_json({"repair": vars(repair), **identity(files)})},
        collate=collate_patches,
    )


def level_chooser(
    options: CoronaryOptions, repair: CoronaryRepairOptions, files: Files
) -> Callable[[Outcome], dict[str, Any]]:
    """What :func:`cardiform.training.job.run` asks of the shipped weights of a denoiser."""

    def chosen(outcome: Outcome) -> dict[str, Any]:
        network = build_cell_field(options)
        network.load_state_dict(outcome.weights)
        return chosen_level(network.eval(), files["validation"], repair, options)

    return chosen


def near_job(
    options: NearOptions, files: Files, table: LabelTable, shared: Path | None = None
) -> Job:
    """Points of the training cases, which are its validation cases too, as documented.

    shared : folder of what all processes share.
    """
    torch.manual_seed(options.seed)
    task = NearAutoDecoderTask(options, len(files["train"]))
    return Job(
        kind=NEAR,
        task=task,
        network=task.module,
        train_set=NearDataset(files["train"], options, shared=shared),
        validation_set=NearDataset(files["train"], options, uniform=True, shared=shared),
        options=options,
        sections={"coronary_near": options},
        labels=table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["train"]),
        identity={"data": sha256_json(identity({"train": files["train"]}))},
        extra={STRUCTURE: name} if (name := _class_of(files["train"])) else {},
    )


def _class_of(files: Sequence[MadeFile]) -> str:
    """The class of the files; empty: they do not say."""
    names = (Outline.load(file.path, "label").structure for file in files)
    return next(filter(None, names), "")


def repaired_files(
    manifests: Sequence[str | Path],
    train: Path,
    validation: Path,
    *,
    mask: str = "repaired",
    structure: str = "",
) -> Files:
    """The repaired structures of two split CSVs, of the cases that something is learned from.

    mask : what of a file the training learns from, its label or its repair.
    structure : class that they have to be of; empty: any, but one.

    Raises
    ------
    InputError
        Nothing can be trained on, or a file is of another class.
    """
    rows = splits.read_splits({"train": train, "validation": validation})
    parts = {p: find_repaired(manifests, [case for case, _ in found]) for p, found in rows.items()}
    if not parts["train"]:
        fact = "has no case with the structure"
        raise InputError(problem(train, fact, "see the manifests of repair_coronary"))
    files = [file for found in parts.values() for file in found]
    outlines = each_of_all(lambda file: Outline.load(file.path, mask), files)
    wanted = structure or next((o.structure for o in outlines if o.structure), "")
    for file, outline in zip(files, outlines):
        check_structure(file.path, outline.structure, wanted)
    no_use = {f.path: why for f, o in zip(files, outlines) if (why := _no_use(o, mask))}
    kept = {p: [f for f in found if f.path not in no_use] for p, found in parts.items()}
    for part, found in parts.items():
        for why in dict.fromkeys(no_use.values()):
            names = [file.case_id for file in found if no_use.get(file.path) == why]
            if names:
                log.warning("%s: left out, %s: %s", part, why, ", ".join(names))
    if not kept["train"]:
        whys = "; ".join(dict.fromkeys(no_use[file.path] for file in parts["train"]))
        fact = f"has no case that can be trained on ({whys})"
        raise InputError(problem(train, fact, "train on others, or correct their label maps"))
    return kept


def _no_use(outline: Outline, mask: str) -> str:
    """Why a training learns nothing from a file; empty: it does."""
    if outline.empty:
        return f"nothing is left of the {mask} structure"
    return "cut, and ending flat nowhere" if outline.unplaced else ""
