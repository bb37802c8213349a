"""Where the surface of a mask runs: blocks of voxels, and boxes that hold them with little beside.

Distances are asked for near a surface alone. A vessel that winds through a large box leaves most
of it empty, and so does a chamber of which only the wall counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 8  # voxels along an edge: as many as a uint64 has bytes
BOX_COST = 30_000  # what another box costs beside its voxels, in voxels
LEAST_HALVED = 6  # blocks
Box = tuple[slice, slice, slice]


def in_blocks(shape: Sequence[int]) -> tuple[int, int, int]:
    """How many blocks a grid of voxels takes along each axis."""
    x, y, z = (-(-int(n) // BLOCK) for n in shape)
    return x, y, z


def surface_blocks(mask: np.ndarray) -> np.ndarray:
    """(X/8, Y/8, Z/8) bool: blocks with both sides in them, or beside one of the other side.

    mask : (X, Y, Z) bool in C order, of whole blocks.
    """
    x, y, z = in_blocks(mask.shape)
    rows = mask.view(np.uint64).reshape(x, BLOCK, y, BLOCK, z)
    some = np.bitwise_or.reduce(np.bitwise_or.reduce(rows, axis=3), axis=1) != 0
    full = np.bitwise_and.reduce(np.bitwise_and.reduce(rows, axis=3), axis=1)
    found = some & (full != np.uint64(0x0101010101010101))
    for axis in range(3):
        lines, marks = np.moveaxis(some, axis, 0), np.moveaxis(found, axis, 0)
        differ = lines[1:] != lines[:-1]
        marks[1:] |= differ
        marks[:-1] |= differ
    return found


def widened(blocks: np.ndarray) -> np.ndarray:
    """(x, y, z) bool: the marked blocks and all that touch them."""
    blocks = blocks.copy()
    for axis in range(3):
        given, marks = np.moveaxis(blocks.copy(), axis, 0), np.moveaxis(blocks, axis, 0)
        marks[1:] |= given[:-1]
        marks[:-1] |= given[1:]
    return blocks


def voxels_of(blocks: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(X, Y, Z) bool: the voxels of a grid of this shape that lie in marked blocks."""
    rows = np.repeat(blocks, BLOCK, axis=2)[:, :, : shape[2]]
    voxels = np.repeat(np.repeat(rows, BLOCK, axis=1)[:, : shape[1]], BLOCK, axis=0)
    return voxels[: shape[0]]


def boxes_about(blocks: np.ndarray) -> Iterator[Box]:
    """Boxes of blocks that hold every marked one, none twice; small where halving a box pays.

    blocks : (x, y, z) bool.

    The cost of a box is its voxels with a block more on every side.
    """
    for low, high in _best(np.argwhere(blocks))[1]:
        x, y, z = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist()))
        yield x, y, z


def _best(marked: np.ndarray) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """The cost of the boxes of (N, 3) blocks, and their (3,) first and last blocks."""
    if not len(marked):
        return 0.0, []
    low, high = marked.min(axis=0), marked.max(axis=0)
    whole, size = _cost(low, high), high - low + 1
    splits = [_halves(marked, low, size, axis) for axis in range(3) if size[axis] >= LEAST_HALVED]
    if not splits:
        return whole, [(low, high)]
    parts = min(splits, key=lambda halves: sum(_tight_cost(half) for half in halves))
    costs, boxes = zip(*map(_best, parts))
    return (sum(costs), [*boxes[0], *boxes[1]]) if sum(costs) < whole else (whole, [(low, high)])


def _halves(marked: np.ndarray, low: np.ndarray, size: np.ndarray, axis: int):
    first = marked[:, axis] < low[axis] + size[axis] // 2
    return marked[first], marked[~first]


def _cost(low: np.ndarray, high: np.ndarray) -> float:
    x, y, z = ((high - low + 3) * BLOCK).tolist()
    return float(x * y * z) + BOX_COST


def _tight_cost(marked: np.ndarray) -> float:
    return _cost(marked.min(axis=0), marked.max(axis=0)) if len(marked) else 0.0
