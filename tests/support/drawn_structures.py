"""Structures as label maps hold them, and as they should not: to draw whole label maps from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

CLASSES = tuple(range(1, 11))  # of the built-in label table
KINDS = (
    "ball", "shell", "plate", "tube", "bend", "box", "voxel", "diagonal", "checkerboard", "noise",
    "border", "whole", "two shells",
)  # fmt: skip


def ball(index: np.ndarray, middle, radius: float) -> np.ndarray:
    """(X, Y, Z) bool: voxels within ``radius`` voxels of ``middle``."""
    return _away(index, middle) <= radius


def _away(index, middle) -> np.ndarray:
    return np.linalg.norm(index - np.reshape(middle, (3, 1, 1, 1)), axis=0)


def _tube(index, start, end, radius) -> np.ndarray:
    way = np.subtract(end, start).reshape(3, 1, 1, 1)
    along = ((index - np.reshape(start, (3, 1, 1, 1))) * way).sum(axis=0)
    along = np.clip(along / max(float((way**2).sum()), 1e-9), 0, 1)
    return np.linalg.norm(index - np.reshape(start, (3, 1, 1, 1)) - along * way, axis=0) <= radius


@st.composite
def structures(draw, shape) -> np.ndarray:
    """(X, Y, Z) bool, of any of KINDS; may be empty where it is thinner than a voxel."""
    index = np.indices(shape).astype(float)
    size = max(shape)

    def place():
        return [draw(st.floats(0, n - 1)) for n in shape]

    match draw(st.sampled_from(KINDS)):
        case "ball":
            return ball(index, place(), draw(st.floats(0.3, max(size / 2, 1))))
        case "shell":
            middle, radius = place(), draw(st.floats(1, max(size / 2, 2)))
            return ball(index, middle, radius) & ~ball(index, middle, radius - draw(thickness()))
        case "two shells":
            away = _away(index, place())
            return (np.abs(away - size / 3) < 0.6) | (np.abs(away - size / 6) < 0.6)
        case "plate":
            axis, at = draw(st.integers(0, 2)), draw(st.floats(0, size))
            return np.abs(index[axis] - at) <= draw(thickness()) / 2
        case "tube":
            return _tube(index, place(), place(), draw(st.floats(0.3, max(size / 4, 1))))
        case "bend":
            corner, radius = place(), draw(st.floats(0.5, 2))
            ends = place(), place()
            return _tube(index, ends[0], corner, radius) | _tube(index, corner, ends[1], radius)
        case "box":
            corners = np.sort([place(), place()], axis=0).reshape(2, 3, 1, 1, 1)
            return ((index >= corners[0]) & (index <= corners[1])).all(axis=0)
        case "voxel":
            return (index == np.rint(place()).reshape(3, 1, 1, 1)).all(axis=0)
        case "diagonal":  # voxels that touch at edges or corners alone
            steps = draw(st.sampled_from([(1, 1, 0), (1, 1, 1), (1, -1, 0), (-1, 1, 1)]))
            start = np.rint(place()) + np.outer(np.arange(draw(st.integers(2, 4))), steps)
            return _at(shape, start.astype(int))
        case "checkerboard":
            period = draw(st.integers(1, 3))
            return (index // period).sum(axis=0) % 2 == 0
        case "noise":
            rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
            values = ndimage.gaussian_filter(rng.random(shape), draw(st.sampled_from([0, 0.7, 2])))
            return values > np.quantile(values, draw(st.floats(0.05, 0.99)))
        case "border":
            axis, far = draw(st.integers(0, 2)), draw(st.booleans())
            return index[axis] == (shape[axis] - 1 if far else 0)
        case _:
            return np.ones(shape, bool)


def thickness():
    return st.floats(0.5, 4)


def _at(shape, index) -> np.ndarray:
    found = np.zeros(shape, bool)
    index = index[((index >= 0) & (index < shape)).all(axis=1)]
    found[tuple(index.T)] = True
    return found


@st.composite
def labelled(draw, least: int = 1, most: int = 18) -> np.ndarray:
    """(X, Y, Z) uint8: one to four structures, the later ones over the earlier; not empty."""
    shape = draw(st.tuples(*[st.integers(least, most)] * 3))
    data = np.zeros(shape, np.uint8)
    values = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4, unique=True))
    for value in values:
        data[draw(structures(shape))] = value
    if not data.any():
        data[tuple(n // 2 for n in shape)] = values[0]
    return data


def has_core(mask: np.ndarray, share: float = 0.4) -> bool:
    """Whether a structure is several voxels thick: one erosion leaves a share of it."""
    inner = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3, 3)))
    return bool(inner.sum() >= share * mask.sum() and inner.sum() >= 8)
