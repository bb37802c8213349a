"""Mesh files: write binary PLY, read PLY, STL and OBJ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..files import atomic_path
from .surface import Mesh

FORMATS = (".ply", ".stl", ".obj")


def write_ply(path: str | Path, mesh: Mesh) -> None:
    """Write vertices (mm) and faces as binary PLY, atomically."""
    import trimesh
    from trimesh.exchange.ply import export_ply

    content = export_ply(
        trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), vertex_normal=False
    )
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
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            problem(path, "is no known mesh format", f"save it as {', '.join(FORMATS)}")
        )
    if not path.is_file():
        raise InputError(problem(path, "does not exist", remedy))
    try:
        vertices, faces = _read_arrays(path)
    except Exception as error:  # the readers fail in as many ways as files are damaged
        raise InputError(problem(path, f"cannot be read ({error})", remedy)) from None
    if not len(faces) or not np.isfinite(vertices).all():
        raise InputError(problem(path, "has no usable triangles", remedy))
    if path.suffix.lower() == ".stl":
        vertices, inverse = np.unique(vertices, axis=0, return_inverse=True)
        faces = inverse.reshape(-1).astype(np.int32)[faces]
    return Mesh(vertices, faces)


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) float32 vertices and (F, 3) int32 faces."""
    import trimesh
    from trimesh.exchange.ply import load_ply

    if path.suffix.lower() == ".ply":
        # Short of a Trimesh object, whose copies and reference cycles hold ten times the memory.
        with path.open("rb") as stream:
            found = load_ply(stream, skip_materials=True)
    else:
        mesh = trimesh.load_mesh(path, process=False)
        found = {"vertices": mesh.vertices, "faces": mesh.faces}
    return np.array(found["vertices"], np.float32), np.array(found["faces"], np.int32)
