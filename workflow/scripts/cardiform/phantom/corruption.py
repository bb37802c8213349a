"""Noisy vessel labels from true ones, as automatic and hurried manual segmentation leave them.

Kinds and strengths are given one by one, so that some can be kept from a training and met in
its test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import edt
import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

# What strength 1 means, mm or counts.
BREAKS, BREAK_MM = 7, (1.5, 3.5)  # gaps in the course: number and radius
ENDS, END_MM = 0.4, (4.0, 12.0)  # share of the ends that are cut back, and how far
SPECKLES, SPECKLE_MM = 25, (0.3, 0.9)  # loose bits anywhere in the box
BLOBS, BLOB_MM = 5, (1.5, 3.5)  # lumps that hang on the vessel
JAG_MM, JAG_LENGTH_MM = 0.7, 1.0  # boundary noise: amplitude and correlation length
DILATION_MM = 0.5

_ALL_NEIGHBOURS = np.ones((3, 3, 3), int)


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
    line = skeletonize(mask)
    neighbours = ndimage.convolve(line.astype(np.int8), _ALL_NEIGHBOURS, mode="constant")
    ends = np.argwhere(line & (neighbours <= 2))
    cut = ends[rng.random(len(ends)) < strength * ENDS]
    return mask & ~_balls(mask.shape, spacing, cut, END_MM, rng)


def _breaks(mask, spacing, strength, rng) -> np.ndarray:
    line = np.argwhere(skeletonize(mask))
    places = line[rng.integers(len(line), size=round(strength * BREAKS))]
    return mask & ~_balls(mask.shape, spacing, places, BREAK_MM, rng)


def _blobs(mask, spacing, strength, rng) -> np.ndarray:
    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    places = rim[rng.integers(len(rim), size=round(strength * BLOBS))]
    return mask | _balls(mask.shape, spacing, places, BLOB_MM, rng)


def _speckle(mask, spacing, strength, rng) -> np.ndarray:
    low, high = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1
    places = rng.integers(low, high, size=(round(strength * SPECKLES), 3))
    return mask | _balls(mask.shape, spacing, places, SPECKLE_MM, rng)


# In the order in which they act: the outline first, what is lost, what is added.
KINDS: Mapping[str, Callable] = {
    "jagged": _jagged,
    "dilation": _dilation,
    "missing_ends": _missing_ends,
    "breaks": _breaks,
    "blobs": _blobs,
    "speckle": _speckle,
}


def _distance(mask, spacing) -> np.ndarray:
    """(X, Y, Z) float32 mm, negative inside."""
    distance = edt.edt(mask.view(np.uint8) + np.uint8(1), anisotropy=tuple(spacing))
    return np.where(mask, -distance, distance) + spacing.min() / 2 * np.where(mask, 1, -1)


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
