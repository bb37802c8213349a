"""Stored files: the version and the keys of each format, checked by whoever reads one.

A format is written down once, beside its reader; docs/formats.md explains each of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .errors import InputError, problem
from .files import ANEW, load_npz, read_json

VERSION = "format_version"
NEWER = "made by a newer version of Cardiform"
ABSENT = object()
KINDS = {"bool": "b", "text": "U", "object": "O", "integer": "iu", "number": "iuf"}


@dataclass(frozen=True)
class Format:
    """One kind of stored file.

    name : what it is, in messages: "points" of "is no points file".
    keys : key -> type and shape, ``f32 (N, 3)`` say, or ``u8 or f16 (N)``; a size that is named
        twice is the same both times. JSON has the types text, integer, number, bool and object;
        dots lead into its objects and lists. ``*`` is any name; a key with ``?`` may be missing.
    remedy : how to get such a file again; empty: it is a declared output.
    version : what is written.    earlier : other versions that are read.
    marked : files carry ``format_version``. The others count as version 1 without one.
    """

    name: str
    keys: Mapping[str, str]
    remedy: str = ""
    version: int = 1
    earlier: tuple[int, ...] = ()
    marked: bool = True

    def load(self, path: str | Path) -> dict[str, Any]:
        """The content of an npz, or of a JSON file by its suffix.

        Raises
        ------
        InputError
            It is missing, damaged, of a version that is not known, or a key is missing or of
            another type or shape.
        """
        if Path(path).suffix == ".json":
            content = read_json(path, self.remedy)
        else:
            content = load_npz(path, self.remedy or ANEW)
        self.check(path, content)
        return content

    def check(self, path: str | Path, content: Any, remedy: str = "") -> None:
        """InputError where ``content`` is not of this format: version, keys, types, shapes.

        remedy : in place of that of the format.
        """
        self.check_names(path, content, remedy)
        self.check_values(path, content, self.keys, remedy)

    def check_values(
        self, path: str | Path, content: Any, keys: Iterable[str], remedy: str = ""
    ) -> None:
        """Types and shapes of some keys."""
        absent: dict[str, None] = {}
        wrong: list[str] = []
        sizes: dict[str, dict[str, int]] = {}
        for key in keys:
            for name, value in _named(content, key.removesuffix("?")):
                stem = name.removesuffix(key.removesuffix("?").rpartition("*")[2])
                if value is ABSENT:
                    absent |= {} if key.endswith("?") else {name: None}
                elif not _fits(value, self.keys[key], sizes.setdefault(stem, {})):
                    wrong.append(f"{name} is {_described(value)}, not {self.keys[key]}")
        if absent:
            self._refuse(path, f"is no {self.name} file (no {', '.join(absent)})", remedy)
        if wrong:
            self._refuse(path, f"is no {self.name} file ({'; '.join(wrong)})", remedy)

    def check_names(self, path: str | Path, content: Any, remedy: str = "") -> None:
        """Version and outermost keys alone; of an npz that is open, nothing else is read."""
        content = content if isinstance(content, Mapping) else {}
        version = self._version(content)
        self._check_newer(path, version)
        wanted = [key for key in self.keys if not {"*", ".", "?"} & set(key)]
        absent = [key for key in wanted if key not in content]
        if absent:
            self._refuse(path, f"is no {self.name} file (no {', '.join(absent)})", remedy)
        if version not in (self.version, *self.earlier):
            self._refuse(path, self._other(version), remedy)

    def check_header(self, path: str | Path, header: Sequence[str]) -> None:
        """InputError where a table has other columns: they are the version of a table."""
        wanted = list(self.keys)
        if list(header) == wanted:
            return
        columns = f"columns {', '.join(header) or 'none'}"
        if set(wanted) < set(header):
            self._refuse(path, f"is a {self.name} with more {columns}: {NEWER}", "update it")
        fact = f"is no {self.name} ({columns}; this version reads {', '.join(wanted)})"
        self._refuse(path, fact)

    def _version(self, content: Mapping) -> Any:
        found = content.get(VERSION, None if self.marked else 1)
        found = found.tolist() if hasattr(found, "tolist") else found
        return None if isinstance(found, bool) else found  # True equals 1

    def _check_newer(self, path: str | Path, version: Any) -> None:
        if isinstance(version, int) and version > max(self.version, *self.earlier, 0):
            self._refuse(path, f"{self._other(version)}: {NEWER}", "update it")

    def _other(self, version: Any) -> str:
        known = ", ".join(map(str, sorted({self.version, *self.earlier})))
        return f"has {self.name} format {str(version)[:24]}, this version reads {known}"

    def _refuse(self, path: str | Path, fact: str, remedy: str = "") -> NoReturn:
        raise InputError(problem(path, " ".join(fact.split()), remedy or self.remedy or ANEW))


def _named(content: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of all that a key stands for; ABSENT where one is missing."""
    if isinstance(content, list):
        content = {str(number): item for number, item in enumerate(content)}
    if not isinstance(content, Mapping):
        yield key, ABSENT
        return
    first, _, rest = key.partition(".")
    for name in fnmatch.filter(content, first) if "*" in first else [first]:
        value = content.get(name, ABSENT)
        if rest and value is not ABSENT:
            yield from ((f"{name}.{inner}", found) for inner, found in _named(value, rest))
        else:
            yield name, value


def _fits(value: Any, spec: str, sizes: dict[str, int]) -> bool:
    """Whether a value has the type and shape of ``spec``; ``sizes`` of names seen before."""
    import numpy as np

    types, _, shape = spec.partition(" (")
    wanted = shape.rstrip(")").split(", ") if shape else []
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return False
    # An empty list of JSON has no type.
    if array.size and array.dtype.kind not in "".join(map(_kinds, types.split(" or "))):
        return False
    return array.ndim == len(wanted) and all(
        int(name) == size if name.isdigit() else sizes.setdefault(name, size) == size
        for name, size in zip(wanted, array.shape)
    )


def _kinds(word: str) -> str:
    """The kinds of numpy that a type of ``keys`` allows: whole numbers of any width are alike."""
    return KINDS.get(word) or ("f" if word.startswith("f") else "iu")


def _described(value: Any) -> str:
    """A value's type and shape, for a message."""
    if hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{str(value)[:24]!r}"
