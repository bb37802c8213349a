"""What a number of the case table says of the shape, and the shape of the number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError

LEAST_HEARTS = 8  # of which a number is known
FOLDS = 10
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of scores in standard deviations
SHARES = (5, 50, 95)  # percentiles of the column at which a heart is drawn
ROUNDING = 1e-12


def regression(
    scores: np.ndarray, shares: np.ndarray, values: np.ndarray, permutations: int, seed: int
) -> tuple[dict, np.ndarray]:
    """The shape against a number, both ways.

    scores : (N, K) standard deviations.    shares : (K,) of the variance.    values : (N,).

    Returns
    -------
    figures : ``explained``, the share of the variance of the shape that goes along with the number
        (a straight line for every mode), ``p`` of it by permutation of the hearts (Phipson and
        Smyth 2010), the same in hearts that were left out (``explained_held_out``), and how
        well a ridge regression on the scores tells the number of such hearts (``r2_of_column``);
        ``at`` the percentiles.
    predicted : (3, K) scores of the hearts at those percentiles.
    """
    rng = np.random.default_rng(seed)
    weighted = (scores - scores.mean(axis=0)) * np.sqrt(shares)
    about = (values - values.mean()) / values.std()
    total = float((weighted**2).sum())

    def explained(order: np.ndarray) -> float:
        slopes = about[order] @ weighted / len(about)
        return float(len(about) * (slopes**2).sum() / total)

    here = explained(np.arange(len(about)))
    orders = [rng.permutation(len(about)) for _ in range(permutations)]
    as_large = sum(explained(order) >= here - ROUNDING for order in orders)
    folds = rng.permutation(len(about)) % min(FOLDS, len(about))
    told = _held_out(scores, values, folds)
    at = np.percentile(values, SHARES)
    slopes = about @ (scores - scores.mean(axis=0)) / len(about)
    predicted = scores.mean(axis=0) + np.outer((at - values.mean()) / values.std(), slopes)
    figures = {
        "hearts": len(values),
        "explained": here,
        "p": (1 + as_large) / (1 + permutations),
        "explained_held_out": _shape_held_out(weighted, values, folds),
        "r2_of_column": float(
            1 - ((values - told) ** 2).sum() / ((values - values.mean()) ** 2).sum()
        ),
        "at": {f"p{share:02d}": float(value) for share, value in zip(SHARES, at)},
    }
    return figures, predicted


def _shape_held_out(weighted: np.ndarray, values: np.ndarray, folds: np.ndarray) -> float:
    """Share of the variance of left-out hearts that a line for every mode explains."""
    rest = spread = 0.0
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        mean, middle = weighted[others].mean(axis=0), values[others].mean()
        about = values[others] - middle
        slopes = about @ (weighted[others] - mean) / max(float((about**2).sum()), ROUNDING)
        guess = mean + np.outer(values[own] - middle, slopes)
        rest += float(((weighted[own] - guess) ** 2).sum())
        spread += float(((weighted[own] - mean) ** 2).sum())
    return 1 - rest / spread


def _held_out(scores: np.ndarray, values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(N,) numbers of left-out hearts by ridge regression; its strength by the other hearts."""
    result = np.zeros(len(values))
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        inner = np.arange(others.sum()) % 5
        errors = [
            sum(
                float(((values[others][inner == k] - _ridge(
                    scores[others][inner != k], values[others][inner != k],
                    scores[others][inner == k], ridge)) ** 2).sum())
                for k in range(5)
            )
            for ridge in RIDGES
        ]  # fmt: skip
        best = RIDGES[int(np.argmin(errors))]
        result[own] = _ridge(scores[others], values[others], scores[own], best)
    return result


def _ridge(scores: np.ndarray, values: np.ndarray, new: np.ndarray, ridge: float) -> np.ndarray:
    """(M,) predictions for (M, K) new scores."""
    mean, middle = scores.mean(axis=0), values.mean()
    about = scores - mean
    normal = about.T @ about + ridge * np.eye(scores.shape[1])
    return middle + (new - mean) @ np.linalg.solve(normal, about.T @ (values - middle))


def check_known(columns: Mapping[str, Mapping[str, float]]) -> None:
    """InputError where a number is known of too few hearts, or the same of all."""
    problems = []
    for name, found in columns.items():
        if len(found) < LEAST_HEARTS or len(set(found.values())) < 3:
            problems.append(
                f"shape_statistics.columns: {name} has {len(found)} numbers of scored hearts "
                f"({len(set(found.values()))} different); it takes {LEAST_HEARTS} hearts and 3 "
                "numbers; take it out of the list, or fill the column"
            )
    if problems:
        raise InputError(problems)
