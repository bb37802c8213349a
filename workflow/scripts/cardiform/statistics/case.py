"""One heart in correspondence with the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..cohort.table import Case
from ..errors import again
from ..files import save_npz
from ..formats import Format
from ..geometry.lookup import Field
from ..geometry.surface import Mesh, face_vectors
from ..labels import LabelTable
from .hearts import Outline, load_meshed
from .poses import Pose, middles_pose
from .template import Template, clipped, distance_and_slope, in_mm, stored
from .velocity import PAIRS, folded_share, register, rows_at, solved

REGISTERED = Format(
    "registered heart",
    {
        "format_version": "i64",
        "vertices": "f32 (V, 3)",
        "pose": "f64 (4, 4)",
        "distances": "i8 (X, Y, Z, C)",
        "residual_mm": "f64 (C)",
        "known": "bool (C)",
        "folded": "f64",
    },
    again("shape_statistics"),
)
ROUNDS = 12  # of the fit of position, turn and size
SIZES = (0.3, 3.0)  # of a heart, in those of the template: what is beyond is no fit
ROBUST_MM = 4.0  # a surface that lies so far off pulls half as much as it would
FIT_POINTS = 3000
MOST_SETTLING, LEAST_WINDOW = 0.3, 0.8  # voxels of a last step, and its window
CHECK_POINTS = 3000  # of each class, by which a surface is measured


@dataclass(frozen=True)
class RegisteredHeart:
    """vertices : (V, 3) float32 mm, those of the template moved onto the heart, in its frame.

    pose : from there to RAS mm of the heart.
    distances : (X, Y, Z, C) int8 of the heart on the template's grid; of no voxels where they were
        left in the file.
    residual : (C,) mm between the moved surfaces and those of the heart, the mean of both ways.
    known : (C,) bool, the classes that the heart has whole; the others were moved along with these,
        and have no residual (NaN).
    folded : share of the grid that the map turns inside out.
    """

    vertices: np.ndarray
    pose: Pose
    distances: np.ndarray
    residual: np.ndarray
    known: np.ndarray
    folded: float

    @classmethod
    def load(cls, path: str | Path, *, distances: bool = True) -> RegisteredHeart:
        """InputError where the file is missing, damaged, or none.

        distances : read them, too: they are nearly all of its size.
        """
        found = REGISTERED.load(path)
        pose = Pose.of_matrix(found["pose"])
        of_none = np.zeros((0, 0, 0, len(found["known"])), np.int8)
        return cls(
            found["vertices"], pose, found["distances"] if distances else of_none,
            found["residual_mm"], found["known"], float(found["folded"]),
        )  # fmt: skip

    @property
    def whole(self) -> bool:
        """Whether the heart has every class of the template."""
        return bool(self.known.all())


def registered_path(out: Path, case_id: str) -> Path:
    return out / f"{case_id}.npz"


def register_case(
    case: Case, *, template: Template, table: LabelTable, meshes: Path, out: Path
) -> list[Path]:
    """Write ``out/<case>.npz``: the template's vertices on the surfaces of a heart.

    Raises
    ------
    InputError
        Its meshes are missing, damaged, or of another label table.
    """
    heart = registered(case, template, table, meshes)
    path = registered_path(out, case.case_id)
    save_npz(
        path,
        compressed=True,
        vertices=heart.vertices,
        pose=heart.pose.matrix,
        distances=heart.distances,
        residual_mm=heart.residual,
        known=heart.known,
        folded=np.float64(heart.folded),
        format_version=np.int64(REGISTERED.version),
    )
    return [path]


def registered(case: Case, template: Template, table: LabelTable, meshes: Path) -> RegisteredHeart:
    """The template moved onto a heart, by the classes that it has whole: one at least."""
    meshed = load_meshed(case, table, meshes)
    channels = [table.values.index(value) for value in template.values]
    outline = Outline.of(case, table, meshes)
    known = outline.whole[channels]
    middles = np.where(known[:, None], outline.middles[channels], np.nan)
    of_case = dict(meshed.fields())
    fields = {value: of_case[value] for value, there in zip(template.values, known) if there}
    shape = (*template.distances.shape[:3], -1)
    pose = refined(middles_pose(template.middles, middles), template, fields)
    found = list(fields.values())
    own = stored(clipped(found, pose.rigid(template.points))).reshape(shape)
    moving = in_mm(own)
    if pose.scale != 1:  # of the heart in the size of the template
        moving = clipped(found, pose(template.points), pose.scale).reshape(shape)
    result = register(
        in_mm(template.distances[..., known]), moving, template.spacing, template.smoothing_mm,
        template.stiffness,
    )  # fmt: skip
    index = template.index(template.mesh.vertices)
    vertices = pose.scale * (template.origin + template.spacing * result.moved(index))
    pose = pose.rigid
    vertices, folded = settled(vertices, pose, template, fields)
    distances = np.full(template.distances.shape, np.int8(127))
    distances[..., known] = own
    residual = np.full(len(known), np.nan)
    residual[known] = surface_distances(pose(vertices), template, fields, meshed.surfaces())
    return RegisteredHeart(vertices, pose, distances, residual, known, max(result.folded, folded))


def refined(pose: Pose, template: Template, fields: Mapping[int, Field]) -> Pose:
    """The motion that brings the template's vertices to the surfaces of a heart, with a change of
    size where the template is ``scaled``.

    Gauss-Newton on the distances of each vertex to the surface of its own class.
    """
    labels = template.vertex_labels
    own = np.isin(labels, list(fields))
    step = max(int(own.sum()) // FIT_POINTS, 1)
    points, labels = template.mesh.vertices[own][::step].astype(np.float64), labels[own][::step]
    for _ in range(ROUNDS):
        world = pose(points)
        middle = world.mean(axis=0)
        rest, slope = _own_distances(world, labels, fields)
        rows = np.concatenate([np.cross(world - middle, slope), slope], axis=1)
        if template.scaled:
            outward = ((world - middle) * slope).sum(axis=1, keepdims=True)
            rows = np.concatenate([rows, outward], axis=1)
        weight = 1 / (1 + (rest / ROBUST_MM) ** 2)
        normal = (rows * weight[:, None]).T @ rows + 1e-6 * np.eye(rows.shape[1])
        change = -np.linalg.solve(normal, rows.T @ (weight * rest))
        turn = Rotation.from_rotvec(change[:3]).as_matrix()
        grown = float(np.exp(change[6:].sum()))
        grown = np.clip(grown * pose.scale, *SIZES) / pose.scale
        shift = grown * turn @ (pose.shift - middle) + middle + change[3:6]
        pose = Pose(turn @ pose.turn, shift, grown * pose.scale)
        still = np.linalg.norm(change[3:6]) < 0.01 and abs(grown - 1) < 1e-4
        if still and np.linalg.norm(change[:3]) < 1e-4:
            break
    return pose


def settled(
    vertices: np.ndarray, pose: Pose, template: Template, fields: Mapping[int, Field]
) -> tuple[np.ndarray, float]:
    """Vertices after small, smooth steps by the fields themselves: those of a coarse grid put a
    curved surface a little inside. Also the largest share of voxels that a step folds."""
    own = np.isin(template.vertex_labels, list(fields))
    labels = template.vertex_labels[own]
    shape = template.distances.shape[:3]
    window = max(template.smoothing_mm / template.spacing / 2, LEAST_WINDOW)
    folded = 0.0
    for _ in range(template.stiffness.settling):
        rest, slope = _own_distances(pose(vertices[own]), labels, fields)
        slope, rest = slope @ pose.turn, rest / template.spacing
        place = np.rint(template.index(vertices[own])).astype(int)
        flat = np.ravel_multi_index(tuple(place.T), shape, mode="clip")

        def at_voxels(values: np.ndarray, flat: np.ndarray = flat) -> np.ndarray:
            return np.bincount(flat, values, minlength=int(np.prod(shape))).reshape(shape)

        normal = [at_voxels(slope[:, a] * slope[:, b]) for a, b in PAIRS]
        right = [at_voxels(-slope[:, axis] * rest) for axis in range(3)]
        step = solved(normal, right, window, MOST_SETTLING, template.stiffness.damping)
        folded = max(folded, folded_share(step))
        vertices = vertices + template.spacing * rows_at(step, template.index(vertices))
    return vertices.astype(np.float32), folded


def surface_distances(
    world: np.ndarray, template: Template, fields: Mapping[int, Field], truth: Mapping[int, Mesh]
) -> np.ndarray:
    """mm between surfaces and those of a heart, for each of ``fields``: the mean of both ways.

    world : (V, 3) vertices of the template's mesh in RAS mm of the heart.
    """
    labels, faces = template.vertex_labels, template.mesh.faces
    result = []
    for value, field in fields.items():
        there = np.abs(field.lookup(world[labels == value])).mean()
        mesh = Mesh(world.astype(np.float32), faces[template.labels == value])
        back = to_surface(truth[value].vertices, mesh).mean()
        result.append((float(there) + float(back)) / 2)
    return np.array(result)


def to_surface(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """(N,) mm from some of the points to the plane of the nearest triangle of a mesh."""
    normals = face_vectors(mesh)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return to_planes(points, mesh.vertices[mesh.faces].mean(axis=1, dtype=np.float64), normals)


def to_planes(points: np.ndarray, middles: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N,) mm from some of the points to the nearest of (F, 3) middles, along its normal."""
    points = points[:: max(len(points) // CHECK_POINTS, 1)].astype(np.float64)
    nearest = cKDTree(middles).query(points)[1]
    return np.abs(((points - middles[nearest]) * normals[nearest]).sum(axis=1))


def _own_distances(
    world: np.ndarray, labels: np.ndarray, fields: Mapping[int, Field]
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) mm to the surface of each point's own class, and (N, 3) the slope."""
    rest, slope = np.zeros(len(world)), np.zeros((len(world), 3))
    for value, field in fields.items():
        own = labels == value
        rest[own], slope[own] = distance_and_slope(field, world[own])
    return rest, slope
