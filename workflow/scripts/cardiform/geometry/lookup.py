"""The signed distance to classes at any point: fine near their surfaces, coarse elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..volumes import spacing_of
from .far_field import FarField
from .frame import apply_affine
from .grids import cropped_affine
from .near_field import NearField

CHUNK = 1 << 16


class Field(Protocol):
    """The signed distance to one class of a label map."""

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, voxel indices of the label map to RAS mm."""
        ...

    @property
    def origin(self) -> np.ndarray:
        """(3,) int, voxel index of the first voxel of the class's crop."""
        ...

    @property
    def near(self) -> NearField: ...

    @property
    def far(self) -> FarField: ...

    @property
    def channel(self) -> int:
        """Which one of ``far`` the class is."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the crop."""
        ...

    @property
    def crop_affine(self) -> np.ndarray:
        """(4, 4) indices of the crop to RAS mm."""
        ...

    @property
    def spacing(self) -> np.ndarray:
        """(3,) float64 voxel edges, mm."""
        ...

    def lookup(self, world: np.ndarray) -> np.ndarray:
        """(N,) float32 signed distance in mm at (N, 3) RAS mm."""
        ...


@dataclass(frozen=True)
class StoredField:
    """A field without its label map; see :class:`Field`."""

    affine: np.ndarray
    origin: np.ndarray
    near: NearField
    far: FarField
    channel: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.near.shape

    @property
    def crop_affine(self) -> np.ndarray:
        return cropped_affine(self.affine, self.origin)

    @property
    def spacing(self) -> np.ndarray:
        return spacing_of(self.affine)

    def lookup(self, world: np.ndarray) -> np.ndarray:
        return distances([self], world)[:, 0]


def distances(fields: Sequence[Field | None], world: np.ndarray) -> np.ndarray:
    """(N, C) float32 signed distances in mm at (N, 3) RAS mm; NaN where a field is None.

    fields : all of one label map.
    """
    result = np.full((len(world), len(fields)), np.nan, np.float32)
    known = [f for f in fields if f is not None]
    if not known:
        return result
    inverse = np.linalg.inv(known[0].affine)
    for start in range(0, len(world), CHUNK):
        part = slice(start, start + CHUNK)
        index = apply_affine(inverse, world[part].astype(np.float64)).astype(np.float32)
        far: dict[int, np.ndarray] = {}
        for channel, field in enumerate(fields):
            if field is None:
                continue
            values = result[part, channel]
            rows, fine = field.near.lookup(index - field.origin.astype(np.float32))
            if len(known) == 1:
                off = np.ones(len(index), bool)
                off[rows] = False
                values[off] = field.far.lookup(index[off], field.channel)[:, 0]
            else:
                if id(field.far) not in far:
                    far[id(field.far)] = field.far.lookup(index)
                values[...] = far[id(field.far)][:, field.channel]
            values[rows] = fine
    return result
