"""The trained networks of one folder of models, or of several folds, ready for any case."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ..artefact.bundle import is_bundle
from ..artefact.layout import CONFIDENCE as CONFIDENCE_FILE
from ..artefact.model import Model, load_model
from ..artefact.tables import shared_table
from ..coronary.refine import MeanRefiner, Refiner, load_refiner
from ..errors import InputError, problem, together
from ..files import sha256_file
from ..labels import LabelTable
from ..ldm.coder import ShapeCoder
from ..ldm.complete import Completer
from ..ldm.together import MeanCompleter
from ..options.coronary import refinement_faults
from ..statistics import TEMPLATE
from ..statistics.scoring import Scorer
from ..vecset.confidence import CONFIDENCE as SOUND
from ..vecset.confidence import Sound
from ..vecset.reconstruct import Reconstructor
from ..vqvae.reconstruct import BandNetwork
from ..vqvae.trained import load_for_label_maps
from .models import Models
from .stages import Stages, find_stages, repaired_as
from .tasks import usable

USUAL, REPAIR = "coronary", "repair"
PARTIAL = ("autoencoder", "diffusion")  # families that may leave classes out


@dataclass(frozen=True)
class Content:
    """What the model files of all folders say of themselves.

    stored : for each folder, family -> content of its file, without the weights.
    sound : for each folder, what the confidence is held against; None: it has nothing that fits.
    unsure : why folders have none, as lines.
    scorer : the modes of variation of the first folder that has some.
    """

    folders: Sequence[Models]
    stored: Sequence[Mapping[str, Model]]
    table: LabelTable
    stages: Stages
    structure: str
    preset: str
    sound: Sequence[Sound | None] = ()
    unsure: Sequence[str] = ()
    scorer: Scorer | None = None

    @classmethod
    def of(cls, folders: Sequence[Models]) -> Content:
        """Read every file; InputError where one is damaged, or of another label table."""
        problems, stored = [], []
        for models in folders:
            try:
                read = {name: load_model(path) for name, path in models.files.items()}
                stored.append({n: dataclasses.replace(m, weights={}) for n, m in read.items()})
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        table = one_table(folders, stored)
        structure = _structure(folders)
        stages = _stages(folders, stored, structure)
        preset = _preset(folders, structure, stages)
        unsure: list[str] = []
        pairs = zip(folders, stored)
        sound = together(*(partial(_sound, models, found, unsure) for models, found in pairs))
        shapes = _shapes(folders)
        remedy = "use it with models of its own cohort, or take it out of the folder"
        scorer = Scorer.load(shapes, table, remedy) if shapes else None
        return cls(folders, stored, table, stages, structure, preset, sound, unsure, scorer)

    def hashes(self) -> dict[str, str]:
        """Model file, below ``fold0`` and so on -> sha256."""
        return {
            f"fold{k}/{path.relative_to(m.folder)}": sha256_file(path)
            for k, m in enumerate(self.folders)
            for path in m.files.values()
        }

    def confidence_hashes(self) -> list[str]:
        """sha256 of what the confidence is held against, folder by folder; empty: nothing."""
        return [sha256_file(m.confidence) if m.confidence else "" for m in self.folders]

    def shapes_hashes(self) -> list[str]:
        """sha256 of the modes of variation and their template; empty: there are none."""
        path = _shapes(self.folders)
        pair = [path, path.with_name(TEMPLATE)] if path else []
        return [sha256_file(part) for part in pair]

    def trained_on(self, case_id: str) -> list[str]:
        """The models, as folder and family, whose training had the case."""
        return [
            f"{models.folder.name}: {family}"
            for models, found in zip(self.folders, self.stored)
            for family, content in found.items()
            if content.trained_on(case_id)
        ]

    def folds_trained_on(self, case_id: str, family: str) -> list[int]:
        """The folders, counted from 0, whose model of a family had the case in its training."""
        return [
            k
            for k, found in enumerate(self.stored)
            if family in found and found[family].trained_on(case_id)
        ]


def one_table(models: Sequence[Models], stored: Sequence[dict[str, Model]]) -> LabelTable:
    """The label table of all models; latent diffusion may leave classes out.

    stored : of each folder, family -> content of its file.

    Raises
    ------
    InputError
        Two files were trained with different tables.
    """
    tables = [
        (content.path, content.table, family in PARTIAL)
        for found in stored
        for family, content in found.items()
        if content.labels
    ]
    if not tables:
        raise InputError(
            problem(models[0].folder, "has no model with a label table", "train again")
        )
    fact = "was trained with another label table than"
    table = shared_table(tables, fact, "apply them separately")
    built_in = LabelTable()  # which knows more of its classes than a file stores
    return built_in if built_in.as_dicts() == table.as_dicts() else table


def _shapes(folders: Sequence[Models]) -> Path | None:
    return next((m.shapes for m in folders if m.shapes), None)


def _sound(models: Models, stored: Mapping[str, Model], unsure: list[str]) -> Sound | None:
    """What the confidence is held against; None, with a line in ``unsure``: there is nothing.

    Raises
    ------
    InputError
        The file is damaged, or of another label table than the VecSet.
    """
    if models.vecset is None:
        return None
    path = models.confidence
    sound = Sound.beside(models.vecset)
    if path is None or sound is None:
        place = f"{models.vecset.parent.name}/{CONFIDENCE_FILE}"
        fact = f"has no {place}" if path is None else f"has another VecSet than that of {place}"
        remedy = "export the models again" if is_bundle(models.folder) else SOUND.remedy
        unsure.append(problem(models.folder.name, fact, remedy))
        return None
    if sound.table.as_dicts() != stored["vecset"].table.as_dicts():
        fact = "is of another label table than the VecSet"
        raise InputError(problem(path, fact, SOUND.remedy))
    return sound


def _structure(folders: Sequence[Models]) -> str:
    """The structure that every folder refines, the coronaries before others; empty: none."""
    found = [name for name, _ in _refinements(folders)]
    return USUAL if USUAL in found else next(iter(found), "")


def _refinements(folders: Sequence[Models]) -> list[tuple[str, str]]:
    """(structure, preset) of the refinements that every folder has."""
    return [key for key in folders[0].refiners if all(key in m.refiners for m in folders)]


def _preset(folders: Sequence[Models], structure: str, stages: Stages) -> str:
    """The preset that the workflow refined with, if it is there, or else the first one."""
    presets = [preset for name, preset in _refinements(folders) if name == structure]
    recorded = stages["coronary_refine"].preset
    return recorded if recorded in (*presets, REPAIR) else next(iter(presets), "")


def _stages(folders, stored, structure: str) -> Stages:
    """The stages as the first folder says; the repair as the refinement was trained with it."""
    stages = find_stages(folders[0].folder, structure or USUAL)
    content = stored[0].get(f"{structure}/cardiform")
    return stages if content is None else repaired_as(stages, content)


@dataclass(frozen=True)
class Networks:
    """The networks that some tasks need; several where there are folds.

    trained : case id -> models that were trained on it (see :meth:`Content.trained_on`).
    """

    content: Content
    vecset: Sequence[Reconstructor] = ()
    vqvae: Sequence[BandNetwork] = ()
    coders: Sequence[ShapeCoder] = ()
    refiner: Refiner | None = None
    completer: Completer | MeanCompleter | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> LabelTable:
        return self.content.table

    @property
    def stages(self) -> Stages:
        return self.content.stages


def load_networks(content: Content, tasks: Sequence[str], device: torch.device) -> Networks:
    """The networks that some tasks need, on a device.

    Raises
    ------
    InputError
        A file does not fit its network, or folds cannot be averaged.
    """
    folders, stages = content.folders, content.stages
    have, wanted = usable(folders), set(tasks)
    shapes = wanted & {"reconstruct", "encode"}
    made: dict = {}
    if shapes and "vecset" in have:
        options = stages["vecset_reconstruct"]
        made["vecset"] = [
            Reconstructor.load(m.vecset, options, device) for m in folders if m.vecset
        ]
    if shapes and "vqvae" in have:
        networks = [load_for_label_maps(m.vqvae, content.table) for m in folders if m.vqvae]
        made["vqvae"] = [BandNetwork(network.to(device), device) for network in networks]
    if "encode" in wanted and "coder" in have:
        made["coders"] = [ShapeCoder.load(m.coder).to(device) for m in folders if m.coder]
    if wanted & {"refine", "fuse"}:
        made["refiner"] = _refiner(content, device)
    if "complete" in wanted:
        options = stages["completion"]
        completers = [Completer(m.diffusion, options, device) for m in folders if m.diffusion]
        made["completer"] = completers[0] if len(folders) == 1 else MeanCompleter(completers)
    return Networks(content, **made, sha256=content.hashes())


def _refiner(content: Content, device: torch.device) -> Refiner:
    stages, key = content.stages, (content.structure, content.preset)
    options = dataclasses.replace(stages["coronary_refine"], preset=content.preset)
    if problems := refinement_faults(options):
        raise InputError(problems)
    repair = stages["coronary_repair"]
    if content.preset == REPAIR:
        return load_refiner(None, options, repair, device)
    parts = [load_refiner(m.refiners[key], options, repair, device) for m in content.folders]
    return parts[0] if len(parts) == 1 else MeanRefiner(parts)
