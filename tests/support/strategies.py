"""What the property-based tests draw from."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

# Text that a person can type into a table: no control characters, no halves of characters.
typed = st.characters(exclude_categories=("Cc", "Cs"))
awkward = st.sampled_from("\"', ;#\u2028\u2029\u00a0\ufeffé")
texts = st.lists(st.one_of(typed, awkward), max_size=12).map("".join)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True)
# File names of any script, with spaces and quotes; not "." and "..".
names = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=40
).filter(lambda name: name.strip(".") and len(name.encode()) < 200)

# All ways in which the axes of an image can lie along those of the world: (3, 3) each.
ORIENTATIONS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


@st.composite
def rotations(draw) -> np.ndarray:
    """(3, 3) float64, proper."""
    quaternion = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    quaternion = quaternion + np.array([1e-3, 0, 0, 0]) * (np.linalg.norm(quaternion) < 1e-2)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


@st.composite
def affines(draw, max_shear_deg: float = 0.0, min_shear_deg: float = 0.0) -> np.ndarray:
    """(4, 4) float64: any orientation, turn, anisotropy and place, and a shear of two axes."""
    spacing = np.array(draw(st.tuples(*[st.floats(0.2, 5.0)] * 3)))
    axes = draw(st.sampled_from(ORIENTATIONS))
    if draw(st.booleans()):
        axes = draw(rotations()) @ axes
    shear = np.radians(draw(st.floats(min_shear_deg, max_shear_deg)))
    first, second, _ = draw(st.permutations(range(3)))
    axes = axes.copy()
    axes[:, second] = np.cos(shear) * axes[:, second] + np.sin(shear) * axes[:, first]
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def label_maps(draw, values=(0, 1, 2, 3), least: int = 1, most: int = 7) -> np.ndarray:
    """(X, Y, Z) uint8 with at least one labelled voxel."""
    shape = draw(st.tuples(*[st.integers(least, most)] * 3))
    data = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(values)))
    if not data.any():
        data[tuple(n // 2 for n in shape)] = values[-1]
    return data


@st.composite
def blobs(draw, size: int = 9) -> np.ndarray:
    """(size, size, size) bool: a few boxes, as a structure of a label map might be."""
    data = np.zeros((size,) * 3, bool)
    for _ in range(draw(st.integers(1, 3))):
        low = [draw(st.integers(1, size - 4)) for _ in range(3)]
        edge = [draw(st.integers(2, 5)) for _ in range(3)]
        data[tuple(slice(a, min(a + e, size - 1)) for a, e in zip(low, edge))] = True
    return data


def turned(data: np.ndarray, affine: np.ndarray, axes: np.ndarray):
    """The same image with its axes in another order and direction: data and affine."""
    order = [int(np.flatnonzero(row)[0]) for row in axes]
    flips = [axis for axis, row in enumerate(axes) if row.sum() < 0]
    moved = np.flip(data.transpose(order), flips)
    into = np.zeros((4, 4))  # new index -> old index
    into[3, 3] = 1
    for new, old in enumerate(order):
        into[old, new] = -1 if new in flips else 1
        into[old, 3] = data.shape[old] - 1 if new in flips else 0
    return moved, affine @ into
