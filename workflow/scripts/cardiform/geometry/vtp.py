"""Lines, surfaces and tetrahedra with values as VTK files, which ParaView and 3D Slicer open."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import write_text

# 3D Slicer takes files without SPACE for LPS; a text is an array of its bytes
SPACE = " ".join(str(byte) for byte in b"RAS\0")
KINDS = {"f": "Float32", "i": "Int32", "u": "UInt8", "b": "UInt8"}
DIGITS = 3  # of a micrometre: label maps know less
TETRA = 10  # the cell type of VTK


@dataclass(frozen=True)
class PolyData:
    """Points and the lines or polygons between them.

    points : (N, 3) RAS mm.
    connectivity, offsets : (M,) points of all cells, one cell after the other; (K,) their ends.
    kind : what the cells are, "Polys" or "Lines".
    point_values, cell_values : name -> (N,) or (K,) numbers, or (K, 3) of colours; the first is
        shown.
    remark : a comment of the file.
    """

    points: np.ndarray
    connectivity: np.ndarray
    offsets: np.ndarray
    kind: str = "Polys"
    point_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    cell_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    remark: str = ""


def write_vtp(path: str | Path, data: PolyData, *, binary: bool = False) -> None:
    """Write a .vtp, XML, atomically.

    binary : numbers as base64, exactly and in a fraction of the time; otherwise as text.
    """
    counts = dict.fromkeys(("Verts", "Lines", "Strips", "Polys"), 0) | {
        data.kind: len(data.offsets)
    }
    numbers = " ".join(f'NumberOf{name}="{count}"' for name, count in counts.items())
    lines = [
        *_head("PolyData", data.remark),
        f'<Piece NumberOfPoints="{len(data.points)}" {numbers}>',
        *_values("PointData", data.point_values, binary),
        *_values("CellData", data.cell_values, binary),
        f"<Points>{_array('Points', np.asarray(data.points, np.float32), binary)}</Points>",
        f"<{data.kind}>",
        _array("connectivity", np.asarray(data.connectivity, np.int64), binary),
        _array("offsets", np.asarray(data.offsets, np.int64), binary),
        f"</{data.kind}>",
        "</Piece>",
        "</PolyData>",
        "</VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")


def write_vtu(
    path: str | Path,
    points: np.ndarray,
    tets: np.ndarray,
    cell_values: Mapping[str, np.ndarray],
    remark: str = "",
) -> None:
    """Write tetrahedra as a .vtu, XML, packed by zlib, atomically.

    points : (V, 3) RAS mm.    tets : (T, 4) their corners.
    cell_values : name -> (T,) or (T, 3) integers; the first is shown.    remark : a comment.
    """
    arrays = {name: _packed(name, np.asarray(v)) for name, v in cell_values.items()}
    lines = [
        *_head("UnstructuredGrid", remark, ' compressor="vtkZLibDataCompressor"'),
        f'<Piece NumberOfPoints="{len(points)}" NumberOfCells="{len(tets)}">',
        f'<CellData Scalars="{next(iter(arrays))}">',
        *arrays.values(),
        "</CellData>",
        f"<Points>{_packed('Points', np.asarray(points, np.float32))}</Points>",
        "<Cells>",
        _packed("connectivity", np.asarray(tets, np.int32).ravel()),
        _packed("offsets", np.arange(4, 4 * len(tets) + 1, 4, dtype=np.int32)),
        _packed("types", np.full(len(tets), TETRA, np.uint8)),
        "</Cells>",
        "</Piece>",
        "</UnstructuredGrid>",
        "</VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _head(kind: str, remark: str, more: str = "") -> list[str]:
    return [
        '<?xml version="1.0"?>',
        *([f"<!-- {remark} -->"] if remark else []),
        f'<VTKFile type="{kind}" version="1.0" byte_order="LittleEndian" header_type="UInt64"'
        f"{more}>",
        f"<{kind}>",
        '<FieldData><Array type="String" Name="SPACE" NumberOfTuples="1" format="ascii">',
        f"{SPACE}</Array></FieldData>",
    ]


def _values(element: str, values: Mapping[str, np.ndarray], binary: bool) -> list[str]:
    if not values:
        return []
    arrays = [_array(name, np.asarray(found), binary) for name, found in values.items()]
    return [f'<{element} Scalars="{next(iter(values))}">', *arrays, f"</{element}>"]


def _array(name: str, values: np.ndarray, binary: bool) -> str:
    kind = "Int64" if values.dtype == np.int64 else KINDS[values.dtype.kind]
    more = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    if binary:
        content = _bytes(kind, values)
        size = len(content).to_bytes(8, "little")
        text, form = base64.b64encode(size + content).decode("ascii"), "binary"
    else:
        flat = values.ravel().tolist()
        decimal = values.dtype.kind == "f"
        text = " ".join([f"{v:.{DIGITS}f}" if decimal else str(int(v)) for v in flat])
        form = "ascii"
    return f'<DataArray type="{kind}" Name="{name}"{more} format="{form}">{text}</DataArray>'


def _bytes(kind: str, values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, np.dtype(kind.lower()).newbyteorder("<")).tobytes()


def _packed(name: str, values: np.ndarray) -> str:
    """An array as one block of zlib."""
    kind = KINDS[values.dtype.kind]
    more = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    content = _bytes(kind, values)
    block = zlib.compress(content, 1)
    # in UInt64: blocks, their size, that of a last one that is shorter, and packed
    sizes = b"".join(n.to_bytes(8, "little") for n in (1, len(content), 0, len(block)))
    text = (base64.b64encode(sizes) + base64.b64encode(block)).decode("ascii")
    return f'<DataArray type="{kind}" Name="{name}"{more} format="binary">{text}</DataArray>'
