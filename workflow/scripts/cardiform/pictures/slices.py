"""Cross-sections through a heart: what a field says, and the points it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import atomic_path

# Name and the two axes of the unit frame (RAS) that lie in each plane.
PLANES = (("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2)))
PIXELS = 160
SLAB = 0.03  # points so far from the plane are drawn on it, unit frame


def section_picture(
    path: str | Path,
    distances: Callable[[np.ndarray], np.ndarray],
    points: np.ndarray,
    channels: np.ndarray,
    colors: Sequence[str],
    title: str = "",
) -> None:
    """A PNG of three planes through the middle of the unit frame.

    distances : (N, 3) float32 to (N, C), negative inside: the filled areas.
    points, channels : (N, 3) and (N,) surface points and their classes: the dots.
    colors : "#rrggbb" per channel.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    palette = np.array([(1.0, 1.0, 1.0), *(to_rgb(c) for c in colors)])
    figure = Figure(figsize=(12, 4.4), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, (across, up)) in zip(figure.subplots(1, 3), PLANES):
        values = distances(_plane(across, up))
        inside = np.where(values.min(axis=1) < 0, values.argmin(axis=1) + 1, 0)
        axes.imshow(
            0.5 + 0.5 * palette[inside].reshape(PIXELS, PIXELS, 3),
            extent=(-1, 1, -1, 1),
            origin="lower",
        )
        near = np.abs(points[:, 3 - across - up]) < SLAB
        axes.scatter(points[near, across], points[near, up], s=3, c=palette[channels[near] + 1])
        axes.set_title(name)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _plane(across: int, up: int) -> np.ndarray:
    """(PIXELS^2, 3) float32 pixel centres of a plane, row by row."""
    ticks = (np.arange(PIXELS, dtype=np.float32) + 0.5) * (2 / PIXELS) - 1
    result = np.zeros((PIXELS, PIXELS, 3), np.float32)
    result[..., across], result[..., up] = ticks[None, :], ticks[:, None]
    return result.reshape(-1, 3)


def slices_picture(
    path: str | Path,
    rows: Mapping[str, np.ndarray],
    colors: Sequence[str],
    title: str = "",
) -> None:
    """A PNG of the middle coronal and axial slices of hearts on a grid.

    rows : name -> (N, S, S, S) uint8 channels in RAS order, 0 outside; a row of pictures each.
    colors : "#rrggbb" of channel 1, 2, ...
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    palette = np.array([(1.0, 1.0, 1.0), *(to_rgb(c) for c in colors)])
    columns = 2 * max(len(hearts) for hearts in rows.values())
    figure = Figure(figsize=(1.7 * columns, 2.0 * len(rows)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, hearts) in zip(axes, rows.items()):
        for cell in line:
            cell.set_axis_off()
        line[0].set_title(name, fontsize=9, loc="left")
        for k, heart in enumerate(hearts):
            middle = len(heart) // 2
            for cell, plane in zip(line[2 * k :], (heart[:, middle], heart[:, :, middle])):
                cell.imshow(palette[plane.T], origin="lower", interpolation="nearest")
    figure.suptitle(title, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
