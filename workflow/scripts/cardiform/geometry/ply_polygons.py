"""Binary PLY whose faces have different numbers of corners, as mesh editors write them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

TYPES = {
    "char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h",
    "ushort": "H", "uint16": "H", "int": "i", "int32": "i", "uint": "I", "uint32": "I",
    "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip
CORNERS = ("vertex_indices", "vertex_index")


def read_polygons(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) float64 vertices and (F, 3) int64 triangles; each polygon is cut about its first
    corner.

    Raises
    ------
    ValueError, KeyError, struct.error
        It is no binary PLY, or has more or fewer bytes than its header says.
    """
    content = path.read_bytes()
    head = content.partition(b"end_header")[0]
    at = content.index(b"\n", len(head)) + 1
    order = ">" if b"binary_big_endian" in head else "<"
    vertices, corners = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    for name, count, properties in _elements(head):
        if any(kind[0] == "list" for kind in properties):
            found, at = _lists(content, at, count, properties, order)
            corners = found if name == "face" else corners
            continue
        rows = np.dtype([(kind[-1], order + TYPES[kind[0]]) for kind in properties])
        table = np.frombuffer(content, rows, count, at)
        at += table.nbytes
        if name == "vertex":
            vertices = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if at != len(content):
        raise ValueError(f"it has {len(content)} bytes, {at} by its header")
    return vertices, corners


def _elements(head: bytes) -> list[tuple[str, int, list[list[str]]]]:
    """Name, number of rows and properties of each element of a header."""
    elements: list[tuple[str, int, list[list[str]]]] = []
    for words in map(str.split, head.decode("ascii", "replace").splitlines()):
        if words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    return elements


def _lists(
    content: bytes, at: int, count: int, properties: list[list[str]], order: str
) -> tuple[np.ndarray, int]:
    """Triangles of the polygons of an element, (F, 3) int64, and where it ends."""
    known = []
    for kind in properties:
        size = struct.Struct(order + TYPES[kind[1] if kind[0] == "list" else kind[0]])
        width = struct.calcsize(TYPES[kind[2]]) if kind[0] == "list" else 0
        known.append((size, width, kind[-1] in CORNERS))
    starts, numbers = [], []
    for _ in range(count):
        for size, width, are_corners in known:
            (number,) = size.unpack_from(content, at)
            at += size.size
            if are_corners:
                starts.append(at)
                numbers.append(number)
            if width:
                at += width * number
                if number < 0 or at > len(content):
                    raise ValueError("it is cut short")
    if not starts:
        raise ValueError("its faces have no corners")
    item = np.dtype(order + TYPES[next(k[2] for k in properties if k[-1] in CORNERS)])
    return _triangles(content, np.array(starts), np.array(numbers), item), at


def _triangles(
    content: bytes, starts: np.ndarray, numbers: np.ndarray, item: np.dtype
) -> np.ndarray:
    """(F, 3) int64, in the order of the polygons.

    starts, numbers : (P,) where the corners of each polygon begin, and how many there are.
    """
    raw = np.frombuffer(content, np.uint8)
    made, polygon = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for number in np.unique(numbers[numbers > 2]).tolist():
        which = np.flatnonzero(numbers == number)
        places = starts[which, None] + np.arange(number * item.itemsize)
        corners = raw[places].view(item).astype(np.int64)
        first = np.broadcast_to(corners[:, :1], corners[:, 1:-1].shape)
        fans = np.stack([first, corners[:, 1:-1], corners[:, 2:]], axis=-1)
        made.append(fans.reshape(-1, 3))
        polygon.append(np.repeat(which, number - 2))
    return np.concatenate(made)[np.argsort(np.concatenate(polygon), kind="stable")]
