"""What is no gap of a vessel: specks, two trees, vessels that run beside each other."""

import numpy as np
import pytest
from tubes import SPACING, tube

from cardiform.anatomy.components import count_components
from cardiform.anatomy.repair import bridged, closed_along, kept_apart, repair
from cardiform.coronary.repair_case import thin_structure
from cardiform.geometry.isotropic import isotropic_mask
from cardiform.labels import LabelTable
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.volumes import LabelMap

OPTIONS = CoronaryRepairOptions(spacing_mm=SPACING)
SHAPE = (90, 50, 40)
VESSEL = tube(SHAPE, (5, 10, 10), (40, 10, 10), 1.2)
TABLE = LabelTable()


def value(name):
    return TABLE[TABLE.channel(name)].value


def ball(centre, radius):
    points = np.indices(SHAPE).reshape(3, -1).T * SPACING
    return (np.linalg.norm(points - centre, axis=1) <= radius).reshape(SHAPE)


@pytest.mark.parametrize("side", [2.0, 3.5, 5.0])
@pytest.mark.parametrize("radius", [1.0, 1.3])
@pytest.mark.parametrize("place", [12, 22, 31])
def test_a_speck_is_no_branch(side, radius, place):
    """4 to 10 mm^3 of calcium or of a vein beside a vessel."""
    speck = ball((place, 10 + 1.2 + side + radius, 10.3), radius)
    assert 4 <= speck.sum() * SPACING**3 <= 11
    result, changes = repair(VESSEL | speck, SPACING, OPTIONS)
    assert changes["bridges"] == 0 and not (result & speck).any()
    assert count_components(result) == 1


def test_a_short_branch_that_points_to_the_vessel_is_one():
    branch = tube(SHAPE, (20, 14.5, 10), (20, 18, 10), 1.0)
    result, changes = repair(VESSEL | branch, SPACING, OPTIONS)
    assert changes["bridges"] == 1 and count_components(result) == 1
    assert result[branch].mean() > 0.8


@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0, 3.0, 5.0, 6.0])
def test_two_trees_that_reach_their_root_are_never_joined(gap):
    """As the anterior descending and the posterior descending artery over the apex."""
    x = np.arange(SHAPE[0]) * SPACING
    broken = VESSEL & (np.abs(x - 22.5) >= gap / 2)[:, None, None]
    roots = np.zeros(SHAPE, bool)
    roots[:12] = roots[-14:] = True
    assert count_components(broken) == 2
    result, changes = repair(broken, SPACING, OPTIONS, roots=roots)
    assert changes["bridges"] == 0 and count_components(result) == 2
    roots[:12] = False  # of one of them it is not known: a gap as any other
    assert count_components(repair(broken, SPACING, OPTIONS, roots=roots)[0]) == 1


def test_a_piece_between_two_trees_belongs_to_one_of_them():
    x = np.arange(SHAPE[0]) * SPACING
    cut = (np.abs(x - 17) < 1.5) | (np.abs(x - 28) < 1.5)
    broken = VESSEL & ~cut[:, None, None]
    roots = np.zeros(SHAPE, bool)
    roots[:12] = roots[-14:] = True
    result, changes = repair(broken, SPACING, OPTIONS, roots=roots)
    assert count_components(broken) == 3 and count_components(result) == 2
    assert changes["bridges"] == 1


def test_the_roots_are_what_touches_the_aorta():
    labels = np.where(VESSEL, value("coronary"), 0).astype(np.uint8)
    labels[:8, 12:28, 12:28][labels[:8, 12:28, 12:28] == 0] = value("aorta")
    thin = thin_structure(LabelMap(labels, np.diag([SPACING] * 3 + [1.0])), TABLE, OPTIONS)
    touched = thin.label & thin.roots
    assert 0 < touched.sum() < 0.15 * thin.label.sum()
    labels[labels == value("aorta")] = value("myocardium")
    alone = thin_structure(LabelMap(labels, np.diag([SPACING] * 3 + [1.0])), TABLE, OPTIONS)
    assert alone.roots is None


@pytest.mark.parametrize("between", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("joined", [False, True], ids=["two trees", "one tree"])
def test_vessels_beside_each_other_stay_two(between, joined):
    apart = 2.4 + between
    other = tube(SHAPE, (5, 10 + apart, 10), (40, 10 + apart, 10), 1.2)
    pair = VESSEL | other
    if joined:
        pair |= tube(SHAPE, (5, 10, 10), (5, 10 + apart, 10), 1.2)
    result, _ = repair(pair, SPACING, OPTIONS)
    assert count_components(result) == count_components(pair) == 2 - joined
    assert result.sum() == pytest.approx(pair.sum(), rel=0.03)
    middle = round((10 + apart / 2) / SPACING)
    web = result[30:70, middle - 1 : middle + 2] & ~pair[30:70, middle - 1 : middle + 2]
    assert web.sum() < 0.1 * pair.sum() / 10


def test_dents_and_holes_are_closed():
    holed = VESSEL.copy()
    holed[30, 20, 20] = False
    holed[50, 20:23, 20] = False
    made = closed_along(holed, SPACING, 1.0)
    assert made[30, 20, 20] and made[50, 20:22, 20].all()
    assert not (made & ~VESSEL).sum() > 0.02 * VESSEL.sum()
    np.testing.assert_array_equal(closed_along(holed, SPACING, 0.0), holed)


def test_what_grows_joins_no_parts():
    mask = np.zeros((20, 9, 9), bool)
    mask[2:8, 4, 4] = mask[11:18, 4, 4] = True
    grown = mask.copy()
    grown[:, 3:6, 3:6] = True
    made = kept_apart(mask, grown)
    assert count_components(made) == 2 and made[mask].all()
    assert made.sum() > 0.7 * grown.sum()
    one = mask.copy()
    one[8:11, 4, 4] = True
    np.testing.assert_array_equal(kept_apart(one, grown), grown)


def test_evidence_is_every_other_structure():
    """The right coronary runs on right atrium and ventricle."""
    labels = np.where(tube(SHAPE, (5, 10, 10), (22, 10, 10), 1.2), value("coronary"), 0)
    labels = labels.astype(np.uint8)
    labels[60:80, 10:40, 10:30] = value("right_ventricle")
    affine = np.diag([SPACING] * 3 + [1.0])
    far = tube(SHAPE, (27, 2, 3), (27, 7, 3), 1.2) & (labels == 0)
    labels[far] = value("coronary")
    labels[0, 0, 0] = value("myocardium")

    def kept(**changes):
        options = CoronaryRepairOptions(spacing_mm=SPACING, fragment_mm3=5.0, **changes)
        thin = thin_structure(LabelMap(labels, affine), TABLE, options)
        made, _ = repair(thin.label, SPACING, options, thin.supported)
        return count_components(made)

    assert kept() == 2 and kept(evidence=("right_ventricle",)) == 2
    assert kept(evidence=("myocardium",), evidence_mm=1.0, certain_mm3=1e6) == 0
    assert bridged(VESSEL, SPACING, OPTIONS)[1] == []


def test_evidence_counts_past_the_border_of_the_grid():
    """A loose piece 7 mm above the myocardium, on a grid that ends 6 mm below the piece."""
    labels = np.zeros((60, 40, 40), np.uint8)
    labels[5:55, 10:13, 30:33] = value("coronary")
    labels[5:15, 5:15, 33:38] = value("aorta")
    labels[25:35, 20:23, 10:13] = value("coronary")
    piece = LabelMap(labels, np.eye(4))

    def supported(top: int, **changes) -> bool:
        """Whether the piece has evidence where the myocardium's last layer is ``top``."""
        labels[:, :, :10] = 0
        labels[:, :, : top + 1] = value("myocardium")
        options = CoronaryRepairOptions(spacing_mm=1.0, **changes)
        thin = thin_structure(LabelMap(labels, np.eye(4)), TABLE, options)
        assert thin.label.shape == isotropic_mask(piece, value("coronary"), 1.0, 6.0)[0].shape
        low = thin.label & (np.arange(thin.label.shape[2]) < 15)
        return bool((thin.supported & low).any())

    assert supported(4) and supported(2), "10 - 2 is 8 mm"
    assert not supported(1)
    assert supported(1, evidence_mm=9.0) and supported(0, evidence_mm=20.0)
    assert not supported(0, evidence_mm=9.0)
    # what lies past all reach is no evidence either, and no reason to keep every piece
    assert not supported(0, evidence=("myocardium",), evidence_mm=9.0)
    assert supported(0, evidence=("left_atrium",), evidence_mm=9.0), "the case has none of it"
