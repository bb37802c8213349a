"""The levels at which what is made of hidden classes is cut, chosen on validation hearts.

Where several shapes may be the network predicts their median. Of a thin structure whose place is
not sure that is a thinner one, or nothing: most hearts do not have it at any one place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ..labels import LabelTable
from .data import CasePoints, Draw
from .model import VecSet
from .parts import Usual, drawn_part, without

log = logging.getLogger(__name__)

LEVELS = (0.0, -0.01, 0.005, 0.01, 0.02, 0.03, 0.05)  # unit frame; a heart has radius 0.95
# A level other than 0 has to be better by this: differences of Dice below it are chance.
GAIN = 0.005
CASES, POINTS, QUERIES = 8, 20_000, 4096


def chosen_levels(
    network: VecSet, cases: Sequence[CasePoints], usual: Usual, draw: Draw, table: LabelTable
) -> dict[str, float]:
    """Class name -> the level with the best Dice where the class alone is hidden.

    Of levels that are as good, within GAIN, that nearest to 0; classes that nobody has are left
    out.

    network : in evaluation, on the device where it is to run.    cases : of the validation.
    """
    levels = {}
    for channel, name in enumerate(table.names):
        having = [c for c in cases[:CASES] if (c.surface.channels == channel).any()]
        scores = np.zeros((len(LEVELS), 2))
        for case in having:
            if (case.surface.channels != channel).any():
                scores += _overlaps(network, case, channel, usual, draw)
        if not scores[0, 1]:
            continue
        dice = scores[:, 0] / np.maximum(scores[:, 1], 1)
        as_good = [k for k in range(len(LEVELS)) if dice[k] >= dice.max() - GAIN]
        best = min(as_good, key=lambda k: abs(LEVELS[k]))
        levels[name] = LEVELS[best]
        text = "%s, made from the others: level %+.3f, Dice %.3f (%.3f at 0)"
        log.info(text, name, LEVELS[best], dice[best], dice[0])
    return levels


@torch.no_grad()
def _overlaps(
    network: VecSet, case: CasePoints, channel: int, usual: Usual, draw: Draw
) -> np.ndarray:
    """(LEVELS, 2): twice the points in both, and the points in each, over volume points."""
    device = network.head.weight.device
    rng = np.random.default_rng(draw.seed)
    points, fps, placing = drawn_part(without(case.surface, [channel]), usual, draw, rng)
    given = (torch.from_numpy(a)[None].to(device) for a in (points, fps))
    tokens = network.expand(network.encode(*given))
    truth = case.volume_sdf[:POINTS, channel].astype(np.float32)
    places = torch.from_numpy(placing.apply(case.volume.points[:POINTS]))
    found = torch.cat(
        [
            network.query(tokens, part[None].to(device))[0, :, channel].float().cpu()
            for part in places.split(QUERIES)
        ]
    ).numpy()
    known = np.isfinite(truth)
    inside, found = truth[known] < 0, found[known]
    guesses = [found < level for level in LEVELS]
    return np.array([[2 * (g & inside).sum(), g.sum() + inside.sum()] for g in guesses], float)
