"""Size and shape of a closed surface."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trimesh

from ..geometry.surface import Mesh, signed_volume, surface_area
from .table import CM2, ML, MM, ONE

Figure = tuple[str, float, str]  # measure, value, unit
MM3_PER_ML, MM2_PER_CM2 = 1000.0, 100.0


def shape_figures(mesh: Mesh) -> Iterator[Figure]:
    """Volume, area and shape of a closed surface; nothing where it encloses nothing.

    Notes
    -----
    ``normalised_shape_index`` is sqrt(A) / cbrt(V) over that of a ball, as of VTK's
    vtkMassProperties: Alyassin et al., "Evaluation of new algorithms for the interactive
    measurement of surface area and volume", Medical Physics 21 (1994). Axes, elongation and
    flatness are those of the Image Biomarker Standardisation Initiative (Zwanenburg et al.,
    Radiology 295, 2020) and PyRadiomics: 4 sqrt(l), l the variances along the principal axes,
    here of the solid that the surface encloses; so is sphericity, cbrt(36 pi V^2) / A.
    """
    volume, area = signed_volume(mesh), surface_area(mesh)
    if volume <= 0 or area <= 0:
        return
    yield "volume", volume / MM3_PER_ML, ML
    yield "surface_area", area / MM2_PER_CM2, CM2
    sphericity = (36 * np.pi * volume**2) ** (1 / 3) / area
    yield "normalised_shape_index", sphericity**-0.5, ONE
    yield "sphericity", sphericity, ONE
    major, minor, least = 4 * np.sqrt(variances(mesh))
    yield "major_axis_length", major, MM
    yield "minor_axis_length", minor, MM
    yield "least_axis_length", least, MM
    yield "elongation", minor / major, ONE
    yield "flatness", least / major, ONE


def variances(mesh: Mesh) -> np.ndarray:
    """(3,) mm^2 along the principal axes of the solid that a surface encloses, largest first."""
    solid = solid_of(mesh)
    inertia = np.asarray(solid.moment_inertia, np.float64)
    spread = (np.trace(inertia) / 2 * np.eye(3) - inertia) / solid.volume
    return np.maximum(np.linalg.eigvalsh(spread)[::-1], 1e-12)


def solid_of(mesh: Mesh) -> trimesh.Trimesh:
    """The surface for trimesh, about its own middle: far from the origin its sums would cancel."""
    vertices = mesh.vertices.astype(np.float64)
    return trimesh.Trimesh(vertices - vertices.mean(axis=0), mesh.faces, process=False)
