"""Hearts of a whole cohort on one coarse grid, from label maps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import write_json
from ..formats import Format
from ..geometry.field_of_view import cuts_of
from ..geometry.frame import apply_affine
from ..labels import BUILT_IN, LabelClass, LabelTable
from ..options.ldm import LdmOptions
from ..volumes import image_grid, load_label_map, save_label_map
from .cube import Cube, class_centroids, edge_mm, heart_centers, labelled_box, on_cube, reach_mm

log = logging.getLogger(__name__)

GRID = Format(
    "grid",
    {
        "format_version": "integer",
        "kind": "text",
        "voxel_size": "integer",
        "edge_mm": "number",
        "spacing_mm": "number",
        "scale": "number",
        "classes": "object (C)",
        "classes.*.value": "integer",
        "classes.*.name": "text",
        "classes.*.title": "text",
        "classes.*.color": "text",
        "classes.*.components": "integer",
        "classes.*.priority": "integer",
        "classes.*.fewest?": "integer",
        "classes.*.most?": "integer",
    },
)
BOX = Format(
    "box",
    {
        "box_mm": "number (2, 3)",
        "values": "integer (C)",
        "cut?": "integer (K)",
        "middles?": "object",
        "middles.*?": "number (3)",
    },
    again("resample_labels"),
    marked=False,
)
LABELS, FIELD = "labels", "field"
# What a field without classes has: an inside, of as many parts as there are.
INSIDE = LabelTable(
    (LabelClass(value=1, name="inside", title="Inside", color="#b5654a", components=255),)
)


@dataclass(frozen=True)
class Grid:
    """What all voxel files of a cohort share.

    kind : ``labels`` (uint8 class values) or ``field`` (float32 in [0, 1], no classes).
    size : voxels along each edge.    edge_mm : of the whole cube.
    table : the classes that take part; of a field the one class inside.
    scale : point clouds: what a field's 1.0 stands for, points per voxel.
    """

    kind: str
    size: int
    edge_mm: float
    table: LabelTable
    scale: float = 1.0

    @property
    def spacing(self) -> float:
        """Edge of a voxel, mm."""
        return self.edge_mm / self.size

    @property
    def has_classes(self) -> bool:
        """Whether voxels have class values; otherwise they are a field."""
        return self.kind == LABELS

    @property
    def classes(self) -> int:
        """Number of classes that a network tells apart: 0 of a field."""
        return len(self.table) if self.has_classes else 0

    def cube(self, center) -> Cube:
        return Cube(np.asarray(center, np.float64), self.spacing, self.size)

    def as_dict(self) -> dict:
        """Plain builtins, as in grid.json and in model files."""
        return {
            "format_version": GRID.version,
            "kind": self.kind,
            "voxel_size": self.size,
            "edge_mm": self.edge_mm,
            "spacing_mm": self.spacing,
            "scale": self.scale,
            "classes": self.table.as_dicts(),
        }

    def stored(self) -> dict:
        """What grid.json holds: with the usual numbers of parts, on which no model depends."""
        content = self.as_dict()
        if self.has_classes:
            ranges = [{"fewest": c.expected[0], "most": c.expected[-1]} for c in self.table]
            content["classes"] = [row | r for row, r in zip(content["classes"], ranges)]
        return content

    @classmethod
    def from_dict(cls, content: Mapping, where: str | Path = "grid") -> Grid:
        """The inverse of :meth:`as_dict`; InputError where it is of another format."""
        GRID.check(where, content)
        table = LabelTable.from_dicts(content["classes"])
        size, edge = content["voxel_size"], content["edge_mm"]
        return cls(content["kind"], size, edge, table, content["scale"])


def load_grid(path: str | Path) -> Grid:
    """The grid of a grid.json."""
    return Grid.from_dict(GRID.load(path), path)


def taking_part(table: LabelTable, drop: Sequence[str]) -> LabelTable:
    """The label table without the classes called ``drop``; InputError for unknown names.

    Classes of the built-in table may be missing: the same config serves other tables.
    """
    for name in drop:
        if name not in BUILT_IN:
            table.channel(name)
    left = tuple(c for c in table if c.name not in drop)
    if not left:
        raise InputError("ldm.drop_classes leaves no class; keep at least one")
    return LabelTable(left)


def fixed_grid(
    kind: str,
    reaches: Sequence[np.ndarray] | np.ndarray,
    options: LdmOptions,
    table: LabelTable,
    scale: float = 1.0,
) -> Grid:
    """The grid of a cohort; it does not depend on the order of the hearts.

    reaches : (N, 3) mm that each heart needs about its middle (see :func:`.cube.reach_mm`).
    """
    extents = np.array(reaches)
    edge = options.extent_mm or edge_mm(extents, options.voxel_size)
    cut = int((extents.max(axis=1) > edge).sum())
    if cut:
        log.warning("%d of %d hearts are larger than the grid and are cut", cut, len(extents))
    grid = Grid(kind, options.voxel_size, edge, table, scale)
    log.info("grid of %d voxels of %.2f mm, edge %g mm", grid.size, grid.spacing, edge)
    return grid


# --- label maps --------------------------------------------------------------------------


def box_case(case: Case, *, table: LabelTable, out: Path) -> list[Path]:
    """Write ``out/<case>.json``: the box of the labelled voxels, RAS mm, their values, the
    middle of each class, and the values of those that the scan cuts."""
    label_map = load_label_map(case.labels)
    box = labelled_box(label_map, table.values)
    if box is None:
        remedy = "leave the case out, or drop fewer classes"
        raise InputError(problem(case.labels, "has none of the classes that take part", remedy))
    path = out / f"{case.case_id}.json"
    found = sorted(set(np.unique(label_map.data).tolist()) & set(table.values))
    cuts = sorted(cuts_of(label_map, table, case))
    cut = {"cut": cuts} if cuts else {}
    known = class_centroids(label_map, dict(zip(table.names, table.values)))
    middles = {name: middle.tolist() for name, middle in known.items()}
    write_json(path, {"box_mm": box.tolist(), "values": found, "middles": middles, **cut})
    return [path]


def cut_classes(voxels: Path, case_ids: Iterable[str], grid: Grid) -> dict[str, np.ndarray]:
    """Case id -> (classes,) bool of the cases of which the scan cuts a class, or the cube does.

    voxels : manifest of resample_labels; of point clouds nothing is known.
    """
    result = {}
    for case_id in case_ids:
        path = box_path(voxels, case_id)
        if grid.has_classes and path.is_file():
            content = BOX.load(path)
            listed = np.isin(grid.table.values, content.get("cut", []))
            listed |= _at_faces(Path(voxels).parent / f"{case_id}.nii.gz", content, grid)
            if listed.any():
                result[case_id] = listed
    return result


def _at_faces(voxels: Path, box: Mapping, grid: Grid) -> np.ndarray:
    """(classes,) bool: what reaches the faces of the cube, of a heart that may stick out of it."""
    nothing = np.zeros(len(grid.table), bool)
    if not voxels.is_file():
        return nothing
    shape, affine = image_grid(voxels)
    middle = apply_affine(affine, (np.array([shape]) - 1) / 2)[0]
    if reach_mm(box["box_mm"], middle).max() <= grid.edge_mm:
        return nothing
    data = load_label_map(voxels).data
    faces = [np.unique(np.take(data, (0, -1), axis=k)) for k in range(3)]
    return np.isin(grid.table.values, np.concatenate(faces))


def box_path(voxels: Path, case_id: str) -> Path:
    """The file of :func:`box_case` beside the voxels of a manifest."""
    return Path(voxels).parent / "boxes" / f"{case_id}.json"


def read_box(path: str | Path) -> np.ndarray:
    """(2, 3) mm of :func:`box_case`."""
    return np.array(BOX.load(path)["box_mm"])


def case_centers(paths: Sequence[Path], table: LabelTable) -> dict[str, np.ndarray]:
    """Case id -> (3,) mm, the middle of its cube, from the files of :func:`box_case`.

    table : of the classes that take part; those that the scan cuts place no heart.
    """
    middles = []
    for path in paths:
        content = BOX.load(path)
        known = {n: m for n, m in content.get("middles", {}).items() if n in table.names}
        cut = {c.name for c in table if c.value in content.get("cut", [])}
        whole = {n: m for n, m in known.items() if n not in cut}
        box = {"": np.mean(content["box_mm"], axis=0)}  # of a file of an earlier version
        middles.append(whole or known or box)
    centers = heart_centers(middles, table.names)
    return {path.stem: center for path, center in zip(paths, centers)}


def label_grid(paths: Sequence[Path], options: LdmOptions, table: LabelTable) -> Grid:
    """The grid of the cases of :func:`box_case`; classes that no case has take no part."""
    values = {value for path in paths for value in BOX.load(path)["values"]}
    chosen = present(table, values)
    centers = case_centers(paths, chosen)
    reaches = [reach_mm(read_box(p), centers[p.stem]) for p in paths]
    return fixed_grid(LABELS, reaches, options, chosen)


def present(table: LabelTable, values) -> LabelTable:
    """The classes of a table with one of ``values``; what is not annotated counts nowhere."""
    absent = [c.name for c in table if c.value not in values]
    if absent:
        log.info("no case has %s: left out", ", ".join(absent))
    return taking_part(table, absent)


def resample_case(
    case: Case,
    *,
    grid: Grid,
    boxes: Path,
    out: Path,
    centers: Mapping[str, np.ndarray] | None = None,
) -> list[Path]:
    """Write ``out/<case>.nii.gz``: the label map on the grid, the chambers in the middle.

    centers : of :func:`case_centers` of the cohort; None: the case is looked at alone.
    """
    if centers is None:
        centers = case_centers([boxes / f"{case.case_id}.json"], grid.table)
    cube = grid.cube(centers[case.case_id])
    labels = on_cube(load_label_map(case.labels), cube, grid.table.values)
    path = out / f"{case.case_id}.nii.gz"
    save_label_map(path, labels, cube.affine)
    return [path]
