"""CT windows by name, level and width (standard library only)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InputError

FORM = re.compile(r"(?P<name>[A-Za-z0-9_]{1,100})=(?P<level>-?\d+(\.\d+)?)/(?P<width>\d+(\.\d+)?)")


@dataclass(frozen=True)
class CtWindow:
    """The Hounsfield units from level - width / 2 to level + width / 2."""

    name: str
    level: float
    width: float

    def __str__(self) -> str:
        return f"{self.name}={self.level:g}/{self.width:g}"

    @property
    def low(self) -> float:
        return self.level - self.width / 2

    @property
    def high(self) -> float:
        return self.level + self.width / 2

    @property
    def volume_name(self) -> str:
        """File name of the dense volumes that earlier preprocessing wrote of this window."""
        return f"{self.name}_w{self.width:g}_l{self.level:g}.npy"


def parse_windows(texts: Iterable[str]) -> dict[str, CtWindow]:
    """Windows by name from ``name=level/width``; all problems at once, as an InputError."""
    windows: dict[str, CtWindow] = {}
    problems = []
    for text in texts:
        match = FORM.fullmatch(text)
        level, width = (float(match["level"]), float(match["width"])) if match else (0.0, 0.0)
        if match is None or width == 0 or not math.isfinite(level - width):
            problems.append(
                f"windows.windows: {text[:60]!r}; write name=level/width, bone=300/1500 say"
            )
        elif match["name"] in windows:
            problems.append(f"windows.windows: {match['name']} is there twice; rename one")
        else:
            window = CtWindow(match["name"], level, width)
            windows[window.name] = window
    if problems:
        raise InputError(problems)
    return windows
