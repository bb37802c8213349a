"""Smooth disturbances made of sine waves: of space, and of the surface of a solid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Shape

# Below 1 a disturbance of space folds nothing over.
MOST_SLOPE = 0.6
UNDO_STEPS = 40


@dataclass(frozen=True, eq=False)
class Waves:
    """Sum of K sine waves.

    vectors : (K, 3) wave vectors, rad/mm.    phases : (K,) rad.
    heights : (K, 3) mm where space is moved, (K, 1) where a surface is.
    """

    vectors: np.ndarray
    phases: np.ndarray
    heights: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, bands: list[tuple[int, float, float, float]], width: int = 3
    ) -> Waves:
        """bands : each a number of waves, the shortest and the longest of them and the highest,
        mm. Together they change no length by more than :data:`MOST_SLOPE`."""
        vectors, heights = [], []
        for number, shortest, longest, highest in bands:
            lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest), number))
            vectors.append(_directions(rng, number, 3) * (2 * np.pi / lengths)[:, None])
            high = rng.uniform(0, highest, number)
            heights.append(_directions(rng, number, width) * high[:, None])
        vector, height = np.concatenate(vectors), np.concatenate(heights)
        slope = (np.linalg.norm(vector, axis=1) * np.linalg.norm(height, axis=1)).sum()
        height = height * min(1.0, MOST_SLOPE / max(slope, 1e-9))
        return cls(vector, rng.uniform(0, 2 * np.pi, len(vector)), height)

    @property
    def most(self) -> float:
        """The sum is nowhere larger, mm."""
        return float(np.linalg.norm(self.heights, axis=1).sum())

    def at(self, points: np.ndarray) -> np.ndarray:
        """(N, 3 or 1) mm at (N, 3) points."""
        return np.sin(points @ self.vectors.T + self.phases) @ self.heights

    def move(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points, each moved by the waves there."""
        return points + self.at(points)

    def undo(self, points: np.ndarray) -> np.ndarray:
        """The (N, 3) points that :meth:`move` takes to ``points``."""
        found = points
        for _ in range(UNDO_STEPS):
            found = points - self.at(found)
        return found


@dataclass(frozen=True, eq=False)
class Rough:
    """``base`` whose surface the waves raise and lower, and that is ``grown`` by so many mm.

    Distances are those of the base, disturbed; the gradient is that of the base.
    """

    base: Shape
    waves: Waves | None = None
    grown: float = 0.0

    @property
    def box(self) -> np.ndarray:
        swell = max(self.grown, 0.0) + (self.waves.most if self.waves else 0.0)
        low, high = self.base.box
        return np.stack([low - swell, high + swell])

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, gradient = self.base.evaluate(points)
        distance = distance - self.grown
        if self.waves is not None:
            distance = distance - self.waves.at(points)[:, 0]
        return distance, gradient


def _directions(rng: np.random.Generator, number: int, width: int) -> np.ndarray:
    """(number, width) unit vectors."""
    drawn = rng.normal(size=(number, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
