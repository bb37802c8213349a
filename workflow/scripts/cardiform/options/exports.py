"""Options of the files for viewers and printers."""

from __future__ import annotations

from dataclasses import dataclass

from .field import option

FORMATS = ("stl", "vtp", "glb", "seg.nrrd")


@dataclass(frozen=True, kw_only=True)
class ExportsOptions:
    """Surfaces and label maps in formats that other programs open (target exports)."""

    formats: tuple[str, ...] = option(
        FORMATS,
        "stl: a file per class, to print; vtp: all classes with names and colours (ParaView, 3D "
        "Slicer); glb: glTF, for slides and browsers; seg.nrrd: the label map as a segmentation of "
        "3D Slicer",
        choices=FORMATS,
    )
