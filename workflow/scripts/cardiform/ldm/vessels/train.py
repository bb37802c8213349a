"""The training of vessel trees, from files to a job."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...cohort import splits
from ...cohort.manifest import MadeFile, cases_of, made_files
from ...errors import InputError, again, problem, together
from ...files import sha256_json
from ...options.vessels import VesselOptions
from ...training.job import Job
from ..hearts_on_grid import Grid, load_grid
from ..option_checks import check_vessel_grid, check_vessels
from .data import VesselDataset
from .field import Box
from .model import VESSELS
from .task import VesselTask
from .tree import VesselTree, load_tree

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
    grid = _grid_of(grid_file, options)
    found = _trees_of(trees, train, validation)
    multiple = 2 ** (len(options.channels) - 1)
    box = Box.of(found.training, grid.size, grid.spacing, multiple)
    hearts = _hearts_of(voxels, [case for part in found.files.values() for case in cases_of(part)])
    made: dict[str, MadeFile] = {}
    if latents is not None:
        made = _by_case(made_files([latents], cases_of(found.files["train"]), ".nii.gz"))
    data = {
        "trees": {part: _hashes(files) for part, files in found.files.items()},
        "hearts": sorted(_hashes(hearts.values())),
        "made": sorted(_hashes(made.values())),
    }
    torch.manual_seed(options.seed)
    task = VesselTask(options, grid.classes)

    def samples(part: str) -> VesselDataset:
        training = part == "train"
        return VesselDataset(
            found.files[part],
            _paths(hearts),
            grid,
            options,
            structure=found.structure,
            box=box,
            varied=training,
            made=_paths(made) if training else None,
        )

    return Job(
        kind=VESSELS,
        task=task,
        network=task.network,
        train_set=samples("train"),
        validation_set=samples("validation"),
        options=options,
        sections={"vessels": options},
        labels=grid.table,
        train_cases=cases_of(found.files["train"]),
        validation_cases=cases_of(found.files["validation"]),
        identity={"grid": sha256_json(grid.as_dict()), "data": sha256_json(data)},
        extra={"grid": grid.as_dict(), "structure": found.structure, "box": box.as_lists()},
    )


@dataclass(frozen=True)
class _Trees:
    """Part of the split -> files with a whole tree, and these trees; what they are trees of."""

    loaded: dict[str, list[tuple[MadeFile, VesselTree]]]
    structure: str

    @property
    def files(self) -> dict[str, list[MadeFile]]:
        return {part: [file for file, _ in found] for part, found in self.loaded.items()}

    @property
    def training(self) -> list[VesselTree]:
        return [tree for _, tree in self.loaded["train"]]


def _grid_of(path: Path, options: VesselOptions) -> Grid:
    """The grid of the hearts, which the network can work on."""
    grid = load_grid(path)
    if not grid.has_classes:
        fact = "is the grid of a field without classes"
        raise InputError(problem(path, fact, "vessels need label maps (ldm.sources: labels)"))
    together(lambda: check_vessels(options), lambda: check_vessel_grid(grid.size, options))
    return grid


def _trees_of(trees: Path, train: Path, validation: Path) -> _Trees:
    """The trees of encode_vessels that the scan does not cut."""
    loaded: dict[str, list[tuple[MadeFile, VesselTree]]] = {}
    structures: set[str] = set()
    for part, rows in splits.read_splits({"train": train, "validation": validation}).items():
        stored = [(f, load_tree(f.path)) for f in made_files([trees], [n for n, _ in rows], ".npz")]
        loaded[part] = [(file, content.tree) for file, content in stored if content.known]
        structures |= {content.structure for _, content in stored}
        if lost := len(stored) - len(loaded[part]):
            fact = "have no tree, or one that the scan cuts, and are left out"
            log.info("%s: %d of %d cases %s", part, lost, len(stored), fact)
    if not loaded["train"]:
        raise InputError(problem(train, f"has no case with a tree in {trees}", _REMEDY))
    if len(structures) > 1:
        fact = f"has trees of {' and '.join(sorted(structures))}"
        raise InputError(problem(trees, fact, again("encode_vessels")))
    return _Trees(loaded, structures.pop())


def _hearts_of(voxels: Path, cases: Sequence[str]) -> dict[str, MadeFile]:
    """Case id -> its heart on the grid, of all cases."""
    hearts = _by_case(made_files([voxels], cases, ".nii.gz"))
    if missing := [name for name in cases if name not in hearts]:
        fact = f"has no heart of {', '.join(missing[:5])}"
        raise InputError(problem(voxels, fact, "give the voxels of the cases of the trees"))
    return hearts


_REMEDY = "run encode_vessels on label maps that have the structure"


def _by_case(files: list[MadeFile]) -> dict[str, MadeFile]:
    return {file.case_id: file for file in files}


def _paths(files: dict[str, MadeFile]) -> dict[str, Path]:
    return {name: file.path for name, file in files.items()}


def _hashes(files: Iterable[MadeFile]) -> list[tuple[str, str]]:
    return [(file.case_id, file.sha256) for file in files]
