"""The wall of the left ventricle: how thick it is, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.field_of_view import Cut
from ..geometry.lookup import Field
from ..geometry.surface import Mesh
from .sections import Surface
from .table import MM, Measured

TOUCHING = 0.75  # of the longest edge of a voxel: nearer surfaces are those of one wall
SAMPLE_MM = 2.5  # between the places where the wall is measured
FACING = 0.6  # cosine between the normals of cavity and wall; less: a rim
NEIGHBOURS = 4  # measured places about one on the map
# Segments of a ring from the middle of the septum on, towards the front; the ring's first is added.
RING_OF_6, RING_OF_4 = (1, 0, 5, 4, 3, 2), (1, 0, 3, 2)
RINGS = ((1, RING_OF_6, 0.0), (7, RING_OF_6, 0.0), (13, RING_OF_4, np.pi / 4))
APEX = 17
NO_SEGMENT = 0
PERCENTILES = {"p05": 5, "p95": 95}


@dataclass(frozen=True, eq=False)
class Wall:
    """The wall at places of its inner surface.

    inner : the surface that faces the cavity, open at the valves.
    places : (N, 3) RAS mm on it.    thickness : (N,) mm, straight out to the outer surface.
    middles : (N, 3) RAS mm, half the way.
    """

    inner: Mesh
    places: np.ndarray
    thickness: np.ndarray
    middles: np.ndarray

    def on_map(self, values: np.ndarray) -> np.ndarray:
        """(V,) values at the vertices of ``inner``, of those at the places nearest to each."""
        count = min(NEIGHBOURS, len(self.places))
        away, near = cKDTree(self.places).query(self.inner.vertices, k=count)
        away, near = away.reshape(-1, count), near.reshape(-1, count)
        weight = 1 / np.maximum(away, 1e-3) ** 2
        return (values[near] * weight).sum(axis=1) / weight.sum(axis=1)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """(V,) values at the vertices of ``inner``, each that of the nearest place."""
        return values[cKDTree(self.places).query(self.inner.vertices)[1]]


@dataclass(frozen=True, eq=False)
class LongAxis:
    """The left ventricle's own directions.

    apex, base : (3,) RAS mm, tip of the cavity and middle of its openings.
    septum : (3,) unit, across the axis towards the right ventricle; None: it is not known.
    """

    apex: np.ndarray
    base: np.ndarray
    septum: np.ndarray | None

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.base - self.apex))

    @property
    def up(self) -> np.ndarray:
        """(3,) unit, from apex to base."""
        return (self.base - self.apex) / self.length

    def segments(self, places: np.ndarray) -> np.ndarray:
        """(N,) int: segment of the American Heart Association, 1-17; 0 above the base.

        Cerqueira et al., Circulation 105 (2002): thirds of the cavity's length, and beyond its tip
        the apex; six, six and four sectors, here counted from the middle of the septum.
        """
        if self.septum is None:
            return np.full(len(places), NO_SEGMENT)
        away = places - self.apex
        height = away @ self.up / self.length
        front = np.cross(self.up, self.septum)
        angle = np.arctan2(away @ front, away @ self.septum)
        result = np.full(len(places), NO_SEGMENT)
        for third, (first, ring, turn) in zip((2, 1, 0), RINGS):
            sector = np.floor((angle + turn) % (2 * np.pi) / (2 * np.pi / len(ring))).astype(int)
            own = (height >= third / 3) & (height <= (third + 1) / 3)
            result[own] = first + np.array(ring)[sector % len(ring)][own]
        result[height < 0] = APEX
        return result


def measure_wall(muscle: Mesh, cavity: Field) -> Wall | None:
    """The thickness of the muscle around a cavity; None where they do not touch.

    muscle : its closed surface.    cavity : signed distances to what it surrounds.
    """
    near = cavity.lookup(muscle.vertices) < TOUCHING * float(cavity.spacing.max())
    faces = near[muscle.faces].all(axis=1)
    if not faces.any() or faces.all():
        return None
    inner = _part(muscle, faces)
    places, outward = _samples(inner, cavity)
    if not len(places):
        return None
    thickness, facing, met = Surface(muscle).ahead(
        places, outward, least=float(cavity.spacing.max())
    )
    # what leaves the muscle through its rim at the base is no wall; nor are papillary muscles,
    # behind which the cavity lies again
    hit = (facing >= FACING) & ~faces[met]
    if not hit.any():
        return None
    places, thickness = places[hit], thickness[hit]
    return Wall(inner, places, thickness, places + thickness[:, None] / 2 * outward[hit])


def long_axis(cavity: Mesh, muscle: Field, right: tuple[Mesh, Field] | None) -> LongAxis | None:
    """The directions of a cavity; None where the muscle leaves it no opening.

    muscle : signed distances to its muscle.    right : of the right ventricle; None: it is absent.
    """
    vertices = cavity.vertices.astype(np.float64)
    edge = float(muscle.spacing.max())
    open_part = muscle.lookup(cavity.vertices) > TOUCHING * edge
    faces = cavity.faces[open_part[cavity.faces].all(axis=1)]
    if not len(faces):
        return None
    corners = vertices[faces]
    size = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    base = (corners.mean(axis=1) * size[:, None]).sum(axis=0) / size.sum()
    away = np.linalg.norm(vertices - base, axis=1)
    if away.max() < 2 * edge:
        return None
    # on a round tip many points are about as far as the farthest
    tip = vertices[away >= away.max() - edge / 2].mean(axis=0) - base
    apex = base + tip * away.max() / np.linalg.norm(tip)
    axis = LongAxis(apex, base, None)
    return LongAxis(apex, base, _septum(axis, muscle, right, edge))


def _septum(
    axis: LongAxis, muscle: Field, right: tuple[Mesh, Field] | None, edge: float
) -> np.ndarray | None:
    """(3,) unit, across the axis to the middle of where the right ventricle touches the muscle."""
    if right is None:
        return None
    vertices = right[0].vertices.astype(np.float64)
    touching = muscle.lookup(right[0].vertices) < TOUCHING * edge
    away = (vertices[touching] if touching.any() else vertices) - axis.apex
    away -= (away @ axis.up)[:, None] * axis.up
    ways = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    mean = ways.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 1e-3 else None


def wall_measures(
    name: str, wall: Wall, axis: LongAxis | None, cut: Cut | None
) -> Iterator[Measured]:
    """Thickness of the wall as a whole and in the 17 segments; length of the long axis.

    A segment that the scan cuts is marked, the others are whole.
    """
    is_cut = cut is not None
    found = wall.thickness
    yield Measured(name, "wall_thickness_mean", found.mean(), MM, cut=is_cut)
    for word, share in PERCENTILES.items():
        yield Measured(name, f"wall_thickness_{word}", np.percentile(found, share), MM, cut=is_cut)
    if axis is None:
        return
    segments = axis.segments(wall.middles)
    beyond = np.zeros(len(found), bool) if cut is None else cut.depth(wall.middles, 0) < found
    for number in range(1, APEX + 1):
        own = segments == number
        if own.any():
            part = f"segment_{number:02d}"
            partly = bool(beyond[own].any())
            yield Measured(name, "wall_thickness_mean", found[own].mean(), MM, part, partly)


def _part(mesh: Mesh, faces: np.ndarray) -> Mesh:
    """Some triangles of a mesh, (F,) bool, and their vertices."""
    used, numbers = np.unique(mesh.faces[faces], return_inverse=True)
    return Mesh(mesh.vertices[used], numbers.reshape(-1, 3).astype(np.int32))


def _samples(inner: Mesh, cavity: Field) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) places spread evenly over a surface, and the unit directions away from the cavity."""
    vertices = inner.vertices.astype(np.float64)
    cells = np.floor(vertices / SAMPLE_MM).astype(int)
    _, first = np.unique(cells, axis=0, return_index=True)
    places = vertices[first]
    step = float(cavity.spacing.max())
    ahead = np.stack(
        [cavity.lookup(places + e) - cavity.lookup(places - e) for e in step * np.eye(3)], axis=1
    ).astype(np.float64)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    facing = -(_normals(inner)[first] * ahead).sum(axis=1) >= FACING
    return places[facing], ahead[facing]


def _normals(mesh: Mesh) -> np.ndarray:
    """(V, 3) unit normals of the vertices, of the triangles about each by their area."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    result = np.zeros((len(mesh.vertices), 3))
    for k in range(3):
        np.add.at(result, mesh.faces[:, k], across)
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
