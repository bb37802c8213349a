"""The options that a search varies, and in which range (standard library only)."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..options.field import checked
from ..options.search import SEARCHED, SearchOptions
from ..options.sections import SECTIONS

FORM = re.compile(r"\s*(?P<name>\w+(\.\w+)?)\s*=\s*(?P<values>\S.*?)\s*")
RANGE = re.compile(r"(?P<low>\S+?)\.\.(?P<high>[^\s/]+)(?P<log>/log)?")
WRITE = "write key=low..high, key=low..high/log, or key=one|two"
# The search itself sets these.
NOT_SEARCHED = {
    "steps": "search.rungs sets the steps",
    "seed": "a lucky seed is no setting",
    "fast_dev_run": "a rehearsal ranks nothing",
    "coarser": "trials start from random weights",
    "coarser_steps": "trials start from random weights",
    "coarser_voxels": "trials start from random weights",
    "unfreeze_steps": "trials would be ranked before every level is trained",
}


@dataclass(frozen=True)
class Dimension:
    """An option that is searched.

    section, key : which.    kind : type of its values.
    values : what is chosen from; empty for a range.
    low, high : ends of a range, both included.    log : its logarithm is uniform.
    step : whole numbers lie so far apart, 0 for other numbers.
    """

    section: str
    key: str
    kind: Any
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: int = 0

    @property
    def name(self) -> str:
        """``section.key``"""
        return f"{self.section}.{self.key}"

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that its limits are held against."""
        return self.values or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of those that are tried."""
        if self.values:
            return value in self.values
        inside = self.low <= value <= self.high
        return inside and (not self.step or (value - self.low) % self.step == 0)

    @property
    def count(self) -> float:
        """How many values there are; infinite for a range of other than whole numbers."""
        whole = (self.high - self.low) // self.step + 1 if self.step else math.inf
        return len(self.values) or whole

    def value(self, found: Any) -> Any:
        """``found``, read from JSON, as a value of the option: a list is a tuple."""
        return tuple(found) if typing.get_origin(self.kind) is tuple else self.kind(found)

    def drawn(self, found: float) -> Any:
        """A number of a sampler as a value of the option, inside the range."""
        if self.kind is float:  # four digits are enough, and can be read
            return min(max(float(f"{found:.4g}"), self.low), self.high)
        return self.kind(found)


def parse_space(options: SearchOptions) -> list[Dimension]:
    """The dimensions of ``options.space``; all problems at once, as an InputError."""
    found: list[Dimension] = []
    problems = []
    for text in options.space:
        where = f"config: search.space: {text[:60]!r}"
        try:
            dimension = _dimension(text, SEARCHED[options.training])
            if dimension.name in (other.name for other in found):
                raise InputError(f"{dimension.name} is there twice; keep one")
            found.append(dimension)
        except InputError as error:
            problems += [f"{where}: {line}" for line in error.problems]
    if not options.space:
        problems.append(f"config: search.space is empty; {WRITE} for each option to search")
    if problems:
        raise InputError(problems)
    return found


def _dimension(text: str, sections: Sequence[str]) -> Dimension:
    form = FORM.fullmatch(text)
    if form is None:
        raise InputError(f"no key and values; {WRITE}")
    section, field, kind = _option(form["name"], sections)
    words = form["values"].split("|")
    span = RANGE.fullmatch(form["values"])
    if span is None:
        values = tuple(_read(kind, word.strip()) for word in words)
        if len(set(values)) < max(len(values), 2):
            raise InputError(f"give two or more different values, or a range; {WRITE}")
        dimension = Dimension(section, field.name, kind, values=values)
    else:
        if kind not in (int, float):
            raise InputError("a range is of numbers; list the values: key=one|two")
        low, high = _read(kind, span["low"]), _read(kind, span["high"])
        step = (field.metadata["multiple"] or 1) if kind is int else 0
        log = bool(span["log"])
        _check_range(low, high, log, step)
        dimension = Dimension(section, field.name, kind, (), low, high, log, step)
    facts = []
    for value in dimension.extremes:
        try:
            checked(SECTIONS[section], {field.name: value}, where="")
        except InputError as error:
            facts += error.problems
    if facts:
        raise InputError(dict.fromkeys(facts))
    return dimension


def _option(name: str, sections: Sequence[str]) -> tuple[str, dataclasses.Field, Any]:
    """Section, field and type of ``key``, of the training's own section, or ``section.key``."""
    *given, key = name.split(".")
    section = given[0] if given else sections[0]
    if section not in sections:
        raise InputError(f"{section} is no section of these trials; known: {', '.join(sections)}")
    fields = dataclasses.fields(SECTIONS[section])
    known = {alias: f for f in fields for alias in (f.name, f.metadata["alias"]) if alias}
    if key not in known:
        near = difflib.get_close_matches(key, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "see config/README.md"
        raise InputError(f"{section}.{key} is not a known key; {hint}")
    field = known[key]
    if field.metadata["resumable"] or field.name in NOT_SEARCHED:
        why = NOT_SEARCHED.get(field.name, "it does not change what is computed")
        raise InputError(f"{section}.{key} is not searched: {why}; leave it out")
    return section, field, typing.get_type_hints(SECTIONS[section])[field.name]


def _read(kind: Any, text: str) -> Any:
    """A text as a value; the items of a list stand apart by blanks."""
    if typing.get_origin(kind) is tuple:
        return tuple(_read(typing.get_args(kind)[0], word) for word in text.split())
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value = kind(text)
    except (KeyError, ValueError):
        raise InputError(f"{text[:60]!r} is no {kind.__name__}; {WRITE}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{text[:60]!r} is not finite; {WRITE}")
    return value


def _check_range(low: float, high: float, log: bool, step: int) -> None:
    if low >= high:
        raise InputError(f"{low} is not below {high}; write the lower end first")
    if log and low <= 0:
        raise InputError(f"{low} has no logarithm; begin above 0, or leave /log")
    if step > 1 and log:
        raise InputError(f"it is a multiple of {step}; list its values, or leave /log")


def check_space(space: Sequence[Dimension], options: SearchOptions) -> None:
    """InputError where there are too few settings, or the figure means another thing in each."""
    problems = []
    settings = math.prod(d.count for d in space)
    if settings < options.trials:
        problems.append(
            f"config: search.space has {settings} settings, search.trials is {options.trials}; "
            f"set it to {settings}, or search more"
        )
    weights = [d.name for d in space if "weight" in d.key and d.key != "weight_decay"]
    if weights and options.figure == "loss":
        problems.append(
            f"config: search.figure is loss, and {', '.join(weights)} weighs its terms: trials "
            "could not be compared; name another figure (dice, say), or search other keys"
        )
    if problems:
        raise InputError(problems)


def given_values(space: Iterable[Dimension], texts: Iterable[str]) -> dict[str, Any]:
    """``section.key`` -> value, of texts ``section.key=value``."""
    found = dict(text.split("=", 1) for text in texts)
    return {d.name: _read(d.kind, found[d.name]) for d in space}


def text_of(value: Any) -> str:
    """A value as it is written in search.space."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def values_of(space: Iterable[Dimension], sections: Mapping[str, Any]) -> dict[str, Any]:
    """``section.key`` -> value of each dimension in the options of a config."""
    return {d.name: getattr(sections[d.section], d.key) for d in space}
