"""Diameters of the aorta at places that hearts have in common."""

from __future__ import annotations

from collections.abc import Iterator

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
    for part, lines in _parts(vessel).items():
        places = np.concatenate([line.places for line in lines])
        radii = np.concatenate([line.radii for line in lines])
        if not len(radii):
            continue
        widest = radii.max()
        course = np.concatenate([line.course for line in lines])
        out_of_view = not vessel.in_view(course, np.full(len(course), radii.min())).all()
        yield Measured(name, "diameter_max", 2 * widest, MM, part, out_of_view)
        if level is None or not places[:, 2].min() <= level <= places[:, 2].max():
            continue
        at = int(np.abs(places[:, 2] - level).argmin())
        is_cut = not vessel.in_view(places[[at]], radii[[at]]).all()
        yield Measured(name, LEVEL, 2 * radii[at], MM, part, is_cut)


def _parts(vessel: Vessel) -> dict[str, list[Line]]:
    """Part -> its branches; none where no ventricle shows the way."""
    forest = vessel.forest
    parts: dict[str, list[Line]] = {ASCENDING: [], DESCENDING: []}
    if ORIGIN not in forest.origins:
        return {}
    for tree, origin in enumerate(forest.origins):
        lines = [vessel.lines[k] for k in forest.of_tree(tree)]
        rising, falling = _divided(lines) if origin == ORIGIN else ([], lines)
        parts[ASCENDING] += rising
        parts[DESCENDING] += falling
    return {part: lines for part, lines in parts.items() if lines}


def _divided(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """The branches of a tree before and behind the highest place of its course."""
    if not lines:
        return [], []
    top = int(np.argmax([line.course[:, 2].max() for line in lines]))
    peak = lines[top]
    turn = int(peak.course[:, 2].argmax())
    before = peak.at <= turn
    rising = Line(peak.course[: turn + 1], peak.at[before], peak.radii[before])
    falling = Line(peak.course[turn:], peak.at[~before] - turn, peak.radii[~before])
    return [*lines[:top], rising], [falling, *lines[top + 1 :]]
