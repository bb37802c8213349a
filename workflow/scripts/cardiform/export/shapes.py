"""Hearts for other programs: STL, VTP, VTU, glTF, segmentations, a colour table.

STL and VTP say that they are RAS: 3D Slicer takes meshes that do not for LPS
(https://github.com/Slicer/Slicer/issues/5847).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import outputs
from ..cohort.table import Case
from ..files import atomic_path, write_text
from ..geometry.mesh_files import write_mesh
from ..geometry.meshed import MeshedCase
from ..geometry.surface import Mesh
from ..geometry.vtp import PolyData, write_vtp
from ..labels import LabelClass, LabelTable
from ..options.exports import ExportsOptions
from ..volumes import LabelMap
from .classes import plain, rgb
from .dicom import write_dicom
from .regions import REGIONS, write_regions

# RAS mm to glTF's metres, y up, the patient looking at the viewer (z); a rotation, no mirror.
TO_GLTF = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) * [
    [0.001], [0.001], [0.001], [1.0],
]  # fmt: skip
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # of RAS; NRRD files of 3D Slicer are LPS
COLORS = "colors.ctbl"


def export_case(
    case: Case, *, table: LabelTable, options: ExportsOptions, meshes: Path, out: Path
) -> list[Path]:
    """Write ``out/<case>/`` in the asked formats, from the label map and extract_meshes.

    Returns
    -------
    The written paths. Files of an earlier run in other formats are deleted.

    Raises
    ------
    InputError
        Missing or unfit meshes; regions that cannot be meshed; a DICOM series that does not fit.
    """
    meshed = MeshedCase.load(case, table, meshes)
    surfaces = meshed.surfaces()
    classes = [label for label in table if label.value in surfaces]
    folder = out / case.case_id
    paths = [folder / COLORS]
    write_text(paths[0], color_table(classes))
    if "stl" in options.formats:
        for label in classes:
            paths.append(folder / f"{label.name}.stl")
            write_mesh(paths[-1], surfaces[label.value])
    if "vtp" in options.formats:
        paths.append(folder / f"{case.case_id}.vtp")
        write_vtp(paths[-1], whole_heart(surfaces, classes), binary=True)
    if "glb" in options.formats:
        paths.append(folder / f"{case.case_id}.glb")
        write_gltf(paths[-1], surfaces, classes)
    if "seg.nrrd" in options.formats:
        paths.append(folder / f"{case.case_id}.seg.nrrd")
        write_segmentation(paths[-1], meshed.label_map, classes)
    if "dcm" in options.formats and case.dicom:
        paths.append(folder / f"{case.case_id}.dcm")
        write_dicom(paths[-1], meshed.label_map, classes, case)
    if REGIONS & set(options.formats):
        paths += write_regions(folder, meshed, classes, options)
    for ending in ("stl", "vtp", "glb", "seg.nrrd", "vtu", "dcm"):
        for stale in set(folder.glob(f"*.{ending}")) - set(paths):
            outputs.remove(stale)
    return paths


def color_table(classes: list[LabelClass]) -> str:
    """A colour table of 3D Slicer: value, name, red, green, blue, opacity."""
    lines = ["# Color table file; value, name, red, green, blue, opacity", "0 background 0 0 0 0"]
    for label in classes:
        red, green, blue = rgb(label)
        lines.append(f"{label.value} {label.name} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def whole_heart(surfaces: Mapping[int, Mesh], classes: list[LabelClass]) -> PolyData:
    """All surfaces as one, with ``label`` and ``color`` of every triangle.

    Structures that touch have a wall each.
    """
    parts = [surfaces[label.value] for label in classes]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts)])
    counts = [len(part.faces) for part in parts]
    values = np.repeat([label.value for label in classes], counts).astype(np.int32)
    colors = np.repeat(np.array([rgb(label) for label in classes], np.uint8), counts, axis=0)
    names = ", ".join(f"{label.value} {label.name}" for label in classes)
    return PolyData(
        np.concatenate([part.vertices for part in parts]),
        faces.ravel(),
        3 * np.arange(1, len(faces) + 1),
        cell_values={"label": values, "color": colors},
        remark=f"millimetres, RAS; label: {names}",
    )


def write_gltf(path: Path, surfaces: Mapping[int, Mesh], classes: list[LabelClass]) -> None:
    """A binary glTF 2.0: a named, coloured node per class, metres, y up."""
    import trimesh

    scene = trimesh.Scene()
    for label in classes:
        mesh = surfaces[label.value]
        material = trimesh.visual.material.PBRMaterial(
            name=label.title or label.name,
            baseColorFactor=[*rgb(label), 255],
            metallicFactor=0.0,
            roughnessFactor=0.7,
        )
        shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        shape.visual = trimesh.visual.TextureVisuals(material=material)
        shape.apply_transform(TO_GLTF)
        scene.add_geometry(shape, node_name=label.name, geom_name=label.name)
    content = trimesh.exchange.gltf.export_glb(scene)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_segmentation(path: Path, label_map: LabelMap, classes: list[LabelClass]) -> None:
    """A .seg.nrrd of 3D Slicer: the label map, and name, colour and value of each segment."""
    import nrrd

    lps = TO_LPS @ label_map.affine
    header: dict = {
        "type": "unsigned char",
        "dimension": 3,
        "space": "left-posterior-superior",
        "kinds": ["domain", "domain", "domain"],
        "space directions": lps[:3, :3].T,  # a row per axis of the image
        "space origin": lps[:3, 3],
        "encoding": "gzip",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
    }
    for number, label in enumerate(classes):
        box = label_map.boxes[label.value]
        segment = f"Segment{number}"
        header |= {
            f"{segment}_ID": label.name,
            f"{segment}_Name": plain(label),
            f"{segment}_Color": " ".join(f"{part / 255:.6f}" for part in rgb(label)),
            f"{segment}_ColorAutoGenerated": "0",
            f"{segment}_LabelValue": str(label.value),
            f"{segment}_Layer": "0",
            f"{segment}_Extent": " ".join(f"{part.start} {part.stop - 1}" for part in box),
        }
    with atomic_path(path) as temporary:
        nrrd.write(str(temporary), label_map.data, header, index_order="F")
