"""A surface with values at its vertices, as a file that ParaView and 3D Slicer open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..files import write_text
from ..geometry.surface import Mesh

KINDS = {"f": "Float32", "i": "Int32"}


def write_surface(path: str | Path, mesh: Mesh, values: Mapping[str, np.ndarray]) -> None:
    """Write a surface as VTK PolyData, XML as text: RAS millimetres.

    values : name -> (V,) numbers of the vertices; the first is shown.
    """
    # 3D Slicer takes files without SPACE for LPS; a text is an array of its bytes
    space = " ".join(str(byte) for byte in b"RAS\0")
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        "<PolyData>",
        '<FieldData><Array type="String" Name="SPACE" NumberOfTuples="1" format="ascii">',
        f"{space}</Array></FieldData>",
        f'<Piece NumberOfPoints="{len(mesh.vertices)}" NumberOfVerts="0" NumberOfLines="0"'
        f' NumberOfStrips="0" NumberOfPolys="{len(mesh.faces)}">',
        f'<PointData Scalars="{next(iter(values), "")}">',
        *(_array(name, KINDS[found.dtype.kind], found) for name, found in values.items()),
        "</PointData>",
        f"<Points>{_array('Points', 'Float32', mesh.vertices.ravel(), 3)}</Points>",
        "<Polys>",
        _array("connectivity", "Int64", mesh.faces.ravel()),
        _array("offsets", "Int64", 3 * np.arange(1, len(mesh.faces) + 1)),
        "</Polys>",
        "</Piece>",
        "</PolyData>",
        "</VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _array(name: str, kind: str, values: Iterable, components: int = 1) -> str:
    more = f' NumberOfComponents="{components}"' if components > 1 else ""
    text = " ".join(f"{v:.3f}" if kind == "Float32" else str(int(v)) for v in values)
    return f'<DataArray type="{kind}" Name="{name}"{more} format="ascii">{text}</DataArray>'
