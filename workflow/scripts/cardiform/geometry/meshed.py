"""What extract_meshes left of a case, as the stages after it read it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import sha256_file
from ..formats import Format
from ..labels import LabelTable
from ..options.geometry import MeshesOptions
from ..volumes import LabelMap, check_in_view, labelled_box, load_label_map
from .field_of_view import Cut, Plane, cuts_of
from .fields import load_fields
from .frame import Frame
from .lookup import Field
from .mesh_files import MESH_ENDING, read_mesh
from .sdf import ClassField, each_class_field
from .surface import Mesh

REMEDY = again("extract_meshes")  # of missing and damaged files of a case
FRAME = Format(
    "frame",
    {
        "format_version": "integer",
        "center_mm": "number (3)",
        "scale": "number",
        "affine": "number (4, 4)",
        "spacing_mm": "number (3)",
        "shape": "integer (3)",
        "labels_sha256?": "text",
        "extent?": "integer (3)",
        "cut_listed?": "text",
        "smoothing_vox": "number",
        "classes": "object",
        "classes.*.value": "integer",
        "classes.*.voxels": "integer",
        "classes.*.volume_voxels_mm3": "number",
        "classes.*.volume_mesh_mm3": "number",
        "classes.*.area_mm2": "number",
        "classes.*.shift_mm": "number",
        "classes.*.touches_border": "bool",
        "classes.*.cut?": "bool",
        "classes.*.cut_planes?": "number (P, 3)",
        "classes.*.cap_area_mm2?": "number",
        "classes.*.watertight": "bool",
    },
    REMEDY,
    version=2,
    earlier=(1,),  # no fields lie beside it
)
WITH_FIELDS = 2
FIELDS_FILE = "fields.npz"


@dataclass(frozen=True)
class MeshedCase:
    """A case with frame.json, meshes and, but for those of an early version, fields.

    record : what frame.json holds.    path : of it.
    """

    case: Case
    table: LabelTable
    record: Mapping[str, Any]
    path: Path

    @classmethod
    def load(cls, case: Case, table: LabelTable, meshes: Path) -> MeshedCase:
        """Read frame.json in ``meshes/<case>``.

        Raises
        ------
        InputError
            It is missing, damaged, or was not made from the label map of the case.
        """
        path = meshes / case.case_id / "frame.json"
        meshed = cls(case, table, FRAME.load(path), path)
        made_from = meshed.record.get("labels_sha256")
        if made_from is None:
            meshed.label_map  # noqa: B018  read, and looked at
        elif made_from != sha256_file(case.labels):
            raise meshed._foreign()
        return meshed

    @functools.cached_property
    def label_map(self) -> LabelMap:
        """The label map; what most need of it frame.json holds too, and is read in no time."""
        label_map = load_label_map(self.case.labels)
        same = np.array_equal(label_map.affine, self.affine)
        if set(label_map.boxes) != set(self.shifts) or not same:
            raise self._foreign()
        return label_map

    @property
    def frame(self) -> Frame:
        return Frame(np.array(self.record["center_mm"]), self.record["scale"])

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, voxel indices of the label map to RAS mm."""
        return np.array(self.record["affine"], np.float64)

    @property
    def shifts(self) -> dict[int, float]:
        """Class value -> mm by which its surface was moved."""
        return {c["value"]: c["shift_mm"] for c in self.record["classes"].values()}

    @property
    def extent(self) -> list[int]:
        """(3,) voxels of the box of all that is labelled."""
        if "extent" in self.record:
            return self.record["extent"]
        low, high = labelled_box(self.label_map)
        return (high - low + 1).tolist()

    @functools.cached_property
    def cuts(self) -> dict[int, Cut]:
        """Class value -> how it is cut, of the classes that are."""
        listed = self.record.get("cut_listed", "")
        if "labels_sha256" not in self.record or listed != self.case.cut:
            return cuts_of(self.label_map, self.table, self.case)
        found = {}
        for entry in self.record["classes"].values():
            if entry.get("cut"):
                rows = entry.get("cut_planes", [])
                planes = tuple(Plane(int(axis), int(side), at) for axis, side, at in rows)
                found[entry["value"]] = Cut(planes, self.affine)
        return found

    def fields(self) -> Iterable[tuple[int, Field]]:
        """Class value and field; made again where an early version did not store them."""
        if self.record["format_version"] >= WITH_FIELDS:
            return load_fields(self.path.with_name(FIELDS_FILE), self.affine, self.shifts)
        smoothing = MeshesOptions(smoothing_vox=self.record["smoothing_vox"])
        return named_fields(self.case, self.label_map, self.table, smoothing, self.shifts)

    def surfaces(self) -> dict[int, Mesh]:
        """Class value -> surface, RAS mm.

        Raises
        ------
        InputError
            A mesh is missing or damaged.
        """
        names = dict(zip(self.table.values, self.table.names))
        folder = self.path.parent
        return {v: read_mesh(folder / f"{names[v]}{MESH_ENDING}", REMEDY) for v in self.shifts}

    def check_in_view(self) -> None:
        """InputError where the border of the volume cuts every class and leaves no surface."""
        if all(entry["touches_border"] for entry in self.record["classes"].values()):
            check_in_view(self.case.labels, self.label_map)

    def _foreign(self) -> InputError:
        fact = f"was not made from {self.case.labels}"
        return InputError(problem(self.path, fact, REMEDY))


def mesh_files(case: Case, meshes: Path) -> list[Path]:
    """The files of :func:`cardiform.geometry.cases.mesh_case` of ``case``, frame.json first."""
    frame, *fields = frame_files(case, meshes)
    return [frame, *sorted(frame.parent.glob(f"*{MESH_ENDING}")), *fields]


def frame_files(case: Case, meshes: Path) -> list[Path]:
    """Those that say where the surfaces of a case are: frame.json and the fields that it has."""
    path = meshes / case.case_id / "frame.json"
    try:
        has_fields = FRAME.load(path)["format_version"] >= WITH_FIELDS
    except InputError:
        has_fields = False  # what is wrong with it is said when it is read
    return [path, path.with_name(FIELDS_FILE)] if has_fields else [path]


def named_fields(
    case: Case,
    label_map: LabelMap,
    table: LabelTable,
    options: MeshesOptions,
    shifts: Mapping[int, float] | None = None,
) -> Iterator[tuple[int, ClassField]]:
    """:func:`cardiform.geometry.sdf.each_class_field`, whose faults name the file."""
    with naming(case):
        yield from each_class_field(label_map, table, options, shifts)


@contextlib.contextmanager
def naming(case: Case):
    """Let what is wrong with a label map name its file."""
    try:
        yield
    except InputError as error:
        raise InputError([f"{case.labels}: {line}" for line in error.problems]) from None
