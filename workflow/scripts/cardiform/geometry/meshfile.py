"""Mesh files: write binary PLY, read PLY, STL and OBJ."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..files import atomic_path
from .surface import Mesh

FORMATS = (".ply", ".stl", ".obj")


# What write_ply writes; reading it needs no library, whose import takes half a second.
HEADER = """ply
format binary_little_endian 1.0
element vertex {vertices}
property float x
property float y
property float z
element face {faces}
property list uchar int vertex_indices
end_header
"""
FACE = np.dtype([("corners", "u1"), ("face", "<i4", 3)])


def write_ply(path: str | Path, mesh: Mesh) -> None:
    """Write vertices (mm) and faces as binary PLY, atomically."""
    faces = np.empty(len(mesh.faces), FACE)
    faces["corners"], faces["face"] = 3, mesh.faces
    header = HEADER.format(vertices=len(mesh.vertices), faces=len(faces)).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + np.asarray(mesh.vertices, "<f4").tobytes() + faces.tobytes())


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
    if path.suffix.lower() == ".ply":
        content = path.read_bytes()
        return _own_ply(content) or _any_ply(content)
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    return np.array(mesh.vertices, np.float32), np.array(mesh.faces, np.int32)


def _own_ply(content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """The arrays of a file of :func:`write_ply`; None where it is another PLY or damaged."""
    pattern = re.escape(HEADER).replace(r"\{vertices\}", r"(\d+)").replace(r"\{faces\}", r"(\d+)")
    header = re.match(pattern.encode(), content)
    if header is None:
        return None
    vertices, faces = map(int, header.groups())
    start = header.end() + 12 * vertices
    if len(content) != start + FACE.itemsize * faces:
        return None
    found = np.frombuffer(content, FACE, faces, start)
    if (found["corners"] != 3).any():
        return None
    points = np.frombuffer(content, "<f4", 3 * vertices, header.end()).reshape(-1, 3)
    return points.astype(np.float32), found["face"].astype(np.int32)


def _any_ply(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    from trimesh.exchange.ply import load_ply

    # Short of a Trimesh object, whose copies and reference cycles hold ten times the memory.
    found = load_ply(io.BytesIO(content), skip_materials=True)
    return np.array(found["vertices"], np.float32), np.array(found["faces"], np.int32)
