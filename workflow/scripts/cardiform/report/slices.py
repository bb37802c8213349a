"""Cuts through a heart: the outlines of the truth and of what a model made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..geometry.surface import Mesh
from ..labels import LabelTable
from .charts import FONT

# name, the two RAS axes that lie in the plane
PLANES = (("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2)))
WAYS: dict[str, dict[str, Any]] = {"truth": {"width": 3}, "model": {"width": 1, "color": "#000000"}}
GAP = 0.02  # of the width, between two planes


def outlines(hearts: Mapping[str, Mapping[str, Mesh]], labels: LabelTable) -> dict[str, Any]:
    """Axial, coronal and sagittal cut through the middle of the truth, in millimetres.

    hearts : "truth" and "model" -> class name -> surface in RAS mm.
    """
    vertices = np.concatenate([mesh.vertices for mesh in hearts["truth"].values()])
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    axes: dict[str, Any] = {}
    data, named = [], set()
    for number, (plane, (across, up)) in enumerate(PLANES, start=1):
        suffix = "" if number == 1 else str(number)
        axes |= _axes(number, suffix, plane, mirrored=across == 0)
        for way, surfaces in hearts.items():
            for label in labels:
                if label.name not in surfaces:
                    continue
                lines = cut(surfaces[label.name], 3 - across - up, middle)
                if not len(lines):
                    continue
                data.append(
                    {
                        "type": "scatter", "mode": "lines", "hoverinfo": "name",
                        "x": _broken(lines[..., across] - middle[across]),
                        "y": _broken(lines[..., up] - middle[up]),
                        "xaxis": f"x{suffix}", "yaxis": f"y{suffix}",
                        "name": f"{label.title or label.name}, {way}", "legendgroup": label.name,
                        "showlegend": (label.name, way) not in named,
                        "line": {"color": label.color} | WAYS[way],
                    }
                )  # fmt: skip
                named.add((label.name, way))
    legend = {"orientation": "h", "y": -0.05, "itemwidth": 30}
    margin = {"l": 10, "r": 10, "t": 30, "b": 10}
    layout = {"font": FONT, "margin": margin, "legend": legend, "hovermode": "closest", **axes}
    return {"data": data, "layout": layout}


def cut(mesh: Mesh, axis: int, origin: np.ndarray) -> np.ndarray:
    """(N, 2, 3) float64: the pieces of line along which a surface crosses a plane.

    axis : that the plane is normal to.    origin : (3,) mm, a point of it.
    """
    import trimesh

    normal = np.eye(3)[axis]
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return np.asarray(trimesh.intersections.mesh_plane(solid, normal, origin)).reshape(-1, 2, 3)


def _axes(number: int, suffix: str, title: str, mirrored: bool) -> dict[str, Any]:
    """Of one plane; mirrored: the patient's left is on the right, as in radiology."""
    width = (1 - GAP * (len(PLANES) - 1)) / len(PLANES)
    start = (number - 1) * (width + GAP)
    plain = {"showgrid": False, "zeroline": False, "showticklabels": False}
    named = {"title": {"text": title, "standoff": 0}, "side": "top"}
    turned = {"autorange": "reversed"} if mirrored else {}
    return {
        f"xaxis{suffix}": {"domain": [start, start + width], **plain, **named, **turned},
        f"yaxis{suffix}": {**plain, "scaleanchor": f"x{suffix}", "anchor": f"x{suffix}"},
    }


def _broken(pieces: np.ndarray) -> list[float | None]:
    """(N, 2) coordinates of pieces of line, one after the other, apart from each other."""
    rows: list[list[float | None]] = [[*row, None] for row in np.round(pieces, 1).tolist()]
    return [value for row in rows for value in row]
