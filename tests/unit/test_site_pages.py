"""Docstrings and flowcharts on the documentation site."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield __import__
    for name in ("site_pages", "site_drawing"):
        sys.modules.pop(name, None)


DOCSTRING = """Cut a :class:`~cardiform.labels.LabelTable`; see ``file``.

one : the first,
    on two lines.    other : beside <one>
Returns what is left.

Parameters
----------
path : str
    Where.

Raises
------
InputError
    Always.

>>> 1 + 1
2
"""
MARKDOWN = """Cut a `cardiform.labels.LabelTable`; see `file`.
- `one`: the first,
  on two lines.
- `other`: beside &lt;one>
Returns what is left.
**Parameters**
- `path`: str
  Where.
**Raises**
- `InputError`:
  Always.
```python
>>> 1 + 1
2
```"""


def test_a_docstring_becomes_markdown(tool):
    made = tool("site_pages").markdown(DOCSTRING)
    assert [line for line in made.splitlines() if line] == MARKDOWN.splitlines()


def test_a_long_signature_has_an_argument_per_line(tool):
    source = "def f(a: dict[str, int], /, b=1, *, c: str = ', ', **more: int) -> tuple[int, int]"
    node = ast.parse(f"{source}: ...").body[0]
    assert tool("site_pages").signature(node) == source
    node.name = "f" * 40
    lines = [line.strip() for line in tool("site_pages").signature(node).splitlines()]
    arguments = ["a: dict[str, int],", "/,", "b=1,", "*,", "c: str = ', ',", "**more: int,"]
    assert lines[1:] == [*arguments, ") -> tuple[int, int]"]


def test_a_flowchart_is_read_and_drawn(tool):
    drawing = tool("site_drawing")
    text = "flowchart LR\n  a[(two<br>lines)] --> b & c --> d\n  a -. if asked .-> d\n"
    chart = drawing.read_chart(text)
    assert chart.nodes == {"a": "two, lines", "b": "b", "c": "c", "d": "d"}
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")]
    assert chart.edges == [(*edge, edge == ("a", "d")) for edge in edges]
    svg = drawing.drawn(chart)
    assert svg.count("<rect") == 4 and svg.count("<path") == 5 and svg.count("dasharray") == 1


def test_a_flowchart_in_a_circle_is_refused(tool):
    drawing = tool("site_drawing")
    with pytest.raises(ValueError, match="circle"):
        drawing.drawn(drawing.read_chart("a --> b --> a"))
