"""Charts as Plotly takes them: plain data and layout, without its Python objects."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FONT = {"family": "system-ui, sans-serif", "size": 13}
# Apart also for people who see no red or no green: Wong, Points of view: color blindness, Nature
# Methods 8 (2011).
APART = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MOST_POINTS = 400  # of a curve


def boxes(series: Mapping[str, tuple[Sequence[float], Sequence[str], str]], unit: str) -> dict:
    """A box and all values per name: (values, what each is called, colour)."""
    data = [
        {
            "type": "box", "name": name, "y": list(values), "text": list(names),
            "boxpoints": "all", "jitter": 0.4, "pointpos": 0, "marker": {"color": color, "size": 4},
            "line": {"width": 1}, "hovertemplate": "%{text}: %{y:.3g}<extra></extra>",
        }
        for name, (values, names, color) in series.items()
    ]  # fmt: skip
    return {"data": data, "layout": _layout(unit) | {"showlegend": False}}


def curves(series: Mapping[str, Sequence[tuple[int, float]]], unit: str) -> dict:
    """Lines over the steps of a training; dashed where the name begins with "validation"."""
    data = []
    for number, (name, points) in enumerate(series.items()):
        points = points[:: max(1, -(-len(points) // MOST_POINTS))]
        dash = "dash" if name.startswith("validation") else "solid"
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": name,
                "x": [step for step, _ in points], "y": [value for _, value in points],
                "line": {"color": APART[number % len(APART)], "dash": dash},
            }
        )  # fmt: skip
    axis = {"title": {"text": "step"}, "automargin": True}
    return {"data": data, "layout": _layout(unit) | {"xaxis": axis}}


def typed(array: np.ndarray) -> dict[str, str]:
    """A flat array as Plotly reads it: its bytes and its type."""
    kind = {"float32": "f4", "uint16": "u2", "uint32": "u4"}[array.dtype.name]
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": kind, "bdata": content}


def _layout(unit: str) -> dict[str, Any]:
    return {
        "font": FONT,
        "margin": {"l": 60, "r": 10, "t": 30, "b": 60},
        "xaxis": {"automargin": True},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": -0.2},
    }
