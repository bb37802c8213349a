"""What fills the voxels that lost their class: whatever lies on both sides of them."""

from __future__ import annotations

import itertools

import numpy as np

# Half of the ways to the 26 neighbours; the other half are their opposites.
WAYS = [way for way in itertools.product((-1, 0, 1), repeat=3) if way > (0, 0, 0)]
RAY_MM = 12.0  # as far as one looks: voxels in larger holes are left alone
CAUTION = 3.0  # a line that speaks against the heart counts so often: grooves stay open
AT_A_TIME = 100_000


def surrounding(
    labels: np.ndarray, places: np.ndarray, through: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which class lies around each of some voxels, and whether that is certain.

    labels : (X, Y, Z) uint8.    places : (N, 3) voxels.    spacing : (3,) mm.
    through : (X, Y, Z) bool: what is not looked at, since nothing is known of what lies there.

    Returns
    -------
    (N,) uint8, 0 where that is the background; and (N,) bool, False where it is only the nearest
    class, because no line speaks for or against the heart.

    Notes
    -----
    From every voxel one looks along 13 lines in both directions, to the first voxel that is
    known. A line that ends in structures on both sides speaks for the heart, one that ends in the
    background on both sides against it, the shorter the more. Where the hole lies across a flat
    wall this gives the wall back; the nearest voxel would make it thicker.
    """
    parts = range(0, len(places), AT_A_TIME)
    found = [_part(labels, places[k : k + AT_A_TIME], through, spacing) for k in parts]
    if not found:
        return np.zeros(0, np.uint8), np.zeros(0, bool)
    classes, certain = zip(*found)
    return np.concatenate(classes), np.concatenate(certain)


def _part(labels, places, through, spacing) -> tuple[np.ndarray, np.ndarray]:
    values = np.unique(labels[labels > 0])
    column = np.zeros(256, np.int64)
    column[values] = np.arange(1, len(values) + 1)
    inside, outside = np.zeros(len(places)), np.zeros(len(places))
    same = np.zeros((len(places), len(values) + 1))
    nearest, nearest_mm = np.zeros(len(places), np.uint8), np.full(len(places), np.inf)
    for way in WAYS:
        ends = [_looked(labels, places, through, spacing, sign * np.array(way)) for sign in (1, -1)]
        (one, one_mm), (other, other_mm) = ends
        weight = 1 / (one_mm + other_mm)  # 0 where one of them sees nothing
        both = (one > 0) & (other > 0)
        inside += weight * both
        outside += weight * ((one == 0) & (other == 0))
        chosen = np.flatnonzero(both & (one == other))
        same[chosen, column[one[chosen]]] += weight[chosen]
        for end, far in ends:
            closer = (end > 0) & (far < nearest_mm)
            nearest[closer], nearest_mm[closer] = end[closer], far[closer]
    most = np.r_[0, values][same.argmax(axis=1)].astype(np.uint8)
    classes = np.where(same.any(axis=1), most, nearest)
    classes[CAUTION * outside > inside] = 0
    return classes, (inside > 0) | (outside > 0)


def _looked(labels, places, through, spacing, way) -> tuple[np.ndarray, np.ndarray]:
    """The first known class along a way, and how far off it is, mm; inf where none is seen."""
    step = float(np.linalg.norm(way * spacing))
    ends, away = np.zeros(len(places), np.uint8), np.full(len(places), np.inf)
    looking, at = np.arange(len(places)), places.copy()
    for number in range(1, int(RAY_MM / step) + 1):
        at = at + way
        within = ((at >= 0) & (at < labels.shape)).all(axis=1)
        looking, at = looking[within], at[within]
        index = tuple(at.T)
        known = ~through[index]
        ends[looking[known]] = labels[index][known]
        away[looking[known]] = number * step
        looking, at = looking[~known], at[~known]
        if not len(looking):
            break
    return ends, away
