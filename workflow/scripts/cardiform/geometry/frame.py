"""The one map between world millimetres and the unit frame of a case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The annotated anatomy fills the ball of this radius: a rim stays for queries outside it.
UNIT_RADIUS = 0.95


@dataclass(frozen=True)
class Frame:
    """unit = (world - center) * scale.

    center : (3,) float64, RAS mm.
    scale : float, unit lengths per mm.
    """

    center: np.ndarray
    scale: float

    @classmethod
    def around(cls, vertices: np.ndarray) -> Frame:
        """The frame that puts (N, 3) world points into the ball of radius 0.95."""
        vertices = np.asarray(vertices, np.float64)
        center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        radius = np.linalg.norm(vertices - center, axis=1).max()
        return cls(center, float(UNIT_RADIUS / radius))

    def to_unit(self, world: np.ndarray) -> np.ndarray:
        """(..., 3) RAS mm to unit coordinates."""
        return (world - self.center) * self.scale

    def to_world(self, unit: np.ndarray) -> np.ndarray:
        """(..., 3) unit coordinates to RAS mm."""
        return unit / self.scale + self.center


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(4, 4) affine on (..., 3) points."""
    return points @ affine[:3, :3].T + affine[:3, 3]
