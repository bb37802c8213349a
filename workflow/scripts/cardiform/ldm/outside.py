"""What of a heart lies outside of the cube: nothing is cut without a word."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..cohort.table import OK, Case
from ..geometry.frame import apply_affine
from ..options.ldm import PointcloudsOptions
from ..volumes import LabelMap, load_label_map
from ..volumes.clouds import CloudFile
from .clouds import chosen_points
from .clouds_on_grid import CloudBounds
from .cube import Cube, reach_mm
from .hearts_on_grid import Grid, read_box

log = logging.getLogger(__name__)


def report_hearts(
    cases: Iterable[Case], centers: Mapping[str, np.ndarray], boxes: Path, grid: Grid
) -> None:
    """A warning for each label map that sticks out of its cube: how much of which class.

    boxes : folder of the files of box_case.
    """
    for case in cases:
        if case.status != OK:
            continue
        center = centers[case.case_id]
        if reach_mm(read_box(boxes / f"{case.case_id}.json"), center).max() > grid.edge_mm:
            lost = voxels_outside(load_label_map(case.labels), grid.cube(center), grid)
            _warn(case.case_id, lost, "voxels", grid)


def report_clouds(
    clouds: Mapping[str, tuple[str, CloudFile]],
    bounds: CloudBounds,
    options: PointcloudsOptions,
    grid: Grid,
) -> None:
    """The same of point clouds."""
    rows = zip(clouds.items(), bounds.boxes)
    for number, ((case_id, (name, file)), box) in enumerate(rows):
        center = bounds.center(number, options)
        if reach_mm(box, center).max() > grid.edge_mm:
            cloud = chosen_points(file.read(name), grid.table)
            outside = _is_outside(cloud.points, grid.cube(center))
            values = grid.table.values[:1] if cloud.labels is None else grid.table.values
            labels = np.full(len(outside), values[0]) if cloud.labels is None else cloud.labels
            _warn(case_id, _counted(labels, outside, values), "points", grid)


def voxels_outside(label_map: LabelMap, cube: Cube, grid: Grid) -> dict[int, tuple[int, int]]:
    """Class value -> voxels whose middle lies outside of the cube, and all of them; classes that
    lie within are left out."""
    index = np.argwhere(np.isin(label_map.data, grid.table.values))
    outside = _is_outside(apply_affine(label_map.affine, index), cube)
    return _counted(label_map.data[tuple(index.T)], outside, grid.table.values)


def _is_outside(points: np.ndarray, cube: Cube) -> np.ndarray:
    return (np.abs(points - cube.center) > cube.spacing * cube.size / 2).any(axis=1)


def _counted(labels: np.ndarray, outside: np.ndarray, values) -> dict[int, tuple[int, int]]:
    counts = {v: (int(outside[labels == v].sum()), int((labels == v).sum())) for v in values}
    return {value: found for value, found in counts.items() if found[0]}


def _warn(case_id: str, lost: Mapping[int, tuple[int, int]], unit: str, grid: Grid) -> None:
    names = dict(zip(grid.table.values, grid.table.names))
    text = ", ".join(
        f"{out} {unit} of {names[value]} ({100 * out / of:.1f} %)"
        for value, (out, of) in lost.items()
    )
    remedy = "raise ldm.extent_mm, drop a class or leave the case out"
    log.warning(
        "%s: sticks out of the grid of %g mm; cut off: %s; %s",
        case_id,
        grid.edge_mm,
        text or f"no whole {unit[:-1]}",
        remedy,
    )
