"""Principal components of few hearts in many numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_SHARE = 1e-9  # of the variance: less is rounding


@dataclass(frozen=True)
class Components:
    """Of N hearts that were centred, in P numbers.

    total : their variance, summed over the numbers.
    shares : (K,) float64 of it, of each component.
    weights : (N, K) float64 of each component in each heart, of mean 0 and variance 1.
    """

    total: float
    shares: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, rest: np.ndarray, *, variance: float, most: int, least: float = LEAST_SHARE
    ) -> Components:
        """Of (N, P) deviations from the mean, by the inner products of the hearts.

        variance : share that the components keep, of which there are ``most`` at most.
        least : share of the variance below which a component is rounding.
        """
        values, vectors = np.linalg.eigh((rest @ rest.T).astype(np.float64) / (len(rest) - 1))
        values, vectors = values[::-1], vectors[:, ::-1]
        total = float(values[values > 0].sum())
        shares = values / max(total, np.finfo(np.float64).tiny)
        enough = int((np.cumsum(shares) < variance - 1e-12).sum()) + 1
        number = min(enough, most, int((shares > least).sum()))
        weights = vectors[:, :number] * np.sqrt(len(rest) - 1)
        return cls(total, shares[:number], weights)

    def directions(self, rest: np.ndarray) -> np.ndarray:
        """(K, Q), the change of (N, Q) numbers of these hearts for one standard deviation of each
        component: the components themselves, or what goes along with them."""
        return self.weights.T.astype(rest.dtype) @ rest / rest.dtype.type(len(rest) - 1)


def nearest(hearts: np.ndarray, scores: np.ndarray, shares: np.ndarray) -> int:
    """The one of (N, K) scores that is most like those of another heart, of K or fewer modes.

    shares : (K,) of the variance.
    """
    sizes = np.sqrt(shares[: len(scores)])
    far = (((hearts[:, : len(scores)] - scores) * sizes) ** 2).sum(axis=1)
    return int(far.argmin())
