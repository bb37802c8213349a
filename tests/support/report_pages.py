"""What a page of the report has in it."""

from __future__ import annotations

import base64
import html.parser

import numpy as np


class Cells(html.parser.HTMLParser):
    """The number cells of a page, the elements that load something, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, float, str]] = []
        self.loaded: list[str] = []
        self.drawn = ""
        self.inside: tuple[str, float] | None = None
        self.in_drawn = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loaded += [given[key] for key in ("src", "href") if key in given]
        if "data-source" in given:
            self.inside = (given["data-source"], float(given["data-factor"]))
        self.in_drawn = tag == "script" and given.get("id") == "drawn"

    def handle_endtag(self, tag):
        self.inside, self.in_drawn = None, False

    def handle_data(self, data):
        if self.inside:
            self.found.append((*self.inside, data))
        if self.in_drawn:
            self.drawn += data


def numbers(array) -> np.ndarray:
    kinds = {"f4": np.float32, "i2": np.int16, "u2": np.uint16, "u4": np.uint32}
    return np.frombuffer(base64.b64decode(array["bdata"]), kinds[array["dtype"]])
