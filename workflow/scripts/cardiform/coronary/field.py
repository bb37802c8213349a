"""A thin structure of a case as a function of place, and its mask on any grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.distances import signed_distance
from ..geometry.interpolation import trilinear
from ..geometry.isotropic import voxels_near
from ..options.coronary import CoronaryRepairOptions
from ..volumes import spacing_of
from .links import joined_as, without_lost
from .thin_structure import ThinStructure
from .wall_noise import roughness

REACH_VOX = 4  # distances are known so far from a mask
# Voxels of the isotropic grid: a wall that moves by less has not been changed. The first holds
# where the label is smooth, the last where it is rough (see wall_noise), the other where its own
# grid is coarse, where the repair changed the label, and beside what changes in any case. Chosen
# on four noisy trees of each kind of noise (docs/coronary.md).
SMOOTH_CHANGE_VOX, LEAST_CHANGE_VOX, ROUGH_CHANGE_VOX = 1.25, 0.5, 0.0
SMOOTH, ROUGH = 1.05, 1.13
COARSE = 1.4  # times the isotropic grid's voxels
SLICE_SHARE = 0.25  # of the longest voxel edge: so far voxels' borders are off a wall on average
BESIDE_VOX = 2.0


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


def least_change(given: np.ndarray, affine: np.ndarray, thin: ThinStructure) -> float:
    """By how many voxels of the isotropic grid a wall has to move to be changed: the smoother the
    label, the more, and the thicker its slices. A network that has learned ragged walls moves
    smooth ones, too, and one that has learned thin slices the walls of thick ones.

    given : (X, Y, Z) bool, the label on its own grid.    affine : (4, 4) of that grid.
    """
    ends = (SMOOTH, ROUGH), (SMOOTH_CHANGE_VOX, ROUGH_CHANGE_VOX)
    least = float(np.interp(roughness(given, affine, thin), *ends))
    longest = float(spacing_of(affine).max() / thin.spacing)
    if longest > COARSE:
        least = max(least, LEAST_CHANGE_VOX, SLICE_SHARE * longest)
    return least


def _changed(
    places: np.ndarray, moved: np.ndarray, least: float, repaired: np.ndarray
) -> np.ndarray:
    """(N,) bool: what has moved by more than ``least``; where that is more than LEAST_CHANGE_VOX,
    also what has moved by this where the label is repaired, or beside the others: a gap that is
    filled is filled to its rim, and in the thinnest vessels no wall moves by more than a voxel.

    places : (N, 3) voxels of the isotropic grid.    moved : (N,) voxels, 0 where no sign changes.
    repaired : (N,) bool, where the repair changed the label.
    """
    maybe = moved > LEAST_CHANGE_VOX
    surely = (moved > least) | (maybe & repaired)
    if least > LEAST_CHANGE_VOX and surely.any():
        away = cKDTree(places[surely]).query(places[maybe], distance_upper_bound=BESIDE_VOX)[0]
        surely[maybe] |= np.isfinite(away)
    return surely


def own_mask(
    given: np.ndarray, affine: np.ndarray, field: CaseField, options: CoronaryRepairOptions
) -> np.ndarray:
    """The structure on the grid of its label map, changed where the field changes something.

    A voxel keeps its given value where the field and the label itself, as it was put on the
    isotropic grid, have the same sign, or differ by less than :func:`least_change` (see
    :func:`_changed` for gaps): going there and back, or moving every wall a little, would cost more
    than most refinements gain. What the field joins is joined in the result, across thick slices
    too.

    Parameters
    ----------
    given : (X, Y, Z) bool, the label on its own grid.
    affine : (4, 4) float64 of that grid, index to RAS mm.

    Returns
    -------
    (X, Y, Z) bool.
    """
    thin, least = field.thin, least_change(given, affine, field.thin)
    limit = REACH_VOX * thin.spacing
    label = signed_distance(thin.label, thin.spacing, limit)
    near = field.active | (label < limit)
    voxels, places = voxels_near(near, thin.affine, given.shape, affine)
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(near.shape) - 1)
    known = field.active[tuple(nearest.T)]
    distances = np.full(len(voxels), np.inf)
    distances[known] = field.distances(places[known])
    now, before = distances < 0, trilinear(label, places)
    moved = np.where(now != (before < 0), np.abs(distances - before) / thin.spacing, 0)
    repaired = (thin.repaired != thin.label)[tuple(nearest.T)]
    changed = _changed(places, moved, least, repaired)
    result = given.copy()
    result[tuple(voxels[changed].T)] = now[changed]
    large = max(options.dust_mm3, options.fragment_mm3)
    result = without_lost(result, affine, field.mask, thin.affine, large)
    return joined_as(result, affine, field.mask, thin.affine, (given, thin.label))
