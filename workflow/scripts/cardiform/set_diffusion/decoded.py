"""Hearts of a VecSet on the grid of a cohort, as its label maps are put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..anatomy.components import small_spares
from ..geometry.coarse_to_fine import FieldFunction, SampledField, sample_field
from ..geometry.surface import Mesh
from ..labels import LabelTable
from ..ldm.cube import MOST_SUBSAMPLES, Cube, on_cube
from ..volumes import LabelMap

FINE_MM = 2.0  # voxels of 3 mm and more are sampled about as finely as this


@dataclass(frozen=True)
class Decoded:
    """A field in a cube, sampled between its voxels where these are coarse.

    Sampled at the middles of coarse voxels alone, two surfaces half a millimetre apart, as those of
    two fields often are, become a gap of a whole voxel wherever a middle falls between them.

    field : on the grid of the cube, each voxel cut into equal parts.
    """

    field: SampledField
    cube: Cube
    table: LabelTable

    @classmethod
    def of(
        cls,
        function: FieldFunction,
        cube: Cube,
        table: LabelTable,
        to_unit: Callable[[np.ndarray], np.ndarray],
        speck_share: float = 0.0,
    ) -> Decoded:
        """A field of the classes of ``table``.

        to_unit : RAS mm to the unit frame, a similarity.
        speck_share : parts of a class beyond the usual number are left out where they hold less
            than this share of it.
        """
        parts = int(np.clip(round(cube.spacing / FINE_MM), 1, MOST_SUBSAMPLES)) | 1
        shape = (cube.size * parts,) * 3
        field = sample_field(function, shape, cube.subdivided(parts), to_unit)
        if speck_share:
            field = without_specks(field, table, speck_share)
        return cls(field, cube, table)

    def labels(self) -> np.ndarray:
        """(S, S, S) uint8 values on the grid of the cube."""
        values = self.table.values
        labels = self.field.labels(values)
        if labels.shape[0] == self.cube.size:
            return labels
        return on_cube(LabelMap(labels, self.field.affine), self.cube, values)

    def surfaces(self) -> dict[str, Mesh]:
        """Class name -> closed surface, RAS mm, of the classes that are there."""
        found = {name: self.field.surface(k) for k, name in enumerate(self.table.names)}
        return {name: mesh for name, mesh in found.items() if len(mesh.faces)}


def without_specks(field: SampledField, table: LabelTable, share: float) -> SampledField:
    """``field`` without its specks: parts of a class that are beyond the usual number of its
    label table and hold less than ``share`` of it. The largest parts are none."""
    for channel, usual in enumerate(table.usual_parts):
        inside, low = field.inside(channel)
        if (specks := small_spares(inside, usual[-1], share)) is not None:
            field = field.turned_out(channel, specks, low)
    return field
