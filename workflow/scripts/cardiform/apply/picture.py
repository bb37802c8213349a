"""One picture of a case: what was given beside what was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..geometry.grids import cropped_affine
from ..geometry.mask_surface import class_surfaces
from ..geometry.surface import Mesh
from ..labels import LabelTable
from ..pictures.figures import PicturedMesh, case_picture, compare_picture
from ..volumes import LabelMap, labelled_box
from .ready import Ready

RIM = 5  # voxels around the anatomy: the surfaces of a picture are blurred a little
DETAIL = 160  # voxels along the longest edge that a picture shows


def draw_case(
    path: Path,
    ready: Ready,
    shown: Mapping[str, Mapping[str, Mesh] | LabelMap],
    said: str = "",
) -> None:
    """The given label map beside the first of ``shown``; alone where nothing is shown.

    said : stands below it.
    """
    table, given = ready.table, ready.label_map
    there = [label for label in table if (given.data == label.value).any()]
    legend = {label.title: label.color for label in there}
    left = _surfaces(given, table)
    for title, made in shown.items():
        right = _surfaces(made, table) if isinstance(made, LabelMap) else _meshes(made, table)
        titles = ("Given", title)
        caption = ": ".join(filter(None, (ready.case.case_id, said)))
        compare_picture(path, left, right, titles=titles, legend=legend, caption=caption)
        return
    case_picture(path, left, title=ready.case.case_id, legend=legend)


def _meshes(meshes: Mapping[str, Mesh], table: LabelTable) -> list[PicturedMesh]:
    return [
        (meshes[c.name].vertices, meshes[c.name].faces, c.color, 1.0)
        for c in table
        if c.name in meshes
    ]


def _surfaces(label_map: LabelMap, table: LabelTable) -> list[PicturedMesh]:
    """Of the part that is labelled, coarser where it is large."""
    low, high = labelled_box(label_map)
    box = tuple(slice(max(a - RIM, 0), b + RIM + 1) for a, b in zip(low, high))
    step = max(1, -(-int((high - low).max()) // DETAIL))
    data = np.ascontiguousarray(label_map.data[box][::step, ::step, ::step])
    start = np.array([s.start for s in box], np.float64)
    affine = cropped_affine(label_map.affine, start, float(step))
    return list(class_surfaces(LabelMap(data, affine), table))
