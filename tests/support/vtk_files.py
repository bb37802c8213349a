"""Binary VTK files, by a reader of our own."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
import zlib

import numpy as np

TYPES = {"Float32": "<f4", "Int32": "<i4", "Int64": "<i8", "UInt8": "u1"}
PACKED_HEAD = 44  # characters of base64: four numbers of eight bytes


def vtp_arrays(path):
    """The arrays of a binary VTP, by a reader of our own."""
    root = ET.parse(path).getroot()
    found = {}
    for array in root.iter("DataArray"):
        content = base64.b64decode(array.text)
        size = int.from_bytes(content[:8], "little")
        assert array.get("format") == "binary" and len(content) == 8 + size
        values = np.frombuffer(content[8:], TYPES[array.get("type")])
        found[array.get("Name")] = values.reshape(-1, int(array.get("NumberOfComponents", 1)))
    [space] = root.iter("Array")
    assert bytes(map(int, space.text.split())) == b"RAS\0"
    return found, root.find(".//Piece")


def vtu_arrays(path):
    """The arrays of a VTU that is packed by zlib, each as one block."""
    root = ET.parse(path).getroot()
    assert root.get("compressor") == "vtkZLibDataCompressor"
    found = {}
    for array in root.iter("DataArray"):
        sizes = np.frombuffer(base64.b64decode(array.text[:PACKED_HEAD]), "<u8")
        block = base64.b64decode(array.text[PACKED_HEAD:])
        content = zlib.decompress(block)
        assert sizes.tolist() == [1, len(content), 0, len(block)]
        values = np.frombuffer(content, TYPES[array.get("type")])
        found[array.get("Name")] = values.reshape(-1, int(array.get("NumberOfComponents", 1)))
    return found
