"""Lines and surfaces with values as VTK PolyData, which ParaView and 3D Slicer open."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import write_text

# 3D Slicer takes files without SPACE for LPS; a text is an array of its bytes
SPACE = " ".join(str(byte) for byte in b"RAS\0")
KINDS = {"f": "Float32", "i": "Int32", "u": "UInt8", "b": "UInt8"}
DIGITS = 3  # of a micrometre: label maps know less


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
        '<?xml version="1.0"?>',
        *([f"<!-- {data.remark} -->"] if data.remark else []),
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        "<PolyData>",
        '<FieldData><Array type="String" Name="SPACE" NumberOfTuples="1" format="ascii">',
        f"{SPACE}</Array></FieldData>",
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


def _values(element: str, values: Mapping[str, np.ndarray], binary: bool) -> list[str]:
    if not values:
        return []
    arrays = [_array(name, np.asarray(found), binary) for name, found in values.items()]
    return [f'<{element} Scalars="{next(iter(values))}">', *arrays, f"</{element}>"]


def _array(name: str, values: np.ndarray, binary: bool) -> str:
    kind = "Int64" if values.dtype == np.int64 else KINDS[values.dtype.kind]
    more = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    if binary:
        content = np.ascontiguousarray(values, np.dtype(kind.lower()).newbyteorder("<")).tobytes()
        size = len(content).to_bytes(8, "little")
        text, form = base64.b64encode(size + content).decode("ascii"), "binary"
    else:
        flat = values.ravel().tolist()
        decimal = values.dtype.kind == "f"
        text = " ".join([f"{v:.{DIGITS}f}" if decimal else str(int(v)) for v in flat])
        form = "ascii"
    return f'<DataArray type="{kind}" Name="{name}"{more} format="{form}">{text}</DataArray>'
