"""What a section of the report is made of: cells that know their source, charts, pictures."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import read_json, sha256_file
from ..labels import LabelTable

log = logging.getLogger(__name__)

NONE = "–"
OTHER = "#57606a"  # colour of what is no class of the table
WAYS = (
    ("truth", "Truth"),
    ("model", "Model"),
    ("error", "Error on the model's surface"),
    ("both", "Model within the truth"),
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    text : as it is shown.    source : file and keys that the number comes from, ``file#a/b``;
        empty: it is no number of a file.    factor : of the shown number to the stored one.
    """

    text: str
    source: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Table:
    """rows : a cell per column.    folded : shown when asked for."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """figure : what Plotly draws, data and layout.    height : pixels."""

    title: str
    figure: Mapping[str, Any]
    height: int = 380


@dataclass(frozen=True)
class Picture:
    """data : of an ``img`` element."""

    title: str
    data: str

    @classmethod
    def of(cls, title: str, path: Path) -> Picture:
        """A PNG file as it is."""
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        return cls(title, f"data:image/png;base64,{content}")


@dataclass(frozen=True)
class Viewer:
    """Hearts that turn: truth and model, classes on and off, the error on the surface.

    hearts : name of each -> its structures: ``name``, and a mesh of :func:`arrays` per way.
    classes : (name, title, colour) of those that are there.
    ways : what can be shown, with its title. Two need no mesh of that name: ``both``, the model
        within the pale truth (what is ``given`` is blue), and ``beside``, the truth on the right of
        the model; ``error`` is painted on the model.
    start : the way that is shown first.
    largest_mm : where the colours of the error end.
    apart_mm : from the model to the truth where they are beside each other.
    reach : name of a heart -> x, y, z -> least and largest place, mm; for what is compared way by
        way. Of other hearts the view fits what is shown.
    """

    title: str
    hearts: Mapping[str, Sequence[Mapping[str, Any]]]
    classes: Sequence[tuple[str, str, str]]
    ways: Sequence[tuple[str, str]] = WAYS
    start: str = "model"
    largest_mm: float = 1.0
    apart_mm: float = 0.0
    reach: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Modes:
    """A mean heart that a slider per mode of variation changes: mean + sum of z * component.

    parts : per structure ``name``, the corners ``i``, ``j``, ``k`` of its triangles, ``mean`` and
        ``components``, whole numbers in the order (V, 3) and (K, V, 3).
    steps : mm of one of these numbers, in ``mean`` and in ``components``.
    shares : (K,) of the variance, per mode.
    classes : (name, title, colour) of those that are there.
    largest_mm : where the colours of the distance from the mean end.
    reach : x, y, z -> least and largest place, mm, wherever the sliders stand.
    nearer : share of this that the mean heart takes.
    """

    title: str
    parts: Sequence[Mapping[str, Any]]
    steps: Mapping[str, float]
    shares: Sequence[float]
    classes: Sequence[tuple[str, str, str]]
    largest_mm: float
    reach: Mapping[str, Sequence[float]]
    nearer: float


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands below it."""

    name: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    viewers: Sequence[Viewer] = ()
    modes: Sequence[Modes] = ()
    pictures: Sequence[Picture] = ()


@dataclass
class Results:
    """A results folder, and which of its files were read."""

    folder: Path
    read: dict[str, Any] = field(default_factory=dict)
    last: Path | None = None  # the file that was looked at last

    def json(self, name: str) -> Any:
        """The content of a JSON file below the folder; None where it is not there, or says that
        it is of another model than there is now: of a training before, say, after which nobody
        asked for it.

        Raises
        ------
        InputError
            It is damaged.
        """
        self.last = self.folder / name
        if name not in self.read:
            path = self.folder / name
            self.read[name] = read_json(path) if path.is_file() else None
            if _of_another_model(path, self.read[name]):
                log.warning("%s is left out: it is of another model than there is now", path)
                self.read[name] = None
        return self.read[name]

    def number(self, name: str, keys: Sequence[str], form: str, factor: float = 1.0) -> Cell:
        """The cell of one number of a JSON file.

        form : how it is shown, as of ``format``.
        """
        try:
            value = reduce(_entry, keys, self.json(name))
        except (KeyError, TypeError, IndexError):
            return Cell(NONE)
        return number(value, form, f"{name}#{'/'.join(keys)}", factor)


def _of_another_model(path: Path, found: Any) -> bool:
    """Whether figures name a model that is none of their family's, in the folder above theirs."""
    stated = str(found.get("model_sha256") or "") if isinstance(found, dict) else ""
    family = path.parents[1]
    models = [*family.glob("model.pt"), *family.glob("*/model.pt")] if stated else []
    return bool(models) and stated not in map(sha256_file, models)


def _entry(found: Any, key: str) -> Any:
    """Of an object by its key, of a list by its number."""
    return found[int(key)] if isinstance(found, list) else found[key]


def number(value: float | None, form: str, source: str = "", factor: float = 1.0) -> Cell:
    """A number as a cell; a dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return Cell(NONE)
    return Cell(format(value * factor, form), source, factor)


def words(*texts: object) -> list[Cell]:
    """Cells that are no numbers of files."""
    return [Cell(str(text)) for text in texts]


def titles_of(labels: LabelTable) -> dict[str, str]:
    """Class name -> what it is called, no two alike."""
    titles = [label.title or label.name for label in labels]
    return {
        label.name: title if titles.count(title) == 1 else f"{title} ({label.name})"
        for label, title in zip(labels, titles)
    }


def structures(names: Iterable[str], labels: LabelTable) -> list[tuple[str, str, str]]:
    """Name, title and colour: the classes of the table in its order, then others (regions)."""
    there, titles = list(names), titles_of(labels)
    known = {label.name: (label.name, titles[label.name], label.color) for label in labels}
    others = [(name, name, OTHER) for name in there if name not in known]
    return [known[name] for name in known if name in there] + others


def needed(results: Results, name: str) -> Any:
    """A file without which there is nothing to report; InputError where it is missing."""
    found = results.json(name)
    if found is None:
        fact = "has nothing in it" if (results.folder / name).is_file() else "does not exist"
        raise InputError(problem(results.folder / name, fact, "run the workflow first"))
    return found
