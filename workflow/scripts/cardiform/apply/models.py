"""Which trained models a folder holds: a results folder, or a bundle with the same layout
(standard library only)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..artefact.layout import CONFIDENCE, FOLDS, SHAPES, SHAPES_TEMPLATE, model_file, model_files
from ..errors import InputError, problem

PRESETS = ("cardiform", "near")


@dataclass(frozen=True)
class Models:
    """The model files of a folder; None, or no entry, where there is none.

    autoencoder, diffusion : of latent diffusion from label maps; point clouds do not count.
    refiners : (structure, preset) -> model file.
    """

    folder: Path
    vecset: Path | None = None
    vqvae: Path | None = None
    autoencoder: Path | None = None
    diffusion: Path | None = None
    refiners: dict[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """Family -> model file, of all that are there."""
        own = {n: getattr(self, n) for n in ("vecset", "vqvae", "autoencoder", "diffusion")}
        found = {name: path for name, path in own.items() if path is not None}
        return found | {"/".join(key): path for key, path in self.refiners.items()}

    @property
    def confidence(self) -> Path | None:
        """What the confidence is held against, beside the VecSet."""
        path = None if self.vecset is None else self.vecset.parent / CONFIDENCE
        return path if path is not None and path.is_file() else None

    @property
    def shapes(self) -> Path | None:
        """The modes of variation of the cohort, which all folds share."""
        top = self.folder.resolve()
        tops = [top, top.parent.parent] if top.parent.name == FOLDS else [top]
        return next((path for top in tops if (path := top / SHAPES).is_file()), None)

    @property
    def helpers(self) -> list[Path]:
        """The files that are no networks and decide about results, too."""
        shapes = self.shapes
        template = shapes and shapes.with_name(Path(SHAPES_TEMPLATE).name)
        return [p for p in (self.confidence, shapes, template) if p is not None and p.is_file()]

    @property
    def coder(self) -> Path | None:
        """What encodes for latent diffusion: the diffusion's file holds the autoencoder too."""
        return self.autoencoder or self.diffusion


def find_models(folder: Path) -> Models:
    """The model files below a results folder or a bundle; nothing is read.

    The joint training of the sparse VQ-VAE (stage 2) goes before the codebook alone (stage 1).

    Raises
    ------
    InputError
        There is no such folder, or no model in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        fact = "is a file, not a folder of models" if folder.exists() else "does not exist"
        remedy = "name a results folder, results/acme say, or a bundle"
        raise InputError(problem(folder, fact, remedy))
    found = _models_in(folder)
    if not found.files and model_files(folder, "vqvae"):
        fact = "has models of CT windows alone, and label maps have no windows"
        remedy = "reconstruct new CTs with window_ct and reconstruct_vqvae (docs/vqvae.md)"
        raise InputError(problem(folder, fact, remedy))
    if not found.files:
        remedy = "name a results folder in which a training has finished, or a bundle"
        raise InputError(problem(folder, "has no trained model", remedy))
    return found


def is_zip(path: Path) -> bool:
    """Whether this is the zip of a bundle, by its name; its content is checked where it is read."""
    return path.suffix.lower() == ".zip" and path.is_file()


def files_of(folders: Sequence[Path]) -> list[Path]:
    """The files that say what models these are; of a zip itself.

    Raises
    ------
    InputError
        See :func:`find_folds`.
    """
    models = find_folds([path for path in folders if not is_zip(path)])
    found = dict.fromkeys(path for m in models for path in (*m.files.values(), *m.helpers))
    return [*found, *filter(is_zip, folders)]


def find_folds(folders: Sequence[Path]) -> list[Models]:
    """The models of each folder; of a folder that holds the folds of a k-fold, of each fold.

    Raises
    ------
    InputError
        Every folder without a model.
    """
    models: list[Models] = []
    problems: list[str] = []
    for folder in map(Path, folders):
        folder = folder if folder.name.strip(".") else folder.resolve()  # messages name it
        try:
            for part in folds_in(folder) or [folder]:
                models.append(find_models(part))
        except InputError as error:
            problems += error.problems
    seen = [m.folder.resolve() for m in models]
    twice = dict.fromkeys(str(m.folder) for m in models if seen.count(m.folder.resolve()) > 1)
    problems += [problem(path, "is named twice", "name each fold once") for path in twice]
    if problems:
        raise InputError(problems)
    return models


def folds_in(folder: Path) -> list[Path]:
    """The folders of folds below a folder that has no models of its own."""
    if not folder.is_dir() or _models_in(folder).files:
        return []
    top = folder / FOLDS if (folder / FOLDS).is_dir() else folder
    return [part for part in sorted(top.iterdir()) if part.is_dir() and _models_in(part).files]


def _models_in(folder: Path) -> Models:
    stages = (model_file(folder / "vqvae" / stage) for stage in ("stage2", "stage1"))
    ldm = folder / "ldm" / "labels"
    return Models(
        folder,
        vecset=model_file(folder / "vecset"),
        vqvae=next(filter(None, stages), None),
        autoencoder=model_file(ldm / "autoencoder"),
        diffusion=model_file(ldm / "diffusion"),
        refiners=dict(_refiners(folder)),
    )


def _refiners(folder: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    for preset in PRESETS:
        for part in sorted(folder.glob(f"*/{preset}")):
            if path := model_file(part):
                yield (part.parent.name, preset), path
