"""Vessels that most hearts do not have pass repair and refinement as they are."""

import itertools

import numpy as np
import pytest
from tubes import SPACING, tube

from cardiform.anatomy.centreline import Centreline
from cardiform.anatomy.components import count_components
from cardiform.anatomy.repair import repair
from cardiform.coronary.field import repaired_field
from cardiform.coronary.refine import mended
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.options.coronary import CoronaryRepairOptions

OPTIONS = CoronaryRepairOptions(spacing_mm=SPACING)
SHAPE = (100, 80, 40)
AORTA_X = 4.0  # vessels that begin below it spring from the aorta


def way(*places, radius=1.2):
    """A vessel through some places, mm."""
    parts = [tube(SHAPE, start, end, radius) for start, end in itertools.pairwise(places)]
    return np.logical_or.reduce(parts)


MAIN = way((3, 10, 10), (25, 10, 10), (45, 14, 10))
SIDE = way((25, 10, 10), (35, 20, 12))
GRAFT = way((3, 34, 8), (25, 32, 8), (41, 13.4, 10), radius=1.5)
TREES = {
    "a bypass graft that ends in the vessel": (MAIN | SIDE | GRAFT, 1),
    "a graft to a vessel that is closed": (
        way((3, 10, 10), (20, 10, 10)) | way((36, 12.2, 10), (45, 14, 10)) | GRAFT,
        2,
    ),
    "two origins beside each other": (MAIN | way((3, 15, 10), (20, 18, 10), (40, 30, 14)), 2),
    "an origin away from the aorta": (MAIN | way((12, 34, 20), (40, 34, 20)), 2),
    "one vessel without branches": (MAIN, 1),
    "a vessel within another one's bend": (
        way((3, 10, 10), (30, 10, 10), (30, 34, 10)) | way((3, 18, 10), (24, 18, 10), (24, 34, 10)),
        2,
    ),
}


def refined(mask: np.ndarray) -> np.ndarray:
    """Repaired, and mended as refinement does: what a network adds is no matter here."""
    roots = mask & (np.arange(SHAPE[0]) * SPACING < AORTA_X)[:, None, None]
    repaired, _ = repair(mask, SPACING, OPTIONS, roots=roots)
    affine = np.diag([SPACING] * 3 + [1.0])
    thin = ThinStructure(mask, repaired, np.ones_like(mask), affine, roots=roots)
    return mended(repaired_field(thin), OPTIONS).mask


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", TREES)
def test_unusual_trees_stay_as_they_are(name, mirrored):
    mask, parts = TREES[name]
    mask = np.ascontiguousarray(mask[:, ::-1]) if mirrored else mask
    assert count_components(mask) == parts
    result = refined(mask)
    assert count_components(result) == parts
    assert 2 * (mask & result).sum() / (mask.sum() + result.sum()) > 0.97
    line = Centreline.of(mask, SPACING)
    assert result[tuple(line.index.T)].mean() > 0.99


def test_a_broken_graft_stays_broken():
    """Both parts reach the aorta, one by way of the vessel: two trees, which nothing joins."""
    whole = MAIN | SIDE | GRAFT
    x = np.arange(SHAPE[0]) * SPACING
    lost = GRAFT & ~MAIN & ~SIDE & (np.abs(x - 15) < 2)[:, None, None]
    result = refined(whole & ~lost)
    assert count_components(result) == 2
    assert (result & ~whole).sum() < 0.02 * whole.sum()
