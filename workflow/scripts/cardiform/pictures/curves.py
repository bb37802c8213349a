"""Plots of a training: its course from metrics.jsonl, and the use of a codebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError, problem
from ..files import atomic_path

COLUMNS = 3
PANEL = (4.2, 2.9)  # inches
MANY = 10  # the usual colours repeat after these
# From this many figures on, those with the same first word share a panel: dice_aorta, dice_pa, ...
GROUP_SIZE = 3

# name -> [(step, value), ...]
Series = Mapping[str, Sequence[tuple[int, float]]]


def read_events(path: str | Path) -> tuple[Series, Series]:
    """Training and validation figures over the steps; the learning rate is one of the first.

    Raises
    ------
    InputError
        No such file, or a line that is no event.
    """
    series: dict[str, dict[str, list[tuple[int, float]]]] = {"log": {}, "validation": {}}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        for event in map(json.loads, lines):
            if event["event"] in series:
                rate = {"lr": event["lr"]} if "lr" in event else {}
                for name, value in {**event["figures"], **rate}.items():
                    if value is not None:
                        points = series[event["event"]].setdefault(name, [])
                        points.append((event["step"], value))
    except OSError as error:
        fact = error.strerror or str(error)
        raise InputError(problem(path, fact, "run the training first")) from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            problem(path, f"is no log of a training ({error!r})", "run the training again")
        ) from None
    return series["log"], series["validation"]


def panels(names: Sequence[str]) -> dict[str, list[str]]:
    """Panel title -> figures in it: alone, but together with others of the same first word."""
    words: dict[str, list[str]] = {}
    for name in names:
        words.setdefault(name.split("_")[0], []).append(name)
    result: dict[str, list[str]] = {}
    for word, members in words.items():
        if len(members) >= GROUP_SIZE:
            result[word] = members
        else:
            result |= {name: [name] for name in members}
    return result


def plot_curves(metrics: str | Path, picture: str | Path) -> None:
    """Draw every figure of a metrics.jsonl over the steps, training and validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training, validation = read_events(metrics)
    groups = panels(list(dict.fromkeys([*training, *validation])))
    rows = max(1, -(-len(groups) // COLUMNS))
    width, height = PANEL
    figure = Figure(figsize=(width * COLUMNS, height * rows), dpi=100)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    # Fixed rims, not matplotlib's constrained layout, which takes longer than the drawing.
    for place, axes in enumerate(grid):
        row, column = divmod(place, COLUMNS)
        x, y = (column + 0.15) / COLUMNS, 1 - (row + 0.86) / rows
        axes.set_position((x, y, 0.82 / COLUMNS, 0.74 / rows))
    for axes, (title, names) in zip(grid, groups.items()):
        _panel(axes, title, names, training, validation)
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def plot_usage(counts: Sequence[int], picture: str | Path) -> None:
    """Draw how often each code occurs, the most used first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.fill_between(range(len(counts)), sorted(counts, reverse=True), step="pre")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("code, most used first")
    axes.set_ylabel("latents")
    used = sum(count > 0 for count in counts)
    axes.set_title(f"{used:,} of {len(counts):,} codes are used", fontsize=10)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _panel(axes, title: str, names: Sequence[str], training: Series, validation: Series) -> None:
    if len(names) > MANY:
        from matplotlib import color_sequences

        axes.set_prop_cycle(color=color_sequences["tab20"])
    for name in names:
        label = name.removeprefix(title + "_") if len(names) > 1 else ""
        if name in training:
            axes.plot(*zip(*training[name]), lw=1, label=label or "training")
        if name in validation:
            style = {"lw": 1} if len(names) > 1 else {"lw": 0, "color": "k"}
            axes.plot(*zip(*validation[name]), "o-", ms=3, label=label or "validation", **style)
    values = [v for name in names for s in (training, validation) for _, v in s.get(name, ())]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10, y=1.0)  # its place is given: no search for one
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=2 if len(names) > 4 else 1)
