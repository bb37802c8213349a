"""Which hearts and classes a model is made of, and which heart is its template."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.table import OK, Case
from ..errors import InputError, again, problem, together
from ..geometry.meshed import MeshedCase
from ..labels import LabelTable
from ..options.statistics import ShapeStatisticsOptions
from .poses import common_middles, middles_pose

LEAST_HEARTS = 3
RIM_MM = 6.0
MOST = 0.5  # share of the hearts that have a class whole, from which on it is part of the model


@dataclass(frozen=True)
class Outline:
    """What decides whether a heart is part of a model.

    middles : (C, 3) RAS mm of the vertices of each class, NaN where there is none.
    radii : (C,) mm of the ball of its volume, NaN.    whole : (C,) bool: there, and not cut.
    boxes : (C, 2, 3) RAS mm, lowest and highest corner of each class, NaN.
    """

    case: Case
    middles: np.ndarray
    radii: np.ndarray
    whole: np.ndarray
    boxes: np.ndarray

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
        boxes = np.full((len(table), 2, 3), np.nan)
        cuts = meshed.cuts
        for value, mesh in meshed.surfaces().items():
            channel = table.values.index(value)
            middles[channel] = mesh.vertices.mean(axis=0, dtype=np.float64)
            boxes[channel] = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
            radii[channel] = np.cbrt(0.75 / np.pi * max(mesh.sizes[1], 0.0))
            whole[channel] = value not in cuts
        return cls(case, middles, radii, whole, boxes)


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


def chosen_classes(
    train: Sequence[Outline], table: LabelTable, options: ShapeStatisticsOptions
) -> list[int]:
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
            f"shape_statistics: no class is whole in more than half of {len(train)} training "
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


def check_enough(train: Sequence[Outline], of: int, names: Sequence[str]) -> None:
    """InputError where too few hearts are left to learn from."""
    if len(train) < LEAST_HEARTS:
        raise InputError(
            f"shape_statistics: {len(train)} of {of} training hearts have {', '.join(names)} "
            f"whole, a model takes {LEAST_HEARTS}; add cases, or name fewer classes in "
            "shape_statistics.classes"
        )


def reach_of(hearts: Sequence[Outline], channels: Sequence[int]) -> np.ndarray:
    """(2, 3) mm about the middle of the classes: a box that holds all hearts, with a rim."""
    chosen = list(channels)
    about = [o.boxes[chosen] - o.middles[chosen].mean(axis=0) for o in hearts]
    boxes = np.stack(about).reshape(-1, 2, 3)
    return np.stack([boxes[:, 0].min(axis=0) - RIM_MM, boxes[:, 1].max(axis=0) + RIM_MM])


def central(train: Sequence[Outline], channels: Sequence[int]) -> Outline:
    """The heart whose classes lie and measure most like those of the mean."""
    middles = [outline.middles[channels] for outline in train]
    mean = common_middles(middles)
    places = np.stack([middles_pose(m, mean)(m) for m in middles])
    radii = np.stack([outline.radii[channels] for outline in train])
    far = ((places - places.mean(axis=0)) ** 2).sum(axis=(1, 2))
    far += ((radii - radii.mean(axis=0)) ** 2).sum(axis=1)
    return train[int(far.argmin())]
