"""A thin structure of a case on its isotropic grid: the given label, its repair, the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from ..files import load_npz, save_npz
from ..nifti import spacing_of

FORMAT_VERSION = 1
MASKS = ("label", "repaired", "supported")


@dataclass(frozen=True)
class ThinStructure:
    """What repair_coronary leaves of a case.

    label : (X, Y, Z) bool, the label as it was given.
    repaired : the same after :func:`cardiform.anatomy.repair.repair`.
    supported : what lies near the structures that it runs on; all True where there are none.
    affine : (4, 4) float64, index to RAS mm; isotropic.
    """

    label: np.ndarray
    repaired: np.ndarray
    supported: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> float:
        """Voxel edge, mm."""
        return float(spacing_of(self.affine).mean())

    def save(self, path: str | Path) -> None:
        """Write it as npz, atomically; a voxel takes a bit."""
        masks = {name: np.packbits(getattr(self, name)) for name in MASKS}
        save_npz(
            path,
            compressed=True,
            **masks,
            shape=np.array(self.label.shape, np.int32),
            affine=self.affine,
            format_version=np.uint8(FORMAT_VERSION),
        )

    @classmethod
    def load(cls, path: str | Path) -> ThinStructure:
        """Read it back.

        Raises
        ------
        InputError
            Missing, damaged or of another format.
        """
        arrays = load_npz(path)
        missing = {*MASKS, "shape", "affine", "format_version"} - set(arrays)
        if missing or arrays["format_version"] != FORMAT_VERSION:
            fact = f"is no repaired structure ({', '.join(sorted(missing)) or 'another format'})"
            raise InputError(problem(path, fact, "run repair_coronary again"))
        shape = tuple(int(n) for n in arrays["shape"])
        masks = {
            name: np.unpackbits(arrays[name], count=int(np.prod(shape))).reshape(shape) > 0
            for name in MASKS
        }
        return cls(**masks, affine=arrays["affine"])
