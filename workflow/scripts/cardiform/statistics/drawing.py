"""Modes as meshes, as a sheet of pictures and as an animation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..files import atomic_path
from ..geometry.surface import Mesh
from ..geometry.vtp import PolyData, write_vtp
from ..labels import LabelTable
from ..pictures import figures
from ..pictures.rasteriser import ANTERIOR, Camera, PicturedMesh
from .template import joined

STEPS = (-3, -2, -1, 0, 1, 2, 3)  # standard deviations
SHOWN = (-3, 0, 3)
MOST_SHOWN = 4  # modes of the picture and of the animation
FRAMES, FRAME_MS, SIZE, COLORS = 16, 90, 260, 128


class Modes(Protocol):
    """What is drawn: a model of some kind."""

    @property
    def modes(self) -> int: ...

    @property
    def explained(self) -> np.ndarray:
        """(K,) shares of the variance."""
        ...

    def at(self, mode: int, deviations: float) -> dict[int, Mesh]:
        """Class value -> surface of the mean heart, changed in one mode."""
        ...


def write_surfaces(path: Path, parts: Mapping[int, Mesh], table: LabelTable) -> None:
    """A .vtp of surfaces by class value, with the value and colour of every triangle."""
    mesh, labels = joined(parts)
    known = {label.value: label for label in table}
    colors = np.zeros((256, 3), np.uint8)
    for value in parts:
        colors[value] = [int(known[value].color[k : k + 2], 16) for k in (1, 3, 5)]
    names = ", ".join(f"{value} {known[value].name}" for value in parts)
    data = PolyData(
        mesh.vertices,
        mesh.faces.ravel(),
        3 * np.arange(1, len(mesh.faces) + 1),
        cell_values={"label": labels, "color": colors[labels]},
        remark=f"millimetres, RAS; label: {names}",
    )
    write_vtp(path, data, binary=True)


def write_modes(folder: Path, model: Modes, table: LabelTable) -> list[Path]:
    """Write mode_01_-3.vtp ... of every mode, modes.png and modes.gif; returns the meshes."""
    paths = []
    for mode in range(model.modes):
        for step in STEPS:
            paths.append(folder / f"mode_{mode + 1:02d}_{step:+d}.vtp")
            write_surfaces(paths[-1], model.at(mode, step), table)
    shown = range(min(model.modes, MOST_SHOWN))
    hearts = {
        f"mode {mode + 1} ({model.explained[mode]:.0%}), {step:+d} sd": pictured(
            model.at(mode, step), table
        )
        for mode in shown
        for step in SHOWN
    }
    parts = model.at(0, 0)
    classes = [label for label in table if label.value in parts]
    legend = {label.title or label.name: label.color for label in classes}
    figures.sheet_picture(
        folder / "modes.png", hearts, legend=legend, columns=len(SHOWN), size=SIZE
    )
    _animate(folder / "modes.gif", model, shown, table)
    return paths


def pictured(parts: Mapping[int, Mesh], table: LabelTable) -> list[PicturedMesh]:
    known = {label.value: label for label in table}
    return [(mesh.vertices, mesh.faces, known[v].color, 1.0) for v, mesh in parts.items()]


def _animate(path: Path, model: Modes, shown: Sequence[int], table: LabelTable) -> None:
    """The first modes side by side, there and back between -3 and 3 standard deviations."""
    from PIL import Image

    ends = [part.vertices for m in shown for step in (-3, 3) for part in model.at(m, step).values()]
    camera = Camera.around(np.concatenate(ends), ANTERIOR)
    frames = []
    for frame in range(FRAMES):
        deviations = 3 * np.sin(2 * np.pi * frame / FRAMES)
        rows = [pictured(model.at(mode, deviations), table) for mode in shown]
        views = [figures.render_meshes(row, size=SIZE, camera=camera) for row in rows]
        frames.append(Image.fromarray(np.concatenate(views, axis=1)).quantize(COLORS))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:],
            duration=FRAME_MS, loop=0,
        )  # fmt: skip
