"""Files of a training: last.pt and best.pt to go on from, model.pt to hand on."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import InputError, first_line, memory_fact, problem
from ..files import ANEW, atomic_path
from ..options.training import TrainingOptions

FORMAT_VERSION = 1
SPACE_MARGIN_BYTES = 1 << 20  # archive overhead of a file, and air for the log lines
# What torch.load raises on truncated, foreign or damaged files, tried on each.
LOAD_ERRORS = (
    RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, IndexError,
    TypeError, AttributeError, zipfile.BadZipFile, zlib.error, NotImplementedError,
)  # fmt: skip


class Checkpoints:
    """``last.pt`` and ``best.pt`` in ``<out>/checkpoints``.

    last.pt holds everything to go on exactly; best.pt the weights to ship of the best
    validation. A file is replaced only by a complete one.
    """

    def __init__(self, out: Path):
        self.out = out
        self.folder = out / "checkpoints"
        self.last = self.folder / "last.pt"
        self.best = self.folder / "best.pt"

    def prepare(self, key: Mapping[str, Any], resume_from: str | Path = "") -> str:
        """Decide between resuming and starting afresh; say which (rank 0 only).

        A last.pt of another resume key is moved aside, with all that belongs to it, to
        ``checkpoints.1`` (``.2``, ...).

        resume_from : last.pt of another folder, which is copied where this one has none.

        Raises
        ------
        InputError
            last.pt or best.pt is damaged, or ``resume_from`` is another training's.
        """
        for leftover in self.folder.glob(".tmp-*"):  # of a save that was killed
            leftover.unlink()
        if not self.last.exists() and str(resume_from):
            self._adopt(Path(resume_from), key)
        if not self.last.exists():
            return "no checkpoint: starting at step 0"
        state = load(self.last, "delete it to start afresh")
        changes = differences(state["key"], key)
        if not changes:
            if state.get("best"):
                self.has_best()  # told now, not when the training is complete
            return f"resuming from step {state['step']} ({self.last})"
        aside = self._move_aside()
        return f"starting afresh, the old run is in {aside}: " + ", ".join(changes)

    def _adopt(self, other: Path, key: Mapping[str, Any]) -> None:
        """Copy another folder's checkpoints, where they are of the same training."""
        state = load(other, "correct --resume-from")
        changes = differences(state.get("key", {}), key)
        if changes:
            fact = "is of another training (" + ", ".join(changes) + ")"
            raise InputError(problem(other, fact, "set the same options, or leave --resume-from"))
        for name in ("best.pt", "last.pt"):  # in this order: last.pt makes it a training
            if (other.parent / name).exists():
                with atomic_path(self.folder / name) as temporary:
                    shutil.copyfile(other.parent / name, temporary)

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.out / f"checkpoints.{number}").exists():
            number += 1
        self.folder.rename(aside)
        for name in ("metrics.jsonl", "tensorboard", "previews"):
            if (self.out / name).exists():
                (self.out / name).rename(aside / name)
        return aside

    def save_last(self, key: Mapping[str, Any], step: int, state: Mapping[str, Any]) -> None:
        """Replace last.pt."""
        save(self.last, {"key": dict(key), "step": step, **state})

    def load_last(self) -> dict | None:
        """The content of last.pt on the CPU; None where there is none."""
        if not self.last.exists():
            return None
        return load(self.last, "delete it to start afresh")

    def save_best(self, step: int, figures: Mapping[str, float], weights: Mapping) -> None:
        """Replace best.pt."""
        save(self.best, {"step": step, "figures": dict(figures), "weights": dict(weights)})

    def load_best(self) -> dict:
        """step, figures and weights of the best validation, on the CPU."""
        return load(self.best, "delete it: the best validation from now on is shipped then")

    def has_best(self) -> bool:
        """Whether best.pt is there and sound; InputError where it is damaged."""
        return self.best.exists() and bool(self.load_best())


def resume_key(options: TrainingOptions, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a training to go on: flat, plain values.

    All options but those marked resumable, and ``identity`` (hashes of split and data, say).
    A mapping of options inside ``identity`` may be given; its resumable keys are dropped too.
    """
    fields = dataclasses.fields(options)
    resumable = {f.name for f in fields if f.metadata.get("resumable")}
    flat = _flat({**identity, "options": {**identity.get("options", {}), **vars(options)}})
    key = {
        name.removeprefix("options."): value
        for name, value in flat.items()
        if name.removeprefix("options.") not in resumable
    }
    return {"checkpoint format": FORMAT_VERSION, **key}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``name old -> new`` for every entry in which two resume keys differ."""
    absent = "absent"
    return [
        f"{name} {_short(old.get(name, absent))} -> {_short(new.get(name, absent))}"
        for name in sorted({*old, *new})
        if old.get(name, absent) != new.get(name, absent)
    ]


def save_model(
    path: str | Path,
    weights: Mapping[str, torch.Tensor],
    *,
    options: Mapping[str, Any],
    labels: list[dict],
    figures: Mapping[str, Any],
) -> None:
    """Write model.pt: weights (CPU), resolved options, label table, figures, versions.

    Raises
    ------
    InputError
        The disk is full.
    TypeError
        A value is not plain (text, number, bool, None, list, mapping).
    """
    content = {
        "weights": {name: value.detach().cpu() for name, value in weights.items()},
        "options": plain(options),
        "labels": plain(labels),
        "figures": plain(figures),
        "versions": {"cardiform": __version__, "torch": str(torch.__version__)},
    }
    save(Path(path), content)


def load_model(path: str | Path) -> dict[str, Any]:
    """Read model.pt: a dict with weights, options, labels, figures and versions.

    Raises
    ------
    InputError
        The file is missing, damaged or no model of this project.
    """
    content = load(Path(path), f"{ANEW}: its training goes on from its checkpoints")
    missing = {"weights", "options", "labels", "figures"} - content.keys()
    if missing:
        fact = f"is no model ({', '.join(sorted(missing))} missing)"
        raise InputError(problem(path, fact, "name the model.pt of a training"))
    return content


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` for :func:`load`; the old file stays until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = _tensor_bytes(content) + SPACE_MARGIN_BYTES
    free = shutil.disk_usage(path.parent).free
    kept = "the old one is untouched" if path.exists() else "nothing was written"
    remedy = f"make room and run the same command again ({kept})"
    if free < needed:
        fact = f"needs {needed:,} bytes, the disk has {free:,}"
        raise InputError(problem(path, fact, remedy))
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as stream:
                torch.save({"format_version": FORMAT_VERSION, **content}, stream)
        except (OSError, RuntimeError) as error:
            if memory_fact(error):  # torch tells of killed loaders wherever it is
                raise
            fact = f"could not be written, {needed:,} bytes ({first_line(error)})"
            raise InputError(problem(path, fact, remedy)) from error


def load(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of :func:`save` onto the CPU, without running code from it."""
    if not path.exists():
        raise InputError(problem(path, "does not exist", remedy))
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        fact = f"is damaged or no file of this project ({first_line(error)})"
        raise InputError(problem(path, fact, remedy)) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        fact = f"has format version {version}, this is {FORMAT_VERSION}"
        raise InputError(problem(path, fact, remedy))
    return content


def _check_sums(path: Path) -> None:
    """Compare the checksums of the archive, which torch.load does not: a changed weight would
    pass."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"bytes of {damaged} have changed")


def plain(value: Any) -> Any:
    """``value`` with mappings as dicts, sequences as lists and numpy scalars as numbers."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy or torch scalar
        return plain(value.item())
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be stored")


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = plain(value)
    return flat


def _tensor_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(_tensor_bytes(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(_tensor_bytes(value) for value in content)
    return 0


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:12] + "..."


def restored(cls: type, values: Mapping):
    """Options as a model file stores them; lists were tuples."""
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
