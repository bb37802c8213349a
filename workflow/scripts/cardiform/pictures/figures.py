"""Labelled figures of surface meshes: one case, two side by side, a sheet of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import atomic_path
from .rasteriser import ANTERIOR, POSTERIOR_LEFT, Camera, PicturedMesh, render_meshes


def case_picture(
    path: str | Path,
    meshes: Sequence[PicturedMesh],
    *,
    legend: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
    size: int = 500,
) -> None:
    """A PNG of one case from anterior and from posterior left.

    legend : title -> "#rrggbb" of the classes shown.
    """
    _figure(path, [meshes], [title], legend or {}, caption, size)


def compare_picture(
    path: str | Path,
    truth: Sequence[PicturedMesh],
    reconstruction: Sequence[PicturedMesh],
    *,
    titles: tuple[str, str] = ("Truth", "Reconstruction"),
    legend: Mapping[str, str] | None = None,
    caption: str = "",
    size: int = 420,
) -> None:
    """A PNG with truth beside reconstruction, the same cameras for both, two views.

    legend : title -> "#rrggbb" of the classes shown.
    """
    _figure(path, [truth, reconstruction], list(titles), legend or {}, caption, size)


def sheet_picture(
    path: str | Path,
    hearts: Mapping[str, Sequence[PicturedMesh]],
    *,
    legend: Mapping[str, str] | None = None,
    columns: int = 6,
    size: int = 220,
) -> None:
    """A PNG of many hearts from anterior, each in a cell of its own, all at one scale.

    hearts : caption -> its meshes.    legend : title -> "#rrggbb" of the classes shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    everything = [np.asarray(m[0]) for meshes in hearts.values() for m in meshes if len(m[1])]
    camera = Camera.around(np.concatenate(everything or [np.empty((0, 3))]), ANTERIOR)
    columns = min(columns, len(hearts))
    rows = -(-len(hearts) // columns)
    dpi, foot = 100, 0.6
    figure = Figure(
        figsize=(columns * size / dpi, rows * size / dpi + foot), dpi=dpi, facecolor="white"
    )
    FigureCanvasAgg(figure)
    height = rows * size / dpi + foot
    for place, (name, meshes) in enumerate(hearts.items()):
        row, column = divmod(place, columns)
        bottom = (foot + (rows - 1 - row) * size / dpi) / height
        axes = figure.add_axes((column / columns, bottom, 1 / columns, size / dpi / height))
        axes.set_axis_off()
        axes.imshow(render_meshes(meshes, size=size, camera=camera), interpolation="none")
        axes.text(0.03, 0.97, name, transform=axes.transAxes, va="top", fontsize=8)
    if legend:
        figure.legend(
            handles=[Patch(color=color, label=title) for title, color in legend.items()],
            loc="lower center",
            ncols=min(5, columns + 1),
            fontsize=8,
            frameon=False,
        )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _figure(path, columns, titles, legend, caption, size) -> None:
    """Rows are views, columns are mesh lists, every row with one camera."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    everything = [np.asarray(m[0]) for meshes in columns for m in meshes if len(m[1])]
    vertices = np.concatenate(everything or [np.empty((0, 3))])
    views = (("anterior", ANTERIOR), ("posterior left", POSTERIOR_LEFT))
    cells = [
        [(title, name, view, meshes) for title, meshes in zip(titles, columns)]
        for name, view in views
    ]
    if len(columns) == 1:
        cells = [[row[0] for row in cells]]  # one case: its views side by side
    dpi, foot = 100, 0.55 + 0.25 * (bool(caption) + (len(legend) + 4) // 5)
    width, height = len(cells[0]) * size / dpi, len(cells) * size / dpi + foot
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    for r, row in enumerate(cells):
        for c, (title, name, view, meshes) in enumerate(row):
            bottom = foot / height + (len(cells) - 1 - r) * size / dpi / height
            axes = figure.add_axes(
                (c / len(row), bottom, 1 / len(row), size / dpi / height), frameon=False
            )
            axes.set_axis_off()
            camera = Camera.around(vertices, view)
            axes.imshow(render_meshes(meshes, size=size, camera=camera), interpolation="none")
            text = ", ".join(x for x in (title, name) if x)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
            axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top", fontsize=10, bbox=box)
    if legend:
        figure.legend(
            handles=[Patch(color=color, label=name) for name, color in legend.items()],
            loc="lower center",
            bbox_to_anchor=(0.5, 0.35 / height if caption else 0.0),
            ncols=5,
            fontsize=8,
            frameon=False,
        )
    if caption:
        figure.text(0.5, 0.12 / height, caption, ha="center", va="bottom", fontsize=9)
    with atomic_path(path) as temporary:
        # Without the version string the same picture is always the same bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})
