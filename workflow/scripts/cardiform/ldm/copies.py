"""Whether generated hearts are training hearts again: turned, moved and scaled ones included."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, again, problem
from ..files import read_json
from .data import load_latents, resampled
from .diffusion_model import LatentStatistics
from .samples import SAMPLE
from .set_figures import HeartSet, dice_distances, in_threads

STEPS = 5  # of the fit of one heart to another
MOST_SCALING = 0.12  # along each axis: a heart of another size is no copy
DAMPING = 1e-3
CANDIDATES = 4  # training hearts that fit best are compared voxel by voxel
PARAMETERS = 9  # turn, log of the scales, shift
UPPER = np.triu_indices(3)
LEAST = 1e-6  # distances that count as none
ONE_PERCENT = 2.326  # deviations below the mean, of a normal distribution
WHAT = {
    "aligned": "1 - Dice to the nearest training heart, aligned",
    "ratio": "relative to the next nearest",
    "latent": "latents to those of the nearest variant",
}


# --- alignment ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Where the classes of N hearts lie, in voxels from the middle of the grid.

    middles : (N, classes, 3).    spreads : (N, classes, 3, 3), covariances of the voxels.
    counts : (N, classes) bool: known, and there.
    """

    middles: np.ndarray
    spreads: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, hearts: HeartSet, threads: int) -> Moments:
        classes = hearts.known.shape[1]
        found = in_threads(functools.partial(_moments, classes=classes), hearts.hearts, threads)
        middles, spreads, there = (np.array(part) for part in zip(*found))
        return cls(middles, spreads, there & hearts.known)


def _moments(heart: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    middles, spreads = np.zeros((classes, 3)), np.tile(np.eye(3), (classes, 1, 1))
    there = np.zeros(classes, bool)
    at = np.argwhere(heart)
    of = heart[tuple(at.T)]
    places = at - (np.array(heart.shape) - 1) / 2
    for k in range(classes):
        points = places[of == k + 1]
        if len(points):
            there[k] = True
            middles[k] = points.mean(axis=0)
            apart = points - middles[k]
            spreads[k] = apart.T @ apart / len(points) + np.eye(3) / 12  # a voxel's own
    return middles, spreads, there


def fits(one: Moments, row: int, others: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Bring each of N hearts over heart ``row`` of ``one``: turned, scaled and shifted.

    Returns
    -------
    affine : (N, 3, 4) voxels from the middle, from the others to the one.
    residual : (N,) voxels, how well the classes lie over one another; inf without a common class.
    """
    middles, spreads = one.middles[row], one.spreads[row]
    counts = (one.counts[row] & others.counts).astype(float)
    number = np.maximum(counts.sum(axis=1), 1)
    sizes = np.sqrt(np.trace(spreads, axis1=1, axis2=2) / 3)

    def differences(p: np.ndarray) -> np.ndarray:
        """(N, classes * 9) voxels."""
        linear, shift = _linear(p), p[:, None, 6:]
        where = np.einsum("nij,nkj->nki", linear, others.middles) + shift - middles
        turned = np.einsum("nij,nkjl,nml->nkim", linear, others.spreads, linear) - spreads
        shape = turned[..., UPPER[0], UPPER[1]] / (2 * sizes[:, None])
        return (np.concatenate([where, shape], axis=-1) * counts[..., None]).reshape(len(p), -1)

    p = np.zeros((len(counts), PARAMETERS))
    apart = (middles - others.middles) * counts[..., None]
    p[:, 6:] = apart.sum(axis=1) / number[:, None]
    for _ in range(STEPS):
        now = differences(p)
        slopes = np.stack([(differences(p + e) - now) / 1e-4 for e in 1e-4 * np.eye(PARAMETERS)])
        square = np.einsum("pnr,qnr->npq", slopes, slopes)
        square += DAMPING * (np.trace(square, axis1=1, axis2=2)[:, None, None] + 1) * np.eye(9)
        p = p - np.linalg.solve(square, np.einsum("pnr,nr->np", slopes, now)[..., None])[..., 0]
        p[:, 3:6] = np.clip(p[:, 3:6], -np.log1p(MOST_SCALING), np.log1p(MOST_SCALING))
    residual = np.sqrt((differences(p) ** 2).sum(axis=1) / number)
    affine = np.concatenate([_linear(p), p[:, 6:, None]], axis=2)
    return affine, np.where(counts.any(axis=1), residual, np.inf)


def _linear(p: np.ndarray) -> np.ndarray:
    """(N, 3, 3): scales times the rotation about a vector (Rodrigues)."""
    angle = np.linalg.norm(p[:, :3], axis=1)[:, None, None]
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    nought = np.zeros_like(x)
    cross = np.array([[nought, -z, y], [z, nought, -x], [-y, x, nought]]).transpose(2, 0, 1)
    first, second = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.exp(p[:, 3:6])[:, :, None] * (np.eye(3) + first * cross + second * cross @ cross)


def brought(heart: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A heart under (3, 4) ``affine``, voxels from the middle, as augmentation moves hearts."""
    import torch

    back = np.linalg.inv(np.vstack([affine, [0, 0, 0, 1]]))[:3]
    back[:, 3] /= heart.shape[0] / 2  # torch counts from -1 to 1, the last axis first
    matrix = np.column_stack([back[::-1, 2::-1], back[::-1, 3]])
    return resampled(torch.from_numpy(heart), torch.from_numpy(matrix[None]).float()).numpy()


def aligned_distances(
    hearts: HeartSet, train: HeartSet, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) 1 - Dice to the two nearest training hearts, each brought over the heart before, and
    (N,) the number of the nearest.

    Of a single training heart both are the same.
    """
    here, there = Moments.of(hearts, threads), Moments.of(train, threads)

    def nearest(row: int) -> tuple[np.ndarray, int]:
        affine, residual = fits(here, row, there)
        best = np.argsort(residual)[:CANDIDATES]
        moved = [brought(train.hearts[i], affine[i]) for i in best]
        found = dice_distances(hearts.of([row]), HeartSet(moved, train.known[best]))[0]
        order = np.argsort(found, kind="stable")
        return found[order[[0, min(1, len(found) - 1)]]], int(best[order[0]])

    away = in_threads(nearest, range(len(hearts)), threads)
    distances, rows = [pair for pair, _ in away], [row for _, row in away]
    return np.array(distances).reshape(-1, 2), np.array(rows, int)


# --- latents -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Latents:
    """Latents of hearts, each channel with mean 0 and deviation 1 over the training hearts.

    generated, test : (N, L, s, s, s) float32.
    train : files of the training hearts, of which every variant counts.
    """

    generated: np.ndarray
    test: np.ndarray
    train: Sequence[Path]
    statistics: LatentStatistics

    def nearest(self) -> dict[str, np.ndarray]:
        """Name -> (N,) root mean square difference to the nearest variant of a training heart."""
        rows = {"generated": self.generated, "test": self.test}
        flat = {name: x.reshape(len(x), -1) for name, x in rows.items()}
        least = {name: np.full(len(x), np.inf) for name, x in flat.items()}
        for path in self.train:
            mu = self.statistics.normalised(load_latents(path)["mu"]).flatten(1).numpy()
            for name, x in flat.items():
                square = (x**2).sum(1)[:, None] - 2 * x @ mu.T + (mu**2).sum(1)
                least[name] = np.minimum(least[name], square.min(axis=1))
        return {n: np.sqrt(np.maximum(x, 0) / flat[n].shape[1]) for n, x in least.items()}


def space_of(statistics: LatentStatistics) -> dict[str, Any]:
    """What the latents of samples are deviations of, as their metrics.json says it: a training has
    statistics of its own where the scale is given by hand, or cases lack a class."""
    return {
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "autoencoder_sha256": statistics.autoencoder_sha256,
    }


def load_latents_of(
    samples: Sequence[Path],
    test: Sequence[Path],
    train: Sequence[Path],
    statistics: Path,
    listed: Path | None = None,
) -> Latents | None:
    """The latents of files; None where samples have none, or those of another autoencoder.

    listed : metrics.json of the samples; those of an earlier version do not say :func:`space_of`,
        which is taken to be that of ``statistics``.
    """
    if not (samples and test and train) or not all(p.is_file() for p in [*samples, statistics]):
        return None
    import torch

    known = LatentStatistics.load(statistics)
    found = [SAMPLE.load(path)["latents"] for path in samples]
    if any(latents.shape != tuple(known.shape) for latents in found):
        return None
    made = np.stack(found)
    if listed is not None and (space := _listed_space(listed, len(known.mean))) is not None:
        if space["autoencoder_sha256"] != known.autoencoder_sha256:
            return None
        if space != space_of(known):
            own = replace(known, mean=tuple(space["mean"]), std=tuple(space["std"]))
            made = known.normalised(own.denormalised(torch.from_numpy(made))).numpy()
    tested = [known.normalised(load_latents(path)["mu"][:1]).numpy() for path in test]
    return Latents(made, np.concatenate(tested), train, known)


def _listed_space(path: Path, channels: int) -> dict[str, Any] | None:
    """What a metrics.json says of :func:`space_of`; None where it says nothing."""
    space = read_json(path).get("latent_space")
    if space is None:
        return None
    try:
        numbers = np.array([space["mean"], space["std"]], float)
        fits = numbers.shape == (2, channels) and bool(np.isfinite(numbers).all())
        fits &= isinstance(space["autoencoder_sha256"], str)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(problem(path, "has a damaged latent_space", again("sample_diffusion")))
    return space


# --- figures -----------------------------------------------------------------------------


def memorisation(
    sets: Mapping[str, HeartSet],
    train: HeartSet,
    latents: Latents | None = None,
    threads: int = 1,
) -> dict:
    """How near the hearts of each set lie to the nearest training heart, and which are copies.

    Of each set ``mean`` and ``least`` of 1 - Dice to the nearest training heart as they lie, and
    the same of what tells a copy:

    aligned : 1 - Dice, each training heart brought over the heart before.
    ratio : that, relative to the next nearest training heart.
    latent : root mean square difference of latents, to any variant of a training heart.

    ``copies`` is the share of the set that falls below the bound of any of them (:func:`bound`),
    which test hearts and the autoencoder's reconstructions of them set: no model saw them.
    ``nearest`` has, for each generated heart, the number of the training heart that is nearest to
    it once it is aligned, and that distance.
    ``z_u`` compares the whole sets (:func:`z_u`): the aligned distances of a set with those of the
    test hearts.

    sets : ``generated``, ``test`` and ``autoencoder``, and others to compare them with.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    rows_of: dict[str, np.ndarray] = {}
    for name, hearts in sets.items():
        distances, rows_of[name] = aligned_distances(hearts, train, threads)
        first, second = distances.T
        found[name] = {"aligned": first, "ratio": first / np.maximum(second, LEAST)}
    if latents is not None:
        for name, values in latents.nearest().items():
            found[name]["latent"] = values
    unseen = [found["test"], found["autoencoder"]]
    bounds = {
        key: min(bound(row[key]) for row in unseen if key in row) for key in found["generated"]
    }
    result: dict = {}
    for name, rows in found.items():
        near = np.any([values < bounds[key] for key, values in rows.items()], axis=0)
        plain = dice_distances(sets[name], train).min(axis=1)
        figures = {key: _figures(values) for key, values in rows.items()}
        result[name] = {**_figures(plain), **figures, "copies": float(near.mean())}
    away = found["generated"]["aligned"].tolist()
    nearest = [
        {"number": row, "distance": value}
        for row, value in zip(rows_of["generated"].tolist(), away)
    ]
    tested = found["test"]["aligned"]
    return {
        **result,
        "bounds": bounds,
        "copies": result["generated"]["copies"],
        "nearest": nearest,
        "z_u": {n: z_u(rows["aligned"], tested) for n, rows in found.items() if n != "test"},
    }


def _figures(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "least": float(values.min())}


def bound(values: np.ndarray) -> float:
    """What one in a hundred hearts falls short of that no model saw, as some of them show it: of
    a normal distribution of the logarithm, since the least of a few is a matter of chance."""
    logs = np.log(np.maximum(values, LEAST))
    return float(np.exp(logs.mean() - ONE_PERCENT * logs.std(ddof=1)))


def z_u(made: np.ndarray, unseen: np.ndarray) -> float:
    """Whether a set lies nearer to the training hearts than hearts do that no model saw.

    The Mann-Whitney test of distances to the nearest training heart (Meehan et al., "A
    Non-Parametric Test to Detect Data-Copying in Generative Models", AISTATS 2020), in standard
    deviations: 0 where both are as near; below -2 the set is nearer than chance explains.

    made, unseen : (N,) and (M,) distances.
    """
    below = (made[:, None] < unseen).sum() + (made[:, None] == unseen).sum() / 2
    n, m = len(made), len(unseen)
    return float((n * m / 2 - below) / np.sqrt(n * m * (n + m + 1) / 12))


def lines_of_copies(found: Mapping) -> list[str]:
    """The figures as lines of text."""
    rows = {name: row for name, row in found.items() if isinstance(row, Mapping) and "mean" in row}
    lines = []
    for key, value in found["bounds"].items():
        cells = [f"{name} {row[key]['mean']:.3f}" for name, row in rows.items() if key in row]
        lines.append(f"{WHAT[key]}: {', '.join(cells)}; a copy is below {value:.3f}")
    shares = [f"{name} {row['copies']:.0%}" for name, row in rows.items()]
    if apart := found.get("z_u"):
        cells = [f"{name} {value:.1f}" for name, value in apart.items()]
        lines.append(f"Z_U (below -2: nearer to training than test hearts are): {', '.join(cells)}")
    return [*lines, f"copies: {', '.join(shares)}"]
