"""Traced trees of wide vessels without the stubs that run into their corners and bulges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..anatomy.tree import Branch, Forest

# A last branch of fewer radii of the widest vessel at its fork, from there on, is none of its own:
# the rim of a flat end lies 1.4 radii away, and a sinus bulges by half of one.
STUB = 2.5


def without_stubs(forest: Forest) -> Forest:
    """The forest without its stubs; where one branch of a fork is left it carries its parent on."""
    branches = list(forest.branches)
    while (stub := _shortest_stub(branches)) is not None:
        branches = _without(branches, stub)
    return replace(forest, branches=tuple(branches))


def _shortest_stub(branches: list[Branch]) -> int | None:
    widest: dict[int, float] = {}  # parent -> the usual radius of the widest branch at its fork
    for branch in branches:
        if branch.parent >= 0:
            both = [float(np.median(b.radii)) for b in (branch, branches[branch.parent])]
            widest[branch.parent] = max(widest.get(branch.parent, 0.0), *both)
    stubs = [
        (branch.length, k)
        for k, branch in enumerate(branches)
        if branch.parent >= 0 and not branch.forks and branch.length < STUB * widest[branch.parent]
    ]
    return min(stubs)[1] if stubs else None


def _without(branches: list[Branch], gone: int) -> list[Branch]:
    """All but one last branch; its parent runs on into the only branch that is left, or ends."""
    above = branches[gone].parent
    left = [k for k, branch in enumerate(branches) if branch.parent == above and k != gone]
    parent = branches[above]
    result = list(branches)
    removed = [gone]
    moved = {above: above}
    if not left:
        result[above] = replace(parent, forks=False)
    elif len(left) == 1:
        [only] = left
        child = branches[only]
        result[above] = replace(
            parent,
            points=np.concatenate([parent.points, child.points[1:]]),
            radii=np.concatenate([parent.radii, child.radii[1:]]),
            forks=child.forks,
        )
        removed.append(only)
        moved[only] = above
    kept = [k for k in range(len(branches)) if k not in removed]
    number = {k: new for new, k in enumerate(kept)} | {-1: -1}
    return [
        replace(result[k], parent=number[moved.get(result[k].parent, result[k].parent)])
        for k in kept
    ]
