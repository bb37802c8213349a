"""The models of a results folder as a bundle, and a bundle as a folder of models."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from ..apply.stages import find_stages, repaired_as
from ..artefact.bundle import (
    CARD,
    LIST,
    MODEL,
    check_bundle,
    copy_bundle,
    finish_bundle,
    is_bundle,
    pack,
    unpack,
)
from ..artefact.layout import CONFIDENCE, PLACES, model_files
from ..artefact.model import Model, load_model, save_portable
from ..artefact.tables import named, shared_table
from ..coronary.model import DENOISER, NEAR
from ..errors import InputError, problem, together
from ..files import write_text
from ..geometry.frame import UNIT_RADIUS
from ..labels import LabelTable
from ..ldm.autoencoder_model import AUTOENCODER
from ..ldm.diffusion_model import DIFFUSION
from ..vecset.confidence import Sound
from ..vecset.model import VECSET
from .card import card
from .example import EXAMPLE_STAGES, check_example, write_example

log = logging.getLogger(__name__)

PARTIAL = (AUTOENCODER.name, DIFFUSION.name)  # kinds that may leave classes out
FRAME = {
    "world": "RAS millimetres, through the affine of the NIfTI file",
    "unit": "unit = (world - center) * scale, the anatomy within the ball of unit_radius",
    "unit_radius": UNIT_RADIUS,
    "distances": "negative inside, in the unit of the coordinates",
    "channels": "channel i is class i of labels",
}


def export_models(
    folder: Path, out: Path, *, name: str, families: Sequence[str], force: bool
) -> None:
    """Write the models of a results folder, or of a bundle, to a new folder or zip.

    How the training data were made is read from the folders of the stages.

    out : ends with .zip: a zip.    families : of :data:`PLACES`; empty: all that are there.

    Raises
    ------
    InputError
        ``folder`` has no models, damaged ones or ones of different label tables; ``out`` is there.
    """
    if not folder.is_dir():
        raise InputError(problem(folder, "is no folder", "name a results folder, results/acme say"))
    files = {f: model_files(folder, f) for f in families or PLACES}
    problems = [
        problem(folder, f"has no trained model of {family}", "name the families that it has")
        for family, found in files.items()
        if families and not found
    ]
    if not any(files.values()) and not problems:
        remedy = "name a results folder in which a training has finished"
        problems = [problem(folder, "has no trained model", remedy)]
    if problems:
        raise InputError(problems)
    paths = [path for found in files.values() for path in found]
    models = dict(zip(paths, together(*(lambda p=p: load_model(p) for p in paths))))
    table = one_table(models)
    stages = find_stages(folder, structure_of(models))
    for model in models.values():
        if model.kind == DENOISER.name:
            stages = repaired_as(stages, model)
    sounds = {p: Sound.beside(p) for p, m in models.items() if m.kind == VECSET.name}
    unknown = [name for name in EXAMPLE_STAGES if name not in stages.known]
    if unknown:
        log.warning("%s: not recorded, so the defaults: %s", folder, ", ".join(unknown))
    with new_bundle(out, force) as made:
        places = {}
        for path, model in models.items():
            place = path.parent.relative_to(folder).as_posix()
            places[place] = made / place / MODEL
            whole = model if model.labels else dataclasses.replace(model, labels=table.as_dicts())
            save_portable(places[place], whole)
            log.info("%s: %s", place, model.kind)
            if sound := sounds.get(path):
                sound.write_beside(places[place])
            elif path in sounds:
                log.warning("%s: no %s of these weights, so no confidence", place, CONFIDENCE)
        stages.write(made)
        log.info("the example, through %d models", len(places))
        example = write_example(made, places, table, stages)
        stored = {place: load_model(path) for place, path in places.items()}
        about = {
            "name": name,
            "models": {
                place: {"kind": model.kind, "cases": len(model.training_cases)}
                for place, model in stored.items()
            },
            "labels": table.as_dicts(),
            "frame": FRAME,
            "example": example,
            "versions": {"cardiform": __version__},
        }
        write_text(made / CARD, card(about, stored, dict(zip(places, paths))))
        finish_bundle(made, about)


def import_models(
    source: Path, out: Path | None, *, labels: LabelTable | None, try_example: bool, force: bool
) -> dict[str, Any]:
    """Check a bundle and, with ``out``, write its files to a new folder; its ``bundle.json``.

    labels : the user's label table; None: whatever the bundle has.
    try_example : compute the bundle's example and compare.

    Raises
    ------
    InputError
        Anything in it is not as it was exported, or the label table is another.
    """
    if not source.exists():
        raise InputError(problem(source, "does not exist", "correct the path"))
    if out is not None and out.suffix == ".zip":
        raise InputError(problem(out, "is to be a folder", "name one without .zip"))
    if out is not None and out.exists() and out.samefile(source):
        raise InputError(problem(out, "is the bundle itself", "name another --out"))
    if out is None and source.is_dir():
        return _checked(source, labels, try_example)
    if out is None:
        where = tempfile.TemporaryDirectory(prefix="cardiform-")
        with where as name, _naming(source, Path(name)):
            unpack(source, Path(name))
            return _checked(Path(name), labels, try_example)
    with new_bundle(out, force) as made, _naming(source, made):
        if source.is_dir():
            check_bundle(source)
            copy_bundle(source, made)
        else:
            unpack(source, made)
        return _checked(made, labels, try_example)


def one_table(models: Mapping[Path, Model]) -> LabelTable:
    """The label table of all models; latent diffusion may leave classes out.

    Raises
    ------
    InputError
        Two of them were trained with different tables, or none has one.
    """
    tables = [(p, m.table, m.kind in PARTIAL) for p, m in models.items() if m.labels]
    if not tables:
        fact = "and the other models hold no label table: they are of a version before 0.1.0"
        raise InputError(problem(next(iter(models)), fact, "train one of them again"))
    remedy = "export them separately: --families"
    return shared_table(tables, "has another label table than", remedy)


@contextmanager
def new_bundle(out: Path, force: bool) -> Iterator[Path]:
    """A temporary folder that becomes ``out``, a folder or a zip, once the block is left.

    Raises
    ------
    InputError
        Something is there already; with ``force``, something that is no bundle.
    """
    if out.exists() or out.is_symlink():
        if not force:
            raise InputError(problem(out, "is there already", "name another, or add --force"))
        _check_ours(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent)
    except OSError as error:
        fact = f"could not be written ({os.strerror(error.errno or 0)})"
        raise InputError(problem(out, fact, "choose a folder that you may write to")) from None
    with temporary as name:
        made = Path(name) / "bundle"
        made.mkdir()
        yield made
        if out.suffix == ".zip":
            pack(made, made.with_suffix(".zip"))
            made = made.with_suffix(".zip")
        if out.is_dir():
            out.rename(Path(name) / "old")  # deleted with the temporary folder
        made.rename(out)


def _check_ours(out: Path) -> None:
    """InputError where ``out`` is no whole bundle: somebody's own files may be in it."""
    remedy = "name another, or move it away"
    if out.is_symlink() or not is_bundle(out):
        raise InputError(problem(out, "is there already and is no bundle", remedy))
    if out.is_dir():
        check_bundle(out)


@contextmanager
def _naming(source: Path, folder: Path) -> Iterator[None]:
    """Let messages name the bundle, not the temporary folder that it is unpacked to."""
    try:
        yield
    except InputError as error:
        ours = [line.replace(str(folder), str(source)) for line in error.problems]
        raise InputError(ours) from None


def _checked(folder: Path, labels: LabelTable | None, try_example: bool) -> dict[str, Any]:
    """``bundle.json`` of a folder whose files and models are sound."""
    about = check_bundle(folder)
    paths = {place: folder / place / MODEL for place in about["models"]}
    models = together(*(lambda p=p: load_model(p) for p in paths.values()))
    table = _table_of(about, folder)
    _check_models(folder, about, dict(zip(paths, models)), table)
    if labels is not None and named(labels) != named(table):
        names = ", ".join(f"{n} {v}" for v, n in sorted(named(labels) ^ named(table))[:3])
        fact = f"was trained with another label table ({names} differ)"
        raise InputError(problem(folder, fact, "give the table that you use, or none"))
    if try_example and about["example"]:
        check_example(
            folder,
            paths,
            table,
            find_stages(folder, structure_of(dict(zip(paths.values(), models)))),
        )
    return about


def _check_models(folder: Path, about: Mapping, models: Mapping[str, Model], table: LabelTable):
    """InputError where a model is not what ``bundle.json`` says of it."""
    problems = []
    for place, model in models.items():
        said = about["models"][place]
        if model.kind != said["kind"]:
            fact = f"is a model of kind {model.kind}, not {said['kind']} as the bundle says"
        elif not named(model.table) <= named(table):
            fact = "has another label table than the bundle"
        elif not _fits_its_confidence(folder / place / MODEL):
            fact = f"is not the model that {CONFIDENCE} is of"
        else:
            continue
        problems.append(problem(folder / place / MODEL, fact, "get the bundle again"))
    if problems:
        raise InputError(problems)


def _fits_its_confidence(model: Path) -> bool:
    """Whether the file beside a model, if there is one, is of its weights."""
    return not (model.parent / CONFIDENCE).is_file() or Sound.beside(model) is not None


def _table_of(about: Mapping[str, Any], folder: Path) -> LabelTable:
    try:
        return LabelTable.from_dicts(about["labels"])
    except TypeError:  # a class has keys that no table has
        remedy = "get the bundle again from where it came"
        raise InputError(problem(folder / LIST, "has no valid label table", remedy)) from None


def structure_of(models: Mapping[Path, Model]) -> str:
    """The thin structure that the models refine, by the folder; coronary where they refine none."""
    refined = (path for path, model in models.items() if model.kind in (DENOISER.name, NEAR.name))
    return next((path.parent.parent.name for path in refined), "coronary")
