"""A thin structure on the grid of its label map: a voxel changes where refinement changes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.distances import signed_distance
from ..geometry.interpolation import trilinear
from ..geometry.isotropic import voxels_near
from ..options.coronary import CoronaryRepairOptions
from ..volumes import spacing_of
from .field import REACH_VOX, CaseField
from .links import joined_as, without_lost
from .thin_structure import ThinStructure
from .wall_noise import roughness

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
class OwnLabel:
    """The label of one case on its own grid, and what fields make of it there.

    given : (X, Y, Z) bool.    affine : (4, 4) float64 of that grid, index to RAS mm.
    thin : the label and its repair on the isotropic grid.
    """

    given: np.ndarray
    affine: np.ndarray
    thin: ThinStructure
    options: CoronaryRepairOptions

    @cached_property
    def least_change(self) -> float:
        """By how many voxels of the isotropic grid a wall has to move to be changed: the smoother
        the label, the more, and the thicker its slices. A network that has learned ragged walls
        moves smooth ones, too, and one that has learned thin slices the walls of thick ones.
        """
        ends = (SMOOTH, ROUGH), (SMOOTH_CHANGE_VOX, ROUGH_CHANGE_VOX)
        least = float(np.interp(roughness(self.given, self.affine, self.thin), *ends))
        longest = float(spacing_of(self.affine).max() / self.thin.spacing)
        if longest > COARSE:
            least = max(least, LEAST_CHANGE_VOX, SLICE_SHARE * longest)
        return least

    @cached_property
    def _distance(self) -> np.ndarray:
        """(X, Y, Z) float32 mm, of the label on the isotropic grid."""
        return signed_distance(self.thin.label, self.thin.spacing, REACH_VOX * self.thin.spacing)

    def mask(self, field: CaseField) -> np.ndarray:
        """The structure on the own grid, changed where the field changes something.

        A voxel keeps its given value where the field and the label itself, as it was put on the
        isotropic grid, have the same sign, or differ by less than :attr:`least_change` (see
        :func:`_changed` for gaps): going there and back, or moving every wall a little, would cost
        more than most refinements gain. What the field joins is joined in the result, across thick
        slices too.

        Returns
        -------
        (X, Y, Z) bool.
        """
        thin, given, affine = self.thin, self.given, self.affine
        near = field.active | (self._distance < REACH_VOX * thin.spacing)
        voxels, places = voxels_near(near, thin.affine, given.shape, affine)
        nearest = np.clip(np.rint(places).astype(int), 0, np.array(near.shape) - 1)
        known = field.active[tuple(nearest.T)]
        distances = np.full(len(voxels), np.inf)
        distances[known] = field.distances(places[known])
        now, before = distances < 0, trilinear(self._distance, places)
        moved = np.where(now != (before < 0), np.abs(distances - before) / thin.spacing, 0)
        repaired = (thin.repaired != thin.label)[tuple(nearest.T)]
        changed = _changed(places, moved, self.least_change, repaired)
        result = given.copy()
        result[tuple(voxels[changed].T)] = now[changed]
        large = max(self.options.dust_mm3, self.options.fragment_mm3)
        result = without_lost(result, affine, field.mask, thin.affine, large)
        return joined_as(result, affine, field.mask, thin.affine, (given, thin.label))


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
