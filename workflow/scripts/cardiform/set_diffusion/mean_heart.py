"""The mean heart of a cohort: how many slots each class has, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..vecset.inputs import farthest_points, labelled_points
from .slots import Slots, Surface

ROUNDS = 3  # of matching and averaging
MOST_HEARTS = 64  # more of them do not sharpen a mean heart


def mean_heart(hearts: Sequence[Surface], number: int) -> Slots:
    """``number`` slots, of surfaces of training hearts that have the same classes.

    They begin at farthest points of the heart nearest to the average.
    """
    hearts = hearts[:MOST_HEARTS]
    points, channels = hearts[_most_usual(hearts)]
    classes = int(channels.max()) + 1
    rows = farthest_points(labelled_points(points, channels, classes), number, channels)
    slots = Slots(points[rows].astype(np.float32), channels[rows].astype(np.uint8))
    for _ in range(ROUNDS):
        placed = np.stack([heart[0][slots.rows(*heart)] for heart in hearts])
        places = placed.mean(axis=0, dtype=np.float64).astype(np.float32)
        slots = Slots(places, slots.channels)
    return slots


def _most_usual(hearts: Sequence[Surface]) -> int:
    """The heart whose classes lie closest to where they lie on average."""
    classes = int(max(channels.max() for _, channels in hearts)) + 1
    middles = np.array(
        [[p[c == k].mean(axis=0) for k in range(classes) if (c == k).any()] for p, c in hearts]
    )
    return int(np.square(middles - middles.mean(axis=0)).sum(axis=(1, 2)).argmin())
