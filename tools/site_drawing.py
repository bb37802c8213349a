"""A flowchart in Mermaid's notation as an SVG, in layers from top to bottom; no browser needed."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from itertools import pairwise

# pixels: between layers, height of a box, between boxes, a line that passes, width of a letter
LAYER, BOX, GAP, BEND, LETTER = 62, 26, 14, 16, 6.4
NODE = r"(\w+)(?:\[\(?(.+?)\)?\])?"
ARROW = re.compile(r"\s*(-->|-\. (?:.+?) \.->|-\.->)\s*")


@dataclass
class Chart:
    """Nodes (id -> text) and edges (from, to, dotted)."""

    nodes: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, bool]] = field(default_factory=list)


def read_chart(text: str) -> Chart:
    """The chart of a ``flowchart``: lines of ``a --> b & c --> d``, dotted ``-. text .->`` too."""
    chart = Chart()
    for line in text.splitlines():
        if not line.strip() or line.startswith("flowchart"):
            continue
        parts = ARROW.split(line.strip())
        before: list[str] = []
        for number, part in enumerate(parts):
            if number % 2:
                continue
            names = []
            for word in part.split(" & "):
                match = re.fullmatch(NODE, word.strip())
                if match is None:
                    raise ValueError(f"no node of a flowchart: {word!r}")
                names.append(match[1])
                chart.nodes.setdefault(match[1], match[1])
                if match[2]:
                    chart.nodes[match[1]] = match[2].replace("<br>", ", ")
            dotted = bool(number) and parts[number - 1] != "-->"
            chart.edges += [(a, b, dotted) for a in before for b in names]
            before = names
    return chart


def drawn(chart: Chart) -> str:
    """The SVG; colours follow the text's, so that it suits light and dark pages."""
    layer = _layers(chart)
    ways = {}  # edge -> its nodes, with a bend in every layer between
    columns: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for name in chart.nodes:
        columns[layer[name]].append(name)
    for a, b, _ in chart.edges:
        bends = [f"{a}>{b}>{k}" for k in range(layer[a] + 1, layer[b])]
        ways[a, b] = [a, *bends, b]
        for k, bend in enumerate(bends, layer[a] + 1):
            columns[k].append(bend)
    _order(columns, ways)
    wide = {name: _width(text) for name, text in chart.nodes.items()}
    rows = [[wide.get(name, BEND) + GAP for name in column] for column in columns]
    width = max(map(sum, rows))
    place = {}
    for k, (column, row) in enumerate(zip(columns, rows, strict=True)):
        space = (width - sum(row)) / len(row)  # what is left over is dealt out
        x = 0.0
        for name, own in zip(column, row, strict=True):
            place[name] = x + (own + space) / 2, LAYER * (k + 0.5)
            x += own + space
    dotted = {(a, b) for a, b, is_dotted in chart.edges if is_dotted}
    lines = [_line([place[n] for n in way], edge in dotted) for edge, way in ways.items()]
    boxes = [_box(*place[name], wide[name], text) for name, text in chart.nodes.items()]
    size = f"{width:.0f} {LAYER * len(columns)}"
    style = f'style="width:100%;min-width:{0.8 * width:.0f}px" font-family="inherit" font-size="11"'
    return f'<svg viewBox="0 0 {size}" {style} role="img">{"".join(lines + boxes)}</svg>'


def _width(text: str) -> float:
    return LETTER * len(text) + 14


def _layers(chart: Chart) -> dict[str, int]:
    """How many edges the longest way to each node has."""
    layer = dict.fromkeys(chart.nodes, 0)
    for _ in chart.nodes:
        for a, b, _dotted in chart.edges:
            layer[b] = max(layer[b], layer[a] + 1)
    if max(layer.values()) >= len(chart.nodes):
        raise ValueError("the flowchart has a circle")
    return layer


def _order(columns: list[list[str]], ways: dict[tuple[str, str], list[str]]) -> None:
    """Sort each column by the mean place of its neighbours, to and fro, so that few lines cross."""
    links: dict[str, list[str]] = {name: [] for column in columns for name in column}
    for way in ways.values():
        for a, b in pairwise(way):
            links[a].append(b)
            links[b].append(a)
    for _ in range(12):
        for column in [*columns, *reversed(columns)]:
            row = {n: (k + 0.5) / len(c) for c in columns for k, n in enumerate(c)}
            mean = {n: sum(row[m] for m in links[n]) / len(links[n]) for n in column}
            column.sort(key=mean.__getitem__)


def _line(points: list[tuple[float, float]], dotted: bool) -> str:
    x, y = points[0]
    path = [f"M{x:.0f} {y:.0f}"]
    for to_x, to_y in points[1:]:
        middle = (y + to_y) / 2
        path.append(f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}")
        x, y = to_x, to_y
    dash = ' stroke-dasharray="4 3"' if dotted else ""
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="currentColor" stroke-opacity=".45"{dash}/>'
    )


def _box(x: float, y: float, width: float, text: str) -> str:
    frame = (
        f'x="{x - width / 2:.0f}" y="{y - BOX / 2:.0f}" width="{width:.0f}" height="{BOX}" rx="5"'
    )
    fill = 'fill="var(--md-default-bg-color, white)" stroke="currentColor"'
    words = f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" fill="currentColor">'
    return f"<rect {frame} {fill}/>{words}{html.escape(text)}</text>"
