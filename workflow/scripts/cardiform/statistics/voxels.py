"""Label maps of surfaces, and whether their anatomy is that of real hearts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..anatomy.validity import Anatomy
from ..geometry.surface import Mesh
from ..labels import LabelTable
from .template import Template, in_mm

VOXEL_MM = 1.0  # with 2 mm, walls that meet along a thin rim share no face of a voxel by chance
OFF_AXIS = np.array([0.0137, 0.0211])  # voxels: rays that meet no edge and no corner exactly


@dataclass(frozen=True)
class Box:
    """A grid along the axes.    origin : (3,) mm of the first voxel.    shape : of voxels."""

    origin: np.ndarray
    shape: tuple[int, ...]
    spacing: float

    @classmethod
    def around(cls, vertices: np.ndarray, spacing: float = VOXEL_MM) -> Box:
        """The grid that holds (V, 3) vertices, mm, with a rim."""
        low, high = vertices.min(axis=0) - 2 * spacing, vertices.max(axis=0) + 2 * spacing
        shape = np.ceil((high - low) / spacing).astype(int) + 1
        return cls(low, tuple(int(n) for n in shape), spacing)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) indices to mm."""
        result = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        result[:3, 3] = self.origin
        return result


def inside(mesh: Mesh, box: Box) -> np.ndarray:
    """(X, Y, Z) bool: voxels whose centre lies within a closed surface.

    A ray runs along z through each column of voxels; every crossing changes sides.
    """
    x, y, z = box.shape
    corners = ((mesh.vertices - box.origin) / box.spacing).astype(np.float64)[mesh.faces]
    flat = corners[..., :2] - OFF_AXIS
    low = np.clip(np.ceil(flat.min(axis=1)).astype(int), 0, [x, y])
    high = np.clip(np.floor(flat.max(axis=1)).astype(int) + 1, 0, [x, y])
    size = np.maximum(high - low, 0)
    counts = size.prod(axis=1)
    triangle = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = low[triangle] + np.stack(np.divmod(number, np.maximum(size[triangle, 1], 1)), axis=1)
    a, b, c = (flat[triangle, k] for k in range(3))
    area = _cross(b - a, c - a)
    turned = np.where(area == 0, 1.0, area)
    of_b, of_c = _cross(columns - a, c - a) / turned, _cross(b - a, columns - a) / turned
    hit = (of_b >= 0) & (of_c >= 0) & (of_b + of_c <= 1) & (area != 0)
    triangle, columns, of_b, of_c = triangle[hit], columns[hit], of_b[hit], of_c[hit]
    heights = corners[triangle, :, 2]
    at = heights[:, 0] * (1 - of_b - of_c) + heights[:, 1] * of_b + heights[:, 2] * of_c
    first = np.clip(np.ceil(at).astype(int), 0, z)  # from this voxel on the side is another
    changes = np.zeros((x, y, z + 1), np.int32)
    np.add.at(changes, (columns[:, 0], columns[:, 1], first), 1)
    return (np.cumsum(changes, axis=2)[..., :z] % 2).astype(bool)


def label_map(parts: Mapping[int, Mesh], box: Box, table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8 class values; where surfaces overlap, the priority decides."""
    result = np.zeros(box.shape, np.uint8)
    for label in sorted(table, key=lambda label: -label.priority):
        if label.value in parts:
            result[inside(parts[label.value], box)] = label.value
    return result


def label_map_of(distances: np.ndarray, template: Template, table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8 class values of distances on the template's grid, (X', Y', Z', C) mm."""
    extent = (np.array(distances.shape[:3]) - 1) * template.spacing / VOXEL_MM
    places = [np.arange(int(n) + 1) * VOXEL_MM / template.spacing for n in extent]
    result = np.zeros([len(place) for place in places], np.uint8)
    order = {label.value: -label.priority for label in table}
    for value in sorted(template.values, key=order.__getitem__):
        found = distances[..., template.values.index(value)]
        for axis, place in enumerate(places):
            found = _between(found, place, axis)
        result[found < 0] = value
    return result


def _between(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation of (X, Y, Z) at places along an axis, in its voxels."""
    low = np.minimum(places.astype(int), max(values.shape[axis] - 2, 0))
    share = (places - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    high = np.minimum(low + 1, values.shape[axis] - 1)
    return values.take(low, axis) * (1 - share) + values.take(high, axis) * share


class Judge:
    """What is true of the training hearts (:class:`cardiform.anatomy.validity.Anatomy`), and which
    hearts keep to it: the ``valid`` of evaluate_samples."""

    def __init__(self, hearts: Iterable[np.ndarray], values: Sequence[int], table: LabelTable):
        """hearts : (X, Y, Z) uint8 class values, looked at one by one.    values : of the classes
        that count."""
        self.channels = np.zeros(256, np.uint8)
        self.channels[list(values)] = np.arange(1, len(values) + 1)
        parts = [table[table.values.index(value)].expected for value in values]
        self.anatomy = Anatomy.of(
            ((self.channels[heart], np.isin(values, heart)) for heart in hearts), parts
        )

    def check(self, heart: np.ndarray) -> dict[str, bool]:
        """Rule by rule."""
        return self.anatomy.check(self.channels[heart])

    def valid(self, heart: np.ndarray) -> bool:
        return all(self.check(heart).values())


def distances_of(steps: np.ndarray) -> np.ndarray:
    """float32 mm of stored distances, nowhere zero: for surfaces."""
    found = in_mm(steps)
    return np.where(found == 0, np.float32(1e-3), found)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
