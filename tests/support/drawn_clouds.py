"""HDF5 point clouds as files: every layout of sound ones, and faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from hypothesis import strategies as st

LAYOUTS = ("single", "stack", "ragged", "groups", "datasets")
KINDS = ("<f4", ">f4", "<f8", ">f8", "<f2", "<i2", ">i4")
FAULTS = (
    "nan", "inf", "empty", "transposed", "four columns", "text", "complex", "one place",
    "too few classes", "classes as text", "no hdf5", "cut", "no class takes part",
)  # fmt: skip


@dataclass(frozen=True)
class DrawnCloud:
    """points : (N, 3) float64 mm.    labels : (N,) uint8, or None.    fault : empty: none."""

    points: np.ndarray
    labels: np.ndarray | None
    kind: str = "<f4"
    layout: str = "single"
    fault: str = ""

    def write(self, path: Path) -> Path:
        """An HDF5 file of this one sample."""
        if self.fault == "no hdf5":
            path.write_bytes(b"case,x,y,z\n1,2,3,4\n")
            return path
        write_samples(path, [self])
        if self.fault == "cut":
            content = path.read_bytes()
            path.write_bytes(content[: len(content) * 2 // 3])
        return path

    @property
    def stored(self) -> np.ndarray:
        """What the dataset of the points holds."""
        points = self.points.astype(self.kind)
        match self.fault:
            case "nan" | "inf":
                points = points.astype("<f4")
                points[len(points) // 2, 1] = float(self.fault)
            case "empty":
                points = points[:0]
            case "transposed":
                points = points.T
            case "four columns":
                points = np.c_[points, points[:, :1]]
            case "text":
                points = np.array([["1", "2", "x"]] * 4, "S4")
            case "complex":
                points = points + 1j
            case "one place":
                points = np.repeat(points[:1], len(points), axis=0)
        return points

    @property
    def stored_labels(self) -> np.ndarray | None:
        if self.fault == "too few classes":
            return np.ones(len(self.points) - 1, np.uint8)
        if self.fault == "classes as text":
            return np.array(["aorta"] * len(self.points), "S8")
        if self.fault == "no class takes part":
            return np.full(len(self.points), 200, np.uint8)
        return self.labels


def write_samples(path: Path, clouds: list[DrawnCloud]) -> None:
    """One file; its layout is that of the first cloud."""
    layout = clouds[0].layout
    names = [f"s{k}" for k in range(len(clouds))]
    with h5py.File(path, "w") as archive:
        for word, parts in (
            ("points", [c.stored for c in clouds]),
            ("labels", [c.stored_labels for c in clouds]),
        ):
            if any(part is None for part in parts):
                continue
            if layout == "single":
                archive[word] = parts[0]
            elif layout == "stack":
                least = min(len(part) for part in parts)
                archive[word] = np.stack([part[:least] for part in parts])
            elif layout == "ragged":
                kind = h5py.vlen_dtype(parts[0].dtype)
                rows = archive.create_dataset(word, (len(parts),), dtype=kind)
                for number, part in enumerate(parts):
                    rows[number] = part.ravel()
            else:
                for name, part in zip(names, parts):
                    archive[f"{name}/{word}" if layout == "groups" else f"{word}/{name}"] = part


@st.composite
def clouds(draw, labelled: bool, fault: str = "") -> DrawnCloud:
    """A cloud about a box, a plane, a line, or two places."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    number = draw(st.integers(2, 60))
    extent = np.array(draw(st.sampled_from([(80, 60, 90), (80, 60, 0), (0, 50, 0), (9, 9, 2)])))
    points = np.rint((rng.random((number, 3)) - 0.5) * extent)
    points[:2] = [-extent / 2, extent / 2]  # integers keep their extent, too
    points += np.rint(draw(st.tuples(*[st.floats(-900, 900)] * 3)))
    labels = rng.integers(1, 11, number).astype(np.uint8) if labelled else None
    simple = fault in ("text", "complex", "transposed", "classes as text")
    layout = "single" if simple or fault == "four columns" else draw(st.sampled_from(LAYOUTS))
    return DrawnCloud(points, labels, draw(st.sampled_from(KINDS)), layout, fault)
