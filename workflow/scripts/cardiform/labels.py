"""The label table: the only place where class numbers live (standard library only)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError, problem
from .tables import read_table


@dataclass(frozen=True, kw_only=True)
class LabelClass:
    """One structure of the label table.

    value : the integer in the label maps, 1-255.
    name : short identifier, used in file names and figures (letters, digits, ``_``).
    title : the name shown to people.
    color : ``#rrggbb`` in pictures.
    components : connected parts that a complete structure usually has (of a range in a file: at
        most).
    priority : where label maps overlap, the class with the smaller number wins.
    fewest, most : connected parts that are nothing unusual; 0: as ``components``. What is
        computed does not depend on them alone, so they are not stored with it.
    """

    value: int
    name: str
    title: str
    color: str
    components: int = 1
    priority: int = 0
    fewest: int = field(default=0, compare=False)
    most: int = field(default=0, compare=False)

    @property
    def expected(self) -> range:
        """Numbers of connected parts that are nothing unusual."""
        return range(self.fewest or self.components, (self.most or self.components) + 1)

    @property
    def expected_text(self) -> str:
        """The same as people write it: 2, 1-2."""
        first, last = self.expected[0], self.expected[-1]
        return str(first) if first == last else f"{first}-{last}"


MOST_FOREIGN = 65535  # as cardiform.volumes.files has it
INTEGERS = ("value", "priority")
STORED = ("value", "name", "title", "color", "components", "priority")
NEEDED = tuple(name for name in STORED if name != "title")  # a title may be empty
# The aorta is one body where the scan shows its arch, and there are as many trees of veins as enter
# the atrium apart from one another.
FEWEST_AND_MOST = {"aorta": (1, 2), "pulmonary_veins": (2, 5)}
# STACOM-2025 public cardiac CT labels. Colours: oxygenated blood red and orange,
# venous blood blue, muscle brown, coronaries yellow.
STACOM_2025 = tuple(
    LabelClass(
        value=v,
        name=n,
        title=t,
        color=c,
        components=k,
        priority=p,
        fewest=FEWEST_AND_MOST.get(n, (0, 0))[0],
        most=FEWEST_AND_MOST.get(n, (0, 0))[1],
    )
    for v, n, t, c, k, p in (
        (1, "myocardium", "Myocardium", "#b5654a", 1, 6),
        (2, "left_atrium", "Left atrium", "#e8543f", 1, 4),
        (3, "left_ventricle", "Left ventricle", "#c41e2a", 1, 5),
        (4, "right_atrium", "Right atrium", "#4f8fd6", 1, 8),
        (5, "right_ventricle", "Right ventricle", "#2a5db0", 1, 9),
        (6, "aorta", "Aorta", "#f08a24", 2, 7),
        (7, "pulmonary_artery", "Pulmonary artery", "#6cc0e5", 1, 10),
        (8, "left_atrial_appendage", "Left atrial appendage", "#f29bb0", 1, 2),
        (9, "coronary", "Coronary arteries", "#f5d142", 2, 1),
        (10, "pulmonary_veins", "Pulmonary veins", "#a04fb5", 2, 3),
    )
)

BUILT_IN = tuple(c.name for c in STACOM_2025)
# What a mean figure over large structures covers; the rest is thin or small.
CHAMBERS_AND_GREAT_VESSELS = tuple(c.name for c in STACOM_2025 if c.value <= 7)


@dataclass(frozen=True)
class LabelTable(Sequence[LabelClass]):
    """The classes of a cohort in channel order: channel ``i`` is ``table[i]``."""

    classes: tuple[LabelClass, ...] = STACOM_2025

    def __getitem__(self, channel):
        return self.classes[channel]

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[LabelClass]:
        return iter(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(c.value for c in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def usual_parts(self) -> list[range]:
        """Numbers of connected parts of each class that are nothing unusual.

        Stored tables lack the ranges: those of the built-in classes are known, others have the
        upper end alone.
        """
        known = {c: c.expected for c in STACOM_2025}
        up_to = [range(1, c.components + 1) for c in self.classes]
        return [c.expected if c.most else known.get(c, r) for c, r in zip(self.classes, up_to)]

    @property
    def other_parts(self) -> dict[str, dict[str, list[int]]]:
        """The ranges of parts that :meth:`as_dicts` does not have, under one key; empty: it has
        all of them."""
        known = {c: c.expected for c in STACOM_2025}
        listed = [known.get(c, range(c.components, c.components + 1)) for c in self.classes]
        ends = {c.name: [*c.expected[:1], *c.expected[-1:]] for c in self.classes}
        other = {c.name: ends[c.name] for c, t in zip(self.classes, listed) if c.expected != t}
        return {"parts": other} if other else {}

    def channel(self, name: str) -> int:
        """Channel of the class called ``name``."""
        if name not in self.names:
            raise InputError(f"label table: no class {name!r}; one of {', '.join(self.names)}")
        return self.names.index(name)

    def as_dicts(self) -> list[dict]:
        """Plain builtins, as stored in model files."""
        return [{k: v for k, v in asdict(c).items() if k in STORED} for c in self.classes]

    @classmethod
    def from_dicts(cls, rows: Sequence[dict]) -> LabelTable:
        """The inverse of :meth:`as_dicts`."""
        return cls(tuple(LabelClass(**row) for row in rows))


def channel_of_value(values: Iterable[int], *, first: int = 0, unknown: int = 0) -> list[int]:
    """The channel of each value from 0 to 255: a table to look a whole label map up in.

    values : class values (1-255) in channel order.    first : channel of the first of them.
    unknown : channel of values beside them. The background, 0, has always channel 0.
    """
    channels = [0] + [unknown] * 255
    for channel, value in enumerate(values, start=first):
        channels[value] = channel
    return channels


def load_label_table(path: str | Path = "") -> LabelTable:
    """The label table of a TSV or CSV file; the STACOM-2025 table where no file is named.

    The file has a header line and the columns value, name, title, color, components, priority.

    Raises
    ------
    InputError
        It is no table (see :func:`cardiform.tables.read_table`). All that is wrong with its
        columns and rows is reported at once, with the line.
    """
    if not str(path):
        return LabelTable()
    columns = list(STORED)
    header, rows = read_table(path)
    if missing := [c for c in columns if c not in header]:
        remedy = f"name {', '.join(columns)} in the header, separated by tabs or commas"
        raise InputError(problem(path, f"no column {', '.join(missing)}", remedy))
    problems, classes = [], []
    for line, row in rows:
        facts = _facts(row)
        problems += [problem(f"{path}:{line}", fact, "correct this row") for fact in facts]
        if not facts:
            fewest, _, most = row["components"].partition("-")
            made: dict[str, Any] = {name: row[name] for name in columns}
            made |= {name: int(row[name]) for name in INTEGERS}
            made |= {"components": int(most or fewest), "fewest": int(fewest)}
            classes.append(LabelClass(**made))
    for what in ("value", "name"):
        seen = [getattr(c, what) for c in classes]
        for twice in sorted({x for x in seen if seen.count(x) > 1}):
            problems.append(problem(path, f"{what} {twice} occurs twice", "keep one row"))
    if not rows:
        problems.append(problem(path, "has no rows", "list at least one class"))
    if problems:
        raise InputError(problems)
    return LabelTable(tuple(classes))


def load_values_by_name(path: str | Path, table: LabelTable) -> dict[int, int]:
    """Class values of other label maps, and those of ``table`` that have the same names.

    path : a table with the columns value and name; several values may have one name.

    Raises
    ------
    InputError
        It is no such table, a value is there twice or none of 1-65535, a name is no class of
        ``table``: all of them, with the line.
    """
    header, rows = read_table(path)
    if missing := [c for c in ("value", "name") if c not in header]:
        remedy = "name value and name in the header, separated by tabs or commas"
        raise InputError(problem(path, f"no column {', '.join(missing)}", remedy))
    problems: list[str] = []
    result: dict[int, int] = {}
    known = dict(zip(table.names, table.values))
    for line, row in rows:
        value, name = row["value"], row["name"]
        where, remedy = f"{path}:{line}", "correct this row, or remove it"
        if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= MOST_FOREIGN:
            fact = f"value {value[:60]!r} is not within 1-{MOST_FOREIGN}"
            problems.append(problem(where, fact, remedy))
        elif int(value) in result:
            problems.append(problem(where, f"value {value} is there twice", "keep one row"))
        else:
            result[int(value)] = known.get(name, 0)
        if name not in known:
            fact = f"name {name[:60]!r} is no class of the label table ({', '.join(known)})"
            problems.append(problem(where, fact, remedy))
    if not rows:
        problems.append(problem(path, "has no rows", "list at least one class"))
    if problems:
        raise InputError(problems)
    return result


def _facts(row: dict[str, str]) -> list[str]:
    """What is wrong with a row; whole numbers are of up to nine digits."""
    if empty := [name for name, text in row.items() if name in NEEDED and not text]:
        return [f"has no {', '.join(empty)}"]
    facts = [
        f"{name} {row[name][:60]!r} is no whole number"
        for name in INTEGERS
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", row[name])
    ]
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", row["components"]):
        facts.append(f"components {row['components'][:60]!r} is no number and no range like 1-2")
    if facts:
        return facts
    if not 1 <= int(row["value"]) <= 255:
        facts.append(f"value {row['value']} is not within 1-255")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", row["name"]):
        facts.append(f"name {row['name'][:60]!r} is not made of up to 100 letters, digits and _")
    # Only these: of letters newer than Python's tables nobody knows the kind here, and joiners
    # belong to some scripts.
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in row["title"]):
        facts.append(f"title {row['title'][:60]!r} has a control character")
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", row["color"]):
        facts.append(f"color {row['color'][:60]!r} is not of the form #rrggbb")
    fewest, _, most = row["components"].partition("-")
    if not 1 <= int(fewest) <= int(most or fewest):
        facts.append(f"components {row['components']} is not 1 or more, or a range like 1-2")
    return facts
