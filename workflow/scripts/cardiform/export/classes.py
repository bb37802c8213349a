"""What files for other programs say of the classes: numbers, names, colours."""

from __future__ import annotations

import unicodedata

import numpy as np

from ..labels import LabelClass


def rgb(label: LabelClass) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255."""
    red, green, blue = bytes.fromhex(label.color.lstrip("#"))
    return red, green, blue


def colors(values: np.ndarray, classes: list[LabelClass]) -> np.ndarray:
    """(N, 3) uint8 of (N,) label values."""
    table = np.zeros((256, 3), np.uint8)
    for label in classes:
        table[label.value] = rgb(label)
    return table[values]


def plain(label: LabelClass) -> str:
    """The title in ASCII, which is all that a header of NRRD holds; else the name."""
    text = unicodedata.normalize("NFKD", label.title)
    return "".join(c for c in text if " " <= c <= "~").strip() or label.name


def names_of(classes: list[LabelClass]) -> dict[int, str]:
    """Label value -> name."""
    return {label.value: label.name for label in classes}


def remark(arrays: str, classes: list[LabelClass]) -> str:
    """What the numbers of a file mean."""
    names = ", ".join(f"{value} {name}" for value, name in names_of(classes).items())
    return f"millimetres, RAS; {arrays}: 0 outside, {names}"
