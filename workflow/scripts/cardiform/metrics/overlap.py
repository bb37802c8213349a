"""Agreement of two label maps, class by class."""

from __future__ import annotations

import numpy as np

from ..labels import LabelTable


def dice_of(one: np.ndarray, other: np.ndarray) -> float | None:
    """Dice of two masks of one shape; None where both are empty."""
    both = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / both if both else None


def overlap(
    truth: np.ndarray, predicted: np.ndarray, table: LabelTable
) -> dict[str, dict[str, float | None]]:
    """Dice, IoU and volume error of every class, over the full grid.

    truth, predicted : uint8 label maps of one shape.

    Returns
    -------
    Class name -> dice and iou (0-1) and volume_error (predicted - truth, relative to truth).
    A class that the truth lacks has None for all: nobody annotated it, so what is predicted of it
    is neither right nor wrong.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape}, predicted {predicted.shape}")
    pairs = truth.ravel().astype(np.uint16) << 8 | predicted.ravel()
    counts = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
    in_truth, in_predicted = counts.sum(axis=1), counts.sum(axis=0)
    result: dict[str, dict[str, float | None]] = {}
    for label in table:
        value = label.value
        both, a, b = int(counts[value, value]), int(in_truth[value]), int(in_predicted[value])
        result[label.name] = {
            "dice": 2 * both / (a + b) if a else None,
            "iou": both / (a + b - both) if a else None,
            "volume_error": (b - a) / a if a else None,
        }
    return result
