"""Valid anatomy: whether a heart has the parts and the contacts that training hearts have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .components import count_components

ALWAYS = 0.9  # share of the training hearts from which on two classes have to touch
NEVER = 0.02  # expected share of all hearts up to which two classes have to be apart
MISJUDGED = 0.02  # share of the training hearts that the others may call not valid
# Squared distances of voxels: faces that touch, edges, corners, one voxel between, and so on.
FACE, *_ = SPARE = (1, 2, 3, 4, 5)
FAR = 9  # any distance beyond
_REACH = range(-2, 3)
ANY_NUMBER = range(1, 1 << 31)


@dataclass(frozen=True)
class Anatomy:
    """What is true of the training hearts.

    That two classes touch in none of ten hearts does not show that they never do, and whether two
    surfaces that nearly meet share the face of a voxel depends on where the grid lies. So the rules
    are as strict as the training hearts bear: each is judged by the others, and room is given until
    nearly all are called valid. Classes that share an edge in some heart are held apart only where
    many hearts say so. A class that is thinner than a voxel falls into pieces in the training
    hearts, too: where many have another number of parts than the usual ones, any number will do.

    parts : of each class, the numbers of connected parts that are nothing unusual, or ANY_NUMBER.
    touching, apart : (C, C) bool: pairs that have to touch, and that must not share a face.
    spare : squared distance in voxels up to which two classes touch, for the first of them.
    """

    parts: Sequence[range]
    touching: np.ndarray
    apart: np.ndarray
    spare: int = FACE

    @classmethod
    def of(cls, hearts: Iterable[tuple[np.ndarray, np.ndarray]], parts: Sequence[range]) -> Anatomy:
        """Learn from training hearts, looked at one by one.

        hearts : (X, Y, Z) of 0 and channels 1 to C, and (C,) bool: the classes known. What is not
            known of a heart is no rule.
        parts : of the C classes, from the label table.
        """
        looked = [
            (gaps(heart, len(parts)), known[:, None] & known, _unusual(heart, parts) & known)
            for heart, known in hearts
        ]
        ways, seen, unusual = (np.array(part) for part in zip(*looked))
        touch, total = (ways == FACE) & seen, seen.sum(axis=0)
        count, most = touch.sum(axis=0), np.maximum(total - seen, 1)
        wanted = (total > seen) & seen & ((count - touch) / most >= ALWAYS)
        spare = _spare(lambda far: wanted & (ways > far), SPARE)
        nearest, others = _nearest(np.where(seen, ways, FAR))
        room = _spare(lambda far: touch & (others > far), SPARE[1:])
        expected = (count + 1) / (total + 2)  # by Laplace's rule of succession
        apart = (total > 0) & ((nearest > room) | (expected <= NEVER))
        odd, of = unusual.sum(axis=0), total.diagonal()
        pieces = (odd > 1) & (of - odd < ALWAYS * of)
        bound = [ANY_NUMBER if loose else usual for loose, usual in zip(pieces, parts)]
        return cls(bound, (total > 0) & (count >= ALWAYS * total), apart, spare)

    def check(self, heart: np.ndarray, known: np.ndarray | None = None) -> dict[str, bool]:
        """Which of the rules a heart keeps; only its ``known`` classes are looked at."""
        classes = len(self.parts)
        known = np.ones(classes, bool) if known is None else known
        ways = gaps(heart, classes)
        pairs = np.triu(known[:, None] & known, 1)
        there = np.bincount(heart.ravel(), minlength=classes + 1)[1:] > 0
        return {
            "complete": bool(there[known].all()),
            "connected": not bool(_unusual(heart, self.parts)[known].any()),
            "touching": bool((ways[self.touching & pairs] <= self.spare).all()),
            "apart": bool((ways[self.apart & pairs] > FACE).all()),
        }


def _unusual(heart: np.ndarray, parts: Sequence[range]) -> np.ndarray:
    """(C,) bool: the classes that are there, in another number of parts than the usual ones."""
    counts = [count_components(heart == k) for k in range(1, len(parts) + 1)]
    return np.array([n > 0 and n not in usual for n, usual in zip(counts, parts)])


def _spare(broken: Callable[[int], np.ndarray], distances: Sequence[int]) -> int:
    """The least of some distances at which few enough hearts break a rule, or as few as at any:
    a heart that no room makes valid is no reason to give some.

    broken : distance to (N, C, C) bool, by the rules of the other hearts.
    """
    shares = [float(broken(far).any(axis=(1, 2)).mean()) for far in distances]
    enough = max(MISJUDGED, min(shares))
    return next(far for far, share in zip(distances, shares) if share <= enough)


def _nearest(ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, C) the least of (N, C, C) distances, and (N, C, C) that of all hearts but one."""
    first = ways.min(axis=0)
    is_first = ways == first
    second = np.where(is_first, FAR, ways).min(axis=0)
    alone = is_first & (is_first.sum(axis=0) == 1)
    return first, np.where(alone, second, first)


def gaps(heart: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) uint8, symmetric: squared distance, in voxels, between the nearest voxels
    of two classes; 1: they share a face; ``FAR`` where it is above the last of ``SPARE``.

    heart : (X, Y, Z) of 0 and channels 1 to ``classes``.
    """
    found = np.full((classes + 1, classes + 1), FAR, np.uint8)
    rim = _REACH.stop - 1
    padded = np.pad(np.ascontiguousarray(heart), rim)  # places and strides in one order
    places = np.flatnonzero(_surface(padded))
    flat = padded.ravel()
    own = flat[places]
    strides = np.array(padded.strides) // padded.itemsize
    for way in itertools.product(_REACH, repeat=3):
        length = sum(step * step for step in way)
        if way <= (0, 0, 0) or length > SPARE[-1]:  # of two opposite ways one is enough
            continue
        other = flat[places + strides @ way]
        unlike = (own != other) & (other != 0)
        met = np.zeros(found.shape, bool)
        met[own[unlike], other[unlike]] = True
        found[met | met.T] = np.minimum(found[met | met.T], length)
    return found[1:, 1:]


def _surface(heart: np.ndarray) -> np.ndarray:
    """bool: voxels of classes, beside a face of which is something else."""
    result = np.zeros(heart.shape, bool)
    for axis in range(3):
        unlike = np.diff(heart, axis=axis) != 0
        view = np.moveaxis(result, axis, 0)
        view[:-1] |= np.moveaxis(unlike, axis, 0)
        view[1:] |= np.moveaxis(unlike, axis, 0)
    return result & (heart != 0)
