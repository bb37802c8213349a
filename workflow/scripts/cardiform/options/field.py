"""How an option is declared: default, help, limits and what they mean (standard library only)."""

from __future__ import annotations

import dataclasses

# Names become folders and shell words.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
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
