"""The course of a search as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..files import atomic_path
from ..options.search import SearchOptions
from .results import Tried
from .space import Dimension, text_of

COLUMNS = 3
PANEL = (4.2, 3.0)  # inches
TICKS = 4  # of a logarithm that may span less than a decade
INK, BEST, GIVEN, OTHERS = "#2f3640", "#b5533c", "#33658a", "#b9bec5"


def plot_search(
    path: Path, tried: Sequence[Tried], space: Sequence[Dimension], options: SearchOptions
) -> None:
    """Figures over the steps, a line a trial; and after the first rung over each setting.

    tried : the best first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(space) + 1
    rows = -(-count // COLUMNS)
    size = (PANEL[0] * min(count, COLUMNS), PANEL[1] * rows)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, min(count, COLUMNS), squeeze=False).ravel()
    shown = [trial for trial in tried if trial.rungs]
    _course(grid[0], shown, options)
    for axes, dimension in zip(grid[1:], space):
        _setting(axes, shown, dimension, options)
    for axes in grid[count:]:
        axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _color(trial: Tried) -> str:
    if trial.rank == 1 and not trial.diverged:
        return BEST
    return GIVEN if trial.number == 0 else OTHERS


def _course(axes, shown: Sequence[Tried], options: SearchOptions) -> None:
    for trial in reversed(shown):
        label = "config" if trial.number == 0 else None
        if trial.rank == 1 and not trial.diverged:
            label = f"best: trial {trial.number}"
        steps, figures = zip(*trial.rungs)
        axes.plot(steps, figures, "o-", ms=4, lw=1.2, color=_color(trial), label=label)
    axes.set_xlabel("best validation up to step", fontsize=8)
    axes.set_ylabel(options.figure, fontsize=8)
    axes.set_title(f"{options.training}: {options.trials} trials", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    _scale(axes, [figure for trial in shown for _, figure in trial.rungs])


def _setting(axes, shown: Sequence[Tried], dimension: Dimension, options: SearchOptions) -> None:
    """Each trial's figure of the first rung over its value; large where it went on."""
    found = [trial.options[dimension.name] for trial in shown]
    if dimension.values:
        names = list(dict.fromkeys(map(text_of, (*dimension.values, *found))))
        places = [names.index(text_of(value)) for value in found]
        axes.set_xticks(range(len(names)), names)
    else:
        places = found
        if dimension.log and found and min(found) > 0:
            axes.set_xscale("log")
            ratio = max(found) / min(found)
            ticks = [min(found) * ratio ** (k / TICKS) for k in range(TICKS + 1)]
            axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axes.set_xticks([], minor=True)
    figures = [trial.rungs[0][1] for trial in shown]
    sizes = [14 + 22 * (len(trial.rungs) - 1) for trial in shown]
    axes.scatter(places, figures, s=sizes, c=[*map(_color, shown)], edgecolors=INK, linewidths=0.5)
    axes.set_title(dimension.name, fontsize=10)
    axes.set_ylabel(f"{options.figure} up to step {options.rungs[0]}", fontsize=8)
    _scale(axes, figures)


def _scale(axes, figures: Sequence[float]) -> None:
    if figures and min(figures) > 0 and max(figures) > 5 * min(figures):
        axes.set_yscale("log")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
