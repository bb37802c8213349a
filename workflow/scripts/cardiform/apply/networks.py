"""The trained networks of one folder of models or several folds, and what they can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..artefact.model import Model
from ..labels import LabelTable
from ..vecset.reconstruct import Reconstructor
from .models import Models, one_table
from .stages import Stages, find_stages


@dataclass(frozen=True)
class Networks:
    """What :func:`load_networks` found, ready for any case.

    folders : the models of each fold.    trained : (folder, family, hashes of training cases).
    stages : how a case is made ready, as the first folder says.
    """

    folders: Sequence[Models]
    table: LabelTable
    stages: Stages
    trained: Sequence[tuple[Path, str, frozenset[str]]]
    vecset: Sequence[Reconstructor] = ()

    @property
    def files(self) -> list[Path]:
        """Every model file."""
        return [path for models in self.folders for path in models.files.values()]


def load_networks(
    folders: Sequence[Models], tasks: Sequence[str], device: torch.device
) -> Networks:
    """Read what some tasks need.

    Raises
    ------
    InputError
        A file is damaged, or two were trained with different label tables.
    """
    stored = [models.stored() for models in folders]
    table = one_table(folders, stored)
    stages = find_stages(folders[0].folder)
    trained = [
        (models.folder, family, frozenset(content.training_cases))
        for models, found in zip(folders, stored)
        for family, content in found.items()
    ]
    vecset = []
    if {"reconstruct", "encode"} & set(tasks):
        options = dataclasses.replace(stages["vecset_reconstruct"], device=device.type)
        vecset = [Reconstructor.load(m.vecset, options, device) for m in folders if m.vecset]
    return Networks(folders, table, stages, trained, vecset)
