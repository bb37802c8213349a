"""Evaluating a field of distances on a grid, coarse to fine: only near the surfaces in full."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .frame import apply_affine
from .grids import cropped_affine, lattice
from .surface import Mesh, extract_surface

# A distance changes by one per unit length; networks come close to that, not exactly.
STEEPEST = 1.1
START_STRIDE = 16

# (N, 3) float32 unit-frame points -> (N, C) distances
FieldFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Blocks:
    """Cubes of ``stride`` grid points along the edge, with one value per channel each.

    origins : (B, 3) int32 lowest grid point.    values : (B, C) float32.
    """

    stride: int
    origins: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class SampledField:
    """A field on a grid: exact at every point near a surface, one value per block elsewhere.

    shape : points along each axis.    affine : (4, 4) grid index to RAS mm.
    blocks : from coarse to fine; the last have stride 1.
    evaluations : how often the field was asked.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    blocks: list[Blocks] = field(repr=False)
    evaluations: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.blocks[0].values.shape[1]

    def labels(self, values: tuple[int, ...]) -> np.ndarray:
        """(X, Y, Z) uint8: the value of the channel that lies deepest inside, 0 outside."""
        table = np.array([0, *values], np.uint8)
        result = np.zeros(self.shape, np.uint8)
        for part in self.blocks:
            inside = part.values.min(axis=1) < 0
            chosen = np.where(inside, part.values.argmin(axis=1) + 1, 0)
            _fill(result, part, table[chosen], np.flatnonzero(chosen))
        return result

    def surface(self, channel: int) -> Mesh:
        """The zero surface of a channel, closed where the grid cuts it, RAS mm."""
        low, high = self._box(channel)
        if low is None:
            return Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
        values = np.empty(tuple(high - low), np.float32)
        for part in self.blocks:
            near = (part.origins + part.stride > low) & (part.origins < high)
            rows = np.flatnonzero(near.all(axis=1))
            _fill(values, part, part.values[:, channel], rows, low)
        rim = np.abs(values).max()
        values = np.pad(values, 1, constant_values=rim)
        values[values == 0] = np.finfo(np.float32).tiny  # a zero would make triangles vanish
        return extract_surface(values, cropped_affine(self.affine, low - 1.0))

    def inside(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """(X, Y, Z) bool, where a channel is below zero, of a box about it, and the box's lowest
        grid point, (3,)."""
        low, high = self._box(channel)
        if low is None:
            return np.zeros((1, 1, 1), bool), np.zeros(3, int)
        mask = np.zeros(tuple(high - low), bool)
        for part in self.blocks:
            rows = np.flatnonzero(part.values[:, channel] < 0)
            _fill(mask, part, np.ones(len(part.values), bool), rows, low)
        return mask, low

    def places_inside(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) grid points where a channel is below zero, and its values there, (N,)."""
        points, values = [np.zeros((0, 3), int)], [np.zeros(0)]
        for part in self.blocks:
            rows = np.flatnonzero(part.values[:, channel] < 0)
            offsets = np.indices((part.stride,) * 3).reshape(3, -1).T
            points.append((part.origins[rows, None] + offsets).reshape(-1, 3))
            values.append(np.repeat(part.values[rows, channel], len(offsets)))
        found, value = np.concatenate(points), np.concatenate(values)
        there = (found < self.shape).all(axis=1)
        return found[there], value[there]

    def turned_out(self, channel: int, chosen: np.ndarray, low: np.ndarray) -> SampledField:
        """The field with some of the inside of a channel, whole parts of it, as its outside.

        chosen, low : of the box of :meth:`inside`.
        """
        blocks = []
        for part in self.blocks:
            rows = np.flatnonzero(part.values[:, channel] < 0)  # their lowest points are inside
            rows = rows[chosen[tuple((part.origins[rows] - low).T)]]
            values = part.values.copy()
            values[rows, channel] *= -1
            blocks.append(replace(part, values=values))
        return replace(self, blocks=blocks)

    def _box(self, channel: int):
        """Lowest and highest (exclusive) grid point of the inside, with a rim of one."""
        lows, highs = [], []
        for part in self.blocks:
            inside = part.origins[part.values[:, channel] < 0]
            if len(inside):
                lows.append(inside.min(axis=0))
                highs.append(inside.max(axis=0) + part.stride)
        if not lows:
            return None, None
        low, high = np.min(lows, axis=0) - 1, np.max(highs, axis=0) + 1
        return np.maximum(low, 0), np.minimum(high, self.shape)


def sample_field(
    function: FieldFunction,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    to_unit: Callable[[np.ndarray], np.ndarray],
    start_stride: int = START_STRIDE,
) -> SampledField:
    """Evaluate ``function`` on a grid, skipping blocks that no surface can reach.

    A block is asked in its middle. Where every channel is farther from zero than the way from
    there to half a step beyond the block's farthest point, the block stays whole; otherwise it
    is cut into eight. The sign of its corners would not do: thin vessels pass between them. A
    surface that crosses an edge is within half a step of one of its ends, so that end is asked;
    the other one is asked at last, where it lies in a whole block.

    function : distances in unit-frame lengths, any number of channels.
    to_unit : RAS mm to the unit frame, a similarity.
    start_stride : edge of the first blocks, a power of two; 1 evaluates every point.
    """
    affine = np.asarray(affine, np.float64)

    def ask(index: np.ndarray) -> np.ndarray:
        world = apply_affine(affine, index.astype(np.float64))
        return np.asarray(function(to_unit(world).astype(np.float32)), np.float32)

    grid = [np.arange(0, n, start_stride, dtype=np.int32) for n in shape]
    origins = lattice(*grid)
    steps = np.linalg.norm(_unit_steps(affine, to_unit), axis=0)
    blocks, stride = [], start_stride
    evaluations = 0
    while stride > 1:
        values = ask(origins + (stride - 1) / 2)
        evaluations += len(origins)
        reach = STEEPEST * (np.linalg.norm(steps) * (stride - 1) + steps.max()) / 2
        cut = np.abs(values).min(axis=1) <= reach
        blocks.append(Blocks(stride, origins[~cut], values[~cut]))
        stride //= 2
        corners = np.indices((2, 2, 2), dtype=np.int32).reshape(3, -1).T * stride
        origins = (origins[cut, None] + corners).reshape(-1, 3)
        origins = origins[(origins < shape).all(axis=1)]
    fine = Blocks(1, origins, ask(origins))
    across = _across(fine, blocks, shape, STEEPEST * steps.max())
    blocks += [fine, Blocks(1, across, ask(across))]
    evaluations += len(origins) + len(across)
    return SampledField(shape, affine, blocks, evaluations)


def _across(
    fine: Blocks, coarse: list[Blocks], shape: tuple[int, int, int], reach: float
) -> np.ndarray:
    """(N, 3) int32 points of coarse blocks with a neighbour in ``fine`` of another sign.

    reach : no edge crosses a surface from farther than this, unit frame.
    """
    found = [np.zeros((0, 3), np.int32)]
    near = np.abs(fine.values).min(axis=1) <= reach
    origins, inside = fine.origins[near], fine.values[near] < 0
    for axis, step in itertools.product(range(3), (-1, 1)):
        points = origins.copy()
        points[:, axis] += step
        for part in (b for b in coarse if len(b.origins)):
            # Blocks of one stride lie on a lattice of their own: one key tells a block.
            keys = _keys(part.origins // part.stride, shape)
            order = np.argsort(keys)
            at = _keys(points // part.stride, shape)
            row = order[np.minimum(np.searchsorted(keys, at, sorter=order), len(keys) - 1)]
            rows = np.flatnonzero(
                (keys[row] == at) & (points >= 0).all(1) & (points < shape).all(1)
            )
            other = (inside[rows] != (part.values[row[rows]] < 0)).any(axis=1)
            found.append(points[rows[other]])
    return np.unique(np.concatenate(found), axis=0)


def _keys(index: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(N,) int64: one number per (N, 3) grid index, also for those just beyond the grid."""
    index = index.astype(np.int64) + 1
    return (index[:, 0] * (shape[1] + 2) + index[:, 1]) * (shape[2] + 2) + index[:, 2]


def _unit_steps(affine: np.ndarray, to_unit) -> np.ndarray:
    """(3, 3) columns: the unit-frame step along each grid axis."""
    start = to_unit(affine[:3, 3])
    return np.stack([to_unit(affine[:3, 3] + affine[:3, k]) - start for k in range(3)], axis=1)


def _fill(target: np.ndarray, part: Blocks, values, rows, low=(0, 0, 0)) -> None:
    """Write ``values[rows]`` over the blocks ``rows``, moved by ``-low`` and clipped."""
    offsets = np.indices((part.stride,) * 3).reshape(3, -1).T
    for start in range(0, len(rows), 1 + (1 << 20) // len(offsets)):
        some = rows[start : start + 1 + (1 << 20) // len(offsets)]
        index = (part.origins[some, None] + offsets - np.asarray(low)).reshape(-1, 3)
        value = np.repeat(values[some], len(offsets))
        valid = ((index >= 0) & (index < target.shape)).all(axis=1)
        target[tuple(index[valid].T)] = value[valid]
