"""Label maps as files: every notation of a sound one, and every fault that can be drawn."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from drawn_structures import ball, labelled
from hypothesis import strategies as st
from strategies import ORIENTATIONS, rotations

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
CODES = ((1, 1), (1, 0), (0, 1), (2, 4), (3, 0), (4, 2))  # of sform and qform
ENDINGS = (".nii", ".nii.gz", ".NII.GZ")
UNITS = {"mm": 1.0, "unknown": 1.0, "micron": 1000.0, "meter": 0.001}  # of a millimetre
FAULTS = (
    "no form", "forms differ", "sheared", "unknown label", "fractions", "negative", "not finite",
    "empty", "far away", "two volumes", "cut", "no volume", "missing",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A label map and how a file holds it.

    data : (X, Y, Z) uint8.    affine : (4, 4) voxel indices to RAS mm, as they are meant.
    fault : what is wrong with the file; empty: nothing.
    """

    data: np.ndarray = field(repr=False)
    affine: np.ndarray
    kind: str = "u1"
    order: str = "<"
    slope: float = 1.0
    intercept: int = 0
    codes: tuple[int, int] = (1, 1)
    second: bool = False
    unit: str = "mm"
    ending: str = ".nii.gz"
    fault: str = ""

    def write(self, folder: Path, name: str) -> Path:
        """The file below ``folder``; none where it is missing."""
        path = folder / f"{name}{self.ending}"
        if self.ending == ".hdr":
            self._image().to_filename(path)
            return path
        content = self._image().to_bytes()
        if self.ending.lower().endswith(".gz"):
            content = gzip.compress(content, 1, mtime=0)
        if self.fault == "cut":
            content = content[: len(content) * 3 // 4]
        if self.fault == "no volume":
            content = b"<html>404</html>\n"
        if self.fault != "missing":
            path.write_bytes(content)
        return path

    def _image(self):
        kind = np.dtype(self.order + self.kind)
        values = self._values()
        number = 2 if self.second else 1
        header = getattr(nib, f"Nifti{number}Header")(endianness=self.order)
        header.set_data_dtype(kind)
        stored = np.rint((values - self.intercept) / self.slope) if self.slope != 1 else values
        form = "Pair" if self.ending == ".hdr" else "Image"
        affine = np.diag([*[UNITS[self.unit]] * 3, 1.0]) @ self.affine
        image = getattr(nib, f"Nifti{number}{form}")(stored.astype(kind), affine, header)
        image.header.set_slope_inter(self.slope, self.intercept if self.slope != 1 else 0)
        image.header.set_xyzt_units(self.unit)
        sform, qform = (0, 0) if self.fault == "no form" else self.codes
        image.set_sform(affine, sform)
        other = affine.copy()
        if self.fault == "forms differ":
            other[:3, 3] += 3 * np.linalg.norm(affine[:3, :3], axis=0).max()
        image.set_qform(other, qform)
        return image

    def _values(self) -> np.ndarray:
        values = self.data.astype(np.float64)
        first = tuple(np.argwhere(self.data)[0])
        changed = {"unknown label": 77, "fractions": 1.4, "negative": -1, "not finite": np.nan}
        if self.fault in changed:
            values[first] = changed[self.fault]
        if self.fault == "empty":
            values[:] = 0
        if self.fault == "two volumes":
            values = np.stack([values, values], axis=-1)
        return values


@st.composite
def placed(draw, shear_deg: float = 0.0) -> np.ndarray:
    """(4, 4) affine in mm: anisotropic up to 1:8, oblique, mirrored, far from the origin."""
    edge = draw(st.floats(0.3, 1.5))
    ratios = draw(st.permutations((1.0, draw(st.floats(1, 8)), draw(st.floats(1, 3)))))
    axes = draw(st.sampled_from(ORIENTATIONS))
    if draw(st.booleans()):
        axes = draw(rotations()) @ axes
    axes, angle = axes.copy(), np.radians(shear_deg)
    axes[:, 1] = np.cos(angle) * axes[:, 1] + np.sin(angle) * axes[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = axes * edge * np.array(ratios)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300) | st.floats(-9e4, 9e4)] * 3))
    return affine


@st.composite
def sound(draw) -> Drawn:
    """A label map that nothing is wrong with, in any notation."""
    kind, codes = draw(st.sampled_from(KINDS)), draw(st.sampled_from(CODES))
    scaled = kind[0] != "f" and draw(st.booleans())
    return Drawn(
        draw(labelled()),
        draw(placed(draw(st.sampled_from([0.0, 0.0, 0.5, 0.9])))),
        kind=kind,
        order=draw(st.sampled_from("<>")),
        slope=draw(st.sampled_from([0.5, 0.1, 2.0**-3])) if scaled else 1.0,
        intercept=draw(st.integers(-2, 0 if kind[0] == "u" else 2)) if scaled else 0,
        codes=codes,
        second=draw(st.booleans()),
        unit=draw(st.sampled_from(["mm", *UNITS])),
        ending=draw(st.sampled_from([*ENDINGS, ".hdr"])),
    )


@st.composite
def faulty(draw) -> Drawn:
    """A label map that no stage may be given, of one of FAULTS."""
    fault = draw(st.sampled_from(FAULTS))
    affine = draw(placed(5.0 if fault == "sheared" else 0.0))
    if fault == "far away":
        affine[draw(st.integers(0, 2)), 3] = draw(st.sampled_from([2e5, -1e9]))
    return Drawn(
        draw(labelled(least=4, most=8)),
        affine,
        kind="f4",
        codes={"forms differ": (1, 1), "sheared": (1, 0)}.get(fault, draw(st.sampled_from(CODES))),
        ending=draw(st.sampled_from(ENDINGS)),
        fault=fault,
    )


def plain() -> Drawn:
    """A ball in a shell: nothing about it is unusual."""
    index = np.indices((20, 20, 20)).astype(float)
    data = ball(index, (9.5,) * 3, 8.5).astype(np.uint8)
    data[ball(index, (9.5,) * 3, 5)] = 3
    return Drawn(data, np.diag([1.5, 1.5, 1.5, 1.0]))
