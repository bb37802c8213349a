"""Mesh files to sparse voxels, for cohorts that are meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError
from ..options.geometry import VoxelsOptions
from .frame import Frame
from .mesh_files import read_mesh
from .narrowband import NarrowBand, narrow_band
from .surface import Mesh


def voxelize_mesh(case: Case, *, options: VoxelsOptions, out: Path) -> list[Path]:
    """Write ``out/<case>/mesh.npz`` from the mesh file ``case.labels``, in a frame of its own."""
    mesh = read_mesh(case.labels)
    path = out / case.case_id / "mesh.npz"
    band = mesh_band(mesh, Frame.around(mesh.vertices), options.resolution, options.band_voxels)
    band.save(path)
    return [path]


def mesh_band(mesh: Mesh, frame: Frame, resolution: int, band_voxels: float) -> NarrowBand:
    """The band about a mesh in RAS mm: exact distances, sign by winding number.

    The winding number (Barill et al., "Fast winding numbers for soups and clouds", 2018, as
    implemented in libigl) keeps small holes and overlaps from leaking.

    Raises
    ------
    InputError
        libigl is not installed.
    """
    try:
        import igl
    except ImportError:
        raise InputError("libigl is not installed; run: pip install libigl") from None
    vertices = np.ascontiguousarray(frame.to_unit(mesh.vertices.astype(np.float64)))
    faces = np.ascontiguousarray(mesh.faces, np.int64)

    def distance(points: np.ndarray) -> np.ndarray:
        points = np.ascontiguousarray(points, np.float64)
        squared = igl.point_mesh_squared_distance(points, vertices, faces)[0]
        inside = np.abs(igl.fast_winding_number(vertices, faces, points)) > 0.5
        return np.where(inside, -1.0, 1.0) * np.sqrt(squared)

    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return narrow_band(distance, low, high, frame, resolution, band_voxels)
