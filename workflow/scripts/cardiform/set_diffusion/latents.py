"""Stored latents of a case: in slots, where the heart lies in its cube, what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import again
from ..formats import Format
from ..geometry.frame import Frame

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


def frame_of(numbers: np.ndarray) -> Frame:
    """The frame of a heart in the cube about the origin, from its (4,) numbers."""
    return Frame(np.asarray(numbers[:3], np.float64), float(np.exp(-numbers[3])))
