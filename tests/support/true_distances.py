"""The exact signed distances of a procedural heart, which its label maps are the signs of."""

from __future__ import annotations

import numpy as np

from cardiform.labels import LabelTable
from cardiform.phantom import Phantom

TABLE = LabelTable()


def signed_distances(heart: Phantom, points: np.ndarray) -> np.ndarray:
    """(N, 10) float32 mm in channel order, negative inside, at (N, 3) points in RAS mm.

    Of the regions after the label table's priority: at most one distance is negative. Near a
    surface the error is of second order; a missing class is far away everywhere.
    """
    low, high = heart.scan_range
    outside = np.maximum(low - points[:, 2], points[:, 2] - high)
    taken = np.full(len(points), np.inf)
    regions = np.empty((len(points), len(TABLE)), np.float32)
    for channel in sorted(range(len(TABLE)), key=lambda c: TABLE[c].priority):
        whole = np.maximum(_whole(heart, channel, points), outside)
        regions[:, channel] = np.maximum(whole, -taken)
        taken = np.minimum(taken, whole)
    return regions


def _whole(heart: Phantom, channel: int, points: np.ndarray) -> np.ndarray:
    """(N,) mm to the whole solid of a class, which the scan and other classes cut."""
    solid = heart.solids[channel]
    if solid is None:
        return np.full(len(points), 1e3)
    in_heart = (points - heart.shift) @ heart.rotation / heart.size
    return heart.size * solid.evaluate(in_heart)[0]
