"""Figures of generated hearts, each beside its references."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import together
from ..metrics.summary import mean
from ..options.ldm import GenerationOptions
from .data import load_shape, warped
from .hearts_on_grid import Grid
from .set_figures import (
    Anatomy,
    SurfacePoints,
    dice_distances,
    distances,
    set_figures,
    validity,
    volume_figures,
)

log = logging.getLogger(__name__)

MISSING_SHARE = 1 / 8  # of the grid's edge: how far away a class is that one of two hearts lacks
Hearts = Sequence[np.ndarray]
Cuts = Sequence["np.ndarray | None"]


def load_hearts(paths: Sequence[Path], grid: Grid) -> list[np.ndarray]:
    """Channels of hearts on the grid; of a field what is above 0.5."""
    shapes = together(*(functools.partial(load_shape, path, grid) for path in paths))
    hearts = [shape.numpy() for shape in shapes]
    return hearts if grid.has_classes else [(h > 0.5).astype(np.uint8) for h in hearts]


@dataclass(frozen=True)
class References:
    """Real hearts, and what stands beside the generated ones.

    train, test : hearts of the split.
    reconstructed : the autoencoder's reconstructions of the test hearts: the ceiling.
    cut_train, cut_test : per heart (classes,) bool of what the scan cuts, None where nothing;
        empty: nothing at all.
    """

    train: Hearts
    test: Hearts
    reconstructed: Hearts
    cut_train: Cuts = ()
    cut_test: Cuts = ()

    def rows(self, made: Hearts, grid: Grid, options: GenerationOptions) -> dict[str, Hearts]:
        """Name -> hearts of every row of the table, no more than there are test hearts."""
        import torch

        rng, subset, picks = self._drawn(options)
        amplitude = options.warp_mm / grid.spacing
        warps = [warped(torch.from_numpy(self.train[i]), amplitude, rng).numpy() for i in picks]
        return {
            "generated": made[: len(self.test)],
            "train_subset": [self.train[i] for i in subset],
            "warped_train": warps,
            "autoencoder": self.reconstructed,
        }

    def cuts(self, options: GenerationOptions) -> dict[str, Cuts]:
        """What the scans cut of the hearts of :meth:`rows` and of the test hearts."""
        _, subset, picks = self._drawn(options)
        train = self.cut_train or [None] * len(self.train)
        test = self.cut_test or [None] * len(self.test)
        return {
            "generated": [None] * len(self.test),
            "train_subset": [train[i] for i in subset],
            "warped_train": [train[i] for i in picks],
            "autoencoder": test,
            "test": test,
        }

    def _drawn(self, options: GenerationOptions):
        """The generator, and the training hearts of the subset and of the warped ones."""
        rng = np.random.default_rng(options.seed)
        subset = rng.permutation(len(self.train))[: len(self.test)]
        return rng, subset, rng.integers(len(self.train), size=len(self.test))


def evaluate(made: Hearts, references: References, grid: Grid, options: GenerationOptions) -> dict:
    """Set figures, volumes, validity and nearness to the training hearts, row by row.

    What the scans cut counts in no volume and in no validity.
    """
    names = grid.table.names
    rows = references.rows(made, grid, options)
    cuts = references.cuts(options)
    components = [c.components for c in grid.table]
    anatomy = Anatomy.of(references.train, components, references.cut_train)
    real = _points(references.test, grid, options, "test")
    among_real = distances(real, real, grid.edge_mm * MISSING_SHARE)
    result: dict = {"hearts": {**{n: len(h) for n, h in rows.items()}, "test": len(real)}}
    for name, hearts in rows.items():
        points = _points(hearts, grid, options, name)
        log.info("distances of %s", name)
        to_real = distances(points, real, grid.edge_mm * MISSING_SHARE)
        among = distances(points, points, grid.edge_mm * MISSING_SHARE)
        result[name] = {
            **_sets(to_real, among, among_real, names),
            "volumes": _volumes((hearts, cuts[name]), (references.test, cuts["test"]), grid),
            "validity": validity(hearts, anatomy, cuts[name]),
        }
    result["generated"]["validity_of_all"] = validity(made, anatomy)
    counted = {
        part: np.sum([c for c in found if c is not None], axis=0)
        for part, found in (("train", references.cut_train), ("test", references.cut_test))
        if any(c is not None for c in found)
    }
    if counted:
        result["cut"] = {part: dict(zip(names, n.tolist())) for part, n in counted.items()}
    result["memorisation"] = memorisation(made, references, rows["warped_train"], len(names))
    return result


def memorisation(made: Hearts, references: References, warps: Hearts, classes: int) -> dict:
    """1 - Dice to the nearest training heart: generated hearts beside hearts that no model saw.

    The autoencoder smooths, which alone brings hearts closer: its test reconstructions are the
    fair comparison. ``copies`` is the share of generated hearts that lie nearer to a training
    heart than all of those but one in a hundred do.
    """
    result = {}
    nearest = {}
    for name, hearts in {
        "generated": made,
        "test": references.test,
        "autoencoder": references.reconstructed,
        "warped_train": warps,
    }.items():
        nearest[name] = dice_distances(hearts, references.train, classes).min(axis=1)
        result[name] = {"mean": float(nearest[name].mean()), "least": float(nearest[name].min())}
    bound = np.percentile(nearest["autoencoder"], 1)
    return {**result, "copies": float((nearest["generated"] < bound).mean())}


def table_of_figures(figures: Mapping) -> list[str]:
    """The rows as lines of text."""
    lines = [f"{'':14}{'MMD mm':>8}{'COV':>7}{'1-NNA':>7}{'vol. W1/sd':>12}{'valid':>7}"]
    for name in ("train_subset", "autoencoder", "warped_train", "generated"):
        row = figures[name]
        cells = [row["all_classes"][k] for k in ("mmd", "cov", "nna")]
        cells += [row["volumes"]["mean_w1"], row["validity"]["valid"]]
        texts = ["-" if v is None else f"{v:.2f}" for v in cells]
        widths = (8, 7, 7, 12, 7)
        lines.append(f"{name:14}" + "".join(f"{t:>{w}}" for t, w in zip(texts, widths)))
    for part, counts in figures.get("cut", {}).items():
        listed = ", ".join(f"{name} {number}" for name, number in counts.items() if number)
        lines.append(f"cut by the scan, left out of volumes and validity: {part} hearts, {listed}")
    near = figures["memorisation"]
    lines.append(
        "1 - Dice to the nearest training heart: generated {:.3f}, test {:.3f}, reconstructed test "
        "{:.3f}; copies {:.0%}".format(
            *(near[n]["mean"] for n in ("generated", "test", "autoencoder")), near["copies"]
        )
    )
    return lines


def _points(hearts: Hearts, grid: Grid, options: GenerationOptions, name: str):
    return [
        SurfacePoints.of(heart, len(grid.table), grid.spacing, options.points, options.seed)
        for heart in hearts
    ]


def _sets(to_real, among, among_real, names) -> dict:
    """Set figures of each class, and of the mean distance over the classes."""
    classes = {}
    for k, name in enumerate(names):
        parts = [d[..., k] for d in (to_real, among, among_real)]
        if not any(np.isnan(part).any() for part in parts):
            classes[name] = set_figures(*parts)
    together = [np.nanmean(d, axis=-1) for d in (to_real, among, among_real)]
    return {"classes": classes, "all_classes": set_figures(*together)}


def _volumes(made: tuple[Hearts, Cuts], test: tuple[Hearts, Cuts], grid: Grid) -> dict:
    """Figures of the volumes of two sets of hearts, of which cuts are known."""
    voxel = grid.spacing**3 / 1000
    classes = {}
    for k, name in enumerate(grid.table.names, start=1):
        found = [
            np.array(
                [
                    0.0 if cut is not None and cut[k - 1] else (heart == k).sum() * voxel
                    for heart, cut in zip(*hearts)
                ]
            )
            for hearts in (made, test)
        ]
        classes[name] = volume_figures(*found)
    return {"classes": classes, "mean_w1": mean(row["w1"] for row in classes.values())}
