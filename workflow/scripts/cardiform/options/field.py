"""How an option is declared: default, help, limits and what they mean (standard library only)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

# Names become folders and shell words.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
SEED_MAX = 2**32 - 1  # every generator of random numbers takes these
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
    resumable=False,
    alias=None,
    memory=None,
):
    """A field with its documentation.

    multiple : the value is a multiple of this.
    pattern : regular expression that the whole text matches.
    resumable : the key does not change what is computed, so a training resumes when it
        changes (see ``cardiform.training.checkpoint``).
    alias : another name of the key that earlier configs use.
    memory : what to do with it where memory runs out: raise, lower or set.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "multiple": multiple,
        "pattern": pattern,
        "resumable": resumable,
        "alias": alias,
        "memory": memory,
    }
    return dataclasses.field(default=default, metadata=metadata)


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
        meta = field.metadata
        name = where + (field.name.replace("_", "-") if where == "--" else field.name)
        if meta["choices"] and value not in meta["choices"]:
            problems.append(f"{name} is {value!r}; one of {', '.join(meta['choices'])}")
        if meta["pattern"] and not re.fullmatch(meta["pattern"], value):
            problems.append(f"{name} is {value[:60]!r}; it must match {meta['pattern']}")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str) and (item.startswith("-") or not item.isprintable()):
                problems.append(
                    f"{name} is {item[:60]!r}; a text of one line that does not begin with -"
                )
                continue
            if isinstance(value, tuple) and (item == "" or (isinstance(item, str) and "," in item)):
                problems.append(f"{name} has the item {item[:60]!r}; a text without commas")
            if meta["minimum"] is not None and not item >= meta["minimum"]:
                problems.append(f"{name} is {item}; at least {meta['minimum']}")
            if meta["maximum"] is not None and not item <= meta["maximum"]:
                problems.append(f"{name} is {item}; at most {meta['maximum']}")
            if meta["multiple"] is not None and item % meta["multiple"]:
                problems.append(f"{name} is {item}; a multiple of {meta['multiple']}")
    if problems:
        raise InputError(problems)
    return options(**values)
