"""Hearts of which some classes are hidden, or all but a few slices: what is drawn, and where the
rest puts the heart.

The unit frame of a heart follows from all of its surfaces. Of a part of it the frame is another
one: the middle and size of what is there. So a part is put where its classes usually lie, in
training as in use, and what is hidden says nothing about the frame. In the place of a class that is
not there, the network sees points where training hearts have it, marked as a guess: something near
to attend to, and to move, where nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..artefact.model import MODEL, Model
from ..errors import InputError, problem
from ..geometry.frame import Frame
from ..labels import LabelTable
from .data import CasePoints, Draw, PointDataset
from .inputs import Labelled, encoded_rows, moved, starts_of
from .similarity import Similarity
from .slices import sliced_at_random

FIRST = 20_000  # surface points of a case that are looked at; files are shuffled
TINY = 1e-9
GUESSES = 256  # points of a class that nobody sees
GUESS_SHARE = 1 / 16  # of the input, for each class that is not there
MOST_GUESSES = 1 / 2  # of the input, for all of them
GUESS = -1.0  # in the channel of a class, in place of 1
ABOUT_GUESSES = 0.1  # unit frame: what lies about them
CANDIDATES = 8  # volume points that are looked at for each that is drawn


@dataclass(frozen=True)
class Usual:
    """Where each class lies in the unit frame, from training cases; NaN: nobody has it.

    middles : (C, 3) float64.    radii : (C,) float64, root mean square about the middle.
    shapes : (C, GUESSES, 3) float32, points of surfaces of all the cases together, each case put
        where its classes usually lie.
    levels : (C,) float64, where what is made of a class is cut.
    """

    middles: np.ndarray
    radii: np.ndarray
    shapes: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[CasePoints]) -> Usual:
        """Of training cases; those that the scan cuts count only where there are no others."""
        whole = [case for case in cases if case.planes is None] or list(cases)
        classes = whole[0].near_sdf.shape[1]
        seen = [(c.surface.points[:FIRST], c.surface.channels[:FIRST]) for c in whole]
        found = [_moments(*surface, classes) for surface in seen]
        middles, squares = (np.stack(part) for part in zip(*found))
        there = np.isfinite(squares)
        counts = np.where(there.any(axis=0), there.sum(axis=0), np.nan)
        usual = cls(
            np.where(there[..., None], middles, 0).sum(axis=0) / counts[:, None],
            np.where(there, np.sqrt(squares), 0).sum(axis=0) / counts,
            np.full((classes, GUESSES, 3), np.nan, np.float32),
            np.zeros(classes),
        )
        for channel in np.flatnonzero(there.any(axis=0)):
            usual.shapes[channel] = usual._cloud(seen, int(channel))
        return usual

    def placing(self, points: np.ndarray, channels: np.ndarray) -> Similarity:
        """The scaling and shift that put (N, 3) points of channels (N,) where they usually lie.

        Each class counts the same, however many points it has; the fit is the closest one to the
        usual middles, and sizes count with the distances of the middles.

        Raises
        ------
        InputError
            None of the classes is known.
        """
        middles, squares = _moments(points, channels, len(self.radii))
        both = np.isfinite(squares) & np.isfinite(self.radii)
        if not both.any():
            raise InputError("a label map without any known class cannot be completed")
        own, usual = middles[both], self.middles[both]
        spread = squares[both].mean() + own.var(axis=0).sum()
        wanted = (self.radii[both] ** 2).mean() + usual.var(axis=0).sum()
        scale = float(np.sqrt(wanted / max(spread, TINY)))
        return Similarity(np.eye(3), scale, usual.mean(axis=0) - scale * own.mean(axis=0))

    def as_dict(self, table: LabelTable) -> dict[str, dict[str, Any]]:
        """Class name -> middle, radius and shape, of the classes that somebody has."""
        return {
            name: {"middle": middle.tolist(), "radius": float(radius), "shape": shape.tolist()}
            for name, middle, radius, shape in zip(
                table.names, self.middles, self.radii, self.shapes
            )
            if np.isfinite(radius)
        }

    @classmethod
    def of_model(cls, stored: Model, table: LabelTable) -> Usual | None:
        """As the training stored it; None: it hid no classes. InputError where it is damaged."""
        if "usual" not in stored.extra:
            return None
        size = len(table)
        usual = cls(
            np.full((size, 3), np.nan),
            np.full(size, np.nan),
            np.full((size, GUESSES, 3), np.nan, np.float32),
            np.zeros(size),
        )
        try:
            for name, row in stored.extra["usual"].items():
                channel = table.names.index(name)
                usual.middles[channel], usual.radii[channel] = row["middle"], float(row["radius"])
                usual.shapes[channel] = row["shape"]
            for name, level in stored.extra.get("levels", {}).items():
                usual.levels[table.names.index(name)] = float(level)
            if not np.isfinite(usual.levels).all():
                raise ValueError("a level is no number")
        except (AttributeError, KeyError, TypeError, ValueError):
            fact = "says in a way that is not valid where classes usually lie, or are cut"
            raise InputError(problem(stored.path, fact, MODEL.remedy)) from None
        return usual

    def _cloud(self, seen, channel: int) -> np.ndarray:
        """(GUESSES, 3) points of one class of all cases."""
        parts = []
        for points, channels in seen:
            own = points[channels == channel]
            if len(own):
                parts.append(self.placing(points, channels).apply(own[:GUESSES]))
        each = -(-GUESSES // len(parts))
        return np.resize(np.concatenate([part[:each] for part in parts]), (GUESSES, 3))


class PartDataset(PointDataset):
    """Items of which a share has hidden classes: they are not encoded, and asked for. Of a share,
    too, nothing is encoded but what a few slices show.

    usual : where what is left is put.
    share : of the items.    most : so many classes are hidden at most.
    slices : share of the items of which slices are encoded, whether classes are hidden or not.
    """

    def __init__(
        self,
        cases: Sequence[CasePoints],
        draw: Draw,
        completing: bool = False,
        *,
        usual: Usual,
        share: float,
        most: int,
        slices: float = 0.0,
    ):
        super().__init__(cases, draw, completing)
        self.usual, self.share, self.most, self.slices = usual, share, most, slices

    def encoded(
        self, surface: Labelled, number: int, move: Similarity, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, Similarity]:
        """Points, fps and the map of the case, as of :meth:`PointDataset.encoded`."""
        part = self._part(surface, number)
        if part is None:
            return super().encoded(surface, number, move, rng)
        points, fps, placing = drawn_part(part, self.usual, self.draw, rng)
        return moved(points, move, len(self.usual.radii)), fps, move.after(placing)

    def _part(self, surface: Labelled, number: int) -> Labelled | None:
        """What is encoded of a surface; None: all of it, where it lies."""
        hiding, slicing = (np.random.default_rng((self.draw.seed, number, k)) for k in (2, 3))
        hidden = hiding.random() < self.share
        sliced = slicing.random() < self.slices
        if sliced:
            surface = sliced_at_random(surface, slicing)
        if hidden:
            surface = hidden_at_random(surface, self.most, hiding)
        return surface if hidden or sliced else None

    def volume_rows(
        self, case: CasePoints, points: np.ndarray, move: Similarity, rng: np.random.Generator
    ) -> np.ndarray:
        """(V,) rows of volume points: where a class is hidden, half of them about its guesses.

        Even draws ask seldom where a vessel may be. The guesses lie where training hearts have it,
        so that is asked of every heart alike, whether it has the class there or not. Where a class
        that the case has is not encoded at all, and has no guesses, all draws are even.
        """
        guessed = points[:, 3 : 3 + len(case.annotated)] == GUESS
        guesses = points[(guessed & case.annotated).any(axis=1), :3]
        if not (len(guesses) or len(self._unseen(case, points))):
            return super().volume_rows(case, points, move, rng)
        number = self.draw.volume_queries
        rows = rng.integers(len(case.volume.points), size=CANDIDATES * number)
        places = move.apply(case.volume.points[rows])
        reach = ABOUT_GUESSES * move.scale
        away = cKDTree(guesses).query(places, distance_upper_bound=reach)[0]
        about = rows[away < reach][: number // 2]
        return np.concatenate([about, rows[len(rows) - number + len(about) :]])

    def _unseen(self, case: CasePoints, points: np.ndarray) -> np.ndarray:
        """The channels that a case has and the encoder does not see."""
        there = [case.surface.channels[rows[0]] for rows in case.surface.rows]
        return np.setdiff1d(there, np.flatnonzero(_encoded(points, len(case.annotated))))

    def counted(
        self, case: CasePoints, points: np.ndarray, near: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Of near queries of an item whose classes are hidden: where they come from.

        They are drawn where the surfaces are, more of them in thin classes. What is hidden would
        show by that: a place would be asked for in the hearts that have the class there, and hardly
        in the others, and the network would answer yes wherever it might be.

        hidden : (C,) bool.    near_hidden : (Q,) bool, drawn at the surface of a hidden class.
        """
        hidden = case.annotated & ~_encoded(points, len(case.annotated))
        return {"hidden": hidden, "near_hidden": hidden[case.near.channels[near]]}


def _encoded(points: np.ndarray, classes: int) -> np.ndarray:
    """(C,) bool: the classes that have points, and no guesses, among those that are encoded."""
    return (points[:, 3 : 3 + classes] == 1).any(axis=0)


def drawn_part(
    part: Labelled, usual: Usual, draw: Draw, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Similarity]:
    """The encoder's input for a part of a heart, where its classes usually lie.

    Returns
    -------
    points : (N, 3 + C) float32, with normals 3 more, which guesses have not: 0
    fps : (M,) int64    placing : the map that put it there
    """
    classes = len(usual.radii)
    lacking = np.flatnonzero(np.isfinite(usual.radii) & ~np.isin(range(classes), part.channels))
    each = int(draw.input_points * min(GUESS_SHARE, MOST_GUESSES / max(len(lacking), 1)))
    rows = part.draw(draw.input_points - each * len(lacking), draw.balanced, rng)
    points = encoded_rows(part, rows, classes)
    placing = usual.placing(points[:, :3], part.channels[rows])
    points = moved(points, placing, classes)
    guesses = np.zeros((len(lacking), each, points.shape[1]), np.float32)
    for channel, place in zip(lacking, guesses):
        place[:, :3] = usual.shapes[channel][rng.integers(GUESSES, size=each)]
        place[:, 3 + channel] = GUESS
    points = np.concatenate([points, guesses.reshape(-1, points.shape[1])])
    channels = np.concatenate([part.channels[rows], np.repeat(lacking, each)])
    return points, starts_of(points, draw.latents, channels), placing


def placed(frame: Frame, move: Similarity) -> Frame:
    """The frame of a heart that is put somewhere else in the unit frame, without a turn."""
    scale = frame.scale * move.scale
    return Frame(frame.center - move.shift / scale, scale)


def hidden_at_random(surface: Labelled, most: int, rng: np.random.Generator) -> Labelled:
    """The surface without 1 to ``most`` of its classes; one class at least is left."""
    there = np.unique(surface.channels)
    number = min(int(rng.integers(1, most + 1)), len(there) - 1)
    return without(surface, rng.choice(there, number, replace=False)) if number else surface


def without(surface: Labelled, channels: Sequence[int] | np.ndarray) -> Labelled:
    """The surface without some channels.

    Raises
    ------
    InputError
        Nothing would be left.
    """
    kept = ~np.isin(surface.channels, channels)
    if not kept.any():
        raise InputError("a label map without any known class cannot be completed")
    return surface.part(kept)


def _moments(points: np.ndarray, channels: np.ndarray, classes: int):
    """Per class the mean (C, 3) of (N, 3) points and their mean squared distance (C,) from it."""
    counts = np.bincount(channels, minlength=classes).astype(np.float64)
    counts[counts == 0] = np.nan
    points = points.astype(np.float64)
    sums = [np.bincount(channels, weights=x, minlength=classes) for x in points.T]
    middles = np.stack(sums, axis=1) / counts[:, None]
    squares = np.bincount(channels, weights=(points**2).sum(axis=1), minlength=classes) / counts
    return middles, np.maximum(squares - (middles**2).sum(axis=1), 0)
