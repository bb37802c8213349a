"""The heart that is moved onto all others: its surfaces, and its distances on a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again, problem
from ..files import save_npz
from ..formats import Format
from ..geometry.grids import lattice
from ..geometry.lookup import Field
from ..geometry.surface import Mesh, extract_surface
from ..labels import LabelTable
from .hearts import Outline, load_meshed
from .poses import Pose
from .velocity import LOOSE, STIFF, Stiffness

REMEDY = again("shape_statistics")
TEMPLATE = Format(
    "template",
    {
        "format_version": "i64",
        "vertices": "f32 (V, 3)",
        "faces": "i32 (F, 3)",
        "labels": "u8 (F)",
        "values": "u8 (C)",
        "middles": "f64 (C, 3)",
        "distances": "i8 (X, Y, Z, C)",
        "origin_mm": "f64 (3)",
        "grid_mm": "f64",
        "smoothing_mm": "f64",
        "remove_size": "bool",
        "scaled?": "bool",
    },
    REMEDY,
    version=2,
    earlier=(1,),
)
STEP_MM = 0.2  # of stored distances
MOST_MM = 25.0  # farther points are all alike: what is that far off pulls no surface
SLOPE_MM = 0.5
NAMED = 5  # cases of a message
MARGIN_MM = 15.0  # of the grid around the surfaces


@dataclass(frozen=True)
class Template:
    """A heart about the middle of its classes, in mm and RAS.

    mesh : surfaces of all classes together.    labels : (F,) uint8 class value of each triangle.
    values : class values, C.    middles : (C, 3) of its vertices.
    distances : (X, Y, Z, C) int8, in steps of 0.2 mm, clipped; negative inside.
    origin : (3,) of the grid's first voxel.    spacing : its edge.
    smoothing_mm, remove_size : as hearts are registered and compared with it.
    scaled : the template is brought to the size of a heart before the field moves it. A field would
        move the vertices straight outward to make a heart larger, not apart, so that size would
        change the correspondences. Templates of format 1 were not.
    """

    mesh: Mesh
    labels: np.ndarray
    values: tuple[int, ...]
    middles: np.ndarray
    distances: np.ndarray
    origin: np.ndarray
    spacing: float
    smoothing_mm: float
    remove_size: bool
    scaled: bool = True

    @property
    def stiffness(self) -> Stiffness:
        return STIFF if self.scaled else LOOSE

    @property
    def points(self) -> np.ndarray:
        """(X * Y * Z, 3) float64 mm of the grid's voxels."""
        ticks = [np.arange(n) * self.spacing + o for n, o in zip(self.distances.shape, self.origin)]
        return lattice(*ticks)

    def index(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) float32 grid indices of (N, 3) mm."""
        return ((points - self.origin) / self.spacing).astype(np.float32)

    @property
    def vertex_labels(self) -> np.ndarray:
        """(V,) uint8 class value of each vertex."""
        result = np.zeros(len(self.mesh.vertices), np.uint8)
        result[self.mesh.faces.ravel()] = np.repeat(self.labels, 3)
        return result

    def save(self, path: str | Path) -> None:
        save_npz(
            path,
            compressed=True,
            vertices=self.mesh.vertices,
            faces=self.mesh.faces,
            labels=self.labels,
            values=np.array(self.values, np.uint8),
            middles=self.middles,
            distances=self.distances,
            origin_mm=self.origin,
            grid_mm=np.float64(self.spacing),
            smoothing_mm=np.float64(self.smoothing_mm),
            remove_size=np.bool_(self.remove_size),
            scaled=np.bool_(self.scaled),
            format_version=np.int64(TEMPLATE.version),
        )

    @classmethod
    def load(cls, path: str | Path) -> Template:
        """InputError where the file is missing, damaged, or no template."""
        found = TEMPLATE.load(path)
        faces, count = found["faces"], len(found["vertices"])
        fine = (
            len(faces) and faces.min() >= 0 and faces.max() < count
            and np.isfinite(found["vertices"]).all() and np.isfinite(found["origin_mm"]).all()
            and min(found["distances"].shape) >= 1 and found["grid_mm"] > 0
            and found["smoothing_mm"] > 0 and set(found["labels"]) == set(found["values"])
        )  # fmt: skip
        if not fine:
            raise InputError(problem(path, "is no sound template", REMEDY))
        return cls(
            Mesh(found["vertices"], faces), found["labels"], tuple(found["values"].tolist()),
            found["middles"], found["distances"], found["origin_mm"], float(found["grid_mm"]),
            float(found["smoothing_mm"]), bool(found["remove_size"]),
            bool(found.get("scaled", False)),
        )  # fmt: skip


def make_template(
    outline: Outline,
    channels: Sequence[int],
    table: LabelTable,
    meshes: Path,
    *,
    grid_mm: float,
    mesh_mm: float,
    smoothing_mm: float,
    remove_size: bool,
    reach: np.ndarray | None = None,
) -> Template:
    """The template of a heart.

    reach : (2, 3) mm about the middle of the classes, the box that the grid holds in any case.

    Raises
    ------
    InputError
        As of the meshes of a case; a class is too thin for mesh_mm or grid_mm.
    """
    meshed = load_meshed(outline.case, table, meshes)
    values = tuple(table.values[c] for c in channels)
    surfaces = meshed.surfaces()
    found = dict(meshed.fields())
    fields = [found[value] for value in values]
    of_classes = outline.middles[list(channels)]
    middle = of_classes.mean(axis=0)
    vertices = np.concatenate([surfaces[value].vertices for value in values]) - middle
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    pose = Pose(np.eye(3), middle)
    mesh, labels = _surfaces(fields, values, pose, low, high, mesh_mm)
    seen = set(labels.tolist())
    lost = {v: [outline.case.case_id] for v in values if v not in seen}
    check_seen(table, lost, mesh_mm=mesh_mm)
    low, high = low - MARGIN_MM, high + MARGIN_MM
    if reach is not None:
        low, high = np.minimum(low, reach[0]), np.maximum(high, reach[1])
    origin = low
    shape = np.ceil((high - origin) / grid_mm).astype(int) + 1
    points = lattice(*(np.arange(n) * grid_mm + o for n, o in zip(shape, origin)))
    distances = stored(clipped(fields, pose(points))).reshape(*shape, len(values))
    there = dict(zip(values, on_grid(distances)))
    lost = {v: [outline.case.case_id] for v in values if not there[v]}
    check_seen(table, lost, grid_mm=grid_mm)
    return Template(
        mesh, labels, values, of_classes - middle, distances, origin, grid_mm, smoothing_mm,
        remove_size,
    )  # fmt: skip


def on_grid(distances: np.ndarray) -> np.ndarray:
    """(C,) bool: whether a voxel lies within each class of (X, Y, Z, C) distances."""
    return np.any(distances < 0, axis=(0, 1, 2))


def check_seen(table: LabelTable, lost: Mapping[int, Sequence[str]], **edge: float) -> None:
    """InputError with a line for each class that lies between the voxels.

    lost : class value -> in which cases.    edge : the option that says how large these are, mm.
    """
    [(option, size)] = edge.items()
    if lost:
        raise InputError(
            f"shape_statistics: {table.names[table.values.index(value)]} of "
            f"{', '.join(cases[:NAMED])}{' ...' if len(cases) > NAMED else ''} is too thin for "
            f"{option} {size:g}; lower shape_statistics.{option}, or leave the class out"
            for value, cases in lost.items()
        )


def clipped(fields: Sequence[Field], world: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """(N, C) float32 mm: signed distances at (N, 3) RAS mm, as far as they count.

    scale : by which the heart is larger than the frame in which distances are meant.
    """
    found = np.stack([field.lookup(world) for field in fields], axis=-1) / np.float32(scale)
    return np.clip(found, -MOST_MM, MOST_MM)


def stored(distances: np.ndarray) -> np.ndarray:
    """int8 steps of distances in mm."""
    return np.rint(distances / np.float32(STEP_MM)).astype(np.int8)


def in_mm(steps: np.ndarray) -> np.ndarray:
    """float32 mm of what :func:`stored` made."""
    return steps * np.float32(STEP_MM)


def _surfaces(
    fields: Sequence[Field], values: Sequence[int], pose: Pose, low, high, edge: float
) -> tuple[Mesh, np.ndarray]:
    """The surfaces of all classes as one mesh, with the class value of each triangle."""
    origin = low - 2 * edge
    shape = np.ceil((high + 2 * edge - origin) / edge).astype(int) + 1
    world = pose(lattice(*(np.arange(n) * edge + o for n, o in zip(shape, origin))))
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = origin
    parts: dict[int, Mesh] = {}
    for value, field in zip(values, fields):
        found = field.lookup(world).reshape(shape)
        found[np.abs(found) < 1e-3 * edge] = 1e-3 * edge  # no triangle without an area
        mesh = extract_surface(found, affine)
        parts[value] = Mesh(_on_surface(mesh.vertices, field, pose), mesh.faces)
    return joined(parts)


def _on_surface(vertices: np.ndarray, field: Field, pose: Pose) -> np.ndarray:
    """Vertices moved along the slope to distance 0: of coarse nodes they lie too far inside."""
    points = vertices.astype(np.float64)
    for _ in range(2):
        distance, slope = distance_and_slope(field, pose(points))
        length = np.maximum((slope**2).sum(axis=1, keepdims=True), 0.25)
        points = points - distance[:, None] * (slope @ pose.turn) / length
    return points.astype(np.float32)


def distance_and_slope(field: Field, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) mm to a surface at (N, 3) RAS mm, and (N, 3) how it rises."""
    slope = np.zeros((len(world), 3))
    for axis in range(3):
        step = SLOPE_MM * np.eye(3)[axis]
        ends = [field.lookup(world + way * step) for way in (1, -1)]
        slope[:, axis] = (ends[0] - ends[1]) / (2 * SLOPE_MM)
    return field.lookup(world).astype(np.float64), slope


def joined(parts: Mapping[int, Mesh]) -> tuple[Mesh, np.ndarray]:
    """Meshes by class value as one, and (F,) uint8 the value of each triangle."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in parts.values())])
    mesh = Mesh(
        np.concatenate([mesh.vertices for mesh in parts.values()]).astype(np.float32),
        np.concatenate([m.faces + s for m, s in zip(parts.values(), starts)]).astype(np.int32),
    )
    labels = np.repeat(np.array(list(parts), np.uint8), [len(m.faces) for m in parts.values()])
    return mesh, labels
