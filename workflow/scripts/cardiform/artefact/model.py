"""model.pt: the weights of a training with all that is needed to use them, and what they are.

In bundles it is model.safetensors, with the same content. Format 2; files of format 1, which did
not say what they are, are read too (see earlier.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import InputError, problem
from ..files import sha256_text
from ..formats import VERSION, Format
from ..labels import LabelTable
from ..options.field import checked
from .earlier import upgraded
from .tensor_files import is_tensor_file, load_tensors, save_tensors
from .torch_files import load, plain, save

MODEL = Format(
    "model",
    {
        "format_version": "integer",
        "kind": "text",
        "weights": "object",
        "options": "object",
        "options.*": "object",
        "labels": "object (C)",
        "labels.*.value": "integer",
        "labels.*.name": "text",
        "labels.*.title": "text",
        "labels.*.color": "text",
        "labels.*.components": "integer",
        "labels.*.priority": "integer",
        "figures": "object",
        "training_cases": "text (T)",
        "extra": "object",
        "versions": "object",
        "source_sha256": "text",
    },
    remedy="give the model.pt of a training",
    version=2,
    earlier=(1,),
)
NAMED = 3  # weights that do not fit, in a message
PATHS = ("resume_from", "pretrained", "perceptual_file")  # options that are files of one machine
OBJECTS = ("weights", "options", "figures", "extra", "versions")
REMEDY = (
    f"{MODEL.remedy}; if it is one, delete it and run its training again, which resumes from its "
    "checkpoints"
)


class Dataclass(Protocol):
    """Any dataclass of options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Options = TypeVar("Options", bound=Dataclass)


@dataclass(frozen=True)
class Kind:
    """What a model.pt is.

    name : stored in the file.    title : for people, "a VecSet autoencoder".
    script : that trains it.
    """

    name: str
    title: str
    script: str

    def __str__(self) -> str:
        return f"{self.title} ({self.script})"


@dataclass(frozen=True, kw_only=True)
class Model:
    """Content of a model.pt.

    kind : name of its :class:`Kind`.
    weights : state dict, on the CPU.
    options : config section -> its values, of every section that shaped the model.
    labels : the label table, a dict per class; empty in some files of format 1.
    figures : of the training, as in metrics.json.
    training_cases : :func:`case_hash` of each case that was trained on, in the order of training.
    extra : what else a kind needs (grid and statistics of latent diffusion, say).
    versions : of cardiform and torch.
    source_sha256 : of the code that took the last step.
    path : where it was read; for messages.
    """

    kind: str
    weights: dict[str, Tensor]
    options: dict[str, dict[str, Any]]
    labels: list[dict]
    figures: dict[str, Any]
    training_cases: list[str]
    extra: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    source_sha256: str = ""
    path: Path = Path("model.pt")

    @property
    def table(self) -> LabelTable:
        """The label table; InputError where the file has none, or one that is not valid."""
        try:
            if self.labels:
                return LabelTable.from_dicts(self.labels)
        except TypeError:
            pass
        raise InputError(problem(self.path, "has no valid label table", MODEL.remedy))

    def trained_on(self, case_id: str) -> bool:
        """Whether the case was among those of the training."""
        return case_hash(case_id) in self.training_cases

    def section(self, name: str, cls: type[Options]) -> Options:
        """The options of a config section; keys that are younger than the file are at default.

        Raises
        ------
        InputError
            The file has a key that this version does not know.
        """
        values = self.options.get(name)
        if not isinstance(values, Mapping):
            raise InputError(problem(self.path, f"has no options {name}", MODEL.remedy))
        if unknown := sorted(values.keys() - {f.name for f in fields(cls)}):
            fact = f"was trained with options that are not known here ({', '.join(unknown)})"
            raise InputError(problem(self.path, fact, "update Cardiform"))
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return checked(cls, given, where=f"{self.path}: {name}.")
        except (TypeError, ValueError) as error:  # a number is a text, say
            fact = f"has options {name} that are not valid ({error})"
            raise InputError(problem(self.path, fact, MODEL.remedy)) from error

    def fill(self, module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
        """Give a network the weights, or those of them that are handed over, if they fit it."""
        weights = self.weights if weights is None else weights
        check_weights(weights, module.state_dict(), self.path)
        module.load_state_dict(dict(weights))


def check_weights(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    path: str | Path,
    remedy: str = MODEL.remedy,
) -> None:
    """InputError where a weight is missing, unknown or of another shape; some are listed.

    weights : of the file ``path``.    wanted : of the network.
    """
    differing = [f"{n} is missing" for n in wanted if n not in weights]
    differing += [f"{n} is unknown" for n in weights if n not in wanted]
    differing += [
        f"{n} is {_shape(weights[n])}, the model has {_shape(w)}"
        for n, w in wanted.items()
        if n in weights and _shape(weights[n]) != _shape(w)
    ]
    if differing:
        some = differing
        if len(differing) > NAMED:  # those of both ends of the network
            some = [*differing[: NAMED - 1], f"... ({len(differing)} differ)", differing[-1]]
        text = "; ".join(some)
        raise InputError(problem(path, f"does not fit the model: {text}", remedy))


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def case_hash(case_id: str) -> str:
    """sha256 of a case id: says whether a case was trained on, and no name."""
    return sha256_text(case_id)


def save_model(
    path: str | Path,
    kind: Kind,
    weights: Mapping[str, Tensor],
    *,
    options: Mapping[str, Any],
    labels: LabelTable,
    figures: Mapping[str, Any],
    training_cases: Iterable[str],
    source_sha256: str,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model.pt.

    options : config section -> options dataclass.
    training_cases : ids; their hashes are stored.

    Raises
    ------
    InputError
        The disk is full.
    TypeError
        A value is not plain (text, number, bool, None, list, mapping).
    """
    content = {
        "kind": kind.name,
        "weights": {name: value.detach().cpu() for name, value in weights.items()},
        "options": plain({section: vars(values) for section, values in options.items()}),
        "labels": plain(labels.as_dicts()),
        "figures": plain(figures),
        "training_cases": [case_hash(case_id) for case_id in training_cases],
        "extra": plain(extra or {}),
        "versions": {"cardiform": __version__, "torch": str(torch.__version__)},
        "source_sha256": source_sha256,
    }
    save(Path(path), content, MODEL.version)


def save_portable(path: str | Path, model: Model) -> None:
    """Write a model as safetensors, which :func:`load_model` reads, too.

    It names no case and no folder: cases are hashed, and paths among the options are left out.

    Raises
    ------
    InputError
        The disk is full.
    """
    content = {f.name: getattr(model, f.name) for f in fields(Model) if f.name != "path"}
    content["options"] = {name: _without_paths(values) for name, values in model.options.items()}
    statistics = model.extra.get("statistics")
    if isinstance(statistics, Mapping) and "incomplete" in statistics:  # cases that lack a class
        hashed = [case_hash(name) for name in statistics["incomplete"]]
        content["extra"] = {**model.extra, "statistics": {**statistics, "incomplete": hashed}}
    save_tensors(Path(path), content, MODEL.version)


def _without_paths(section: Any) -> Any:
    """The options of a section, those that are files of one machine empty."""
    if not isinstance(section, Mapping):  # of a file that nobody could use
        return section
    return {key: "" if key in PATHS else value for key, value in section.items()}


def load_model(path: str | Path, *kinds: Kind) -> Model:
    """Read a model.pt, or the model.safetensors of a bundle: what the file holds decides.

    kinds : those that the caller can use; none: any.

    Raises
    ------
    InputError
        The file is missing, damaged, no model of this project, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(problem(path, "does not exist", "correct the path"))
    if path.is_dir():
        raise InputError(problem(path, "is a folder, not a model.pt", REMEDY))
    content = (load_tensors if is_tensor_file(path) else load)(path, REMEDY)
    if content.get(VERSION) == 1:
        content = upgraded(content, path)
    MODEL.check(path, content)
    if broken := [key for key in OBJECTS if not isinstance(content[key], Mapping)]:
        fact = f"is no model file ({', '.join(broken)} is no mapping)"
        raise InputError(problem(path, fact, MODEL.remedy))
    known = {field.name for field in fields(Model)} - {"path"}
    model = Model(**{key: content[key] for key in known}, path=path)
    if kinds and model.kind not in [kind.name for kind in kinds]:
        fact = f"is a model of kind {model.kind}, not {' or '.join(kind.title for kind in kinds)}"
        scripts = " or ".join(dict.fromkeys(kind.script for kind in kinds))
        raise InputError(problem(path, fact, f"give the model.pt of {scripts}"))
    return model
