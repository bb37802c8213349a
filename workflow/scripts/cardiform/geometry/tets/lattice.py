"""A body-centred lattice of tetrahedra, finer where it must be.

A tetrahedron is halved at its longest edge, together with all others around that edge. Those of
the lattice and all their descendants have dihedral angles of 45 degrees or more: there are three
shapes of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

UNIT = 1 << 12  # of the whole numbers that corners have: an edge of the lattice's cubes
EDGES = np.array(list(itertools.combinations(range(4), 2)))


def body_centred(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tetrahedra between the middles of neighbouring cubes and the edges that these share.

    cells : (X, Y, Z) bool, the cubes in question.

    Returns
    -------
    (V, 3) int64 corners, UNIT to a cube; (T, 4) int64 tetrahedra, of positive volume.
    """
    shape = np.array(cells.shape)
    parts = []
    for axis in range(3):
        along, aside, other = np.roll(np.eye(3, dtype=np.int64), -axis, axis=0)
        first = tuple(slice(0, n - (k == axis)) for k, n in enumerate(shape))
        second = tuple(slice(int(k == axis), None) for k in range(3))
        at = np.argwhere(cells[first] & cells[second])
        middles = 2 * at + 1, 2 * at + 1 + 2 * along
        ring = [2 * (at + along + step) for step in (0 * aside, aside, aside + other, other)]
        for one, two in zip(ring, ring[1:] + ring[:1]):
            parts.append(np.stack([*middles, one, two], axis=1))
    corners = np.concatenate(parts).reshape(-1, 3)
    sides = 2 * shape + 3
    keys = (corners[:, 0] * sides[1] + corners[:, 1]) * sides[2] + corners[:, 2]
    _, first_at, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return corners[first_at] * (UNIT // 2), oriented(
        corners[first_at], inverse.reshape(-1, 4).astype(np.int64)
    )


def oriented(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(T, 4) the tetrahedra with their corners in such an order that volumes are positive."""
    first = points[tets[:, 0]]
    one, two, three = (points[tets[:, k]] - first for k in (1, 2, 3))
    turned = np.einsum("ij,ij->i", one, np.cross(two, three)) < 0
    tets = tets.copy()
    tets[turned, 2:] = tets[turned, 3:1:-1]
    return tets


def refined(
    points: np.ndarray,
    tets: np.ndarray,
    too_long: Callable[[np.ndarray, np.ndarray], np.ndarray],
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Halve tetrahedra until none has too long an edge, and neighbours still share whole faces.

    too_long : (N, 3) middles and (N,) longest edges, as ``points`` -> (N,) bool.
    most : tetrahedra; where there are more, it ends early.
    """
    tets, longest = tets.copy(), _longest(points, tets)
    marked = _asked(points, tets, longest, too_long)
    while marked.any() and len(tets) <= most:
        own = longest[:, 0] * np.int64(len(points)) + longest[:, 1]
        keys = np.unique(own[marked])
        flags = np.zeros(len(points), bool)
        flags[longest[marked]] = True
        rows = np.flatnonzero(flags[tets].sum(axis=1) >= 2)
        found = edge_keys(tets[rows], len(points))
        among = _member(found, keys)
        other = among & (found != own[rows, None])
        marked[rows[other.any(axis=1)]] = True  # to be halved elsewhere first
        free = np.setdiff1d(keys, found[other], assume_unique=False)
        halve = np.flatnonzero(_member(own, free))
        if not len(halve):
            continue
        split, which = np.unique(own[halve], return_inverse=True)
        middles = len(points) + which
        ends = split // len(points), split % len(points)
        points = np.concatenate([points, (points[ends[0]] + points[ends[1]]) // 2])
        old = tets[halve]
        one, two = old.copy(), old.copy()
        one[old == longest[halve, :1]] = middles
        two[old == longest[halve, 1:]] = middles
        tets[halve] = one
        tets = np.concatenate([tets, two])
        halves = np.concatenate([one, two])
        new_longest = _longest(points, halves)
        longest[halve] = new_longest[: len(one)]
        longest = np.concatenate([longest, new_longest[len(one) :]])
        asked = _asked(points, halves, new_longest, too_long)
        marked[halve] = asked[: len(one)]
        marked = np.concatenate([marked, asked[len(one) :]])
    return points, tets


def edge_keys(tets: np.ndarray, count: int) -> np.ndarray:
    """(T, 6) int64: one number for each edge, lower corner * ``count`` + upper corner."""
    found = np.empty((len(tets), len(EDGES)), np.int64)
    for k, (one, two) in enumerate(EDGES):
        low, high = np.minimum(tets[:, one], tets[:, two]), np.maximum(tets[:, one], tets[:, two])
        found[:, k] = low * np.int64(count) + high
    return found


def _member(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    if not len(ordered):
        return np.zeros(values.shape, bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[at] == values


def _longest(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """(N, 2) ends of the longest edge, in ascending order; of equal ones the last by its ends."""
    corners = points[tets]
    lengths = np.empty((len(tets), len(EDGES)), np.int64)
    for k, (one, two) in enumerate(EDGES):
        way = corners[:, one] - corners[:, two]
        lengths[:, k] = np.einsum("ij,ij->i", way, way)
    keys = edge_keys(tets, len(points))
    keys[lengths < lengths.max(axis=1, keepdims=True)] = -1
    best = keys.max(axis=1)  # their order does not depend on how many points there are
    return np.stack([best // len(points), best % len(points)], axis=1)


def _asked(points, tets, longest, too_long) -> np.ndarray:
    ends = points[longest[:, 1]] - points[longest[:, 0]]
    return too_long(points[tets].mean(axis=1), np.sqrt((ends**2).sum(axis=1)))
