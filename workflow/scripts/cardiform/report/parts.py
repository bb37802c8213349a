"""What a section of the report is made of: cells that know their source, charts, pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import read_json
from ..labels import LabelTable

NONE = "–"


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

    hearts : name of each -> the meshes of :func:`cardiform.report.hearts.viewer`.
    classes : (name, title, colour) of those that are there.
    largest_mm : where the colours of the error end.
    """

    title: str
    hearts: Mapping[str, Sequence[Mapping[str, Any]]]
    classes: Sequence[tuple[str, str, str]]
    largest_mm: float


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands below it."""

    name: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    viewers: Sequence[Viewer] = ()
    pictures: Sequence[Picture] = ()


@dataclass
class Results:
    """A results folder, and which of its files were read."""

    folder: Path
    read: dict[str, Any] = field(default_factory=dict)
    last: Path | None = None  # the file that was looked at last

    def json(self, name: str) -> Any:
        """The content of a JSON file below the folder; None where it is not there.

        Raises
        ------
        InputError
            It is damaged.
        """
        self.last = self.folder / name
        if name not in self.read:
            path = self.folder / name
            self.read[name] = read_json(path) if path.is_file() else None
        return self.read[name]

    def number(self, name: str, keys: Sequence[str], form: str, factor: float = 1.0) -> Cell:
        """The cell of one number of a JSON file.

        form : how it is shown, as of ``format``.
        """
        try:
            value = reduce(lambda found, key: found[key], keys, self.json(name))
        except (KeyError, TypeError):
            return Cell(NONE)
        return number(value, form, f"{name}#{'/'.join(keys)}", factor)


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


def needed(results: Results, name: str) -> Any:
    """A file without which there is nothing to report; InputError where it is missing."""
    found = results.json(name)
    if found is None:
        fact = "has nothing in it" if (results.folder / name).is_file() else "does not exist"
        raise InputError(problem(results.folder / name, fact, "run the workflow first"))
    return found
