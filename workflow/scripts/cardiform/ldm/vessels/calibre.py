"""How wide a vessel is at a place of a tree, learned from whole trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .tree import VesselTree

LEAST_MM = 10.0  # of vessel beyond a place: ends are not infinitely thin
USUAL = (5, 95)  # percentiles of the radii that are learned from; none is drawn beyond


@dataclass(frozen=True)
class Calibre:
    """The logarithm of a radius is linear in the way from the root, and in the logarithm of the
    length of all that the vessel feeds (as of Murray's law, 1926, with a free exponent).

    weights : (3,) float64.    low, high : mm, least and greatest radius.
    """

    weights: np.ndarray
    low: float
    high: float

    @classmethod
    def fitted(cls, trees: Sequence[VesselTree]) -> Calibre:
        """Least squares over the nodes of trees, at least one of which has a node."""
        rows = np.concatenate([_rows(tree) for tree in trees])
        radii = np.concatenate([tree.radii for tree in trees])
        rows, radii = rows[radii > 0], radii[radii > 0]
        weights = np.linalg.lstsq(rows, np.log(radii), rcond=None)[0]
        low, high = np.percentile(radii, USUAL)
        return cls(weights, float(low), float(high))

    def of(self, tree: VesselTree) -> VesselTree:
        """The tree with other radii."""
        return replace(tree, radii=np.clip(np.exp(_rows(tree) @ self.weights), self.low, self.high))


def _rows(tree: VesselTree) -> np.ndarray:
    """(K, 3) one, mm from the root, and the logarithm of the mm of vessel beyond, of each node."""
    way, beyond = np.zeros(len(tree)), np.zeros(len(tree))
    for node, before in enumerate(tree.before.tolist()):  # the node before comes earlier
        if before >= 0:
            way[node] = way[before] + tree.steps[node]
    for node in range(len(tree) - 1, -1, -1):
        if tree.before[node] >= 0:
            beyond[tree.before[node]] += beyond[node] + tree.steps[node]
    return np.column_stack([np.ones(len(tree)), way, np.log(LEAST_MM + beyond)])
