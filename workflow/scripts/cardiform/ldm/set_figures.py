"""How a set of generated hearts compares with a set of real ones.

Hearts are (S, S, S) uint8 channels on one grid: 0 outside, k a class.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from ..anatomy.components import count_components
from ..geometry.mask_surface import blurred, surface_of_mask
from ..geometry.sampling import SurfaceSampler

COLUMNS_AT_A_TIME = 64  # hearts that are compared at a time: bounds the memory
ALWAYS, NEVER = 0.9, 0.02  # shares of the training hearts in which two classes touch


# --- distances between hearts ------------------------------------------------------------


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the surface of each class of a heart, mm; None where it has none."""

    trees: tuple[cKDTree | None, ...]

    @classmethod
    def of(cls, heart: np.ndarray, classes: int, spacing: float, number: int, seed: int):
        """``number`` points per class, spread evenly over its voxel surface."""
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = spacing  # the rim around the heart begins at the origin
        faces = functools.partial(blurred, sigma_vox=0)
        trees = []
        for channel in range(1, classes + 1):
            mesh = surface_of_mask(heart == channel, affine, faces, pad=1)
            points = None
            if len(mesh.faces):
                rng = np.random.default_rng((seed, channel))
                points = cKDTree(SurfaceSampler(mesh).draw(number, rng)[0])
            trees.append(points)
        return cls(tuple(trees))


def chamfer(a: SurfacePoints, b: SurfacePoints, missing_mm: float) -> np.ndarray:
    """(classes,) mm: mean distance to the other surface, the mean of both directions.

    A class that one of them lacks is ``missing_mm`` away; NaN where both lack it.
    """
    result = np.full(len(a.trees), np.nan)
    for k, (one, other) in enumerate(zip(a.trees, b.trees)):
        if one is not None and other is not None:
            there, back = other.query(one.data)[0].mean(), one.query(other.data)[0].mean()
            result[k] = (there + back) / 2
        elif one is not None or other is not None:
            result[k] = missing_mm
    return result


def distances(rows: Sequence, columns: Sequence, missing_mm: float) -> np.ndarray:
    """(rows, columns, classes) mm."""
    return np.array([[chamfer(a, b, missing_mm) for b in columns] for a in rows])


def dice_distances(rows: Sequence[np.ndarray], columns: Sequence[np.ndarray], classes: int):
    """(rows, columns) 1 - Dice, the mean over the classes that either of them has."""
    starts = range(0, len(columns), COLUMNS_AT_A_TIME)
    parts = [columns[start : start + COLUMNS_AT_A_TIME] for start in starts]
    return np.concatenate([_dice_distances(rows, part, classes) for part in parts], axis=1)


def _dice_distances(rows, columns, classes: int) -> np.ndarray:
    total = np.zeros((len(rows), len(columns)))
    counted = np.zeros_like(total)
    for channel in range(1, classes + 1):
        a, b = (
            np.stack([(x == channel).ravel() for x in hearts]).astype(np.float32)
            for hearts in (rows, columns)
        )
        sizes = a.sum(1)[:, None] + b.sum(1)[None]
        there = sizes > 0
        total += np.where(there, 1 - 2 * (a @ b.T) / np.maximum(sizes, 1), 0)
        counted += there
    return total / np.maximum(counted, 1)


# --- sets --------------------------------------------------------------------------------


def set_figures(to_real: np.ndarray, made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Of distances (G, R), (G, G) and (R, R) between generated and real hearts.

    Returns
    -------
    mmd : mean over the real hearts of the distance to the nearest generated one, mm.
    cov : share of the real hearts that are the nearest one of some generated heart.
    nna : accuracy of telling the sets apart by the nearest neighbour; 0.5 where they are alike.

    Achlioptas et al. (ICML 2018) for MMD and COV; Yang et al. (PointFlow, ICCV 2019) for 1-NNA.
    """
    number, other = to_real.shape
    covered = len(np.unique(to_real.argmin(axis=1)))
    both = np.block([[made, to_real], [to_real.T, real]]).astype(float)
    np.fill_diagonal(both, np.inf)
    is_made = np.arange(number + other) < number
    right = is_made[both.argmin(axis=1)] == is_made
    return {
        "mmd": float(to_real.min(axis=0).mean()),
        "cov": covered / other,
        "nna": float(right.mean()),
    }


def volume_figures(made: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """Of one class: volumes in ml of the hearts that have it.

    w1 : Wasserstein distance in standard deviations of the real volumes.
    difference : of the means, relative to the real one.
    """
    made, real = made[made > 0], real[real > 0]
    if len(made) < 1 or len(real) < 2 or not real.std():
        return {"w1": None, "difference": None}
    return {
        "w1": float(wasserstein_distance(made, real) / real.std()),
        "difference": float(made.mean() / real.mean() - 1),
    }


# --- anatomy -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Anatomy:
    """What is true of the training hearts.

    components : (classes,) most connected parts of each class, from the label table.
    touching, apart : (classes, classes) bool: pairs that always touch, that never do.
    """

    components: np.ndarray
    touching: np.ndarray
    apart: np.ndarray

    @classmethod
    def of(
        cls,
        hearts: Sequence[np.ndarray],
        components: Sequence[int],
        cut: Sequence[np.ndarray | None] | None = None,
    ) -> Anatomy:
        """cut : per heart (classes,) bool, what the scan cuts of it: that shows no contacts."""
        classes = len(components)
        touch = np.array([contacts(heart, classes) for heart in hearts])
        seen = np.array([_whole_pairs(classes, c) for c in cut or [None] * len(hearts)])
        with np.errstate(invalid="ignore"):  # a pair that no heart shows is neither
            share = (touch & seen).sum(axis=0) / seen.sum(axis=0)
        return cls(np.array(components), share >= ALWAYS, share <= NEVER)

    def check(self, heart: np.ndarray, cut: np.ndarray | None = None) -> dict[str, bool]:
        """Which of the rules a heart keeps; its classes that are ``cut`` are not looked at."""
        classes = len(self.components)
        whole = np.ones(classes, bool) if cut is None else ~cut
        counts = np.array([count_components(heart == k) for k in range(1, classes + 1)])
        touch = contacts(heart, classes)
        pairs = np.triu(_whole_pairs(classes, cut), 1)
        return {
            "complete": bool((counts > 0)[whole].all()),
            "connected": bool((counts <= self.components)[whole].all()),
            "touching": bool(touch[self.touching & pairs].all()),
            "apart": not touch[self.apart & pairs].any(),
        }


def contacts(heart: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) bool, symmetric: which classes share the face of a voxel."""
    found = np.zeros((classes + 1, classes + 1), bool)
    for axis in range(3):
        a = np.moveaxis(heart, axis, 0)
        found[a[:-1].ravel(), a[1:].ravel()] = True
    found |= found.T
    return found[1:, 1:]


def _whole_pairs(classes: int, cut: np.ndarray | None) -> np.ndarray:
    """(classes, classes) bool: pairs of which neither is cut."""
    whole = np.ones(classes, bool) if cut is None else ~cut
    return whole[:, None] & whole


def validity(
    hearts: Sequence[np.ndarray],
    anatomy: Anatomy,
    cut: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float]:
    """Share of the hearts that keep each rule, and that keep all of them (``valid``).

    cut : per heart (classes,) bool, the classes that are not looked at.
    """
    rows = [anatomy.check(h, c) for h, c in zip(hearts, cut or [None] * len(hearts))]
    shares = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**shares, "valid": float(np.mean([all(row.values()) for row in rows]))}
