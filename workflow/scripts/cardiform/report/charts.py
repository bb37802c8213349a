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
MOST_BINS = 40


def boxes(
    series: Mapping[str, tuple[Sequence[float], Sequence[str], str]],
    unit: str,
    from_zero: bool = True,
) -> dict:
    """A box and all values per name: (values, what each is called, colour)."""
    data = [
        {
            "type": "box", "name": name, "y": list(values), "text": list(names),
            "boxpoints": "all", "jitter": 0.4, "pointpos": 0, "marker": {"color": color, "size": 4},
            "line": {"width": 1}, "hovertemplate": "%{text}: %{y:.3g}<extra></extra>",
        }
        for name, (values, names, color) in series.items()
    ]  # fmt: skip
    layout = _layout(unit) | {"showlegend": False}
    if not from_zero:
        layout["yaxis"]["rangemode"] = "normal"
    return {"data": data, "layout": layout}


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


def histogram(series: Mapping[str, Sequence[float]], unit: str) -> dict:
    """How many cases have which value, a colour per name."""
    data = [
        {
            "type": "histogram", "name": name, "x": list(values), "nbinsx": MOST_BINS,
            "marker": {"color": APART[number % len(APART)]}, "opacity": 0.75,
        }
        for number, (name, values) in enumerate(series.items())
    ]  # fmt: skip
    axis = {"title": {"text": unit}, "automargin": True}
    return {"data": data, "layout": _layout("cases") | {"xaxis": axis, "bargap": 0.05}}


def shares(values: Sequence[float]) -> dict:
    """A bar per mode of variation, and a line of their sum."""
    names = [str(number) for number in range(1, len(values) + 1)]
    sums = np.cumsum(values).tolist()
    common = {"x": names, "hovertemplate": "%{y:.1%}"}
    bars = {"type": "bar", "name": "each", "y": list(values), "marker": {"color": APART[0]}}
    line = {"type": "scatter", "mode": "lines+markers", "name": "together", "y": sums}
    layout = _layout("share of the variance")
    layout["xaxis"] |= {"title": {"text": "mode"}, "type": "category"}
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    return {
        "data": [bars | common, line | common | {"line": {"color": APART[1]}}],
        "layout": layout,
    }


def typed(array: np.ndarray) -> dict[str, str]:
    """An array as Plotly reads it, flat: its bytes and its type."""
    kind = {"float32": "f4", "int16": "i2", "uint16": "u2", "uint32": "u4"}[array.dtype.name]
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
