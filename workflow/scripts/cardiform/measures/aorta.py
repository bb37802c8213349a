"""Diameters of the aorta at places that hearts have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .table import MM, Measured
from .tubes import Line, Vessel

ASCENDING, DESCENDING = "ascending", "descending"
ORIGIN = "left_ventricle"
LEVEL = "diameter_at_pulmonary_level"


def aortic_measures(name: str, vessel: Vessel, level: float | None) -> Iterator[Measured]:
    """Greatest diameter of the ascending and the descending aorta, and theirs at one level.

    A diameter is that of the circle with the area of the section across the centreline. The
    ascending aorta reaches from the left ventricle up to the highest place of its centreline; what
    follows there, and any other body, is the descending aorta.

    level : RAS z in mm, of the middle of the pulmonary artery; None: it is not known.
    """
    for part, places, radii in _parts(vessel):
        if not len(radii):
            continue
        seen = vessel.in_view(places, radii)
        widest = int(radii.argmax())
        yield Measured(name, "diameter_max", 2 * radii[widest], MM, part, not seen.all())
        if level is None or not places[:, 2].min() <= level <= places[:, 2].max():
            continue
        at = int(np.abs(places[:, 2] - level).argmin())
        yield Measured(name, LEVEL, 2 * radii[at], MM, part, not seen[at])


def _parts(vessel: Vessel) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Part, places and radii of the sections along it; nothing where no ventricle shows the way."""
    forest = vessel.forest
    if ORIGIN not in forest.origins:
        return
    up: list[Line] = []
    down: list[Line] = []
    for tree, origin in enumerate(forest.origins):
        lines = [vessel.lines[k] for k in forest.of_tree(tree)]
        if origin != ORIGIN:
            down += lines
            continue
        rising, falling = _divided(lines)
        up, down = [*up, *rising], [*down, *falling]
    for part, lines in ((ASCENDING, up), (DESCENDING, down)):
        if lines:
            yield (
                part,
                np.concatenate([line.places for line in lines]),
                np.concatenate([line.radii for line in lines]),
            )


def _divided(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """The branches of a tree before and behind the highest place of its course."""
    top = int(np.argmax([line.course[:, 2].max() for line in lines]))
    peak = lines[top]
    before = peak.at <= peak.course[:, 2].argmax()
    halves = [replace(peak, at=peak.at[own], radii=peak.radii[own]) for own in (before, ~before)]
    return [*lines[:top], halves[0]], [halves[1], *lines[top + 1 :]]
