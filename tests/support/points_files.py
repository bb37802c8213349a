"""Points files by hand: a test gives the arrays that it is about, the others are filled in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cardiform.files import save_npz
from cardiform.geometry.sampling import POINTS


def write_points_file(path: Path, **arrays: np.ndarray) -> Path:
    """A points file; normals, geometry and version are filled in where they are not given."""
    filled = {
        "surface_normals": np.zeros_like(arrays["surface_points"]),
        "center": np.zeros(3),
        "scale": np.float64(1),
        "affine": np.eye(4),
        "spacing": np.ones(3, np.float32),
        "format_version": np.int64(POINTS.version),
    }
    save_npz(path, **(filled | arrays))
    return path
