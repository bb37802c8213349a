"""Mesh files as people have them: closed ones, those that can be mended, and those that cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from hypothesis import strategies as st
from strategies import rotations

FORMATS = {
    "binary.ply": {"encoding": "binary"}, "ascii.ply": {"encoding": "ascii"}, "binary.stl": {},
    "ascii.stl": {"file_type": "stl_ascii"}, "text.obj": {},
}  # fmt: skip
# Their inside is as clear as that of the closed mesh.
CHANGES = (
    "", "doubled", "inside out", "stray vertex", "needles", "hole", "soup", "some turned",
)  # fmt: skip
FAULTS = (
    "flat", "point", "line", "no faces", "nan", "far face", "one triangle", "nothing", "text",
    "cut", "coordinates beyond float32",
)  # fmt: skip


@dataclass(frozen=True)
class DrawnMesh:
    """vertices : (V, 3) float64 mm.    faces : (F, 3).    volume : of the closed mesh, mm^3."""

    vertices: np.ndarray
    faces: np.ndarray
    volume: float
    form: str
    change: str = ""
    fault: str = ""

    def write(self, folder: Path, name: str) -> Path:
        path = folder / f"{name}.{self.form.split('.')[1]}"
        if self.fault in ("nothing", "text"):
            path.write_bytes(b"" if self.fault == "nothing" else b"a heart\n")
            return path
        vertices, faces = self._broken(*self._changed())
        if self.form == "ascii.stl" and not len(faces):  # trimesh does not write it
            path.write_bytes(b"solid heart\nendsolid heart\n")
            return path
        if self.form == "ascii.ply" and not len(faces):
            path.write_text(
                "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
                "property float z\nelement face 0\nproperty list uchar int vertex_indices\n"
                "end_header\n"
            )
            return path
        mesh = trimesh.Trimesh(vertices, faces, process=False, validate=False)
        options = {"file_type": path.suffix[1:]} | FORMATS[self.form]
        content = mesh.export(**options)
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(content[: len(content) // 2] if self.fault == "cut" else content)
        return path

    def _changed(self) -> tuple[np.ndarray, np.ndarray]:
        vertices, faces = self.vertices, self.faces
        match self.change:
            case "doubled":
                faces = np.concatenate([faces, faces[: len(faces) // 2]])
            case "inside out":
                faces = faces[:, ::-1]
            case "stray vertex":
                far = vertices.mean(axis=0) + 30 * np.ptp(vertices, axis=0).max()
                vertices = np.concatenate([vertices, [far]])
            case "needles":
                faces = np.concatenate([faces, faces[:5, [0, 0, 1]]])
            case "hole":
                faces = faces[1:]
            case "soup":
                vertices, faces = vertices[faces].reshape(-1, 3), np.arange(faces.size)
                faces = faces.reshape(-1, 3)
            case "some turned":
                faces = faces.copy()
                faces[::7] = faces[::7, ::-1]
        return vertices, faces

    def _broken(self, vertices, faces) -> tuple[np.ndarray, np.ndarray]:
        match self.fault:
            case "flat":
                vertices = vertices * (1, 1, 0)
            case "line":
                vertices = vertices * (0, 1, 0)
            case "point":
                vertices = np.repeat(vertices[:1], len(vertices), axis=0)
            case "no faces":
                faces = faces[:0]
            case "nan":
                vertices = vertices.copy()
                vertices[faces[0, 0], 1] = np.nan
            case "far face":
                if self.form.endswith("stl"):  # has no numbers of vertices
                    return vertices, faces[:0]
                faces = faces.copy()
                faces[-1, 2] = len(vertices) + 1000
            case "one triangle":
                faces = faces[:1]
            case "coordinates beyond float32":
                vertices = vertices * 1e30 * 1e10
        return vertices, faces


@st.composite
def meshes(draw, fault: str = "") -> DrawnMesh:
    """A ball, box, can or ring, somewhere, of any size."""
    creation = trimesh.creation
    shape = draw(st.sampled_from(["ball", "box", "can", "ring"]))
    mesh = {
        "ball": lambda: creation.icosphere(subdivisions=2),
        "box": lambda: creation.box((2, 3, 2.5)).subdivide().subdivide(),
        "can": lambda: creation.cylinder(1, 2.5, sections=16).subdivide(),
        "ring": lambda: creation.torus(2, 0.8, major_sections=16, minor_sections=10),
    }[shape]()
    scale = draw(st.sampled_from([0.05, 1.0, 40.0, 3000.0]))
    place = np.array(draw(st.tuples(*[st.floats(-50, 50)] * 3)))
    vertices = (mesh.vertices @ draw(rotations()).T + place) * scale
    return DrawnMesh(
        vertices,
        np.asarray(mesh.faces),
        float(mesh.volume) * scale**3,
        draw(st.sampled_from(sorted(FORMATS))),
        draw(st.sampled_from(CHANGES)) if not fault else "",
        fault,
    )
