"""Noisy vessel labels from good ones, as automatic and hurried manual segmentation leave them.

Kinds and strengths are given one by one, so that some can be kept from a training and met in
its test. Counts are rates, so that a part of a vessel gets its share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import edt
import numpy as np
from scipy import ndimage

from .centreline import Centreline

# What strength 1 means: mm, and rates per 100 mm of centreline or per millilitre of the box.
BREAKS, BREAK_MM = 1.0, (1.5, 3.5)  # gaps in the course: rate and radius
ENDS, END_MM = 0.4, (4.0, 12.0)  # share of the ends that are cut back, and how far
SPECKLES, SPECKLE_MM = 0.02, (0.3, 0.9)  # loose bits anywhere in the box
BLOBS, BLOB_MM = 0.7, (1.5, 3.5)  # lumps that hang on the vessel
JAG_MM, JAG_LENGTH_MM = 0.35, 0.6  # boundary noise: amplitude and correlation length
DILATION_MM = 0.5
COARSE_MM = 1.2  # grid through which the label went by nearest neighbour
SLABS, SLAB_MM, SLAB_SHIFT_MM = 0.6, (2.0, 6.0), 1.0  # slabs of slices that are displaced


def corrupt(
    mask: np.ndarray,
    spacing: np.ndarray,
    strengths: Mapping[str, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """A noisy copy of a mask.

    mask : (X, Y, Z) bool.    spacing : (3,) mm.
    strengths : kind -> strength: 0 nothing, 1 a typical label, above 1 a bad one; of
        :data:`KINDS`. A negative dilation erodes.

    Raises
    ------
    ValueError
        An unknown kind.
    """
    unknown = set(strengths) - set(KINDS)
    if unknown:
        raise ValueError(f"no such kind of noise: {', '.join(unknown)}; known: {', '.join(KINDS)}")
    result = np.asarray(mask, bool).copy()
    for kind, act in KINDS.items():
        if strengths.get(kind) and result.any():
            result = act(result, np.asarray(spacing, float), strengths[kind], rng)
    return result


def _jagged(mask, spacing, strength, rng) -> np.ndarray:
    noise = rng.standard_normal(mask.shape).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, JAG_LENGTH_MM / spacing)
    noise *= strength * JAG_MM / noise.std()
    return _distance(mask, spacing) + noise < 0


def _dilation(mask, spacing, strength, rng) -> np.ndarray:
    return _distance(mask, spacing) < strength * DILATION_MM


def _missing_ends(mask, spacing, strength, rng) -> np.ndarray:
    line = _line(mask, spacing)
    ends = line.index[[len(n) == 1 for n in line.neighbours]]
    cut = ends[rng.random(len(ends)) < strength * ENDS]
    return mask & ~_balls(mask.shape, spacing, cut, END_MM, rng)


def _breaks(mask, spacing, strength, rng) -> np.ndarray:
    line = _line(mask, spacing)
    number = rng.poisson(strength * BREAKS * line.length_mm / 100)
    places = line.index[rng.integers(len(line), size=number)] if len(line) else line.index
    return mask & ~_balls(mask.shape, spacing, places, BREAK_MM, rng)


def _blobs(mask, spacing, strength, rng) -> np.ndarray:
    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    number = rng.poisson(strength * BLOBS * _line(mask, spacing).length_mm / 100)
    places = rim[rng.integers(len(rim), size=number)]
    return mask | _balls(mask.shape, spacing, places, BLOB_MM, rng)


def _speckle(mask, spacing, strength, rng) -> np.ndarray:
    millilitres = mask.size * np.prod(spacing) / 1000
    places = rng.integers(0, mask.shape, size=(rng.poisson(strength * SPECKLES * millilitres), 3))
    return mask | _balls(mask.shape, spacing, places, SPECKLE_MM, rng)


def _coarse(mask, spacing, strength, rng) -> np.ndarray:
    """There and back through a coarser grid, each time to the nearest voxel."""
    ratio = np.maximum(strength * COARSE_MM / spacing, 1)
    offset = rng.uniform(0, ratio)
    index = [
        np.clip(np.rint(np.rint((np.arange(n) - o) / r) * r + o).astype(int), 0, n - 1)
        for n, o, r in zip(mask.shape, offset, ratio)
    ]
    return mask[np.ix_(*index)]


def _slabs(mask, spacing, strength, rng) -> np.ndarray:
    """Slices that moved against the others, as from motion between the beats."""
    axis = int(rng.integers(3))
    across = [a for a in range(3) if a != axis]
    length = mask.shape[axis] * spacing[axis]
    result = mask.copy()
    for _ in range(rng.poisson(strength * SLABS * length / 20)):
        start = rng.integers(mask.shape[axis])
        thick = max(round(rng.uniform(*SLAB_MM) / spacing[axis]), 1)
        slab = tuple(slice(start, start + thick) if a == axis else slice(None) for a in range(3))
        steps = np.rint(rng.normal(0, SLAB_SHIFT_MM, 2) / spacing[across]).astype(int)
        result[slab] = _moved(mask[slab], across, steps)
    return result


def _moved(mask, axes, steps) -> np.ndarray:
    """The mask moved by some voxels along some axes; what leaves it does not come back."""
    result = np.zeros_like(mask)
    into, out = [slice(None)] * 3, [slice(None)] * 3
    for axis, step in zip(axes, steps):
        size = mask.shape[axis]
        into[axis] = slice(max(step, 0), max(size + min(step, 0), 0))
        out[axis] = slice(max(-step, 0), max(size - max(step, 0), 0))
    result[tuple(into)] = mask[tuple(out)]
    return result


# In the order in which they act: the outline first, what is lost, what is added.
KINDS: Mapping[str, Callable] = {
    "jagged": _jagged,
    "dilation": _dilation,
    "missing_ends": _missing_ends,
    "breaks": _breaks,
    "blobs": _blobs,
    "speckle": _speckle,
    "slabs": _slabs,
    "coarse": _coarse,
}


def _distance(mask, spacing) -> np.ndarray:
    """(X, Y, Z) float32 mm, negative inside."""
    distance = edt.edt(mask.view(np.uint8) + np.uint8(1), anisotropy=tuple(spacing))
    return np.where(mask, -distance, distance) + spacing.min() / 2 * np.where(mask, 1, -1)


def _line(mask, spacing) -> Centreline:
    """Lengths are those of a grid with the mean voxel edge: rates need no better."""
    return Centreline.of(mask, float(np.prod(spacing) ** (1 / 3)), lost=False)


def _balls(shape, spacing, centers, radii, rng) -> np.ndarray:
    """The union of balls of random radii (mm) about (K, 3) voxels; each its centre at least."""
    result = np.zeros(shape, bool)
    for center, radius in zip(centers, rng.uniform(*radii, size=len(centers))):
        reach = np.ceil(radius / spacing).astype(int)
        low, high = np.maximum(center - reach, 0), np.minimum(center + reach + 1, shape)
        window = tuple(map(slice, low, high))
        offsets = np.indices(high - low).transpose(1, 2, 3, 0) + low - center
        result[window] |= np.linalg.norm(offsets * spacing, axis=-1) <= radius
    return result
