"""How a training item is turned, scaled and shifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + shift. Distances grow by ``scale`` exactly.

    Scaling by axis would not keep distance fields distances, and mirrored hearts do not
    occur: neither is drawn.
    """

    rotation: np.ndarray
    scale: float
    shift: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, rotation_deg: float, scale: float, shift: float
    ) -> Similarity:
        """Random axis and angle, scale within 1 +- ``scale``, shift in a cube."""
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        angle = np.deg2rad(rng.uniform(-rotation_deg, rotation_deg))
        cross = np.cross(np.eye(3), axis)
        # Rodrigues' formula
        rotation = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        factor = 1 + rng.uniform(-scale, scale)
        return cls(rotation, float(factor), rng.uniform(-shift, shift, size=3))

    def after(self, first: Similarity) -> Similarity:
        """This map behind another one."""
        return Similarity(
            self.rotation @ first.rotation,
            self.scale * first.scale,
            self.scale * self.rotation @ first.shift + self.shift,
        )

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) to (N, 3) float32."""
        return (points @ (self.scale * self.rotation.T) + self.shift).astype(np.float32)
