"""Checkpoints of a training: last.pt and best.pt, from which it resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import outputs
from ..artefact.model import PATHS
from ..artefact.torch_files import load, plain, save
from ..errors import InputError, problem
from ..files import atomic_path, sha256_file
from ..formats import Format
from ..options.field import unsaid
from ..options.training import TrainingOptions

FORMAT_VERSION = 1
# What is moved aside with the checkpoints of another training, and the names of its own files
MOVED = {
    "metrics.jsonl": "*", "tensorboard": "events.*", "previews": "[0-9]*", "tracker.txt": "*",
}  # fmt: skip
CONTENT = " (content)"  # of a file that an option names: its hash; earlier keys do not have it
WEIGHTS = {"perceptual_file": "perceptual_weight"}  # files that are read where this is above 0
ANY = Format("checkpoint", {"format_version": "integer"}, version=FORMAT_VERSION)
LAST = dataclasses.replace(
    ANY,
    keys={
        **ANY.keys,
        "key": "object",
        "step": "integer",
        "module": "object",
        "optimizers": "object",
        "scaler": "object",
        "average": "object",
        "window": "object",
        "best": "object",
        "best_step": "integer",
        "last": "object",
        "baseline": "object",
        "seconds": "number",
        "source?": "text",  # earlier checkpoints do not have it
    },
)
BEST = dataclasses.replace(
    ANY, keys={**ANY.keys, "step": "integer", "figures": "object", "weights": "object"}
)


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

    def prepare(
        self,
        key: Mapping[str, Any],
        resume_from: str | Path = "",
        last_step: int | None = None,
    ) -> str:
        """Decide between resuming and starting from scratch; say which (rank 0 only).

        A last.pt of another resume key, or past ``last_step``, is moved aside, with all that
        belongs to it, to ``checkpoints.1`` (``.2``, ...).

        resume_from : last.pt of another folder, which is copied where this one has none, or had
            one that is moved aside.
        last_step : after which the training is complete (TrainingOptions.last_step).

        Raises
        ------
        InputError
            last.pt or best.pt is damaged, or ``resume_from`` is another training's or past
            ``last_step``; nothing is moved then.
        """
        for name in ("last.pt", "best.pt"):
            for leftover in self.folder.glob(f".tmp-*-{name}"):  # of a save that was killed
                leftover.unlink()
        own = self.load_last()
        changes = [] if own is None else _unfit(own, key, last_step)
        other = Path(resume_from) if str(resume_from) and (own is None or changes) else None
        if other is not None:
            _check_adoptable(other, key, last_step)  # before anything is moved
        aside = ""
        if changes:
            aside = f", the old run is in {self._move_aside()}: " + ", ".join(changes)
            own = None
        if other is not None:
            self._adopt(other)
            own = self.load_last()
        if own is None:
            return f"starting from scratch{aside}" if aside else "no checkpoint: starting at step 0"
        if own.get("best"):
            self.has_best()  # reported now, not when the training is complete
        return f"resuming from step {own['step']} ({self.last}){aside}"

    def _adopt(self, other: Path) -> None:
        """Copy another folder's checkpoints, in place of a best.pt that no last.pt knows of."""
        self.best.unlink(missing_ok=True)
        for name in ("best.pt", "last.pt"):  # in this order: last.pt makes it a training
            if (other.parent / name).exists():
                with atomic_path(self.folder / name) as temporary:
                    shutil.copyfile(other.parent / name, temporary)

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.out / f"checkpoints.{number}").exists():
            number += 1
        outputs.move(self.folder, aside)
        for name, known in MOVED.items():
            outputs.move(self.out / name, aside / name, known)
        return aside

    def save_last(self, key: Mapping[str, Any], step: int, state: Mapping[str, Any]) -> None:
        """Replace last.pt."""
        _save(self.last, {"key": dict(key), "step": step, **state})

    def load_last(self) -> dict | None:
        """The content of last.pt on the CPU; None where there is none."""
        if not self.last.exists():
            return None
        return _load(self.last, "delete it to start from scratch", LAST)

    def save_best(self, step: int, figures: Mapping[str, float], weights: Mapping) -> None:
        """Replace best.pt."""
        _save(self.best, {"step": step, "figures": dict(figures), "weights": dict(weights)})

    def load_best(self) -> dict:
        """step, figures and weights of the best validation, on the CPU."""
        remedy = "delete it: the best validation from now on is shipped then"
        return _load(self.best, remedy, BEST)

    def has_best(self) -> bool:
        """Whether best.pt is there and sound; InputError where it is damaged."""
        return self.best.exists() and bool(self.load_best())


def _unfit(state: Mapping[str, Any], key: Mapping[str, Any], last_step: int | None) -> list[str]:
    """Why a training of ``key`` cannot resume from ``state``; empty where it can."""
    known = state["key"]
    compared = {n: v for n, v in key.items() if n in known or not n.endswith(CONTENT)}
    changes = differences(known, compared)
    if last_step is not None and state["step"] > last_step:
        changes.append(f"its step {state['step']} is past the last one, {last_step}")
    return changes


def _check_adoptable(path: Path, key: Mapping[str, Any], last_step: int | None) -> None:
    """InputError where a training of ``key`` cannot resume from another folder's last.pt."""
    state = _load(path, "correct --resume-from", LAST)
    changes = _unfit(state, key, last_step)
    if changes:
        fact = "is of another training (" + ", ".join(changes) + ")"
        raise InputError(problem(path, fact, "set the same options, or leave --resume-from"))


def _save(path: Path, content: Mapping[str, Any]) -> None:
    save(path, content, FORMAT_VERSION)


def _load(path: Path, remedy: str, form: Format) -> dict[str, Any]:
    content = load(path, remedy)
    form.check(path, content, remedy)
    return content


def resume_key(options: TrainingOptions, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a training to go on: flat, plain values.

    All options but those marked resumable, the hashes of the files that options name and that are
    read, and ``identity`` (hashes of split and data, say). A mapping of options inside ``identity``
    may be given; its resumable keys are dropped too.
    """
    fields = dataclasses.fields(options)
    if twice := identity.keys() & vars(options).keys():
        raise ValueError(f"the key would have two values of {', '.join(sorted(twice))}")
    resumable = {
        f.name for f in fields if f.metadata.get("resumable") or unsaid(f, getattr(options, f.name))
    }
    flat = _flat({**identity, "options": {**identity.get("options", {}), **vars(options)}})
    key = {
        name.removeprefix("options."): value
        for name, value in flat.items()
        if name.removeprefix("options.") not in resumable
    }
    read = [name for name in PATHS if key.get(name) and key.get(WEIGHTS.get(name, name))]
    named = {name: Path(key[name]) for name in read}
    content = {f"{n}{CONTENT}": sha256_file(path) for n, path in named.items() if path.is_file()}
    return {"checkpoint format": FORMAT_VERSION, **key, **content}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``name old -> new`` for every entry in which two resume keys differ."""
    absent = "absent"
    return [
        f"{name} {_short(old.get(name, absent))} -> {_short(new.get(name, absent))}"
        for name in sorted({*old, *new})
        if old.get(name, absent) != new.get(name, absent)
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = plain(value)
    return flat


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:12] + "..."
