"""Figures of generated hearts, each beside its references."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..anatomy.validity import ANY_NUMBER, Anatomy
from ..metrics.summary import mean
from ..options.ldm import GenerationOptions
from .copies import Latents, lines_of_copies, memorisation
from .data import warped
from .hearts_on_grid import Grid
from .set_figures import (
    Block,
    HeartSet,
    SurfacePoints,
    in_threads,
    mean_over_classes,
    nearest_distances,
    set_figures,
    typical_distances,
    validity,
    volume_figures,
)

log = logging.getLogger(__name__)

MISSING_SHARE = 1 / 8  # of the grid's edge: how far away a class is that one of two hearts lacks
DRAWS = 10  # of equal sets, where there are more hearts than the smallest set has
POOL = 2  # times as many hearts as a set has are drawn from
# In the order of the table
TITLES = {
    "train_subset": "training",
    "reconstructed_train": "the same, coded",
    "autoencoder": "test, coded",
    "warped_train": "warped training",
    "generated": "generated",
}
Hearts = Sequence[np.ndarray]
Cuts = Sequence["np.ndarray | None"]
Rows = Mapping[str, np.ndarray]  # name of a set -> which of its hearts a draw takes


@dataclass(frozen=True)
class References:
    """Real hearts, and what stands beside the generated ones.

    train, test : hearts of the split.
    reconstructed : the autoencoder's reconstructions of the test hearts.
    cut_train, cut_test : per heart (classes,) bool of what the scan cuts, None where nothing;
        empty: nothing at all.
    reconstructed_train : of the training hearts, the ceiling of all that is decoded: what a perfect
        diffusion would make. Empty where there are none of some.
    """

    train: Hearts
    test: Hearts
    reconstructed: Hearts
    cut_train: Cuts = ()
    cut_test: Cuts = ()
    reconstructed_train: Hearts = ()

    def sets(self, made: Hearts, grid: Grid, options: GenerationOptions) -> dict[str, HeartSet]:
        """Name -> hearts of every row of the table and of ``test``, of which draws are taken.

        Training hearts and their reconstructions are the same hearts, and so are test hearts and
        theirs.
        """
        import torch

        classes = len(grid.table)
        number = self.number(made)
        train = HeartSet.real(self.train, classes, self.cut_train)
        test = HeartSet.real(self.test, classes, self.cut_test)
        rng = np.random.default_rng(options.seed)
        order = rng.permutation(len(train))
        picks = rng.integers(len(train), size=number)
        amplitude = options.warp_mm / grid.spacing
        warps = [warped(torch.from_numpy(self.train[i]), amplitude, rng).numpy() for i in picks]
        pool = slice(0, POOL * number)
        subset, tested = order[pool], np.arange(len(test))
        if len(test) > POOL * number:
            tested = rng.permutation(len(test))[pool]
        coded = [self.reconstructed_train[i] for i in subset if self.coded]
        return {
            "train_subset": train.of(subset),
            **({"reconstructed_train": HeartSet(coded, train.known[subset])} if coded else {}),
            "autoencoder": HeartSet(self.reconstructed, test.known).of(tested),
            "warped_train": HeartSet(warps, train.known[picks]),
            "generated": HeartSet.generated(made[pool], classes),
            "test": test.of(tested),
        }

    @property
    def coded(self) -> bool:
        """Whether every training heart has a reconstruction."""
        return len(self.reconstructed_train) == len(self.train)

    def number(self, made: Hearts) -> int:
        """Hearts of each set: as many as the smallest has."""
        return min(len(made), len(self.test), len(self.train))


def draws_of(sets: Mapping[str, HeartSet], number: int, seed: int) -> list[Rows]:
    """Draws of ``number`` hearts of each set; a single one where none has more.

    Reconstructions are drawn with the hearts that they are of.
    """
    if all(len(hearts) == number for hearts in sets.values()):
        return [{name: np.arange(number) for name in sets}]
    rng = np.random.default_rng((seed, number))
    result: list[Rows] = []
    for _ in range(DRAWS):
        rows = {
            name: rng.permutation(len(hearts))[:number]
            if len(hearts) > number
            else np.arange(number)
            for name, hearts in sets.items()
        }
        rows["autoencoder"] = rows["test"]
        if "reconstructed_train" in rows:
            rows["reconstructed_train"] = rows["train_subset"]
        result.append(rows)
    return result


def evaluate(
    made: Hearts,
    references: References,
    grid: Grid,
    options: GenerationOptions,
    latents: Latents | None = None,
    threads: int = 1,
) -> dict:
    """Set figures, volumes, validity and nearness to the training hearts, row by row.

    All sets are of one size; where some have more hearts, the figures are means over several draws.
    What is not annotated, or cut by the scan, counts nowhere.

    latents : of the generated, test and training hearts, to look for copies among them too.
    """
    sets = references.sets(made, grid, options)
    number, classes = references.number(made), len(grid.table)
    draws = draws_of(sets, number, options.seed)
    train = HeartSet.real(references.train, classes, references.cut_train)
    anatomy = Anatomy.of(zip(train.hearts, train.known), grid.table.usual_parts)
    result: dict = {
        "hearts": dict.fromkeys(sets, number),
        "hearts_of": {"generated": len(made), "train": len(train), "test": len(references.test)},
        "draws": len(draws),
    }
    loose = [n for n, p in zip(grid.table.names, anatomy.parts) if p == ANY_NUMBER]
    if notes := _notes(made, references, loose):
        result["notes"] = notes
    blocks = {name: _blocks(sets, name, draws) for name in sets if name != "test"}
    compare = _Comparison(grid, options, threads)
    real = compare.points(sets["test"])
    of_all = [
        [pair["real"] for found in blocks.values() for pair in found[k]] for k in range(classes + 1)
    ]
    among_real = compare.nearest((real, sets["test"]), (real, sets["test"]), of_all)
    away = np.where(np.eye(len(real), dtype=bool)[..., None], np.nan, among_real)
    typical = typical_distances(away)
    for name, hearts in sets.items():
        if name == "test":
            continue
        log.info("distances of %s", name)
        points = compare.points(hearts)
        to_real, among = (
            compare.nearest(
                (points, hearts), other, [[pair[k] for pair in part] for part in blocks[name]]
            )
            for k, other in (("to_real", (real, sets["test"])), ("made", (points, hearts)))
        )
        result[name] = {
            **_sets((to_real, among, among_real), typical, blocks[name], grid.table.names),
            "validity": validity(hearts, anatomy, threads),
        }
        _add(result[name], "volumes", _volumes(hearts, sets["test"], name, draws, grid))
    result["generated"]["validity_of_all"] = validity(
        HeartSet.generated(made, classes), anatomy, threads
    )
    result |= _left_out(references, classes, grid.table.names)
    compared = {
        "generated": HeartSet.generated(made, classes),
        "test": HeartSet.real(references.test, classes, references.cut_test),
        **{n: sets[n] for n in ("reconstructed_train",) if n in sets},
    }
    compared["autoencoder"] = HeartSet(references.reconstructed, compared["test"].known)
    result["memorisation"] = memorisation(compared, train, latents, threads)
    return result


@dataclass(frozen=True)
class _Comparison:
    """How hearts are compared."""

    grid: Grid
    options: GenerationOptions
    threads: int

    def points(self, hearts: HeartSet) -> list[SurfacePoints]:
        classes, spacing = len(self.grid.table), self.grid.spacing
        number, seed = self.options.points, self.options.seed
        return in_threads(
            lambda heart: SurfacePoints.of(heart, classes, spacing, number, seed),
            hearts.hearts,
            self.threads,
        )

    def nearest(self, rows, columns, blocks) -> np.ndarray:
        """Of (points, hearts) each."""
        common = rows[1].known[:, None] & columns[1].known[None]
        missing = self.grid.edge_mm * MISSING_SHARE
        return nearest_distances(rows[0], columns[0], missing, common, blocks, self.threads)


def _blocks(
    sets: Mapping[str, HeartSet], name: str, draws: Sequence[Rows]
) -> list[list[dict[str, Block]]]:
    """For each class, and last for all of them together, and for each draw: the parts of the three
    matrices of distances. In a class equal numbers of hearts that are known in it count."""
    known = [
        np.column_stack([hearts.known, hearts.known.any(axis=1)])  # last: anything at all
        for hearts in (sets[name], sets["test"])
    ]
    result: list[list[dict[str, Block]]] = []
    for k in range(known[0].shape[1]):
        parts = []
        for draw in draws:
            rows, columns = draw[name], draw["test"]
            rows, columns = rows[known[0][rows, k]], columns[known[1][columns, k]]
            number = min(len(rows), len(columns))
            rows, columns = rows[:number], columns[:number]
            parts.append(
                {"to_real": (rows, columns), "made": (rows, rows), "real": (columns, columns)}
            )
        result.append(parts)
    return result


def _sets(matrices, typical: np.ndarray, blocks, names: Sequence[str]) -> dict:
    """Set figures of each class, and of the mean distance over the classes; means over the draws,
    of the latter their deviation too.

    matrices : to_real, made and real, (., ., classes) mm.
    """
    classes = {}
    for k, name in enumerate(names):
        if min(len(draw["to_real"][0]) for draw in blocks[k]) >= 2:
            classes[name] = _mean([_one_draw([m[..., k] for m in matrices], d) for d in blocks[k]])
    together = [mean_over_classes(m, typical) for m in matrices]
    found = [_one_draw(together, draw) for draw in blocks[len(names)]]
    result = {"classes": classes, "all_classes": _mean(found)}
    if len(found) > 1 and all(row["mmd"] is not None for row in found):
        result["spread"] = {key: float(np.std([f[key] for f in found])) for key in found[0]}
    return result


def _one_draw(matrices, draw: Mapping[str, Block]) -> dict:
    parts = [m[np.ix_(*draw[k])] for m, k in zip(matrices, ("to_real", "made", "real"))]
    return set_figures(*parts)


def _mean(rows: Sequence[Mapping]) -> dict:
    return {key: mean(row[key] for row in rows) for key in rows[0]}


def _volumes(hearts: HeartSet, test: HeartSet, name: str, draws, grid: Grid) -> dict:
    """Figures of the volumes of two sets of hearts, means over the draws."""
    voxel = grid.spacing**3 / 1000
    made, real = (
        np.array([np.bincount(h.ravel(), minlength=len(grid.table) + 1)[1:] for h in s.hearts])
        * np.where(s.known, voxel, 0.0)  # without a volume it does not count
        for s in (hearts, test)
    )
    classes, means = {}, []
    for k, label in enumerate(grid.table.names):
        rows = [volume_figures(made[d[name], k], real[d["test"], k]) for d in draws]
        classes[label] = _mean(rows)
        means.append([row["w1"] for row in rows])
    by_draw = [mean(column) for column in zip(*means)]
    result: dict = {"classes": classes, "mean_w1": mean(row["w1"] for row in classes.values())}
    known = [value for value in by_draw if value is not None]
    if len(draws) > 1 and len(known) == len(draws):
        result["spread"] = {"mean_w1": float(np.std(known))}
    return result


def _add(row: dict, key: str, found: dict) -> None:
    """Put figures into a row, their spread beside that of the others."""
    row.setdefault("spread", {}).update(found.pop("spread", {}))
    row[key] = found
    if not row["spread"]:
        del row["spread"]


def _notes(made: Hearts, references: References, loose: Sequence[str]) -> list[str]:
    """What a reader of the figures should know of the sets.

    loose : classes that may have any number of parts.
    """
    notes = []
    wanted = min(len(references.test), len(references.train))
    if len(made) < wanted:
        notes.append(
            f"{len(made)} samples for {len(references.test)} test hearts: sets of {len(made)} are "
            f"compared; sampling.num_samples={wanted} or more makes the most of the test hearts"
        )
    if not references.coded:
        notes.append(
            "no reconstructions of training hearts, so no row of them: encode_latents of this "
            "version writes them"
        )
    if loose:
        notes.append(
            f"{', '.join(loose)}: more than a tenth of the training hearts have another number of "
            "parts on this grid than the label table expects, so the number is no rule of validity"
        )
    for note in notes:
        log.warning(note)
    return notes


def _left_out(references: References, classes: int, names: Sequence[str]) -> dict:
    """How many hearts the scan cuts a class of, and how many lack it; nothing where none."""
    result: dict = {}
    for part, hearts, cuts in (
        ("train", references.train, references.cut_train),
        ("test", references.test, references.cut_test),
    ):
        lacking = (~HeartSet.real(hearts, classes).known).sum(axis=0)
        cut = np.sum([np.zeros(classes, int), *(c for c in cuts if c is not None)], axis=0)
        for key, counts in (("cut", cut), ("not_annotated", lacking)):
            if counts.any():
                result.setdefault(key, {})[part] = dict(zip(names, counts.tolist()))
    return result


def table_of_figures(figures: Mapping) -> list[str]:
    """The rows as lines of text; after ± the deviation over the draws."""
    lines = [f"{'':17}{'MMD mm':>12}{'COV':>12}{'1-NNA':>12}{'vol. W1/sd':>12}{'valid':>7}"]
    for name, title in TITLES.items():
        if name not in figures:
            continue
        row = figures[name]
        cells = {**row["all_classes"], "mean_w1": row["volumes"]["mean_w1"]}
        spread = row.get("spread", {})
        texts = [_cell(value, spread.get(key)) for key, value in cells.items()]
        valid = _cell(row["validity"]["valid"])
        lines.append(f"{title:17}" + "".join(f"{t:>12}" for t in texts) + f"{valid:>7}")
    sizes = ", ".join(f"{k} {n}" for k, n in figures["hearts_of"].items())
    draws = f", means of {figures['draws']} draws" if figures["draws"] > 1 else ""
    lines.append(f"sets of {figures['hearts']['test']} hearts (there are: {sizes}){draws}")
    for key, title in (("cut", "cut by the scan"), ("not_annotated", "not annotated")):
        for part, counts in figures.get(key, {}).items():
            listed = ", ".join(f"{name} {number}" for name, number in counts.items() if number)
            lines.append(f"{title}, counted nowhere: {part} hearts, {listed}")
    return lines + lines_of_copies(figures["memorisation"])


def _cell(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + (f" ±{spread:.2f}" if spread is not None else "")
