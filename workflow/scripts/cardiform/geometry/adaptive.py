"""Evaluating a field of distances on a grid, coarse to fine: only near the surfaces in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .frame import apply_affine
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
        shifted = self.affine.copy()
        shifted[:3, 3] = apply_affine(self.affine, low - 1.0)
        return extract_surface(values, shifted)

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

    A block is asked in its middle. Where every channel is farther from zero than the way
    from there to a step beyond the block's farthest point, the block has no surface; otherwise
    it is cut into eight. The sign of its corners would not do: thin vessels pass between them.

    function : distances in unit-frame lengths, any number of channels.
    to_unit : RAS mm to the unit frame, a similarity.
    start_stride : edge of the first blocks, a power of two; 1 evaluates every point.
    """
    affine = np.asarray(affine, np.float64)
    stride = start_stride
    grid = [np.arange(0, n, stride, dtype=np.int32) for n in shape]
    origins = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = np.linalg.norm(_unit_steps(affine, to_unit), axis=0)
    blocks, evaluations = [], 0
    while True:
        middles = apply_affine(affine, origins + (stride - 1) / 2)
        values = np.asarray(function(to_unit(middles).astype(np.float32)), np.float32)
        evaluations += len(origins)
        if stride == 1:
            blocks.append(Blocks(1, origins, values))
            return SampledField(tuple(shape), affine, blocks, evaluations)
        # One step beyond the block, so that both ends of an edge that crosses are exact.
        reach = STEEPEST * (np.linalg.norm(steps) * (stride - 1) / 2 + steps.max())
        cut = np.abs(values).min(axis=1) <= reach
        blocks.append(Blocks(stride, origins[~cut], values[~cut]))
        stride //= 2
        corners = np.indices((2, 2, 2), dtype=np.int32).reshape(3, -1).T * stride
        origins = (origins[cut, None] + corners).reshape(-1, 3)
        origins = origins[(origins < shape).all(axis=1)]


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
