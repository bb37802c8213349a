"""Mesh files: the one place that knows formats. A format is one entry of ``FORMATS``.

Headers say in which system the coordinates are, as 3D Slicer writes and reads it: ``SPACE=RAS``
or ``SPACE=LPS`` in a comment of PLY and OBJ and in the header of STL. Slicer takes files without
it for LPS; here they are RAS.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, first_line, problem
from ..files import atomic_path
from .ply_polygons import read_polygons
from .surface import Mesh, face_vectors

MESH_ENDING = ".ply"  # of all meshes that the workflow writes
RAS, LPS = b"SPACE=RAS", b"SPACE=LPS"
STL_ROW = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
HEADER_BYTES = 65_536  # comments come before any coordinates
# It logs tracebacks of parts that it can do without; what was read is judged here.
logging.getLogger("trimesh").setLevel(logging.CRITICAL)


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
    """Vertices and triangles of a mesh file, in RAS.

    remedy : what to do where it is missing or damaged.

    STL repeats every vertex for every triangle: equal ones are merged. Coordinates that the
    header calls LPS are turned into RAS.

    Raises
    ------
    InputError
        Missing or unreadable file, unknown format, no triangles, coordinates that are not
        finite, corners that are no vertices of the file.
    """
    path = Path(path)
    form = _format_of(path)
    if not path.is_file():
        raise InputError(problem(path, "does not exist", remedy))
    try:
        found, faces = form.read(path)
        faces = _triangles(faces)
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, see below
            vertices = np.array(found, np.float32)
        space = form.comments(path)
    except Exception as error:  # the readers fail in as many ways as files are damaged
        raise InputError(problem(path, f"cannot be read ({first_line(error)})", remedy)) from None
    if fact := _fault(vertices, faces):
        raise InputError(problem(path, fact, remedy))
    faces = faces.astype(np.int32)
    if LPS in space and RAS not in space:
        vertices *= np.array([-1, -1, 1], np.float32)
    if form.repeats_vertices:
        vertices, inverse = np.unique(vertices, axis=0, return_inverse=True)
        faces = inverse.reshape(-1).astype(np.int32)[faces]
    return Mesh(vertices, faces)


def _fault(vertices: np.ndarray, faces: np.ndarray) -> str:
    """Why arrays are no mesh; empty where they are one. Native code reads wherever an index
    leads, so nothing else may come before this."""
    if not len(faces):
        return "has no triangles"
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        return f"has vertices of the shape {vertices.shape}"
    count = len(vertices)
    if bad := int((~np.isfinite(vertices)).any(axis=1).sum()):
        return f"has vertices that are not finite ({bad} of {count})"
    if faces.min() < 0 or faces.max() >= count:
        wrong = int(((faces < 0) | (faces >= count)).any(axis=1).sum())
        return (
            f"has corners that are none of its {count} vertices (in {wrong} of {len(faces)} faces)"
        )
    return ""


def _triangles(faces) -> np.ndarray:
    """(F, 3) int64 of triangles or of quads, cut in two."""
    import trimesh

    if not len(faces):
        return np.zeros((0, 3), np.int64)
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3:
        faces = np.asarray(trimesh.geometry.triangulate_quads(faces))
    if faces.dtype == np.uint64:
        faces = np.minimum(faces, np.uint64(2**63 - 1))
    return faces.astype(np.int64)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from trimesh.exchange.ply import load_ply

    _check_rows(path)
    # Short of a Trimesh object, whose copies and reference cycles hold ten times the memory.
    try:
        with path.open("rb") as stream:
            found = load_ply(stream, skip_materials=True)
    except ValueError:
        if (polygons := _polygons(path)) is None:
            raise
        return polygons
    vertices, faces = found.get("vertices", np.zeros((0, 3))), found.get("faces", ())
    if len(faces) and np.max(faces) >= len(vertices):
        return _polygons(path) or (vertices, faces)
    return vertices, faces


def _polygons(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """What is in a sound binary file, also where faces have 3 and 4 corners, of which trimesh makes
    other ones or an error; None: it is no such file."""
    try:
        return read_polygons(path)
    except (ValueError, KeyError, IndexError, struct.error):
        return None


def _check_rows(path: Path) -> None:
    """ValueError where text is cut short: trimesh takes what is left of it for the whole."""
    if b"format ascii" not in _head(path).partition(b"end_header")[0]:
        return
    head, _, body = path.read_bytes().partition(b"end_header")
    counts = re.findall(rb"^\s*element\s+\S+\s+([0-9]+)", head, re.MULTILINE)
    announced = sum(map(int, counts))
    rows = sum(bool(line.strip()) for line in body.splitlines()[1:])
    if rows < announced:
        raise ValueError(f"it is cut short: {rows} of {announced} rows")


def _write_ply(mesh: Mesh) -> bytes:
    """The bytes that trimesh writes, with what the coordinates are, and without its detours."""
    lines = [
        b"ply", b"format binary_little_endian 1.0", b"comment " + RAS,
        b"comment https://github.com/mikedh/trimesh", b"element vertex %d" % len(mesh.vertices),
        *(b"property float " + axis for axis in (b"x", b"y", b"z")),
        b"element face %d" % len(mesh.faces), b"property list uchar int vertex_indices",
        b"end_header", b"",
    ]  # fmt: skip
    rows = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, mesh.faces
    return b"\n".join(lines) + mesh.vertices.astype("<f4").tobytes() + rows.tobytes()


def _write_stl(mesh: Mesh) -> bytes:
    """Binary, with what the coordinates are in its header."""
    rows = np.zeros(len(mesh.faces), STL_ROW)
    rows["corners"] = mesh.vertices[mesh.faces]
    vectors = face_vectors(mesh)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    rows["normal"] = vectors / lengths
    head = (b"Cardiform " + RAS + b"; millimetres").ljust(80)
    return head + len(rows).to_bytes(4, "little") + rows.tobytes()


def _ply_comments(path: Path) -> bytes:
    lines = _head(path).partition(b"end_header")[0].splitlines()
    return b"\n".join(line for line in lines if line.startswith(b"comment"))


def _stl_header(path: Path) -> bytes:
    """The first 80 bytes of binary files; the first line of text."""
    head = _head(path)
    return head[:80] + (head.partition(b"\n")[0] if head.startswith(b"solid") else b"")


def _obj_comments(path: Path) -> bytes:
    lines = []
    for line in map(bytes.strip, _head(path).splitlines()):
        if line.startswith((b"v ", b"f ")):
            break
        lines += [line] if line.startswith(b"#") else []
    return b"\n".join(lines)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _read_any(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import trimesh

    mesh = trimesh.load_mesh(path, process=False)
    return mesh.vertices, mesh.faces


def _read_stl(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()  # trimesh takes what is left of a cut file for the whole
    announced = 84 + 50 * int.from_bytes(content[80:84], "little")
    if content[:80].lstrip().lower().startswith(b"solid") and announced != len(content):
        if b"endsolid" not in content[-HEADER_BYTES:].lower():
            raise ValueError("it is cut short: it has no endsolid")
    elif len(content) < max(announced, 84):
        raise ValueError(f"it is cut short: {len(content)} of {announced} bytes")
    elif len(content) > announced and b"facet" not in content[:HEADER_BYTES]:
        raise ValueError(f"it has {len(content)} bytes, {announced} by its number of triangles")
    return _read_any(path)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    # trimesh takes corner 0 for the last vertex
    if re.search(rb"^\s*f\s[^\n]*(?<=\s)0(?=[/\s]|$)", path.read_bytes(), re.MULTILINE):
        raise ValueError("a face has the corner 0, but OBJ counts from 1")
    return _read_any(path)


@dataclass(frozen=True)
class MeshFormat:
    """How files of one format are read and written.

    read : path -> (V, 3) vertices and (F, 3) faces; may raise anything where it is damaged.
    comments : path -> what its header says beside the data.
    write : mesh -> content of its file; None: the format is only read.
    repeats_vertices : a vertex stands there once for every triangle; equal ones are merged.
    """

    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    comments: Callable[[Path], bytes]
    write: Callable[[Mesh], bytes] | None = None
    repeats_vertices: bool = False


FORMATS = {
    ".ply": MeshFormat(_read_ply, _ply_comments, _write_ply),
    ".stl": MeshFormat(_read_stl, _stl_header, _write_stl, repeats_vertices=True),
    ".obj": MeshFormat(_read_obj, _obj_comments),
}


def _format_of(path: Path) -> MeshFormat:
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        remedy = f"save it as {', '.join(FORMATS)}"
        raise InputError(problem(path, "is no known mesh format", remedy))
    return form
