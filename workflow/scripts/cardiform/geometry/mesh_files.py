"""Mesh files: the one place that knows formats. A format is one entry of ``FORMATS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..files import atomic_path
from .surface import Mesh

MESH_ENDING = ".ply"  # of all meshes that the workflow writes


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write vertices (mm) and faces in the format of the path's ending, atomically.

    Raises
    ------
    InputError
        The format is unknown, or one that is only read.
    """
    path = Path(path)
    write = _format_of(path).write
    if write is None:
        known = ", ".join(ending for ending, form in FORMATS.items() if form.write)
        raise InputError(problem(path, "is of a format that is only read", f"name it {known}"))
    content = write(mesh)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_mesh(path: str | Path, remedy: str = "export the mesh again") -> Mesh:
    """Vertices and triangles of a mesh file, as they stand.

    remedy : what to do where it is missing or damaged.

    STL repeats every vertex for every triangle: equal ones are merged.

    Raises
    ------
    InputError
        Missing or unreadable file, unknown format, no triangles, coordinates not finite.
    """
    path = Path(path)
    form = _format_of(path)
    if not path.is_file():
        raise InputError(problem(path, "does not exist", remedy))
    try:
        vertices, faces = form.read(path)
        vertices, faces = np.array(vertices, np.float32), np.array(faces, np.int32)
    except Exception as error:  # the readers fail in as many ways as files are damaged
        raise InputError(problem(path, f"cannot be read ({error})", remedy)) from None
    if not len(faces) or not np.isfinite(vertices).all():
        raise InputError(problem(path, "has no usable triangles", remedy))
    if form.repeats_vertices:
        vertices, inverse = np.unique(vertices, axis=0, return_inverse=True)
        faces = inverse.reshape(-1).astype(np.int32)[faces]
    return Mesh(vertices, faces)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from trimesh.exchange.ply import load_ply

    # Short of a Trimesh object, whose copies and reference cycles hold ten times the memory.
    with path.open("rb") as stream:
        found = load_ply(stream, skip_materials=True)
    return found["vertices"], found["faces"]


def _write_ply(mesh: Mesh) -> bytes:
    import trimesh
    from trimesh.exchange.ply import export_ply

    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return export_ply(made, vertex_normal=False)


def _read_any(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    return mesh.vertices, mesh.faces


@dataclass(frozen=True)
class MeshFormat:
    """How files of one format are read and written.

    read : path -> (V, 3) vertices and (F, 3) faces; may raise anything where it is damaged.
    write : mesh -> content of its file; None: the format is only read.
    repeats_vertices : a vertex stands there once for every triangle; equal ones are merged.
    """

    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    write: Callable[[Mesh], bytes] | None = None
    repeats_vertices: bool = False


FORMATS = {
    ".ply": MeshFormat(_read_ply, _write_ply),
    ".stl": MeshFormat(_read_any, repeats_vertices=True),
    ".obj": MeshFormat(_read_any),
}


def _format_of(path: Path) -> MeshFormat:
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        remedy = f"save it as {', '.join(FORMATS)}"
        raise InputError(problem(path, "is no known mesh format", remedy))
    return form
