"""A thin structure of a case on its isotropic grid: the given label, its repair, the evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..anatomy.centreline import Centreline
from ..errors import InputError, again, problem
from ..files import opened_npz, save_npz
from ..formats import Format
from ..geometry.field_of_view import Cut
from ..volumes import spacing_of

MASKS = ("label", "repaired", "supported")
ROUNDING = 1e-3  # of a voxel edge: affines in files are rounded
ROOTS = "roots"
CUT_PLANES = "cut_planes"
STRUCTURE = "structure"
THIN = Format(
    "repaired-structure",
    {
        "label": "u8 (B)",
        "repaired": "u8 (B)",
        "supported": "u8 (B)",
        "line": "i16 (L, 3)",
        "shape": "i32 (3)",
        "affine": "f64 (4, 4)",
        "format_version": "u8",
        "cut_planes?": "f64 (P, 4)",
        "roots?": "u8 (B)",
        "structure?": "text",
    },
    again("repair_coronary"),
)


@dataclass(frozen=True)
class ThinStructure:
    """What repair_coronary leaves of a case.

    label : (X, Y, Z) bool, the label as it was given.
    repaired : the same after :func:`cardiform.anatomy.repair.repair`.
    supported : what lies near the structures that it runs on; all True where there are none.
    affine : (4, 4) float64, index to RAS mm; isotropic.
    cut : where the scan cuts it; None: it is whole.
    roots : what lies against the vessel that it springs from; None where that is not labelled.
    structure : name of its class; empty: an early file does not say.
    """

    label: np.ndarray
    repaired: np.ndarray
    supported: np.ndarray
    affine: np.ndarray
    cut: Cut | None = None
    roots: np.ndarray | None = None
    structure: str = ""

    @property
    def spacing(self) -> float:
        """Voxel edge, mm."""
        return float(spacing_of(self.affine).mean())

    def save(self, path: str | Path) -> None:
        """Write it as npz, atomically; a voxel takes a bit. The centreline comes along."""
        masks = {name: np.packbits(getattr(self, name)) for name in MASKS}
        save_npz(
            path,
            compressed=True,
            **masks,
            line=Centreline.of(self.repaired, self.spacing).index.astype(np.int16),
            shape=np.array(self.label.shape, np.int32),
            affine=self.affine,
            format_version=np.uint8(THIN.version),
            **({} if self.cut is None else {CUT_PLANES: self.cut.slopes()}),
            **({} if self.roots is None else {ROOTS: np.packbits(self.roots)}),
            **({STRUCTURE: np.array(self.structure)} if self.structure else {}),
        )

    @classmethod
    def load(cls, path: str | Path) -> ThinStructure:
        """Read it back.

        Raises
        ------
        InputError
            Missing, damaged or of another format.
        """
        arrays = THIN.load(path)
        shape = tuple(int(n) for n in arrays["shape"])
        label, repaired, supported = (_unpacked(arrays[name], shape) for name in MASKS)
        roots = _unpacked(arrays[ROOTS], shape) if ROOTS in arrays else None
        name = str(arrays.get(STRUCTURE, ""))
        return cls(label, repaired, supported, arrays["affine"], roots=roots, structure=name)


@dataclass(frozen=True)
class Outline:
    """What a file of :class:`ThinStructure` says of itself, found without reading all of it.

    structure : name of its class; empty: an early file does not say.
    unplaced : the scan cuts it, and no plane is known: nothing about it is certain.
    empty : the mask that was asked for has no voxel.
    """

    structure: str
    unplaced: bool
    empty: bool

    @classmethod
    def load(cls, path: str | Path, mask: str) -> Outline:
        """InputError as of :meth:`ThinStructure.load`, as far as it is read.

        mask : one of :data:`MASKS`.
        """
        with opened_npz(path, THIN.remedy) as archive:
            THIN.check_names(path, archive)
            names = [name for name in (mask, STRUCTURE, CUT_PLANES) if name in archive]
            found = {name: archive[name] for name in names}
        THIN.check_values(path, found, [key for key in THIN.keys if key.removesuffix("?") in found])
        unplaced = CUT_PLANES in found and not len(found[CUT_PLANES])
        return cls(str(found.get(STRUCTURE, "")), unplaced, not found[mask].any())


@dataclass(frozen=True)
class PackedMask:
    """One mask of a structure, an eighth of a byte per voxel: a cohort of them fits the memory.

    bits : u8, the packed voxels.    shape : of the mask.    spacing : voxel edge, mm.
    line : (N, 3) int16 voxels of the repaired structure's centreline.
    slopes : (P, 4) float64, how deep a voxel (x, y, z) lies before each plane that cuts the
        structure, mm: x a + y b + z c + d. None where the scan does not cut it.
    """

    bits: np.ndarray
    shape: tuple[int, ...]
    spacing: float
    line: np.ndarray
    slopes: np.ndarray | None = None

    @classmethod
    def load(cls, path: str | Path, name: str) -> PackedMask:
        """One of the masks of a file of :class:`ThinStructure`; InputError as there."""
        arrays = THIN.load(path)
        shape = tuple(int(n) for n in arrays["shape"])
        spacing = float(spacing_of(arrays["affine"]).mean())
        slopes = arrays.get(CUT_PLANES)
        if slopes is not None:
            slopes = slopes @ arrays["affine"]  # of world coordinates to of voxels
        return cls(arrays[name], shape, spacing, arrays["line"], slopes)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for :meth:`of`."""
        found = {"bits": self.bits, "shape": np.array(self.shape), "line": self.line}
        found["spacing"] = np.array(self.spacing)
        return found if self.slopes is None else found | {"slopes": self.slopes}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> PackedMask:
        """The inverse of :meth:`arrays`."""
        shape = tuple(int(n) for n in arrays["shape"])
        spacing, slopes = float(arrays["spacing"]), arrays.get("slopes")
        return cls(arrays["bits"], shape, spacing, arrays["line"], slopes)

    def depth(self, index: np.ndarray) -> np.ndarray:
        """(N,) float64 mm of (N, 3) voxels to the nearest plane; infinite where nothing is cut,
        and minus that where it is cut nobody knows where, as of :class:`Cut`."""
        if self.slopes is None or not len(self.slopes):
            return np.full(len(index), np.inf if self.slopes is None else -np.inf)
        return (index @ self.slopes[:, :3].T + self.slopes[:, 3]).min(axis=1)

    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool."""
        return _unpacked(self.bits, self.shape)

    def part(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The mask from voxel ``low`` to before ``high``, (3,) int each, within the grid."""
        plane = self.shape[1] * self.shape[2]
        first, last = int(low[0]) * plane, int(high[0]) * plane  # no other plane is unpacked
        bits = np.unpackbits(self.bits[first // 8 : (last + 7) // 8])
        planes = bits[first % 8 :][: last - first].reshape(-1, *self.shape[1:])
        return planes[:, low[1] : high[1], low[2] : high[2]] > 0


def check_structure(path: str | Path, found: str, wanted: str) -> None:
    """InputError where a file is of another class than the one that is asked for.

    found : what the file says; empty: nothing.
    """
    if found and found != wanted:
        remedy = f"set coronary_repair.structure (--structure) to {found}, or give files of"
        raise InputError(problem(path, f"is of {found}, not of {wanted}", f"{remedy} {wanted}"))


def same_spacing(one: float, other: float) -> bool:
    """Whether two voxel edges, mm, are the same but for rounding."""
    return math.isclose(one, other, rel_tol=ROUNDING)


def _unpacked(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(tuple(shape)) > 0
