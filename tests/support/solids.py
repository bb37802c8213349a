"""Solids with known measures, sampled at the voxel centres of grids in any pose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from cardiform.geometry.sdf import class_fields
from cardiform.labels import LabelTable
from cardiform.measures.appendage import appendage_measures, mouth_between
from cardiform.measures.shape import shape_figures
from cardiform.measures.tubes import trace_vessel, vessel_measures
from cardiform.measures.wall import long_axis, measure_wall
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

# (N, 3) mm -> (N,) bool
Inside = Callable[[np.ndarray], np.ndarray]

AORTA, APPENDAGE, ATRIUM, MUSCLE, CAVITY, RIGHT = 6, 8, 2, 1, 3, 5
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


def shape_of(volume, area, variances) -> dict[str, float]:
    """The true figures of a solid: mm^3, mm^2, variances along its axes in mm^2."""
    axes = 4 * np.sqrt(np.sort(variances)[::-1])
    sphericity = (36 * np.pi * volume**2) ** (1 / 3) / area
    return {
        "volume": volume / 1000, "surface_area": area / 100, "sphericity": sphericity,
        "normalised_shape_index": np.sqrt(area) / np.cbrt(volume) / (4 * np.pi) ** 0.5
        * (4 * np.pi / 3) ** (1 / 3),
        "major_axis_length": axes[0], "minor_axis_length": axes[1], "least_axis_length": axes[2],
        "elongation": axes[1] / axes[0], "flatness": axes[2] / axes[0],
    }  # fmt: skip


def area_of_ellipsoid(a, b, c) -> float:
    """By the midpoint rule over a fine grid of angles."""
    n = 1000
    u, v = (np.arange(n) + 0.5) * np.pi / n, (np.arange(2 * n) + 0.5) * np.pi / n
    u, v = np.meshgrid(u, v, indexing="ij")
    across = np.sqrt(
        (b * c * np.sin(u) ** 2 * np.cos(v)) ** 2
        + (a * c * np.sin(u) ** 2 * np.sin(v)) ** 2
        + (a * b * np.sin(u) * np.cos(u)) ** 2
    )
    return float(across.sum() * (np.pi / n) ** 2)


def a_ball(r=14.0):
    truth = shape_of(4 / 3 * np.pi * r**3, 4 * np.pi * r**2, [r**2 / 5] * 3)
    return ball(r), ((-r,) * 3, (r,) * 3), truth


def an_ellipsoid(a=26.0, b=17.0, c=11.0):
    volume = 4 / 3 * np.pi * a * b * c
    truth = shape_of(volume, area_of_ellipsoid(a, b, c), np.square([a, b, c]) / 5)
    return ellipsoid((a, b, c)), ((-a, -b, -c), (a, b, c)), truth


def a_tube(r=9.0, half=24.0):
    area = 2 * np.pi * r**2 + 4 * np.pi * r * half
    truth = shape_of(2 * np.pi * r**2 * half, area, [half**2 / 3, r**2 / 4, r**2 / 4])
    return cylinder(r, (0, 0, -half), (0, 0, half)), ((-r, -r, -half), (r, r, half)), truth


def a_shell(inner=11.0, outer=20.0):
    volume = 4 / 3 * np.pi * (outer**3 - inner**3)
    variance = (outer**5 - inner**5) / (outer**3 - inner**3) / 5
    truth = shape_of(volume, 4 * np.pi * (outer**2 + inner**2), [variance] * 3)
    whole, hollow = ball(outer), ball(inner)
    return lambda p: whole(p) & ~hollow(p), ((-outer,) * 3, (outer,) * 3), truth


R_IN = 20.0


def cup(thickness, spacing, pose):
    """A cavity of a ball open at z = 10 in muscle, the right ventricle on its side -x.

    thickness : (N, 3) unit directions -> (N,) mm.
    """

    def muscle(p):
        r = np.linalg.norm(p, axis=1)
        way = p / np.maximum(r, 1e-9)[:, None]
        return (r < R_IN + thickness(way)) & (p[:, 2] < 10)

    cavity = ball(R_IN)
    solids = {
        RIGHT: lambda p: ball(24.0, (-24.0, 0, 0))(p) & (p[:, 2] < 10),
        MUSCLE: muscle,
        CAVITY: lambda p: cavity(p) & (p[:, 2] < 10),
    }
    box = ((-48.0, -34, -34), (34, 34, 10))
    return on_grid(solids, box, spacing, pose)


def wall_of(label_map):
    fields, meshes = surfaces_of(label_map)
    wall = measure_wall(meshes[MUSCLE], fields[CAVITY])
    right = (meshes[RIGHT], fields[RIGHT]) if RIGHT in fields else None
    return wall, long_axis(meshes[CAVITY], fields[MUSCLE], right)


def varied(way):
    """Thicker at the back (+y) and at the tip."""
    return 9 + 2 * way[:, 1] - 1.5 * way[:, 2]


# solid, measure, found, true
Figure = tuple[str, str, float, float]


def measured(spacing, pose) -> Iterator[Figure]:
    """Every measure of every solid on one grid."""
    for scene in SCENES.values():
        yield from scene(spacing, pose)


def _shape(name: str, solid) -> Callable[..., Iterator[Figure]]:
    def scene(spacing, pose):
        inside, box, truth = solid()
        _, meshes = surfaces_of(on_grid({1: inside}, box, spacing, pose))
        for measure, value, _ in shape_figures(meshes[1]):
            yield name, measure, value, truth[measure]

    return scene


def vessel_of(label_map: LabelMap):
    """The centrelines of the class aorta."""
    _, meshes = surfaces_of(label_map)
    return trace_vessel(label_map, AORTA, meshes[AORTA], {})


def _vessel(name: str, radius: float, length: float, tube: Inside, box) -> Callable:
    def scene(spacing, pose):
        vessel = vessel_of(on_grid({AORTA: tube}, box, spacing, pose))
        truth = {"centreline_length": length, "branches": 1.0}
        for found in vessel_measures("aorta", vessel):
            yield name, found.measure, found.value, truth.get(found.measure, radius)

    return scene


def _straight(radius: float) -> Callable:
    start, end = np.array([-19.0, -8, 3]), np.array([18.0, 11, -4])
    box = (tuple(np.minimum(start, end) - radius), tuple(np.maximum(start, end) + radius))
    length = float(np.linalg.norm(end - start))
    name = f"straight vessel, radius {radius:g} mm"
    return _vessel(name, radius, length, cylinder(radius, start, end), box)


def _bent(radius: float, turn: float, around: float) -> Callable:
    reach = turn + radius
    box = ((-reach, -radius, -radius), (reach, reach, radius))
    name = f"bent vessel, radius {radius:g} mm"
    return _vessel(name, radius, turn * around, bend(radius, turn, around), box)


def even(way: np.ndarray) -> np.ndarray:
    return np.full(len(way), 9.0)


def _wall(name: str, thickness) -> Callable[..., Iterator[Figure]]:
    def scene(spacing, pose):
        wall, axis = wall_of(cup(thickness, spacing, pose))
        way = wall.places / np.linalg.norm(wall.places, axis=1, keepdims=True)
        yield name, "wall_thickness_mean", wall.thickness.mean(), thickness(way).mean()
        yield name, "long_axis_length", axis.length, R_IN + 10

    return scene


def _appendage(spacing, pose) -> Iterator[Figure]:
    """A tube that grows out of a block: its mouth is a disc."""
    way = np.array([0.3, -0.4, 0.866])
    way /= np.linalg.norm(way)
    tube = cylinder(8.0, np.zeros(3), 26 * way)
    solids = {ATRIUM: lambda p: (p @ way < 0) & (np.abs(p) < 15).all(axis=1), APPENDAGE: tube}
    label_map = on_grid(solids, ((-18.0, -22, -15), (22, 18, 32)), spacing, pose)
    _, meshes = surfaces_of(label_map)
    mouth = mouth_between(label_map, APPENDAGE, ATRIUM)
    truth = {"ostium_area": np.pi * 0.64, "ostium_diameter": 16.0, "depth": 26.0}
    for found in appendage_measures("laa", mouth, meshes[APPENDAGE], None, max(spacing)):
        yield "appendage", found.measure, found.value, truth[found.measure]


SCENES = {
    "ball": _shape("ball, radius 14 mm", a_ball),
    "ellipsoid": _shape("ellipsoid, 26 x 17 x 11 mm", an_ellipsoid),
    "tube": _shape("tube, radius 9 mm, length 48 mm", a_tube),
    "shell": _shape("shell, 11 to 20 mm", a_shell),
    "thin vessel": _straight(5.0),
    "wide vessel": _straight(9.0),
    "bend": _bent(6.0, 24.0, 2.6),
    "wide bend": _bent(9.0, 22.0, 2.8),
    "wall": _wall("wall of 6 to 12.5 mm", varied),
    "appendage": _appendage,
}
