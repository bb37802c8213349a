"""A figure of every case and class, with means and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import atomic_path

INK, DOTS = "#2f3640", "tab10"
WIDTH = 0.36  # of the strip in which the cases of a class lie side by side


def plot_spread(
    path: Path, cases: Sequence[Mapping], means: Sequence[Mapping], figure: str
) -> None:
    """A row per class: its cases as dots, coloured by fold; mean and 95 % interval in black.

    cases : rows of metrics.folds.CASE_COLUMNS.    means : rows of metrics.folds.COLUMNS.
    figure : the one that is drawn; a picture without rows where no case has it.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in means if row["figure"] == figure]
    names = [row["class"] for row in rows]
    picture = Figure(figsize=(6.4, 1.1 + 0.36 * len(names)), dpi=150, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots()
    folds = list(dict.fromkeys(row["fold"] for row in cases))
    found = [row for row in cases if row["figure"] == figure]
    for place, row in enumerate(rows):
        own = [case for case in found if case["class"] == row["class"]]
        for number, case in enumerate(own):
            height = place + WIDTH * (number / max(len(own) - 1, 1) - 0.5)
            color = colormaps[DOTS](folds.index(case["fold"]) % 10)
            axes.plot(case["value"], height, "o", ms=3, mew=0, alpha=0.6, color=color)
        if row["low_95"] is not None:
            axes.plot([row["low_95"], row["high_95"]], [place, place], lw=2, color=INK)
        axes.plot(row["mean"], place, "D", ms=4.5, color=INK, zorder=3)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(figure.replace("_", " "), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    with atomic_path(path) as temporary:
        picture.savefig(temporary, format="png", metadata={"Software": None})
