"""The left atrial appendage: its mouth and how deep it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..anatomy.components import components
from ..geometry.field_of_view import Cut
from ..geometry.frame import apply_affine
from ..geometry.sdf import class_boxes
from ..geometry.surface import Mesh
from ..volumes import LabelMap
from .shape import MM2_PER_CM2
from .table import CM2, MM, Measured


@dataclass(frozen=True)
class Mouth:
    """Where two classes touch, as a plane.

    area : mm^2.    middle : (3,) RAS mm.    normal : (3,) from the first class to the second.
    places : (N, 3) RAS mm, the middles of the faces between their voxels.
    """

    area: float
    middle: np.ndarray
    normal: np.ndarray
    places: np.ndarray

    @property
    def diameter(self) -> float:
        """mm, of the circle with this area."""
        return float(2 * np.sqrt(self.area / np.pi))

    def depth(self, mesh: Mesh) -> float:
        """mm from the plane to the farthest point of the first class."""
        return float(((self.middle - mesh.vertices) @ self.normal).max())


def mouth_between(label_map: LabelMap, value: int, other: int) -> Mouth | None:
    """The largest patch in which one class touches another; None where they do not touch.

    Notes
    -----
    The faces between voxels of both classes, as vectors as long as their areas, add up to the area
    that their rim encloses (Stokes): a plane patch keeps its area at any angle to the grid, whose
    steps add up to nothing.
    """
    boxes = class_boxes(label_map.data)
    if value not in boxes or other not in boxes:
        return None
    start = np.array([max(s.start - 1, 0) for s in boxes[value]])
    stop = [s.stop + 1 for s in boxes[value]]
    data = label_map.data[tuple(slice(a, b) for a, b in zip(start, stop))]
    inside, beyond = data == value, data == other
    faces = [_faces(inside, beyond, axis, side) for axis in range(3) for side in (1, -1)]
    index = np.concatenate(faces)
    if not len(index):
        return None
    touching = np.zeros(data.shape, bool)
    touching[tuple(index[:, :3].T)] = True
    labelled, voxels = components(touching)
    voxels[0] = 0
    index = index[labelled[tuple(index[:, :3].T)] == voxels.argmax()]
    steps = np.zeros((len(index), 3))
    steps[np.arange(len(index)), index[:, 3]] = index[:, 4]
    affine = label_map.affine
    # of a face across an axis of the grid: its normal, as long as its area
    area = steps @ np.linalg.inv(affine[:3, :3]) * abs(np.linalg.det(affine[:3, :3]))
    vector = area.sum(axis=0)
    size = float(np.linalg.norm(vector))
    if size <= 0:
        return None
    places = apply_affine(affine, index[:, :3] + start + steps / 2)
    weight = np.linalg.norm(area, axis=1)
    middle = (places * weight[:, None]).sum(axis=0) / weight.sum()
    return Mouth(size, middle, vector / size, places)


def _faces(inside: np.ndarray, beyond: np.ndarray, axis: int, side: int) -> np.ndarray:
    """(N, 5) int: voxel of ``inside`` with one of ``beyond`` next to it; axis and side of that."""
    here = [slice(None)] * 3
    there = [slice(None)] * 3
    here[axis], there[axis] = (slice(0, -1), slice(1, None))[::side]
    found = np.argwhere(inside[tuple(here)] & beyond[tuple(there)])
    found[:, axis] += side < 0
    return np.column_stack([found, np.full(len(found), axis), np.full(len(found), side)])


def appendage_measures(
    name: str, mouth: Mouth, mesh: Mesh, cut: Cut | None, edge: float
) -> Iterator[Measured]:
    """Area and diameter of the mouth, and the depth behind it.

    edge : the longest of a voxel, mm: so near to the plane of a cut the mouth is cut too.
    """
    mouth_cut = cut is not None and bool(cut.depth(mouth.places, 0).min() < edge)
    yield Measured(name, "ostium_area", mouth.area / MM2_PER_CM2, CM2, cut=mouth_cut)
    yield Measured(name, "ostium_diameter", mouth.diameter, MM, cut=mouth_cut)
    yield Measured(name, "depth", mouth.depth(mesh), MM, cut=cut is not None)
