"""Mesh files to sparse voxels, for cohorts that are meshes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import outputs
from ..cohort.table import Case
from ..errors import InputError, problem
from ..files import write_json
from ..options.geometry import VoxelsOptions
from ..volumes.extent import size_doubt
from .frame import Frame
from .mesh_files import read_mesh
from .mesh_repair import library, repaired
from .narrowband import BLOCK, NarrowBand, narrow_band
from .surface import Mesh, signed_volume, surface_area

log = logging.getLogger(__name__)

SINGLE = "mesh"  # the structure of a mesh file that is a case by itself
VOLUME_SHARE = 0.02  # the voxels hold the volume of the mesh within this share
THIN_SHARE = 0.3  # or, where a part is hardly thicker than a voxel, this one
POINTS = 100_000  # to see how often parts overlap
BLOCKS_AT_A_TIME = 4096


def voxelize_meshes(case: Case, *, options: VoxelsOptions, out: Path) -> list[Path]:
    """Write ``out/<case>/<structure>.npz`` from the mesh files of a case, in one frame.

    The mesh files of a folder are called like their structures; a mesh file that is named by
    itself is the structure ``mesh``. What had to be repaired is logged, and written to
    ``out/<case>/repairs.json``.

    Raises
    ------
    InputError
        Meshes cannot be read, or have no defined inside: all of the case.
    """
    found: dict[str, tuple[str, Mesh, list[str]]] = {}
    problems: list[str] = []
    for name, path in structures(case).items():
        try:
            found[name] = (path, *repaired(read_mesh(path), path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    vertices = np.concatenate([mesh.vertices for _, mesh, _ in found.values()])
    if doubt := size_doubt("what it holds", float(np.ptp(vertices, axis=0).max())):
        log.warning("%s: %s", case.meshes, doubt)
    frame = Frame.around(vertices)
    folder = out / case.case_id
    written = []
    for name, (path, mesh, repairs) in found.items():
        for line in repairs:
            log.warning("%s: %s", path, line)
        band = mesh_band(mesh, frame, options.resolution, options.band_voxels)
        check_inside(band, mesh, path)
        written.append(folder / f"{name}.npz")
        band.save(written[-1])
    for stale in set(folder.glob("*.npz")) - set(written):  # of a mesh that is gone
        outputs.remove(stale)
    return written + _note_repairs(folder / "repairs.json", found)


def structures(case: Case) -> dict[str, str]:
    """Structure -> mesh file.

    Raises
    ------
    InputError
        Files of the folder are called like no structure, or two alike.
    """
    if not os.path.isdir(case.meshes):
        return {SINGLE: case.meshes}
    found: dict[str, str] = {}
    problems = []
    for path in case.mesh_files:
        name = Path(path).stem
        if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
            remedy = "call it like its structure, with letters, digits and _ only"
            problems.append(problem(path, "its name is that of no structure", remedy))
        elif name in found:
            problems.append(problem(path, f"is {name}, as is {found[name]}", "keep one of them"))
        found.setdefault(name, path)
    if problems:
        raise InputError(problems)
    return found


def called(case: Case) -> dict[str, list[str]]:
    """What decides the outputs of a case beside the bytes of its meshes: their names, where they
    are those of structures."""
    names = list(structures(case))
    return {} if names == [SINGLE] else {"structures": names}


def _note_repairs(path: Path, found: Mapping[str, tuple[str, Mesh, list[str]]]) -> list[Path]:
    """Write what was repaired; no file where nothing was."""
    noted = {
        name: {
            "repairs": repairs,
            "volume_mm3": abs(signed_volume(mesh)),
            "faces": len(mesh.faces),
        }
        for name, (_, mesh, repairs) in found.items()
        if repairs
    }
    if not noted:
        outputs.remove(path)
        return []
    write_json(path, noted[SINGLE] if list(found) == [SINGLE] else noted)
    return [path]


def check_inside(band: NarrowBand, mesh: Mesh, where: str) -> None:
    """InputError where no voxel lies inside, or not the volume that the triangles enclose.

    Voxels at the surface count by the share that is inside, which is as good as the surface is
    flat within a voxel: thin parts are allowed more, with a warning.
    """
    voxels, shares = inside_of(band)
    if not voxels:
        fact = f"has no voxel inside at resolution {band.resolution}"
        raise InputError(problem(where, fact, "raise --resolution, or leave it out"))
    volume, area = abs(signed_volume(mesh)), surface_area(mesh)
    wanted = volume / band.voxel_mm**3
    off = shares / wanted - 1
    thin = min((area * band.voxel_mm / volume) ** 2 / 24, THIN_SHARE)
    if off < -VOLUME_SHARE:  # parts that overlap count once, and their inner walls are no surface
        off = min(off, voxels * _mean_winding(mesh) / wanted - 1, key=abs)
    if abs(off) > VOLUME_SHARE + thin:
        fact = f"its voxels hold {off:+.0%} of the volume within its triangles"
        remedy = "its parts cross each other inside out: repair it in a mesh editor"
        raise InputError(problem(where, fact, remedy))
    if abs(off) > VOLUME_SHARE:
        log.warning(
            "%s: its voxels hold %+.0f %% of its volume: it is thin for resolution %d",
            where, 100 * off, band.resolution,
        )  # fmt: skip


def inside_of(band: NarrowBand) -> tuple[int, float]:
    """Voxels whose centres are inside; and their number with those at the surface by share."""
    count = band.resolution // BLOCK
    block = np.ravel_multi_index(tuple(band.coords.T.astype(np.int64) // BLOCK), (count,) * 3)
    stored = np.unique(block)
    full = band.coarse_sign.ravel() < 0
    full[stored] = False
    voxels = int(full.sum()) * BLOCK**3
    shares = float(voxels)
    order = np.argsort(block, kind="stable")
    block = block[order]
    for start in range(0, len(stored), BLOCKS_AT_A_TIME):
        some = stored[start : start + BLOCKS_AT_A_TIME]
        part = slice(*np.searchsorted(block, [some[0], some[-1] + 1]))
        rows = order[part]
        share = np.full((len(some), *(BLOCK,) * 3), np.nan, np.float32)
        sdf = band.sdf[rows].astype(np.float32)
        at = (np.searchsorted(some, block[part]), *band.coords[rows].T.astype(np.int64) % BLOCK)
        share[at] = np.clip(0.5 - sdf * band.band_voxels, 0, 1)
        side = np.where(np.isnan(share), np.nan, share > 0.5)
        side[at] = sdf < 0
        _spread(side)
        voxels += int(side.sum())
        shares += float(np.where(np.isnan(share), side, share).sum())
    return voxels, shares


def _spread(side: np.ndarray) -> None:
    """Give voxels of (N, 8, 8, 8) blocks that are not known (NaN) the side of their neighbours.

    In place. A voxel beyond the band is on the side of the voxels next to it: the sides meet
    within the band alone.
    """
    while np.isnan(side).any():
        for axis in (1, 2, 3):
            lines = np.moveaxis(side, axis, 0)
            for to, of in ((lines[1:], lines[:-1]), (lines[:-1], lines[1:])):
                np.copyto(to, of.copy(), where=np.isnan(to))


def _mean_winding(mesh: Mesh) -> float:
    """How often the points inside are enclosed on average: more than once where parts overlap."""
    vertices = mesh.vertices.astype(np.float64)
    points = np.random.default_rng(0).uniform(vertices.min(0), vertices.max(0), (POINTS, 3))
    winding = np.abs(library().fast_winding_number(vertices, mesh.faces.astype(np.int64), points))
    inside = winding[winding > 0.5]
    return float(inside.mean()) if len(inside) else 1.0


def mesh_band(mesh: Mesh, frame: Frame, resolution: int, band_voxels: float) -> NarrowBand:
    """The band about a mesh in RAS mm: exact distances, sign by winding number.

    The winding number (Barill et al., "Fast winding numbers for soups and clouds", 2018, as
    implemented in libigl) keeps small holes and overlaps from leaking.

    Raises
    ------
    InputError
        libigl is not installed, or would read beyond its arrays: corners that are no vertices,
        vertices that are not finite in the frame.
    """
    igl = library()
    vertices = np.ascontiguousarray(frame.to_unit(mesh.vertices.astype(np.float64)))
    faces = np.ascontiguousarray(mesh.faces, np.int64)
    known = len(faces) and faces.min() >= 0 and faces.max() < len(vertices)
    if not known or not np.isfinite(vertices).all():
        raise InputError(problem("mesh", "has no usable triangles", "export it again"))

    def distance(points: np.ndarray) -> np.ndarray:
        points = np.ascontiguousarray(points, np.float64)
        squared = igl.point_mesh_squared_distance(points, vertices, faces)[0]
        inside = np.abs(igl.fast_winding_number(vertices, faces, points)) > 0.5
        return np.where(inside, -1.0, 1.0) * np.sqrt(squared)

    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return narrow_band(distance, low, high, frame, resolution, band_voxels)
