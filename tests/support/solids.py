"""Solids with known measures, sampled at the voxel centres of grids in any pose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from cardiform.geometry.sdf import class_fields
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

# (N, 3) mm -> (N,) bool
Inside = Callable[[np.ndarray], np.ndarray]

SPACINGS = [(0.35, 0.35, 0.5), (0.5, 0.5, 0.5), (0.6, 0.6, 1.0), (0.8, 0.8, 1.5)]
MARGIN_MM = 4.0


@dataclass(frozen=True)
class Pose:
    """How a grid lies: its rotation in degrees about x, y and z, and whether it is mirrored."""

    name: str
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirrored: bool = False

    def axes(self) -> np.ndarray:
        """(3, 3) unit directions of the grid's axes, as columns."""
        turn = Rotation.from_euler("xyz", self.degrees, degrees=True).as_matrix()
        return turn * np.array([-1.0 if self.mirrored else 1.0, 1.0, 1.0])


POSES = [
    Pose("straight"),
    Pose("tilted", (31.0, -17.0, 50.0)),
    Pose("mirrored", (-12.0, 40.0, 8.0), True),
]


def on_grid(
    solids: Mapping[int, Inside],
    box: tuple[tuple[float, float, float], tuple[float, float, float]],
    spacing: tuple[float, float, float],
    pose: Pose = POSES[0],
) -> LabelMap:
    """Class value -> solid as a label map; later ones lie over earlier ones.

    box : corners that hold all solids, mm.
    """
    axes = pose.axes()
    corners = np.stack(np.meshgrid(*zip(*box), indexing="ij"), axis=-1).reshape(-1, 3) @ axes
    start = corners.min(axis=0) - MARGIN_MM + 0.137  # voxel centres on no plane of a solid
    shape = np.ceil((corners.max(axis=0) + MARGIN_MM - start) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ start
    index = np.indices(shape).reshape(3, -1).T
    world = index @ affine[:3, :3].T + affine[:3, 3]
    data = np.zeros(len(world), np.uint8)
    for value, inside in solids.items():
        data[inside(world)] = value
    return LabelMap(data.reshape(shape), affine)


def surfaces_of(label_map: LabelMap):
    """Fields and meshes by class value, as extract_meshes makes them."""
    fields = class_fields(label_map, LabelTable(), MeshesOptions())
    return fields, {value: field.surface() for value, field in fields.items()}


def ball(radius: float, middle=(0.0, 0.0, 0.0)) -> Inside:
    return lambda p: np.linalg.norm(p - np.asarray(middle), axis=1) < radius


def ellipsoid(radii: tuple[float, float, float]) -> Inside:
    return lambda p: np.linalg.norm(p / np.asarray(radii), axis=1) < 1


def cylinder(radius: float, start, end) -> Inside:
    """With flat ends."""
    start = np.asarray(start, float)
    way = np.asarray(end, float) - start
    length = np.linalg.norm(way)

    def inside(points: np.ndarray) -> np.ndarray:
        along = (points - start) @ way / length
        away = np.linalg.norm(points - start - along[:, None] * way / length, axis=1)
        return (along > 0) & (along < length) & (away < radius)

    return inside


def bend(radius: float, turn: float, around: float) -> Inside:
    """A part of a torus in the plane z = 0, from angle 0 to ``around``, with flat ends.

    turn : mm from the origin to the middle of the tube.
    """

    def inside(points: np.ndarray) -> np.ndarray:
        angle = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
        out = np.hypot(points[:, 0], points[:, 1]) - turn
        return (np.hypot(out, points[:, 2]) < radius) & (angle < around)

    return inside
