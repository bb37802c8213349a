"""Options of the files for viewers and printers."""

from __future__ import annotations

from dataclasses import dataclass

from .field import option

USUAL = ("stl", "vtp", "glb", "seg.nrrd")
FORMATS = (*USUAL, "walls", "tets", "dcm")


@dataclass(frozen=True, kw_only=True)
class ExportsOptions:
    """Surfaces and label maps in formats that other programs open (target exports)."""

    formats: tuple[str, ...] = option(
        USUAL,
        "stl: a file per class, to print; vtp: all classes with names and colours (ParaView, 3D "
        "Slicer); glb: glTF, for slides and browsers; seg.nrrd: the label map as a segmentation of "
        "3D Slicer; walls: one surface in which neighbours share their walls (VTP); tets: the "
        "regions filled with tetrahedra (VTU); dcm: DICOM SEG of cases whose series is named in "
        "column dicom",
        choices=FORMATS,
        filled=True,
    )
    edge_mm: float = option(
        0.0,
        "walls, tets: the longest edges at the walls, mm; half of it in thin parts (0: two voxels, "
        "at least 2.4 mm)",
        minimum=0.0,
        maximum=20.0,
        young=True,
    )
