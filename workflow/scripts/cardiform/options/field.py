"""How an option is declared: default, help, limits and what they mean (standard library only)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

# Names become folders and shell words.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
SEED_MAX = 2**32 - 1  # every generator of random numbers takes these
INTEGER_MAX = 2**63 - 1  # of the integers of numpy and torch
CLASS_PATTERN = "[A-Za-z][A-Za-z0-9_]{0,99}"


def option(
    default,
    help: str,
    *,
    choices=None,
    minimum=None,
    maximum=None,
    multiple=None,
    pattern=None,
    classes=False,
    resumable=False,
    alias=None,
    memory=None,
    young=False,
    filled=False,
):
    """A field with its documentation. Numbers are finite, whatever their range.

    choices : what the value, or each item of a list, may be.
    multiple : the value is a multiple of this.
    pattern : regular expression that the whole text matches.
    classes : it names classes of the label table: ``name``, or ``name=...``
        (see ``cardiform.options.checks``).
    resumable : the key does not change what is computed, so a training resumes when it
        changes (see ``cardiform.training.checkpoint``).
    alias : another name of the key that earlier configs use.
    memory : what to do with it where memory runs out: raise, lower or set.
    young : results exist that were made before there was this key, as at its default: at that
        default it stands in no command line and no key of a checkpoint, so they stay finished.
    filled : a list has an item at least.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "multiple": multiple,
        "pattern": pattern,
        "classes": classes,
        "resumable": resumable,
        "alias": alias,
        "memory": memory,
        "young": young,
        "filled": filled,
    }
    return dataclasses.field(default=default, metadata=metadata)


def said(options) -> list[tuple[str, Any]]:
    """Name and value of every option, without those that are :func:`unsaid`."""
    found = ((f, getattr(options, f.name)) for f in dataclasses.fields(options))
    return [(field.name, value) for field, value in found if not unsaid(field, value)]


def unsaid(field: dataclasses.Field, value: Any) -> bool:
    """Whether a young key has its default."""
    return bool(field.metadata.get("young")) and value == field.default


def redefault(base: type, name: str, default):
    """The field of another options class, with another default."""
    field = next(field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def device_option():
    """Where a stage that uses a trained model computes."""
    return option("auto", "auto: CUDA if there is one", choices=("auto", "cpu", "cuda"))


def checked(options: type, values: Mapping[str, Any], where: str = "--"):
    """Construct ``options`` and hold every value against its choices and range."""
    problems = []
    for field in dataclasses.fields(options):
        value = values.get(field.name, field.default)
        name = where + (field.name.replace("_", "-") if where == "--" else field.name)
        if field.metadata["filled"] and value == ():
            known = ", ".join(field.metadata["choices"] or ())
            problems.append(f"{name} is empty; give one or more" + f" of {known}" * bool(known))
        for item in value if isinstance(value, tuple) else (value,):
            facts = _facts(item, field.metadata, isinstance(value, tuple))
            problems += [f"{name} {fact}" for fact in facts]
    if problems:
        raise InputError(problems)
    return options(**values)


def _facts(item: Any, meta: Mapping[str, Any], of_list: bool) -> list[str]:
    """What is wrong with a value, or with an item of a list."""
    facts = []
    if meta["choices"] and item not in meta["choices"]:
        facts.append(f"is {item!r}; one of {', '.join(filter(None, meta['choices']))}")
    if meta["pattern"] and not re.fullmatch(meta["pattern"], item):
        facts.append(f"is {item[:60]!r}; it must match {meta['pattern']}")
    if not isinstance(item, str):
        return facts + _number_facts(item, meta)
    if any(meta[limit] is not None for limit in ("minimum", "maximum", "multiple")):
        facts.append(f"is {item[:60]!r}; a number")
    if item.startswith("-") or not item.isprintable():
        facts.append(f"is {item[:60]!r}; a text of one line that does not begin with -")
    elif of_list and (item == "" or "," in item):
        facts.append(f"has the item {item[:60]!r}; a text without commas")
    return facts


def _number_facts(item: Any, meta: Mapping[str, Any]) -> list[str]:
    if isinstance(item, float) and not math.isfinite(item):
        return [f"is {item}; a finite number"]
    low, high, text = meta["minimum"], meta["maximum"], str(item)[:60]
    if high is None and isinstance(item, int):
        high = INTEGER_MAX
    facts = []
    if low is not None and item < low:
        facts.append(f"is {text}; at least {low}")
    if high is not None and item > high:
        facts.append(f"is {text}; at most {high}")
    if meta["multiple"] is not None and item % meta["multiple"]:
        facts.append(f"is {text}; a multiple of {meta['multiple']}")
    return facts
