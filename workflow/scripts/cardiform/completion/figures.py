"""Figures of classes that a model made from the others, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..files import read_json, write_json
from ..geometry.field_of_view import cuts_of, seen_only
from ..geometry.mask_surface import class_surfaces
from ..labels import LabelClass, LabelTable
from ..metrics.overlap import overlap
from ..metrics.summary import mean
from ..pictures.figures import compare_picture
from ..tables import names_width
from ..volumes import LabelMap, load_label_map, save_like

METHODS = ("model", "mean_shape")


class MadeAgain:
    """The classes of one case, each made from the others, beside what was there.

    table : the classes that the model knows.
    """

    def __init__(self, case: Case, table: LabelTable):
        self.case, self.label_map = case, load_label_map(case.labels)
        self.present = [c for c in table if (self.label_map.data == c.value).any()]
        self.figures: dict = {}
        self._cuts = cuts_of(self.label_map, table, case)
        self._together = np.zeros_like(self.label_map.data)

    @property
    def requests(self) -> list[list[str]]:
        """The names that are made in turn; none where nothing else would be known."""
        return [[c.name] for c in self.present] if len(self.present) > 1 else []

    def add(
        self, name: str, made: np.ndarray, baseline: np.ndarray, draws: Sequence[np.ndarray] = ()
    ) -> None:
        """Label maps (X, Y, Z) uint8 in which one class was made again.

        baseline : by the mean shape.    draws : single draws, where ``made`` is their mean.
        """
        label = next(c for c in self.present if c.name == name)
        self.figures[name] = {
            **({"cut": True} if label.value in self._cuts else {}),
            **{m: self._measured(label, data) for m, data in zip(METHODS, (made, baseline))},
            **({"draws": [self._measured(label, data) for data in draws]} if draws else {}),
        }
        self._together[(made == label.value) & (self._together == 0)] = label.value

    def write(self, out: Path) -> list[Path]:
        """``out/<case>.json`` (Dice and volume error of each class on the label map's own grid),
        ``<case>.nii.gz`` (every class as it was made from the others) and ``<case>.png``.

        A case with a single class has no figures. Figures of a class that the scan cuts say so
        (``cut``).
        """
        name = self.case.case_id
        paths = [out / f"{name}{ending}" for ending in (".json", ".nii.gz", ".png")]
        write_json(paths[0], self.figures)
        if not self.figures:
            return paths[:1]
        save_like(paths[1], self._together, self.case.labels)
        dice = mean(row["model"]["dice"] for row in self.figures.values())
        compare_picture(
            paths[2],
            *(
                class_surfaces(LabelMap(d, self.label_map.affine), self.present)
                for d in (self.label_map.data, self._together)
            ),
            titles=("Given", "Made from the others"),
            legend={c.title: c.color for c in self.present},
            caption=f"{name}: each class made from the others, mean Dice {dice:.3f}",
        )
        return paths

    def _measured(self, label: LabelClass, data: np.ndarray) -> dict:
        """Dice and volume error of one class, where the scan shows it."""
        seen = seen_only(data, self.label_map.affine, self._cuts)
        row = overlap(self.label_map.data, seen, LabelTable((label,)))[label.name]
        return {k: row[k] for k in ("dice", "volume_error")}


def summarise(names: Sequence[str], out: Path, classes: Sequence[str]) -> dict:
    """Means over the cases, per class and method; the size of the volume error counts.

    ``draws``, where there were several, are the model's single draws: means, and how far the means
    of the draws spread (``dice_spread``), and the draws of one case (``dice_spread_in_a_case``).
    Where the scans cut a class it counts in ``cut`` alone, which is missing without any.
    """
    cases = {name: read_json(out / f"{name}.json") for name in names}
    means: dict = {}
    cut: dict = {}
    for label in classes:
        rows = [figures[label] for figures in cases.values() if label in figures]
        means[label] = _means([row for row in rows if not row.get("cut")])
        if hidden := [row for row in rows if row.get("cut")]:
            cut[label] = _means(hidden)
    return {"mean": means, **({"cut": cut} if cut else {}), "cases": cases}


def _means(rows: Sequence[Mapping]) -> dict:
    """Means of figures of one class, by method, and what single draws of the model reach."""
    result: dict = {method: _mean_of([row[method] for row in rows]) for method in METHODS}
    drawn = [row["draws"] for row in rows if "draws" in row]
    if drawn and len({len(draws) for draws in drawn}) == 1:
        by_draw = [_mean_of(cases) for cases in zip(*drawn)]
        dice = [[draw["dice"] for draw in draws] for draws in drawn]
        result["draws"] = {
            "number": len(by_draw),
            "dice": mean(row["dice"] for row in by_draw),
            "volume_error": mean(row["volume_error"] for row in by_draw),
            "dice_spread": float(np.std([row["dice"] for row in by_draw])),
            "dice_spread_in_a_case": float(np.mean(np.std(dice, axis=1))),
        }
    return result


def _mean_of(rows: Sequence[Mapping]) -> dict:
    return {
        "dice": mean(row["dice"] for row in rows),
        "volume_error": mean(abs(row["volume_error"]) for row in rows),
    }


def table_of_summary(figures: Mapping) -> list[str]:
    """What :func:`summarise` found as lines of text; cut classes have rows of their own."""
    cut = {f"{name}, cut": row for name, row in figures.get("cut", {}).items()}
    return table_of_figures(figures["mean"] | cut)


def table_of_figures(means: Mapping) -> list[str]:
    """The means as lines of text."""
    width = names_width(means)
    head = f"{'made from the others':{width}}{'Dice':>7}{'|vol|':>7}{'mean shape':>12}{'|vol|':>7}"
    drawn = any("draws" in row for row in means.values())
    lines = [head + (f"{'one draw':>16}{'in a case':>11}" if drawn else "")]
    for name, row in means.items():
        cells = [row[m][k] for m in METHODS for k in ("dice", "volume_error")]
        texts = ["-" if v is None else f"{v:.3f}" for v in cells]
        line = f"{name:{width}}{texts[0]:>7}{texts[1]:>7}{texts[2]:>12}{texts[3]:>7}"
        if draws := row.get("draws"):
            one = f"{draws['dice']:.3f} ±{draws['dice_spread']:.3f}"
            line += f"{one:>16}{'±' + format(draws['dice_spread_in_a_case'], '.3f'):>11}"
        lines.append(line)
    return lines
