"""Several completers of one grid as one, the folds of a k-fold say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..cohort.table import Case
from ..errors import InputError
from ..labels import LabelTable
from ..volumes import LabelMap
from .complete import Completer


class MeanCompleter:
    """Makes missing classes from the mean of the probabilities of several models.

    Raises
    ------
    InputError
        The models have different grids.
    """

    def __init__(self, parts: Sequence[Completer]):
        self.parts = list(parts)
        self.single: list[np.ndarray] = []  # the last label map, as each model alone makes it
        if any(part.generator.grid != parts[0].generator.grid for part in parts):
            raise InputError(
                "latent diffusion of several folds: they have different grids (grid.json), so "
                "nothing can be averaged; apply one at a time"
            )

    @property
    def table(self) -> LabelTable:
        return self.parts[0].table

    def complete(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], case: Case | None = None
    ) -> list[np.ndarray]:
        """As of :meth:`Completer.complete`, on one cube for all models."""
        first = self.parts[0]
        places = zip(*(part.places(label_map, requests, case) for part in self.parts))
        centers = ([cube.center for cube in of_request] for of_request in places)
        cubes = [first.generator.grid.cube(np.mean(found, axis=0)) for found in centers]
        found = [part.shares(label_map, requests, cubes) for part in self.parts]
        shares = [[share.mean(dim=0).numpy() for share in own] for own in found]
        mean = [np.mean(of_request, axis=0) for of_request in zip(*shares)]
        last, cube = requests[-1], cubes[-1]
        self.single = [first.filled(label_map, last, cube, own[-1]) for own in shares]
        return [first.filled(label_map, *item) for item in zip(requests, cubes, mean)]
