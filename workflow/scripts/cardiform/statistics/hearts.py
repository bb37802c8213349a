"""Which hearts and classes a model is made of, and which heart is its template."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..cohort.table import OK, Case
from ..errors import InputError, again, problem, together
from ..geometry.meshed import MeshedCase
from ..labels import LabelTable
from ..options.statistics import ModesOptions
from .poses import common_middles, middles_pose

LEAST_HEARTS = 3
RIM_MM = 6.0  # of the grid around the training hearts: held-out ones may be a little larger
DIRECTIONS = 100  # in which a heart is measured: in any other it reaches hardly farther
MOST = 0.5  # share of the hearts that have a class whole, from which on it is part of the model


@dataclass(frozen=True)
class Outline:
    """What decides whether a heart is part of a model.

    middles : (C, 3) RAS mm of the vertices of each class, NaN where there is none.
    radii : (C,) mm of the ball of its volume, NaN.    whole : (C,) bool: there, and not cut.
    ends : (C, D, 3) RAS mm, the vertex of each class that lies farthest in some directions, NaN.
    """

    case: Case
    middles: np.ndarray
    radii: np.ndarray
    whole: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, case: Case, table: LabelTable, meshes: Path) -> Outline:
        """Of the meshes of a case.

        Raises
        ------
        InputError
            They are missing, damaged, or of another label table.
        """
        meshed = load_meshed(case, table, meshes)
        middles = np.full((len(table), 3), np.nan)
        radii = np.full(len(table), np.nan)
        whole = np.zeros(len(table), bool)
        ends = np.full((len(table), DIRECTIONS, 3), np.nan)
        cuts = meshed.cuts
        ways = _directions()
        for value, mesh in meshed.surfaces().items():
            channel = table.values.index(value)
            middles[channel] = mesh.vertices.mean(axis=0, dtype=np.float64)
            ends[channel] = mesh.vertices[(mesh.vertices @ ways.T).argmax(axis=0)]
            radii[channel] = np.cbrt(0.75 / np.pi * max(mesh.sizes[1], 0.0))
            whole[channel] = value not in cuts
        return cls(case, middles, radii, whole, ends)


def _directions() -> np.ndarray:
    """(D, 3) unit vectors, even over the sphere: a spiral."""
    number = np.arange(DIRECTIONS)
    z = 1 - (2 * number + 1) / DIRECTIONS
    angle = np.pi * (3 - np.sqrt(5)) * number
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)


def load_meshed(case: Case, table: LabelTable, meshes: Path) -> MeshedCase:
    """The meshes of a case; InputError where they are of another label table, too."""
    meshed = MeshedCase.load(case, table, meshes)
    known = dict(zip(table.names, table.values))
    found = {name: entry["value"] for name, entry in meshed.record["classes"].items()}
    if strange := [name for name, value in found.items() if known.get(name) != value]:
        fact = f"was made for another label table ({', '.join(strange)})"
        raise InputError(problem(meshed.path, fact, again("extract_meshes")))
    return meshed


def outlines(cases: Iterable[Case], table: LabelTable, meshes: Path) -> list[Outline]:
    """Of all good cases; the problems of all of them are reported."""
    good = [case for case in cases if case.status == OK]
    return together(*(functools.partial(Outline.of, case, table, meshes) for case in good))


class Seen(Protocol):
    """A heart of which it is known which classes are whole, (C,) bool."""

    @property
    def whole(self) -> np.ndarray: ...


def chosen_classes(train: Sequence[Seen], table: LabelTable, options: ModesOptions) -> list[int]:
    """Channels of the model's classes.

    Raises
    ------
    InputError
        A class that is asked for is whole in none of the hearts; no class is whole in most.
    """
    share = np.mean([o.whole for o in train], axis=0) if train else np.zeros(len(table))
    if options.classes:
        channels = sorted({table.channel(name) for name in options.classes})
        if absent := [table.names[c] for c in channels if not share[c]]:
            raise InputError(
                f"shape_statistics.classes: {', '.join(absent)} is whole in no training heart; "
                "take it out of the list"
            )
        return channels
    left_out = set(options.leave_out)
    channels = [c for c, name in enumerate(table.names) if share[c] > MOST and name not in left_out]
    if not channels:
        shares = ", ".join(f"{name} {part:.0%}" for name, part in zip(table.names, share))
        raise InputError(
            f"no class is whole in more than half of {len(train)} training "
            f"hearts ({shares}); name some in shape_statistics.classes"
        )
    return channels


def split_off(
    found: Sequence[Outline], channels: Sequence[int], table: LabelTable
) -> tuple[list[Outline], dict[str, str]]:
    """The hearts that have all classes whole, and why the others are left out, by case id."""
    kept, reasons = [], {}
    for outline in found:
        bad = [c for c in channels if not outline.whole[c]]
        if not bad:
            kept.append(outline)
            continue
        absent = [table.names[c] for c in bad if np.isnan(outline.radii[c])]
        cut = [table.names[c] for c in bad if not np.isnan(outline.radii[c])]
        words = [f"without {', '.join(absent)}"] * bool(absent)
        words += [f"the scan cuts {', '.join(cut)}"] * bool(cut)
        reasons[outline.case.case_id] = "; ".join(words)
    return kept, reasons


def check_enough(train: Sequence[object], of: int, names: Sequence[str]) -> None:
    """InputError where too few hearts are left to learn from."""
    if len(train) < LEAST_HEARTS:
        raise InputError(
            f"{len(train)} of {of} training hearts have {', '.join(names)} "
            f"whole, a model takes {LEAST_HEARTS}; add cases, or name fewer classes in "
            "shape_statistics.classes"
        )


def extent(hearts: Sequence[Outline], channels: Sequence[int], middles: np.ndarray) -> np.ndarray:
    """(2, 3) mm: lowest and highest corner of some classes of hearts, turned to a common pose.

    middles : (C, 3) mm of these classes in that pose.
    """
    chosen = list(channels)
    ends = [middles_pose(o.middles[chosen], middles)(o.ends[chosen]) for o in hearts]
    return np.stack([np.min(ends, axis=(0, 1, 2)), np.max(ends, axis=(0, 1, 2))])


def central(train: Sequence[Outline], channels: Sequence[int]) -> Outline:
    """The heart whose classes lie and measure most like those of the mean."""
    middles = [outline.middles[channels] for outline in train]
    mean = common_middles(middles)
    places = np.stack([middles_pose(m, mean)(m) for m in middles])
    radii = np.stack([outline.radii[channels] for outline in train])
    far = ((places - places.mean(axis=0)) ** 2).sum(axis=(1, 2))
    far += ((radii - radii.mean(axis=0)) ** 2).sum(axis=1)
    return train[int(far.argmin())]
