"""Narrow bands of balls, as files with a manifest and a split: a cohort of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cardiform.cohort import splits
from cardiform.cohort.manifest import write_manifest
from cardiform.cohort.table import Case
from cardiform.files import sha256_file
from cardiform.geometry.frame import Frame
from cardiform.geometry.narrowband import NarrowBand, narrow_band

FRAME = Frame(np.array([5.0, -10.0, 20.0]), 1 / 50)


def ball_band(radius: float, resolution: int = 32, center=(0.0, 0.0, 0.0)) -> NarrowBand:
    """The band of 3 voxels about a ball in the unit frame."""
    middle = np.asarray(center)

    def distance(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - middle, axis=1) - radius

    return narrow_band(distance, middle - radius, middle + radius, FRAME, resolution, 3.0)


def write_cohort(folder: Path, radii: dict[str, list[float]], resolution: int = 32) -> Path:
    """case id -> radii of its structures, written as files; the path of their manifest."""
    rows = []
    for case_id, sizes in radii.items():
        for number, radius in enumerate(sizes):
            path = folder / "sparse" / case_id / f"ball{number}.npz"
            ball_band(radius, resolution).save(path)
            rows.append([case_id, path, path.stat().st_size, sha256_file(path), "ok"])
    write_manifest(folder / "manifest.tsv", rows)
    return folder / "manifest.tsv"


def write_windows(folder: Path, radii: dict[str, dict[str, float]], resolution: int = 32) -> list:
    """window -> case id -> radius of its region; a manifest each, as window_ct writes them."""
    manifests = []
    for window, cases in radii.items():
        rows = []
        for case_id, radius in cases.items():
            path = folder / window / case_id / f"{window}.npz"
            ball_band(radius, resolution).save(path)
            rows.append([case_id, path, path.stat().st_size, sha256_file(path), "ok"])
        manifests.append(folder / window / "manifest.tsv")
        write_manifest(manifests[-1], rows)
    return manifests


def write_part(folder: Path, part: str, names: list[str]) -> Path:
    """A split CSV."""
    cases = [Case(case_id=n, patient_id=n, labels="") for n in names]
    splits.write_split(folder / f"{part}.csv", cases, folder / "points")
    return folder / f"{part}.csv"
