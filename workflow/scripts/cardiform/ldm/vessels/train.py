"""The training of vessel trees, from files to a job."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ...cohort import splits
from ...cohort.manifest import MadeFile, cases_of, made_files
from ...errors import InputError, again, problem, together
from ...files import sha256_json
from ...options.vessels import VesselOptions
from ...training.job import Job
from ..hearts_on_grid import load_grid
from ..option_checks import check_vessel_grid, check_vessels
from .data import VesselDataset
from .field import Box
from .model import VESSELS
from .task import VesselTask
from .tree import load_tree

log = logging.getLogger(__name__)


def vessel_job(
    options: VesselOptions,
    trees: Path,
    voxels: Path,
    grid_file: Path,
    train: Path,
    validation: Path,
    latents: Path | None = None,
) -> Job:
    """Trees of encode_vessels with their hearts.

    voxels : manifest of resample_labels.    grid_file : grid.json beside it.
    latents : manifest of encode_latents; with it the network also sees what the autoencoder makes
        of the training hearts.

    Raises
    ------
    InputError
        Options do not fit each other or the grid; no training case has a tree; trees are of
        several structures.
    """
    grid = load_grid(grid_file)
    if not grid.has_classes:
        fact = "is the grid of a field without classes"
        raise InputError(problem(grid_file, fact, "vessels need label maps (ldm.sources: labels)"))
    together(
        lambda: check_vessels(options),
        lambda: check_vessel_grid(grid.size, options),
    )
    rows = splits.read_splits({"train": train, "validation": validation})
    names = {part: [name for name, _ in found] for part, found in rows.items()}
    files: dict[str, list[MadeFile]] = {}
    structures: set[str] = set()
    box = Box((0, 0, 0), (grid.size,) * 3)
    for part, cases in names.items():
        found = made_files([trees], cases, ".npz")
        loaded = [(file, load_tree(file.path)) for file in found]
        files[part] = [file for file, stored in loaded if stored.known]
        structures |= {stored.structure for _, stored in loaded}
        if part == "train" and files[part]:
            multiple = 2 ** (len(options.channels) - 1)
            trees_of = [stored.tree for _, stored in loaded if stored.known]
            box = Box.of(trees_of, grid.size, grid.spacing, multiple)
        if lost := len(found) - len(files[part]):
            fact = "have no tree, or one that the scan cuts, and are left out"
            log.info("%s: %d of %d cases %s", part, lost, len(found), fact)
    if not files["train"]:
        raise InputError(problem(train, f"has no case with a tree in {trees}", _REMEDY))
    if len(structures) > 1:
        fact = f"has trees of {' and '.join(sorted(structures))}"
        raise InputError(problem(trees, fact, again("encode_vessels")))
    everyone = [file.case_id for part in files.values() for file in part]
    hearts = _by_case(made_files([voxels], everyone, ".nii.gz"))
    if missing := [name for name in everyone if name not in hearts]:
        fact = f"has no heart of {', '.join(missing[:5])}"
        raise InputError(problem(voxels, fact, "give the voxels of the cases of the trees"))
    made = {}
    if latents is not None:
        made = _by_case(made_files([latents], cases_of(files["train"]), ".nii.gz"))
    (structure,) = structures
    torch.manual_seed(options.seed)
    task = VesselTask(options, grid.classes)
    return Job(
        kind=VESSELS,
        task=task,
        network=task.network,
        train_set=VesselDataset(
            files["train"],
            _paths(hearts),
            grid,
            options,
            structure=structure,
            box=box,
            varied=True,
            made=_paths(made),
        ),
        validation_set=VesselDataset(
            files["validation"],
            _paths(hearts),
            grid,
            options,
            structure=structure,
            box=box,
            varied=False,
        ),
        options=options,
        sections={"vessels": options},
        labels=grid.table,
        train_cases=cases_of(files["train"]),
        validation_cases=cases_of(files["validation"]),
        identity={
            "grid": sha256_json(grid.as_dict()),
            "data": sha256_json(
                {
                    "trees": {p: [(f.case_id, f.sha256) for f in fs] for p, fs in files.items()},
                    "hearts": sorted((f.case_id, f.sha256) for f in hearts.values()),
                    "made": sorted((f.case_id, f.sha256) for f in made.values()),
                }
            ),
        },
        extra={"grid": grid.as_dict(), "structure": structure, "box": box.as_lists()},
    )


_REMEDY = "run encode_vessels on label maps that have the structure"


def _by_case(files: list[MadeFile]) -> dict[str, MadeFile]:
    return {file.case_id: file for file in files}


def _paths(files: dict[str, MadeFile]) -> dict[str, Path]:
    return {name: file.path for name, file in files.items()}
