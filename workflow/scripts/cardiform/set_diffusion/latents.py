"""Stored latents of a case: in slots, where the heart lies in its cube, what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again, problem
from ..formats import Format
from ..geometry.frame import Frame
from .slots import Slots

SET_LATENTS = Format(
    "set-latents",
    {
        "latents": "f32 (M, W)",
        "frame": "f64 (4)",
        "present": "bool (C)",
        "volumes": "f64 (C)",
        "columns": "f64 (K)",
        "format_version": "i64",
    },
    again("encode_set_latents"),
)
PLACE = 3  # the first channels of a latent
FRAME = 4  # numbers of a frame: its middle in the cube, mm, and the logarithm of its mm per unit


@dataclass(frozen=True)
class SetLatents:
    """Content of a latents file.

    latents : (M, W) float32.    frame : (4,) float64.    present : (C,) bool.
    volumes : (C,) ml, columns : (K,), NaN where not known.
    """

    latents: np.ndarray
    frame: np.ndarray
    present: np.ndarray
    volumes: np.ndarray
    columns: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> SetLatents:
        """InputError where it is none."""
        arrays = SET_LATENTS.load(path)
        names = ("latents", "frame", "present", "volumes", "columns")
        return cls(*(arrays[name] for name in names))


def load_in_slots(path: Path, slots: Slots, columns: int, classes: int) -> SetLatents:
    """The latents of a case; InputError where they are of other slots."""
    heart = SetLatents.load(path)
    found = len(heart.latents), len(heart.columns), len(heart.present)
    if found != (len(slots.places), columns, classes):
        fact = f"has {found[0]} latents, {found[1]} columns and {found[2]} classes, the slots have "
        fact += f"{len(slots.places)}, {columns} and {classes}"
        raise InputError(problem(path, fact, again("encode_set_latents")))
    return heart


def frame_of(numbers: np.ndarray) -> Frame:
    """The frame of a heart in the cube about the origin, from its (4,) numbers."""
    return Frame(np.asarray(numbers[:3], np.float64), float(np.exp(-numbers[3])))


def numbers_of(frame: Frame) -> np.ndarray:
    """The inverse of :func:`frame_of`."""
    return np.array([*frame.center, -np.log(frame.scale)])
