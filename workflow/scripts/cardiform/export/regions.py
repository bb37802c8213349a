"""The regions of a heart with shared walls: one surface (VTP), tetrahedra (VTU)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..geometry.meshed import MeshedCase, naming
from ..geometry.tets.mesh import TetMesh, tet_mesh
from ..geometry.vtp import PolyData, write_vtp, write_vtu
from ..labels import LabelClass
from ..options.exports import ExportsOptions
from .classes import colors, names_of, remark

REGIONS = {"walls", "tets"}
EDGE_VOXELS, LEAST_EDGE_MM = 2.0, 2.4


def write_regions(
    folder: Path, meshed: MeshedCase, classes: list[LabelClass], options: ExportsOptions
) -> list[Path]:
    """Write ``<case>_walls.vtp`` and ``<case>_tets.vtu``, whichever is asked for.

    Raises
    ------
    InputError
        The volume of a class cannot be kept within 1 %.
    """
    edge = options.edge_mm or edge_mm(meshed.label_map.spacing)
    with naming(meshed.case):
        mesh = tet_mesh(meshed.label_map, meshed.record["smoothing_vox"], edge, names_of(classes))
    name, paths = meshed.case.case_id, []
    if "walls" in options.formats:
        paths.append(folder / f"{name}_walls.vtp")
        write_walls(paths[-1], mesh, classes)
    if "tets" in options.formats:
        paths.append(folder / f"{name}_tets.vtu")
        points, tets, regions = mesh.solid()
        values = {"region": regions, "color": colors(regions, classes)}
        write_vtu(paths[-1], points, tets, values, remark("region", classes))
    return paths


def edge_mm(spacing: np.ndarray) -> float:
    """The length of edges at walls that goes with a label map.    spacing : (3,) mm."""
    return max(EDGE_VOXELS * float(np.prod(spacing)) ** (1 / 3), LEAST_EDGE_MM)


def write_walls(path: Path, mesh: TetMesh, classes: list[LabelClass]) -> None:
    """A triangle has the value of the class inside and of that outside, 0: none; it is
    counter-clockwise seen from the outside."""
    points, faces, sides = mesh.walls()
    data = PolyData(
        points,
        faces.ravel(),
        3 * np.arange(1, len(faces) + 1),
        cell_values={
            "region_inside": sides[:, 0].astype(np.int32),
            "region_outside": sides[:, 1].astype(np.int32),
            "color": colors(sides[:, 0], classes),
        },
        remark=remark("region_inside, region_outside", classes),
    )
    write_vtp(path, data, binary=True)
