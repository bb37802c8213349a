"""Point clouds of a whole set on one coarse grid."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError
from ..labels import LabelTable
from ..options.ldm import LdmOptions, PointcloudsOptions
from ..volumes import save_image, save_label_map
from ..volumes.clouds import CloudFile
from .clouds import chosen_points, fields_on, label_map_of, middles_of, typical, volume_of
from .cube import heart_centers, reach_mm
from .hearts_on_grid import FIELD, INSIDE, LABELS, Grid, fixed_grid, present

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloudBounds:
    """What a first pass over all clouds finds.

    boxes : (N, 2, 3) mm.    labelled : whether all samples have classes.
    values : the class values that any of them has.
    centers : (N, 3) mm, the middles of the clouds: of the chambers where points have classes.
    """

    boxes: np.ndarray
    labelled: bool
    values: frozenset[int]
    centers: np.ndarray

    @classmethod
    def of(
        cls,
        clouds: Sequence[tuple[str, CloudFile]],
        table: LabelTable,
        faults: Sequence[str] = (),
    ) -> CloudBounds:
        """Read every sample once; InputError lists all bad ones.

        faults : of other samples, found before: they are reported with those found here.
        """
        boxes, middles, labelled, problems = [], [], [], list(faults)
        values: set[int] = set()
        for number, (name, file) in enumerate(clouds, start=1):
            try:
                cloud = chosen_points(file.read(name), table, f"{file.path}:{name}")
            except InputError as error:
                problems += error.problems
                continue
            if cloud.note:
                log.warning("%s:%s: %s", file.path, name, cloud.note)
            boxes.append([cloud.points.min(axis=0), cloud.points.max(axis=0)])
            labelled.append(cloud.labels is not None)
            middles.append(middles_of(cloud, table))
            if cloud.labels is not None:
                values.update(np.unique(cloud.labels).tolist())
            if number % 500 == 0:
                log.info("bounds of %d of %d clouds", number, len(clouds))
        if len(set(labelled)) > 1:
            problems.append(
                "some clouds have classes and some have none; unset pointclouds.labels_key"
            )
        if not problems and not np.ptp(boxes, axis=1).any():
            problems.append(
                "the points of the classes that take part have no extent; drop fewer classes"
            )
        if problems:
            raise InputError(problems)
        found = np.array(boxes)
        names = present(table, values).names if labelled[0] else ()
        centers = heart_centers(middles, names) if labelled[0] else found.mean(axis=1)
        return cls(found, labelled[0], frozenset(values), centers)

    def center(self, number: int, options: PointcloudsOptions) -> np.ndarray:
        """Middle of the cube of a sample: its own, or that of the data set."""
        return self.centers[number] if options.center else self.whole.mean(axis=0)

    def reaches(self, options: PointcloudsOptions) -> list[np.ndarray]:
        """(3,) mm that each sample needs about the middle of its cube."""
        return [reach_mm(box, self.center(i, options)) for i, box in enumerate(self.boxes)]

    @property
    def whole(self) -> np.ndarray:
        """(2, 3) mm box of all samples."""
        return np.stack([self.boxes[:, 0].min(axis=0), self.boxes[:, 1].max(axis=0)])


def cloud_grid(
    clouds, bounds: CloudBounds, ldm: LdmOptions, options: PointcloudsOptions, table
) -> Grid:
    """The grid and the scale of a set of clouds: one scale for all, whatever their order."""
    kind = LABELS if bounds.labelled else FIELD
    chosen = present(table, bounds.values) if bounds.labelled else INSIDE
    grid = fixed_grid(kind, bounds.reaches(options), ldm, chosen)
    if options.method == "occupancy":
        return grid
    found = []
    for number, (name, file) in enumerate(clouds):
        cube = grid.cube(bounds.center(number, options))
        found.append(typical(fields_on(cube, file.read(name), grid.table, options)))
    scale = float(np.median(found))
    if not scale > 0:
        raise InputError("ldm.extent_mm: most clouds have no point on the grid; raise it, or set 0")
    return dataclasses.replace(grid, scale=scale)


def convert_cloud(
    case: Case,
    *,
    grid: Grid,
    files: Mapping[str, tuple[str, CloudFile]],
    centers: Mapping[str, np.ndarray],
    options: PointcloudsOptions,
    out: Path,
) -> list[Path]:
    """Write ``out/<case>.nii.gz``: voxels of one cloud on the grid.

    files : case id -> name of the sample, and its file.    centers : case id -> (3,) mm.
    """
    name, file = files[case.case_id]
    cube = grid.cube(centers[case.case_id])
    fields = fields_on(cube, file.read(name), grid.table, options)
    path = out / f"{case.case_id}.nii.gz"
    if grid.has_classes:
        found = label_map_of(fields, grid.scale, grid.table.values, options.threshold)
        save_label_map(path, found, cube.affine)
    else:
        save_image(path, volume_of(fields, grid.scale), cube.affine)
    return [path]
