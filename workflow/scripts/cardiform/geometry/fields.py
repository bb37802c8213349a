"""The fields of a case in one file: made once from its label map, read by all that need them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again, problem
from ..files import save_npz_quickly
from ..formats import Format
from ..volumes import spacing_of
from .far_field import FarField, FarGrid
from .lookup import StoredField
from .near_field import NearField
from .sdf import ClassField
from .surface_boxes import in_blocks

REMEDY = again("extract_meshes")
FIELDS = Format(
    "fields",
    {
        "class_values": "u8 (C)",
        "origin": "i32 (C, 3)",
        "shape": "i32 (C, 3)",
        "shift_mm": "f64 (C)",
        "block_count": "i64 (C)",
        "blocks": "i32 (B)",
        "near": "i16 (B, 8, 8, 8)",
        "near_step_mm": "f64",
        "far": "i16 (C, X, Y, Z)",
        "far_step_mm": "f64",
        "far_origin": "i64 (3)",
        "far_cell_voxels": "i64 (3)",
        "affine": "f64 (4, 4)",
        "format_version": "i64",
    },
    REMEDY,
)
# Distances are stored in whole steps: this share of the shortest voxel edge near the surface, where
# they are right to a tenth of one, and a coarser one elsewhere.
NEAR_STEP, FAR_STEP = 1 / 128, 1 / 16
MOST = 32_000  # steps that an i16 counts


def save_fields(path: str | Path, fields: Sequence[tuple[int, Kept]]) -> None:
    """Write what is kept of the fields of a case, by class value."""
    kept = [field for _, field in fields]
    near, near_step = _steps([field.voxels for field in kept], NEAR_STEP * kept[0].edge)
    far, far_step = _steps([field.far for field in kept], FAR_STEP * kept[0].edge)
    grid = kept[0].grid
    save_npz_quickly(  # more time would make these numbers a tenth smaller
        path,
        class_values=np.array([value for value, _ in fields], np.uint8),
        origin=np.array([field.origin for field in kept], np.int32),
        shape=np.array([field.shape for field in kept], np.int32),
        shift_mm=np.array([field.shift for field in kept]),
        block_count=np.array([len(field.voxels) for field in kept]),
        blocks=np.concatenate([np.flatnonzero(field.marked) for field in kept]).astype(np.int32),
        near=_differences(np.concatenate(near)),
        near_step_mm=np.float64(near_step),
        far=_differences(np.stack(far)),
        far_step_mm=np.float64(far_step),
        far_origin=grid.origin.astype(np.int64),
        far_cell_voxels=grid.step.astype(np.int64),
        affine=kept[0].affine,
        format_version=np.int64(FIELDS.version),
    )


@dataclass(frozen=True)
class Kept:
    """What is kept of a :class:`cardiform.geometry.sdf.ClassField`: no voxels far from its surface.

    marked, voxels : of :func:`cardiform.geometry.near_field.near_blocks`.
    far : (x, y, z) float32, mm, on ``grid``.    edge : the shortest voxel edge, mm.
    """

    marked: np.ndarray
    voxels: np.ndarray
    shape: tuple[int, int, int]
    origin: np.ndarray
    affine: np.ndarray
    shift: float
    edge: float
    grid: FarGrid
    far: np.ndarray

    @classmethod
    def of(cls, field: ClassField) -> Kept:
        return cls(
            *field.blocks, field.shape, field.origin, field.affine, field.shift,
            float(field.spacing.min()), field.far_grid, field.far.values[..., 0],
        )  # fmt: skip


def load_fields(path: str | Path, affine: np.ndarray, shifts: Mapping[int, float]) -> StoredFields:
    """Read the fields of a case.

    affine, shifts : of the case's frame.json; shifts in mm by class value.

    Raises
    ------
    InputError
        It is missing, damaged, no such file, or of another case.
    """
    arrays = FIELDS.load(path)
    values = arrays["class_values"].tolist()
    same = dict(zip(values, arrays["shift_mm"].tolist())) == dict(shifts)
    if not (same and np.array_equal(arrays["affine"], affine) and _consistent(arrays)):
        raise InputError(problem(path, "was not made with the frame.json beside it", REMEDY))
    return StoredFields(arrays)


class StoredFields:
    """The fields of a case, read from a file."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        affine, step = arrays["affine"], arrays["far_cell_voxels"]
        shape = arrays["far"].shape[1:]
        grid = FarGrid(arrays["far_origin"], step, shape, spacing_of(affine) * step)
        far = _sums(arrays.pop("far")).reshape(len(arrays["class_values"]), -1)
        rows = np.empty(far.shape[::-1], np.float32)
        np.multiply(far.T, np.float32(arrays["far_step_mm"]), out=rows)
        self.far = FarField(grid, rows.reshape(*shape, -1))

    def __iter__(self) -> Iterator[tuple[int, StoredField]]:
        """Class value and field, one at a time."""
        arrays = self.arrays
        ends = np.cumsum(arrays["block_count"])
        for number, value in enumerate(arrays["class_values"].tolist()):
            part = slice(ends[number] - arrays["block_count"][number], ends[number])
            x, y, z = arrays["shape"][number].tolist()
            marked = np.zeros(in_blocks((x, y, z)), bool)
            marked.flat[arrays["blocks"][part]] = True
            voxels = _sums(arrays["near"][part]) * np.float32(arrays["near_step_mm"])
            near = NearField.of_blocks(marked, voxels, (x, y, z))
            origin = arrays["origin"][number].astype(int)
            yield value, StoredField(arrays["affine"], origin, near, self.far, number)


def _consistent(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the blocks of each class are those of its crop; what follows indexes by them."""
    shapes, counts = arrays["shape"], arrays["block_count"]
    if shapes.min() < 2 or counts.min() < 0 or counts.sum() != len(arrays["blocks"]):
        return False
    most = [np.prod(in_blocks(shape)) for shape in shapes]
    parts = np.split(arrays["blocks"], np.cumsum(counts)[:-1])
    ordered = all((np.diff(part) > 0).all() for part in parts)
    inside = all(len(p) == 0 or (p[0] >= 0 and p[-1] < n) for p, n in zip(parts, most))
    return ordered and inside and min(arrays["far"].shape) >= 1


def _steps(parts: Sequence[np.ndarray], step: float) -> tuple[list[np.ndarray], float]:
    """Distances in int16 steps, of this length or what the largest of them needs."""
    largest = max((float(np.abs(part).max()) for part in parts if part.size), default=0.0)
    step = max(step, largest / MOST)
    return [np.rint(part / np.float32(step)).astype(np.int16) for part in parts], step


def _differences(steps: np.ndarray) -> np.ndarray:
    """(N, X, Y, Z) int16 as the differences along all three axes: small numbers, which pack well.

    They wrap around where they do not fit, and so do the sums that undo them.
    """
    for axis in (1, 2, 3):
        lines = np.moveaxis(steps, axis, 0)
        changes = np.empty_like(steps)
        into = np.moveaxis(changes, axis, 0)
        into[0] = lines[0]
        np.subtract(lines[1:], lines[:-1], out=into[1:])
        steps = changes
    return steps


def _sums(differences: np.ndarray) -> np.ndarray:
    """What :func:`_differences` was made of."""
    steps = differences.copy()
    for axis in (1, 2, 3):
        lines = np.moveaxis(steps, axis, 0)
        for before, line in itertools.pairwise(lines):
            line += before
    return steps
