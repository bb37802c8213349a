"""The walls between tetrahedra of different regions."""

from __future__ import annotations

import itertools

import numpy as np

FACES = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])  # outward; k is opposite corner k
ROUNDS = 10  # in which walls stay where they are on average


def paired_faces(tets: np.ndarray) -> np.ndarray:
    """(T, 4) neighbour across the face opposite each corner; -1: none."""
    corners = np.sort(tets[:, FACES].reshape(-1, 3), axis=1).astype(np.int64)
    count = np.int64(corners.max()) + 1
    keys = (corners[:, 0] * count + corners[:, 1]) * count + corners[:, 2]
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    one, two = order[same], order[same + 1]
    found = np.full(len(keys), -1, np.int64)
    found[one], found[two] = two // 4, one // 4
    return found.reshape(-1, 4)


def regions_at(tets: np.ndarray, channels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(V, K) bool: which regions meet at each corner.    shape : V, K."""
    found = np.zeros(shape, bool)
    for channel in range(shape[1]):
        found[tets[channels == channel].ravel(), channel] = True
    return found


def wall_faces(
    tets: np.ndarray, channels: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The faces between regions, each once.

    Returns
    -------
    (F, 3) corners, counter-clockwise seen from the second region; (F, 2) the two regions: the
    first is inside, the second 0 or of the larger number.
    """
    at, side = np.nonzero(neighbours >= 0)
    inside, outside = channels[at], channels[neighbours[at, side]]
    keep = (inside != outside) & (inside != 0) & ((outside == 0) | (outside > inside))
    at, side = at[keep], side[keep]
    faces = np.take_along_axis(tets[at], FACES[side], axis=1)
    return faces, np.stack([inside[keep], outside[keep]], axis=1)


def smoothed(channels: np.ndarray, neighbours: np.ndarray, movable: np.ndarray) -> np.ndarray:
    """Regions without tetrahedra that have three faces to one other region, which takes them."""
    channels = channels.copy()
    for number in range(8):
        mixed = ((channels[neighbours] != channels[:, None]) & (neighbours >= 0)).sum(axis=1) >= 3
        rows = np.flatnonzero(mixed & movable)
        rows = rows[rows % 2 == number % 2]
        around = channels[neighbours[rows]]
        around[neighbours[rows] < 0] = -1
        for other in np.unique(around[around >= 0]):
            here = (around == other).sum(axis=1) >= 3
            channels[rows[here]] = other
    return channels


def pinched(
    tets: np.ndarray, channels: np.ndarray, neighbours: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """Edges where a region touches itself: region, (2,) corners."""
    faces, sides = wall_faces(tets, channels, neighbours)
    found = []
    for channel in np.unique(sides):
        if not channel:
            continue
        own = faces[(sides == channel).any(axis=1)]
        edges = np.sort(own[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64)
        count = np.int64(edges.max()) + 1
        keys, times = np.unique(edges[:, 0] * count + edges[:, 1], return_counts=True)
        for key in keys[times > 2]:
            found.append((int(channel), np.array([key // count, key % count])))
    return found


def parted(tets: np.ndarray, channels: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Regions none of which touches itself along an edge: the smaller part is given away."""
    channels = channels.copy()
    for number in itertools.count():
        bad = pinched(tets, channels, neighbours)
        if not bad:
            return channels
        ends = np.zeros(tets.max() + 1, bool)
        ends[np.concatenate([edge for _, edge in bad])] = True
        lookup: dict[int, list[int]] = {}
        for row in np.flatnonzero(ends[tets].sum(axis=1) >= 2):
            for corner in tets[row]:
                if ends[corner]:
                    lookup.setdefault(int(corner), []).append(int(row))
        for channel, (one, two) in bad:
            ring = set(lookup[int(one)]) & set(lookup[int(two)])
            own = {t for t in ring if channels[t] == channel}
            if len(_fans(own, neighbours)) > 1:
                _part(own, ring - own, channels, neighbours, falling=number >= ROUNDS)
    raise AssertionError("it ends when nothing is bad")


def _part(own: set[int], others: set[int], channels, neighbours, falling: bool) -> None:
    """Change one fan of the tetrahedra around an edge, in place.

    own : those of the region that touches itself.    others : the rest around the edge.
    falling : no number of a region rises, so that this comes to an end.
    """

    fan = _smallest(_fans(own, neighbours))
    beside = [int(channels[n]) for t in fan for n in neighbours[t] if n in others]
    if not falling:
        channels[list(fan)] = max(set(beside), key=lambda c: (beside.count(c), -c))
    elif min(beside) < channels[next(iter(fan))]:
        channels[list(fan)] = min(beside)
    else:
        channels[list(_smallest(_fans(others, neighbours)))] = channels[next(iter(fan))]


def _smallest(fans: list[set[int]]) -> set[int]:
    return min(fans, key=lambda fan: (len(fan), min(fan)))


def _fans(left: set[int], neighbours) -> list[set[int]]:
    """The parts of some tetrahedra that are connected by faces."""
    left, fans = set(left), []
    while left:
        fan, todo = set(), [left.pop()]
        while todo:
            t = todo.pop()
            fan.add(t)
            near = [int(n) for n in neighbours[t] if n in left]
            left.difference_update(near)
            todo += near
        fans.append(fan)
    return fans
