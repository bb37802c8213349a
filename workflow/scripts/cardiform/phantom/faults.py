"""Label maps with the faults that segmentations of hearts have, for tests and benchmarks.

Every kind strikes all structures, or all pairs of neighbours, at places drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy import ndimage

from ..geometry.distances import distance_to
from .painting import LABELS

CORONARY = LABELS[LABELS.channel("coronary")].value
HOLES, HOLE_MM = 2, (2.0, 4.0)  # of each structure; radii
ISLANDS, ISLAND_MM, APART_MM = 2, (2.0, 5.0), 8.0  # radii; least distance from the structure
GAP_MM = (2.0, 4.0)  # thickness of the slab that is missing
PATCHES, PATCH_MM = 2, 8.0  # of each border: places where it moved, radius
LEAK_MM = (3.0, 6.0)
BLOBS, BLOB_MM = 2, (2.0, 5.0)


def faulty(
    labels: np.ndarray, kind: str, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A copy of a label map with one kind of fault.

    labels : (X, Y, Z) uint8.    kind : of :data:`FAULTS`.    spacing : (3,) mm.
    """
    return FAULTS[kind](labels.copy(), np.asarray(spacing, float), rng)


def _holes(labels, spacing, rng):
    """Balls of background within the structures."""
    for value in _values(labels):
        for place in _drawn(labels == value, HOLES, rng):
            window, ball = _ball(labels.shape, spacing, place, rng.uniform(*HOLE_MM))
            labels[window][ball] = 0
    return labels


def _islands(labels, spacing, rng):
    """Balls of a structure far from it, in the background or in another structure."""
    given = labels.copy()
    for value in _values(given):
        far = distance_to(given == value, spacing, APART_MM) > APART_MM
        for place in _drawn(far, ISLANDS, rng):
            window, ball = _ball(labels.shape, spacing, place, rng.uniform(*ISLAND_MM))
            labels[window][ball & far[window]] = value
    return labels


def _gaps(labels, spacing, rng):
    """A slab of every structure is missing, so that it falls apart."""
    for value in _values(labels):
        places = np.argwhere(labels == value)
        axis = int(np.argmax(np.ptp(places, axis=0) * spacing))
        start = int(rng.integers(places[:, axis].min(), places[:, axis].max() + 1))
        thick = max(round(rng.uniform(*GAP_MM) / spacing[axis]), 1)
        slab = np.moveaxis(labels, axis, 0)[start : start + thick]
        slab[slab == value] = 0
    return labels


def _swapped(labels, spacing, rng):
    """Where two structures meet, the border is a voxel off."""
    given = labels.copy()
    for one, other, border in _borders(given):
        for place in _drawn(border, PATCHES, rng):
            window, ball = _ball(labels.shape, spacing, place, PATCH_MM)
            labels[window][ball & border[window]] = (one, other)[int(rng.integers(2))]
    return labels


def _leaks(labels, spacing, rng):
    """A structure runs out into its neighbour."""
    given = labels.copy()
    for one, other, border in _borders(given):
        for place in _drawn(border, 1, rng):
            window, ball = _ball(labels.shape, spacing, place, rng.uniform(*LEAK_MM))
            labels[window][ball & (given[window] == one)] = other
    return labels


def _blobs(labels, spacing, rng):
    """Coronaries grown onto every structure, and in between two of them."""
    given = labels.copy()
    rims = [given == v for v in _values(given) if v != CORONARY]
    rims = [rim & ~ndimage.binary_erosion(rim) for rim in rims]
    for rim in [*rims, *(border for _, _, border in _borders(given))]:
        for place in _drawn(rim, BLOBS, rng):
            window, ball = _ball(labels.shape, spacing, place, rng.uniform(*BLOB_MM))
            labels[window][ball] = CORONARY
    return labels


FAULTS: Mapping[str, Callable] = {
    "holes": _holes,
    "islands": _islands,
    "gaps": _gaps,
    "swapped": _swapped,
    "leaks": _leaks,
    "blobs": _blobs,
}


def _values(labels: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(labels) if value]


def _drawn(mask: np.ndarray, number: int, rng) -> np.ndarray:
    """(K, 3) voxels of a mask, none where it is empty."""
    places = np.argwhere(mask)
    return places[rng.integers(len(places), size=number)] if len(places) else places


def _ball(shape, spacing, place, radius: float) -> tuple[tuple[slice, ...], np.ndarray]:
    """A window of an image, and the ball within it."""
    reach = np.ceil(radius / spacing).astype(int)
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, shape)
    offsets = np.indices(high - low).transpose(1, 2, 3, 0) + low - place
    return tuple(map(slice, low, high)), np.linalg.norm(offsets * spacing, axis=-1) <= radius


def _borders(labels: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Of any two structures that meet, both ways round: the voxels of the first at the second."""
    values = _values(labels)
    grown = {v: ndimage.binary_dilation(labels == v) for v in values}
    for one in values:
        for other in values:
            border = grown[other] & (labels == one)
            if one != other and border.any():
                yield one, other, border
