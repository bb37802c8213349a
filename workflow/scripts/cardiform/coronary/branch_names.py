"""Names of coronary branches, by the structures that they run along; nothing is corrected.

No axis of the scan takes part, so that a turned or a mirrored heart gets the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..anatomy.tree import Forest
from .surroundings import Surroundings

LEFT_MAIN, LAD, LCX, RCA = "left_main", "LAD", "LCX", "RCA"
RAMUS, TRUNK, GRAFT, UNNAMED = "ramus", "common_trunk", "graft", "unnamed"
NAMES = (LEFT_MAIN, LAD, LCX, RCA, RAMUS, TRUNK, GRAFT, UNNAMED)
LEFT, RIGHT, UNKNOWN = "left", "right", "unknown"
SIDES = {LEFT_MAIN: LEFT, LAD: LEFT, LCX: LEFT, RAMUS: LEFT, RCA: RIGHT}
MAIN, SIDE = "main", "side"

AORTA, PULMONARY_ARTERY = "aorta", "pulmonary_artery"
LV = ("myocardium", "left_ventricle")
RV, LA, RA = ("right_ventricle",), ("left_atrium",), ("right_atrium",)
APPENDAGE = "left_atrial_appendage"
# The two structures on both sides of each vessel.
GROOVES = {LAD: (RV, LV), LCX: (LA, LV), RCA: (RA, RV)}

REACH_MM = 10.0  # a vessel of a groove lies about so near to both sides, fat and wall included
LEAST_MM = 15.0  # so much of a groove makes a name; shorter pieces need half of their length
HALF = 0.5
NEARLY = 0.8
APEX_MM = 10.0  # the anterior groove ends so far below the middle, round the apex
PART_MM = 15.0  # a loose part goes on with the vessel that is so near to its beginning
GOES_ON_MM = 25.0  # of a groove: what it counts that a loose part begins at a vessel
FORK_MM = 5.0  # a part that begins so near to a branch's end leaves it there
GRAFT_MM = 20.0  # an origin so much farther from the ventricles than the lowest one is no ostium
SIDE_MM = 10.0  # how much nearer to one side counts as no more than that


@dataclass(frozen=True)
class Named:
    """Name, side and rank of each branch of a forest, and what is to be known about them.

    names, sides, courses : a text per branch: one of NAMES; left, right or unknown; main or side.
    origins : per tree, the class that it springs from; empty: a loose part.    notes : lines.
    """

    names: tuple[str, ...]
    sides: tuple[str, ...]
    courses: tuple[str, ...]
    origins: tuple[str, ...]
    notes: tuple[str, ...]


def name_branches(forest: Forest, around: Surroundings) -> Named:
    """Names and sides of all branches, from the classes that the label map has."""
    return _Namer(forest, around).named()


def without_names(forest: Forest) -> Named:
    """A forest of whatever structure: nothing is named."""
    number = len(forest.branches)
    courses = tuple(MAIN if b.parent < 0 else SIDE for b in forest.branches)
    return Named((UNNAMED,) * number, (UNKNOWN,) * number, courses, forest.origins, ())


class _Namer:
    """The naming of one forest."""

    def __init__(self, forest: Forest, around: Surroundings):
        self.forest, self.around = forest, around
        self.trees = [forest.of_tree(k) for k in range(len(forest.origins))]
        self.origins = list(forest.origins)
        self.names = [UNNAMED] * len(forest.branches)
        self.main = [False] * len(forest.branches)
        self.notes: list[str] = []
        self._known: dict[tuple, np.ndarray] = {}
        self.votes = [self._vote(tree) for tree in self.trees]

    def named(self) -> Named:
        self._check_pulmonary_origins()
        missing = [" or ".join(n) for n in (LV, RV, LA, RA) if not self.around.present(*n)]
        if missing and self.forest.branches:
            self.notes.append(f"branches have no names: the label map lacks {', '.join(missing)}")
        elif self.forest.branches:
            self._name()
        if self.forest.branches and not self.around.has(AORTA):
            self.notes.append("no origin is known: the label map lacks aorta")
        sides = [
            SIDES.get(name) or self.votes[branch.tree]
            for name, branch in zip(self.names, self.forest.branches)
        ]
        return Named(
            tuple(self.names),
            tuple(sides),
            tuple(MAIN if main else SIDE for main in self.main),
            tuple(self.origins),
            tuple(self.notes),
        )

    # --- left and right

    def _vote(self, tree: Sequence[int]) -> str:
        """The side of a tree: nearer to left or right structures over its length.

        The atria tell best; a groove between the ventricles belongs to both.
        """
        left = self.around.present(*LA, APPENDAGE, PULMONARY_ARTERY)
        right = self.around.present(*RA)
        if not (left and right):
            left, right = self.around.present(*LV), self.around.present(*RV)
        if not (left and right and tree):
            return UNKNOWN
        total = 0.0
        for k in tree:
            branch = self.forest.branches[k]
            nearer = self._distance(k, *right) - self._distance(k, *left)
            total += branch.length * float(np.clip(nearer, -SIDE_MM, SIDE_MM).mean())
        return LEFT if total > 0 else RIGHT

    def _check_pulmonary_origins(self) -> None:
        """A tree springs from the pulmonary artery where no other of its side has the aorta."""
        with_aorta = {v for v, origin in zip(self.votes, self.origins) if origin == AORTA}
        for k, origin in enumerate(self.origins):
            if origin == PULMONARY_ARTERY:
                if self.votes[k] in with_aorta or not self.around.has(AORTA):
                    self.origins[k] = ""
                else:
                    self.notes.append(f"tree {k + 1} springs from the pulmonary artery")

    # --- names

    def _name(self) -> None:
        grafts = self._grafts()
        trees = [k for k, origin in enumerate(self.origins) if origin and k not in grafts]
        if not trees:
            trees = [k for k in range(len(self.trees)) if self._is_large(k)]
        found = {k: self._paths(self.trees[k]) for k in range(len(self.trees))}
        for name in GROOVES:
            best = max(trees, key=lambda k: found[k][name][0], default=-1)
            for k in trees:
                if k != best:
                    found[k].pop(name)  # each of the three is one vessel
        for k in [*trees, *grafts]:
            self._apply(self.trees[k], self._accepted(self.trees[k], found[k]))
        for k in grafts:
            self.names[self.trees[k][0]] = GRAFT
            self.notes.append(f"tree {k + 1} begins at the aorta far from the others: a graft?")
        for k in range(len(self.trees)):
            if k not in trees and k not in grafts:
                self._name_loose(self.trees[k], found[k])

    def _is_large(self, tree: int) -> bool:
        return sum(self.forest.branches[k].length for k in self.trees[tree]) >= 2 * LEAST_MM

    def _grafts(self) -> list[int]:
        """The trees that begin at the aorta, far above the lowest origin."""
        height = {}
        for k, origin in enumerate(self.origins):
            if origin == AORTA:
                start = self.forest.branches[self.trees[k][0]].points[:1]
                height[k] = float(self.around.distance(start, *LV)[0])
        lowest = min(height.values(), default=0.0)
        return [k for k, h in height.items() if h > lowest + GRAFT_MM]

    def _paths(self, tree: Sequence[int]) -> dict[str, tuple[float, list[int]]]:
        """Vessel -> mm along its groove, and the way from the origin that has most of it."""
        found = {}
        for name in GROOVES:
            score = {k: self._score(k, name) for k in tree}
            total: dict[int, float] = {}
            for k in tree:  # parents come first
                total[k] = score[k] + total.get(self.forest.branches[k].parent, 0.0)
            # of ways that have nearly as much of it the longest: a vessel does not end in a
            # branch that dives into the septum
            most = max(total.values())
            good = [k for k in tree if total[k] >= NEARLY * most]
            best = max(good, key=self._way)
            found[name] = total[best], self._to_origin(best)
        return found

    def _way(self, k: int) -> float:
        return sum(self.forest.branches[b].length for b in self._to_origin(k))

    def _to_origin(self, k: int) -> list[int]:
        way = []
        while k >= 0:
            way.append(k)
            k = self.forest.branches[k].parent
        return way[::-1]

    def _score(self, k: int, name: str) -> float:
        """mm of a branch that lie in the groove of a vessel."""
        sides = [self._distance(k, *names) for names in GROOVES[name]]
        if name == LCX:  # the appendage covers the groove's beginning, and the ventricle beyond it
            beside = np.maximum(self._distance(k, APPENDAGE), sides[0] / 2)
            sides[0] = np.minimum(sides[0], beside)
        weight = np.exp(-np.square(np.maximum(*sides) / REACH_MM))
        if name == LAD and self._up is not None:
            middle, up = self._up
            weight *= (self.forest.branches[k].points - middle) @ up > -APEX_MM
        return float(weight.mean()) * self.forest.branches[k].length

    def _accepted(
        self, tree: Sequence[int], paths: Mapping[str, tuple[float, list[int]]]
    ) -> dict[str, list[int]]:
        """The vessels that a tree has, the surest first.

        What leaves another vessel after half of its own groove is a branch of that one.
        """
        accepted: dict[str, list[int]] = {}
        for name, (score, way) in sorted(paths.items(), key=lambda item: -item[1][0]):
            length = sum(self.forest.branches[k].length for k in way)
            if score < min(LEAST_MM, HALF * length):
                continue
            shared = {k for other in accepted.values() for k in other}
            own = [k for k in way if k not in shared]
            alone = sum(self._score(k, name) for k in own)
            if alone < HALF * score or alone < min(LEAST_MM, HALF * length):
                continue
            if self._leaves_late(accepted, way):
                continue
            accepted[name] = way
        return accepted

    def _leaves_late(self, accepted: Mapping[str, list[int]], way: Sequence[int]) -> bool:
        """Whether a way leaves an accepted vessel after half of that vessel's groove."""
        for name, other in accepted.items():
            shared = sum(self._score(k, name) for k in other if k in way)
            if shared > HALF * sum(self._score(k, name) for k in other):
                return True
        return False

    def _apply(self, tree: Sequence[int], vessels: Mapping[str, list[int]]) -> None:
        """Give the branches of a tree the names of its vessels."""
        if not vessels:
            return
        for k in tree:
            on = {name for name, way in vessels.items() if k in way}
            parent = self.forest.branches[k].parent
            if len(on) == 1:
                self.names[k] = next(iter(on))
            elif on == {LAD, LCX}:
                self.names[k] = LEFT_MAIN
            elif on:
                self.names[k] = TRUNK
            elif parent >= 0:
                inherited = {LEFT_MAIN: RAMUS, TRUNK: UNNAMED}
                self.names[k] = inherited.get(self.names[parent], self.names[parent])
            self.main[k] = bool(on)

    def _name_loose(
        self, tree: Sequence[int], paths: Mapping[str, tuple[float, list[int]]]
    ) -> None:
        """Names of a loose part, from its grooves and from the branch that it begins at.

        What that branch is called counts as much as some of a groove; where it is sure of its
        name, the part is one vessel: a fork into two would lie before it.
        """
        before, gap = self._before(tree)
        name = self.names[before] if before >= 0 and gap <= PART_MM else UNNAMED
        if name in GROOVES:
            scores = {n: score + GOES_ON_MM * (n == name) for n, (score, _) in paths.items()}
            best = max(scores, key=lambda n: scores[n])
            accepted = {best: paths[best][1]}
            if self._sure(before, name):
                self._apply(tree, accepted)
                self._fork_before(before, tree, best)
                return
        accepted = self._accepted(tree, paths) or (accepted if name in GROOVES else {})
        self._apply(tree, accepted)

    def _before(self, tree: Sequence[int]) -> tuple[int, float]:
        """The named branch of another part that a loose part begins at, and the gap; -1: none."""
        start = self.forest.branches[tree[0]].points[0]
        gaps = {
            k: float(np.linalg.norm(branch.points - start, axis=1).min())
            for k, branch in enumerate(self.forest.branches)
            if k not in tree and self.names[k] not in (UNNAMED, TRUNK, GRAFT)
        }
        nearest = min(gaps, key=lambda k: gaps[k], default=-1)
        return nearest, gaps.get(nearest, np.inf)

    def _sure(self, k: int, name: str) -> bool:
        """Whether the part of a branch has enough of the groove that its name stands for."""
        tree = self.trees[self.forest.branches[k].tree]
        return sum(self._score(b, name) for b in tree) >= LEAST_MM

    def _fork_before(self, before: int, tree: Sequence[int], name: str) -> None:
        """The left main of a tree whose anterior descending or circumflex artery is broken off."""
        branch = self.forest.branches[before]
        other = self.names[before]
        if {other, name} != {LAD, LCX} or not self.origins[branch.tree]:
            return
        way = self._to_origin(before)
        start = self.forest.branches[tree[0]].points[0]
        nearest = int(np.linalg.norm(branch.points - start, axis=1).argmin())
        rest = np.linalg.norm(np.diff(branch.points[nearest:], axis=0), axis=1).sum()
        for k in way if rest <= FORK_MM else way[:-1]:
            self.names[k] = LEFT_MAIN

    # --- places

    def _distance(self, k: int, *names: str) -> np.ndarray:
        """(K,) mm of the points of a branch to the nearest of some classes."""
        key = (k, names)
        if key not in self._known:
            self._known[key] = self.around.distance(self.forest.branches[k].points, *names)
        return self._known[key]

    @cached_property
    def _up(self) -> tuple[np.ndarray, np.ndarray] | None:
        return anterior(self.around)


def anterior(around: Surroundings) -> tuple[np.ndarray, np.ndarray] | None:
    """Middle of the left ventricle, and the unit direction to the anterior of its two grooves.

    Both grooves lie between the ventricles; the pulmonary artery rises above the anterior one,
    and the right atrium lies at the posterior one. None where the classes that tell are missing.
    """
    left, right = around.middle(*LV), around.middle(*RV)
    base, above, below = around.middle(*LA), around.middle(PULMONARY_ARTERY), around.middle(*RA)
    if above is None:
        above = around.middle(APPENDAGE)
    if left is None or right is None or base is None or (above is None and below is None):
        return None
    axis = _unit(left - base)
    to_right = _unit(_across(right - left, axis))
    up = (left if above is None else above) - (left if below is None else below)
    up = _across(_across(up, axis), to_right)
    return left, _unit(up)


def _across(vector: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return vector - (vector @ unit) * unit


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
