"""How a set of generated hearts compares with a set of real ones.

Hearts are (S, S, S) uint8 channels on one grid: 0 outside, k a class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from ..anatomy.validity import Anatomy
from ..geometry.mask_surface import blurred, surface_of_mask
from ..geometry.sampling import SurfaceSampler

COLUMNS_AT_A_TIME = 64  # hearts that are compared at a time: bounds the memory
SCREENS = (16, 4)  # one point in so many tells first, and then, which hearts may be the nearest
FEWEST_POINTS = 32  # that it takes to tell
# Standard errors between what may be the nearest and what may not, as if points lay at random; they
# lie evenly, so that the true errors are about half of these.
SURE = 3.0
# (rows, columns) of a matrix among which a nearest heart is looked for
Block = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class HeartSet:
    """Hearts, and what is known of them.

    hearts : N of (S, S, S) uint8.
    known : (N, classes) bool: annotated, and not cut by the scan. All else counts nowhere. Of what
        a network makes, all that the heart it was made from shows.
    """

    hearts: Sequence[np.ndarray]
    known: np.ndarray

    @classmethod
    def real(
        cls, hearts: Sequence[np.ndarray], classes: int, cut: Sequence[np.ndarray | None] = ()
    ) -> HeartSet:
        """Annotated hearts: what has no voxel is not annotated.

        cut : per heart (classes,) bool of what the scan cuts, None where nothing; empty: nothing.
        """
        known = [np.isin(range(1, classes + 1), heart) for heart in hearts]
        for row, hidden in zip(known, cut):
            if hidden is not None:
                row &= ~hidden
        return cls(hearts, np.array(known, bool).reshape(-1, classes))

    @classmethod
    def generated(cls, hearts: Sequence[np.ndarray], classes: int) -> HeartSet:
        """Hearts that should have every class."""
        return cls(hearts, np.ones((len(hearts), classes), bool))

    def __len__(self) -> int:
        return len(self.hearts)

    def of(self, rows: Sequence[int] | np.ndarray) -> HeartSet:
        """Some of them, in the order of ``rows``."""
        return HeartSet([self.hearts[i] for i in rows], self.known[list(rows)])


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

    A class that one of them lacks is ``missing_mm`` away; both lacking it are alike.
    """
    return distances([a], [b], missing_mm)[0, 0]


def distances(
    rows: Sequence[SurfacePoints],
    columns: Sequence[SurfacePoints],
    missing_mm: float,
    threads: int = 1,
) -> np.ndarray:
    """(rows, columns, classes) mm, as :func:`chamfer` of each pair, which is measured once."""
    wanted = np.ones((len(rows), len(columns), len(columns[0].trees)), bool)
    return _chamfer(rows, columns, missing_mm, wanted, 1, threads)[0]


def nearest_distances(
    rows: Sequence[SurfacePoints],
    columns: Sequence[SurfacePoints],
    missing_mm: float,
    common: np.ndarray,
    blocks: Sequence[Sequence[Block]],
    threads: int = 1,
) -> np.ndarray:
    """(rows, columns, classes) mm; exact where a nearest heart of any block may be.

    A few points of each surface find which hearts cannot be the nearest ones; of these the
    distance is an estimate from those points. NaN where a class counts in one of them alone.

    common : (rows, columns, classes) bool: what is known of both.
    blocks : for each class, and last for the mean over the classes, the parts of the matrix whose
        least values of rows and columns are needed.
    """
    number = next((len(t.data) for c in columns for t in c.trees if t is not None), 1)
    found = error = np.full(common.shape, np.nan)
    wanted = common
    for every in (*(n for n in SCREENS if number >= n * FEWEST_POINTS), 1):
        better, spread = _chamfer(rows, columns, missing_mm, wanted, every, threads)
        found, error = np.where(wanted, better, found), np.where(wanted, spread, error)
        if every > 1:
            wanted = common & _deciding(found, error, blocks, rows is columns)
    return found


def _deciding(found, error, blocks: Sequence[Sequence[Block]], same: bool) -> np.ndarray:
    """(rows, columns, classes) bool: the distances that may be the least ones of a block.

    same : rows and columns are the same hearts, of which none is its own nearest.
    """
    wanted = np.zeros(found.shape, bool)
    seen = ~np.isnan(found)
    number = np.maximum(seen.sum(axis=-1), 1)
    total = mean_over_classes(found, typical_distances(found))
    spread = np.sqrt(np.where(seen, error**2, 0.0).sum(axis=-1)) / number
    diagonal = np.diag(np.full(len(found), np.inf)) if same else 0.0
    for k, parts in enumerate(blocks):
        whole = k == found.shape[-1]
        value, margin = (total, spread) if whole else (found[..., k], error[..., k])
        for rows, columns in parts:
            at = np.ix_(rows, columns)
            near = _may_be_nearest((value + diagonal)[at], SURE * margin[at])
            part = wanted[at]  # a copy
            part[..., slice(None) if whole else k] |= near[..., None] if whole else near
            wanted[at] = part
    return wanted | wanted.transpose(1, 0, 2) if same else wanted


def _may_be_nearest(value: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Bool: the entries that may be the least of their row or of their column."""
    low, high = value - margin, np.where(np.isnan(value), np.inf, value + margin)
    if not value.size:  # no heart has the class
        return np.zeros(value.shape, bool)
    return (low <= high.min(axis=1, keepdims=True)) | (low <= high.min(axis=0))


def _chamfer(rows, columns, missing_mm, wanted, every, threads) -> tuple[np.ndarray, np.ndarray]:
    """Distances where they are ``wanted``, else NaN, and their standard errors."""
    there, error = _toward(rows, columns, wanted, every, threads)
    if rows is columns:
        back, other = there, error
    else:
        back, other = _toward(columns, rows, wanted.transpose(1, 0, 2), every, threads)
    back, other = back.transpose(1, 0, 2), other.transpose(1, 0, 2)
    has = [np.array([[t is not None for t in h.trees] for h in s]) for s in (rows, columns)]
    either, each = (has[0][:, None] | has[1]), (has[0][:, None] & has[1])
    result = np.where(each, (there + back) / 2, np.where(either, missing_mm, 0.0))
    spread = np.where(each, np.sqrt(error**2 + other**2) / 2, 0.0)
    return np.where(wanted, result, np.nan), np.where(wanted, spread, 0.0)


def _toward(rows, columns, wanted, every, threads) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns, classes) mm: mean distance of every ``every``-th point of the rows to the
    surfaces of the columns, and its standard error."""
    mean, error = np.full(wanted.shape, np.nan), np.full(wanted.shape, np.nan)

    def column(j: int) -> None:
        for k, tree in enumerate(columns[j].trees):
            members = [i for i in np.flatnonzero(wanted[:, j, k]) if rows[i].trees[k] is not None]
            if tree is None or not members:
                continue
            points = np.concatenate([rows[i].trees[k].data[::every] for i in members])
            found = tree.query(points)[0].reshape(len(members), -1)
            mean[members, j, k] = found.mean(axis=1)
            error[members, j, k] = found.std(axis=1) / np.sqrt(found.shape[1])

    in_threads(column, range(len(columns)), threads)
    return mean, error


def in_threads(work: Callable, items: Sequence, threads: int) -> list:
    """``work`` of each item, in order."""
    with ThreadPool(max(threads, 1)) as pool:
        return pool.map(work, items, chunksize=1)


def typical_distances(found: np.ndarray) -> np.ndarray:
    """(classes,) mm: mean distance of two hearts in each class, NaN where no two have it."""
    seen = ~np.isnan(found)
    number = seen.sum(axis=(0, 1))
    total = np.where(seen, found, 0.0).sum(axis=(0, 1))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def mean_over_classes(found: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """(rows, columns): of (rows, columns, classes), the mean over the classes that count in both.

    Some classes always lie nearer than others, so where not all count, the mean is that of all as
    far as those tell: times what all are on average, by what those are.

    typical : (classes,) mm, distance of two hearts in a class; NaN where no two have it.
    """
    counts = ~np.isnan(found) & ~np.isnan(typical)
    number = counts.sum(axis=-1)
    usual = np.where(counts, typical, 0.0).sum(axis=-1)
    every = np.nanmean(typical) if (~np.isnan(typical)).any() else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = np.where(counts, found, 0.0).sum(axis=-1) / number
        whole = (number == (~np.isnan(typical)).sum()) | (usual == 0)
        part = np.where(whole, 1.0, every * number / usual)
        return np.where(number > 0, seen * part, np.inf)


def dice_distances(rows: HeartSet, columns: HeartSet) -> np.ndarray:
    """(rows, columns) 1 - Dice, the mean over the classes that count in both and one has."""
    starts = range(0, len(columns), COLUMNS_AT_A_TIME)
    chosen = [range(len(columns))[start : start + COLUMNS_AT_A_TIME] for start in starts]
    return np.concatenate([_dice_distances(rows, columns.of(part)) for part in chosen], axis=1)


def _dice_distances(rows: HeartSet, columns: HeartSet) -> np.ndarray:
    total = np.zeros((len(rows), len(columns)))
    counted = np.zeros_like(total)
    for k in range(rows.known.shape[1]):
        a, b = (
            np.stack([(x == k + 1).ravel() for x in hearts]).astype(np.float32)
            for hearts in (rows.hearts, columns.hearts)
        )
        sizes = a.sum(1)[:, None] + b.sum(1)[None]
        there = (sizes > 0) & rows.known[:, None, k] & columns.known[None, :, k]
        total += np.where(there, 1 - 2 * (a @ b.T) / np.maximum(sizes, 1), 0)
        counted += there
    return np.where(counted > 0, total / np.maximum(counted, 1), 1.0)


# --- sets --------------------------------------------------------------------------------


def set_figures(to_real: np.ndarray, made: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """Of distances (G, R), (G, G) and (R, R) between generated and real hearts, inf between hearts
    of which no class is known in both. A heart without any distance is left out of all figures.

    Returns
    -------
    mmd : mean over the real hearts of the distance to the nearest generated one, mm.
    cov : share of the real hearts that are the nearest one of some generated heart.
    nna : accuracy of telling the sets apart by the nearest neighbour; 0.5 where they are alike.

    Achlioptas et al. (ICML 2018) for MMD and COV; Yang et al. (PointFlow, ICCV 2019) for 1-NNA.
    All None where no two hearts of both sets have a distance.
    """
    number, other = to_real.shape
    there = np.isfinite(to_real)
    if not there.any():
        return dict.fromkeys(("mmd", "cov", "nna"))
    compared = there.any(axis=0)
    covered = len(np.unique(to_real[there.any(axis=1)].argmin(axis=1)))
    both = np.block([[made, to_real], [to_real.T, real]]).astype(float)
    np.fill_diagonal(both, np.inf)
    is_made = np.arange(number + other) < number
    right = is_made[both.argmin(axis=1)] == is_made
    return {
        "mmd": float(to_real.min(axis=0)[compared].mean()),
        "cov": covered / int(compared.sum()),
        "nna": float(right[np.isfinite(both).any(axis=1)].mean()),
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


def validity(hearts: HeartSet, anatomy: Anatomy, threads: int = 1) -> dict[str, float]:
    """Share of the hearts that keep each rule, and that keep all of them (``valid``)."""
    pairs = list(zip(hearts.hearts, hearts.known))
    rows = in_threads(lambda pair: anatomy.check(*pair), pairs, threads)
    shares = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**shares, "valid": float(np.mean([all(row.values()) for row in rows]))}
