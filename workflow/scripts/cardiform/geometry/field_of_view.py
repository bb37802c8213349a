"""What the scan cuts off: where each class of a label map ends for want of image, not of tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..cohort.table import Case
from ..errors import InputError
from ..labels import LabelTable
from ..volumes import LabelMap
from .frame import apply_affine
from .grids import cropped_affine, planes, whole
from .surface import Mesh

# The cap lies within half a voxel of the plane that cuts; smoothing rounds its rim within one.
CAP_VOX, MARGIN_VOX = 0.5, 1.0
# A round end has half as many voxels in its last layer as in the one before, or fewer.
FLAT = 0.6
MOST_BEYOND_MM = 200  # as large as a heart


@dataclass(frozen=True)
class Plane:
    """A plane between two layers of voxels, beyond which nothing is known of a class.

    axis : of the voxel indices.    side : 1 where the higher indices are beyond, else -1.
    at : index along the axis, the half between two voxels.
    """

    axis: int
    side: int
    at: float


@dataclass(frozen=True)
class Cut:
    """How the scan cuts one class.

    planes : where. None at all: it is listed as cut, and ends nowhere at a plane; nothing of it
        is known for sure then.
    affine : (4, 4) voxel indices to RAS mm.
    """

    planes: tuple[Plane, ...]
    affine: np.ndarray

    def depth(self, world: np.ndarray, margin_vox: float = MARGIN_VOX) -> np.ndarray:
        """(N,) float64 mm from (N, 3) RAS mm to the nearest plane; negative beyond.

        margin_vox : so many voxels before the plane count as beyond.
        """
        result = np.full(len(world), np.inf if self.planes else -np.inf)
        for row in self.slopes(margin_vox):
            np.minimum(result, world.astype(np.float64) @ row[:3] + row[3], out=result)
        return result

    def slopes(self, margin_vox: float = MARGIN_VOX) -> np.ndarray:
        """(P, 4) float64: world x, y, z and 1 times a row is :meth:`depth` before that plane."""
        inverse = np.linalg.inv(self.affine)
        rows = np.zeros((len(self.planes), 4))
        for row, plane in zip(rows, self.planes):
            row[:] = -plane.side * inverse[plane.axis]
            row[3] += plane.side * plane.at - margin_vox
            row /= np.linalg.norm(inverse[plane.axis, :3])
        return rows

    def knows(self, world: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """(N,) bool: no surface beyond a plane can be nearer than the one in view.

        distance : (N,) mm to the surface in view.
        """
        return np.abs(distance) <= self.depth(world)

    def is_cap(self, mesh: Mesh) -> np.ndarray:
        """(F,) bool: the triangles that close the surface at a plane; no wall lies there."""
        if not self.planes:
            return np.zeros(len(mesh.faces), bool)
        return (self.depth(mesh.vertices, CAP_VOX) < 0)[mesh.faces].all(axis=1)

    def open_part(self, mesh: Mesh) -> Mesh:
        """The surface without its caps and their rims; empty where no plane is known."""
        kept = (self.depth(mesh.vertices) >= 0)[mesh.faces].all(axis=1)
        return Mesh(mesh.vertices, mesh.faces[kept])

    def in_view(self, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
        """(X, Y, Z) bool: voxels of a grid whose centres lie before every plane."""
        if not self.planes:
            return np.ones(tuple(shape), bool)
        inside = np.empty(tuple(shape), bool)
        for part, index in zip(inside, planes(whole(inside.shape))):
            part[...] = (self.depth(apply_affine(affine, index), 0) >= 0).reshape(part.shape)
        return inside


def cuts_of(label_map: LabelMap, table: LabelTable, case: Case | None = None) -> dict[int, Cut]:
    """Class value -> how it is cut, of the classes that are.

    A class is cut where it has a voxel on an outer face of the volume. One that the case table
    lists beside these was cut before the volume was padded: where it ends flat along an axis.

    case : whose table may list more cut classes, or say that none is.
    """
    boxes = label_map.boxes
    values = {name: v for name, v in zip(table.names, table.values) if v in boxes}
    faces = {name: _border_faces(boxes[v], label_map.data.shape) for name, v in values.items()}
    cut = [name for name in values if faces[name]]
    if case is not None:
        cut = [name for name in case.cut_classes(cut) if name in values]
    result = {}
    for name in cut:
        value = values[name]
        planes = faces[name] or _flat_faces(label_map.data[boxes[value]] == value, boxes[value])
        result[value] = Cut(planes, label_map.affine)
    return result


def cut_names(cuts: Mapping[int, Cut], table: LabelTable) -> list[str]:
    """Names of the cut classes, in the order of the table."""
    return [label.name for label in table if label.value in cuts]


def unplaced(cuts: Mapping[int, Cut], table: LabelTable) -> list[str]:
    """Names of the cut classes of which no plane is known: nothing is learned of them."""
    return cut_names({value: cut for value, cut in cuts.items() if not cut.planes}, table)


def check_beyond(mm: float) -> None:
    """InputError where label maps cannot be grown by so much; 0: they are not."""
    if not 0 <= mm <= MOST_BEYOND_MM:
        raise InputError(f"--beyond-mm: {mm:g} is no length; give 0 to {MOST_BEYOND_MM} mm")


def larger_grid(label_map: LabelMap, cuts: Mapping[int, Cut], beyond_mm: float) -> LabelMap:
    """A copy with empty layers past the faces of the volume at which a class is cut."""
    width = np.zeros((3, 2), int)
    for plane in (plane for cut in cuts.values() for plane in cut.planes):
        edge = -0.5 if plane.side < 0 else label_map.data.shape[plane.axis] - 0.5
        if plane.at == edge:
            layers = int(np.ceil(beyond_mm / label_map.spacing[plane.axis]))
            width[plane.axis, int(plane.side > 0)] = layers
    affine = cropped_affine(label_map.affine, -width[:, 0].astype(float))
    return LabelMap(np.pad(label_map.data, width), affine)


def seen_only(labels: np.ndarray, affine: np.ndarray, cuts: Mapping[int, Cut]) -> np.ndarray:
    """(X, Y, Z) uint8 labels without the voxels of cut classes that lie beyond their planes."""
    faces = [(k, edge) for k, n in enumerate(labels.shape) for edge in (-0.5, n - 0.5)]
    for value, cut in cuts.items():
        if any((plane.axis, plane.at) not in faces for plane in cut.planes):
            unseen = (labels == value) & ~cut.in_view(labels.shape, affine)
            labels = np.where(unseen, np.uint8(0), labels)
    return labels


def _border_faces(box: Sequence[slice], shape: Sequence[int]) -> tuple[Plane, ...]:
    """The faces of the volume that a box of voxels reaches."""
    low = [Plane(k, -1, -0.5) for k, part in enumerate(box) if part.start == 0]
    high = [Plane(k, 1, n - 0.5) for k, (part, n) in enumerate(zip(box, shape)) if part.stop == n]
    return (*low, *high)


def _flat_faces(mask: np.ndarray, box: Sequence[slice]) -> tuple[Plane, ...]:
    """The faces of its box on which a class ends flat."""
    found = []
    for k, part in enumerate(box):
        layers = mask.sum(axis=tuple(a for a in range(3) if a != k))
        if len(layers) < 2:
            continue
        if layers[0] > FLAT * layers[1]:
            found.append(Plane(k, -1, part.start - 0.5))
        if layers[-1] > FLAT * layers[-2]:
            found.append(Plane(k, 1, part.stop - 0.5))
    return tuple(found)
