"""A thin structure of a case as a function of place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..geometry.distances import signed_distance
from ..geometry.interpolation import trilinear
from ..geometry.isotropic import voxels_near
from .thin_structure import ThinStructure

REACH_VOX = 4  # distances are known so far from a mask


@dataclass(frozen=True)
class CaseField:
    """A structure of one case as a function of place.

    distances : (P, 3) float32 voxels of the isotropic grid to (P,) float32 mm, negative inside.
    active : (X, Y, Z) bool: outside of these voxels there is nothing.
    thin : the label and its repair on that grid.
    decided : the mask where it is known already, and need not be asked for voxel by voxel.
    """

    distances: Callable[[np.ndarray], np.ndarray]
    active: np.ndarray
    thin: ThinStructure
    decided: np.ndarray | None = None

    @cached_property
    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool on the isotropic grid itself."""
        if self.decided is not None:
            return self.decided
        voxels = np.argwhere(self.active)
        result = np.zeros(self.active.shape, bool)
        result[tuple(voxels.T)] = self.distances(voxels.astype(np.float32)) < 0
        return result

    def on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) voxels of another grid within the active region, and their distances in mm."""
        voxels, places = voxels_near(self.active, self.thin.affine, shape, affine)
        return voxels, self.distances(places)

    def mask_on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """(X, Y, Z) uint8, 1 inside."""
        voxels, distances = self.on_grid(shape, affine)
        result = np.zeros(shape, np.uint8)
        result[tuple(voxels[distances < 0].T)] = 1
        return result


def repaired_field(thin: ThinStructure) -> CaseField:
    """The repaired label itself."""
    limit = REACH_VOX * thin.spacing
    distance = signed_distance(thin.repaired, thin.spacing, limit)
    return CaseField(
        lambda points: trilinear(distance, points), distance < limit, thin, thin.repaired
    )
