"""All measures of one case, and the files that show where they were taken."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import outputs
from ..cohort.table import Case
from ..coronary import tree_files
from ..coronary.branch_names import without_names
from ..coronary.surroundings import Surroundings
from ..geometry.meshed import MeshedCase
from ..geometry.vtp import PolyData, write_vtp
from ..labels import LabelTable
from ..options.measures import MeasuresOptions
from .aorta import aortic_measures
from .appendage import appendage_measures, mouth_between
from .shape import shape_figures
from .table import Measured, frame_of, write_frame
from .trees import tree_inputs as tree_inputs  # what the script reads of a case beside its meshes
from .trees import tree_measures
from .tubes import Vessel, trace_vessel, vessel_measures
from .wall import LongAxis, Wall, long_axis, measure_wall, wall_measures

log = logging.getLogger(__name__)

AORTA, ARTERY, APPENDAGE, ATRIUM = (
    "aorta", "pulmonary_artery", "left_atrial_appendage", "left_atrium",
)  # fmt: skip
MUSCLE, CAVITY, RIGHT = "myocardium", "left_ventricle", "right_ventricle"
# What a vessel may spring from: its centreline begins there.
ORIGINS = {
    AORTA: ("left_ventricle",),
    ARTERY: ("right_ventricle",),
    "pulmonary_veins": ("left_atrium",),
}
TABLE_FILE, WALL_FILE = "measures.csv", "wall_thickness.vtp"


def measure_case(
    case: Case,
    *,
    table: LabelTable,
    options: MeasuresOptions,
    meshes: Path,
    trees: Path | None,
    out: Path,
) -> list[Path]:
    """Write ``out/<case>/``: measures.csv, wall_thickness.vtp, <class>.swc and .vtp of each vessel.

    meshes, trees : folders of extract_meshes and trace_coronary; trees : None: none were traced.

    Returns
    -------
    The written paths. Files of an earlier run that nothing is in any more are deleted.

    Raises
    ------
    InputError
        Missing or unfit files of the earlier stages.
    """
    heart = Heart(MeshedCase.load(case, table, meshes), table)
    folder = out / case.case_id
    rows = [*heart.shapes()]
    paths = [folder / TABLE_FILE]
    vessels = {name: heart.vessel(name) for name in options.vessels if heart.has(name)}
    level = _level(heart, vessels.get(ARTERY))
    for name, vessel in vessels.items():
        rows += vessel_measures(name, vessel)
        if name == AORTA:
            rows += aortic_measures(name, vessel, level)
        paths += _write_vessel(folder / name, vessel)
    wall, axis = heart.wall(), heart.axis()
    if wall is not None:
        rows += wall_measures(MUSCLE, wall, axis, heart.cut(MUSCLE))
        paths.append(folder / WALL_FILE)
        _write_wall(paths[-1], wall, axis)
    if axis is not None:
        cut = heart.cut(CAVITY) is not None
        rows.append(Measured(CAVITY, "long_axis_length", axis.length, "mm", cut=cut))
    rows += heart.appendage()
    if trees is not None:  # a class that is measured as a wide vessel has these figures already
        found = tree_measures(trees / case.case_id)
        rows += [row for row in found if row.structure not in vessels]
    write_frame(paths[0], frame_of(case.case_id, rows))
    for stale in set(folder.glob("*.vtp")) | set(folder.glob("*.swc")):
        if stale not in paths:
            outputs.remove(stale)
    return paths


class Heart:
    """One case, by the names of its classes.

    meshed : its label map, fields and surfaces.    table : which value is which class.
    """

    def __init__(self, meshed: MeshedCase, table: LabelTable):
        self._meshed = meshed
        self._fields, self._surfaces = dict(meshed.fields()), meshed.surfaces()
        self._values = {n: v for n, v in zip(table.names, table.values) if v in self._fields}
        self._around = Surroundings(meshed.label_map, table)

    def has(self, *names: str) -> bool:
        return all(name in self._values for name in names)

    def cut(self, name: str):
        """How the scan cuts a class; None where it does not."""
        return self._meshed.cuts.get(self._values[name])

    def mesh(self, name: str):
        return self._surfaces[self._values[name]]

    def field(self, name: str):
        return self._fields[self._values[name]]

    def shapes(self) -> Iterator[Measured]:
        """Size and shape of every class."""
        for name in self._values:
            is_cut = self.cut(name) is not None
            for measure, value, unit in shape_figures(self.mesh(name)):
                yield Measured(name, measure, value, unit, cut=is_cut)

    def vessel(self, name: str) -> Vessel:
        """The centrelines of a class."""
        origins = {
            other: functools.partial(self._distance, name=other)
            for other in ORIGINS.get(name, ())
            if self.has(other)
        }
        return trace_vessel(
            self._meshed.label_map, self._values[name], self.mesh(name), origins, self.cut(name)
        )

    def _distance(self, points: np.ndarray, name: str) -> np.ndarray:
        return self._around.distance(points, name)

    def wall(self) -> Wall | None:
        """The wall of the left ventricle; None where muscle or cavity are missing."""
        if not self.has(MUSCLE, CAVITY):
            return None
        return measure_wall(self.mesh(MUSCLE), self.field(CAVITY))

    def axis(self) -> LongAxis | None:
        """The directions of the left ventricle; None as for the wall."""
        if not self.has(MUSCLE, CAVITY):
            return None
        right = (self.mesh(RIGHT), self.field(RIGHT)) if self.has(RIGHT) else None
        return long_axis(self.mesh(CAVITY), self.field(MUSCLE), right)

    def appendage(self) -> Iterator[Measured]:
        """What is particular to the left atrial appendage."""
        if not self.has(APPENDAGE, ATRIUM):
            return
        label_map = self._meshed.label_map
        mouth = mouth_between(label_map, self._values[APPENDAGE], self._values[ATRIUM])
        if mouth is not None:
            edge = float(label_map.spacing.max())
            cut, mesh = self.cut(APPENDAGE), self.mesh(APPENDAGE)
            yield from appendage_measures(APPENDAGE, mouth, mesh, cut, edge)


def _level(heart: Heart, artery: Vessel | None) -> float | None:
    """RAS z of the first fork of the pulmonary artery, or of its middle; None: there is none."""
    if artery is None:
        return None
    forks = [branch.points[-1, 2] for branch in artery.forest.branches if branch.forks]
    return float(forks[0]) if forks else float(heart.mesh(ARTERY).vertices[:, 2].mean())


def _write_vessel(stem: Path, vessel: Vessel) -> list[Path]:
    """Its centrelines with radii as SWC and VTP; none where it has no branch."""
    if not vessel.forest.branches:
        return []
    forest = vessel.centred
    named = without_names(forest)
    paths = [stem.with_suffix(ending) for ending in (".swc", ".vtp")]
    tree_files.write_swc(paths[0], forest, named)
    tree_files.write_vtp(paths[1], forest, named)
    return paths


def _write_wall(path: Path, wall: Wall, axis: LongAxis | None) -> None:
    """The inner surface of the wall with its thickness and its segments."""
    values = {"thickness_mm": wall.on_map(wall.thickness).astype(np.float32)}
    if axis is not None:
        values["segment"] = wall.nearest(axis.segments(wall.middles)).astype(np.int32)
    mesh = wall.inner
    ends = 3 * np.arange(1, len(mesh.faces) + 1)
    write_vtp(path, PolyData(mesh.vertices, mesh.faces.ravel(), ends, point_values=values))
