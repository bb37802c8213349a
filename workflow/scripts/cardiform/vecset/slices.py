"""Hearts of which only a few parallel slices are known, in training as in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .inputs import Labelled

# From one slice to the next, unit frame: 4 to 20 mm in a heart of 20 cm with its great vessels.
NARROW, WIDE = 0.04, 0.2
HALF = 0.006  # of a slice's thickness, unit frame
LEAST_POINTS = 100  # of what is left
TINY = 1e-6


def sliced_at_random(surface: Labelled, rng: np.random.Generator) -> Labelled:
    """What slices in any direction, any distance apart, show of a surface in the unit frame.

    All of it where they show next to nothing.
    """
    way = rng.normal(size=3)
    direction = way / np.linalg.norm(way)
    step = NARROW * (WIDE / NARROW) ** rng.random()
    first = -1 + step * rng.random()
    seen = sliced(surface, direction, np.arange(first, 1, step), rng)
    return surface if seen is None else seen


def sliced(
    surface: Labelled, direction: np.ndarray, offsets: np.ndarray, rng: np.random.Generator
) -> Labelled | None:
    """The part of a surface that lies in some planes, None: next to nothing.

    It is known there as contours are: as many points for each millimetre of a contour, however
    steeply the plane cuts the surface, and with normals within the plane.

    surface : with normals.
    direction : (3,), of length 1.    offsets : (K,) ascending, of the planes along it.
    """
    at = surface.points @ direction
    above = np.searchsorted(offsets, at)
    upper, lower = np.minimum(above, len(offsets) - 1), np.maximum(above - 1, 0)
    kept = np.minimum(np.abs(at - offsets[upper]), np.abs(at - offsets[lower])) < HALF
    flat = surface.normals - (surface.normals @ direction)[:, None] * direction
    lengths = np.linalg.norm(flat, axis=1)
    kept &= rng.random(len(lengths)) < lengths
    if kept.sum() < LEAST_POINTS:
        return None
    normals = flat[kept] / np.maximum(lengths[kept], TINY)[:, None]
    return replace(surface.part(kept), normals=normals.astype(np.float32))
