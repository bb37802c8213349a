"""Components, centrelines and the repair of broken vessels."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize
from tubes import SPACING, broken_tube, tube

from cardiform.anatomy.bridging import Limits, bridges
from cardiform.anatomy.centreline import Centreline
from cardiform.anatomy.components import count_components, kept, largest, without_small
from cardiform.anatomy.repair import bridged, closed, repair, smoothed, without_fragments
from cardiform.anatomy.skeleton import skeleton
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.options.field import checked

OPTIONS = CoronaryRepairOptions(spacing_mm=SPACING)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def specks():
    mask = np.zeros((20, 30, 10), bool)
    mask[2:6, 2:6, 2:6] = True
    mask[10:12, 10:12, 2:4] = True
    mask[12, 12, 4] = True  # touches the second at a corner
    mask[18, 28, 8] = True
    return mask


@pytest.mark.parametrize("order", ["C", "F"])
def test_components_are_26_connected_in_either_memory_order(specks, order):
    mask = np.asarray(specks, order=order)
    assert count_components(mask) == 3
    assert without_small(mask, 9).sum() == 64 + 9
    assert largest(mask, 1).sum() == 64 and largest(mask, 9).sum() == mask.sum()
    assert not kept(np.array([0, 1, 2]), np.array([True, False, True]))[0]


def test_the_centreline_of_a_tube():
    mask = tube((80, 30, 24), (4, 7, 6), (34, 7, 6), 1.5)
    line = Centreline.of(mask, SPACING)
    assert line.length_mm == pytest.approx(30, abs=3)
    assert np.abs(line.points[:, 1:] - [7, 6]).max() <= SPACING
    assert np.median(line.radius) == pytest.approx(1.5, abs=SPACING)
    ends = line.ends()
    assert len(ends) == 2
    for end in ends:
        way, radius = line.outward(end)
        outward = np.sign(line.points[end][0] - 19)
        assert way[0] * outward > 0.99 and radius == pytest.approx(1.5, abs=SPACING)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("turn", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_vessels_of_an_even_width_keep_their_centreline(width, turn):
    """Thinning alone eats such a rod from its end to the last voxel."""
    rod = np.zeros((60, 20, 20), bool)
    rod[5:55, 8 : 8 + width, 8 : 8 + width] = True
    line = np.argwhere(skeleton(rod.transpose(turn)))
    along = line[:, turn.index(0)]
    assert along.min() <= 8 and along.max() >= 51 and len(line) < 60
    assert len(np.unique(Centreline.of(rod.transpose(turn), 1.0).parts)) == 1


@pytest.mark.parametrize("width", [2, 4])
def test_a_limb_that_thinning_eats_comes_back(width):
    """Of a vessel of even width with a branch, thinning alone keeps one side of the fork."""
    mask = np.zeros((80, 50, 20), bool)
    mask[5:75, 5:9, 5:9] = True
    mask[40 : 40 + width, 5:40, 5 : 5 + width] = True
    assert np.ptp(np.argwhere(skeletonize(mask))[:, 0]) < 45
    line = Centreline.of(mask, SPACING)
    assert np.ptp(line.index[:, 0]) > 60 and line.index[:, 1].max() > 35
    assert len(line.ends()) == 3 and len(np.unique(line.parts)) == 1


def test_a_lump_on_a_vessel_is_no_branch():
    vessel = tube((90, 40, 40), (4, 8, 8), (40, 8, 8), 1.0)
    lump = tube(vessel.shape, (20, 11, 8), (20, 11.1, 8), 2.5)
    assert len(Centreline.of(vessel | lump, SPACING).ends()) <= 3
    cube = np.zeros((9, 9, 9), bool)
    cube[2:6, 2:6, 2:6] = True
    assert skeleton(cube).sum() == 1


@pytest.mark.parametrize("thick, width", [(1, 9), (2, 9), (1, 20), (3, 16)])
def test_a_flat_vessel_has_no_spurs_across(thick, width):
    """As vessels are on thick slices."""
    mask = np.zeros((80, 40, 10), bool)
    mask[5:65, 5 : 5 + width, 3 : 3 + thick] = True
    assert np.array_equal(skeleton(mask), skeletonize(mask) > 0)
    assert len(Centreline.of(mask, 1.0).ends()) == 2


def test_solid_masks_build_no_graph(monkeypatch):
    """It would take more than a kilobyte for each voxel of a chamber."""
    monkeypatch.setattr("cardiform.anatomy.skeleton.VoxelGraph.of", None)
    place = np.moveaxis(np.indices((120, 90, 80)), 0, 3) - (60, 45, 40)
    chamber = np.linalg.norm(place / (50.3, 35.7, 30.2), axis=3) < 1
    assert np.array_equal(skeleton(chamber), skeletonize(chamber) > 0)
    ball = np.linalg.norm(np.indices((36, 36, 36)) - 17.5, axis=0) <= 15  # thinning eats it
    assert skeleton(ball).sum() == 1


def test_the_memory_order_of_a_mask_does_not_matter():
    rng = np.random.default_rng(1)
    for _ in range(6):
        mask = ndimage.gaussian_filter(rng.normal(size=(60, 50, 40)), 2.2) > 0.03
        found = skeleton(mask)
        assert np.array_equal(found, skeleton(np.asfortranarray(mask)))
        assert not (found & ~mask).any() and not (skeletonize(mask) & ~found).any()


def test_an_empty_mask_and_a_speck_have_a_centreline_too():
    empty = np.zeros((8, 8, 8), bool)
    line = Centreline.of(empty, SPACING)
    assert len(line) == 0 and line.length_mm == 0 and not skeleton(empty).any()
    assert bridges(line, Limits(6, 70, 3)) == [] and not repair(empty, SPACING, OPTIONS)[0].any()
    empty[4, 4, 4] = True
    assert len(Centreline.of(empty, SPACING)) == 1


def test_a_gap_is_bridged_along_the_vessel():
    whole, broken = broken_tube()
    assert count_components(broken) == 2
    result, changes = repair(broken, SPACING, OPTIONS)
    assert count_components(result) == 1 and changes["bridges"] == 1
    assert dice(result, whole) > max(dice(broken, whole), 0.95)
    gap = whole & ~broken
    assert result[gap].mean() > 0.8 and (result & ~whole).sum() < 0.5 * gap.sum()
    assert changes["components_before"] == 2 and changes["components_after"] == 1
    assert 3 < changes["bridged_mm"] < 8


@pytest.mark.parametrize(
    "change, joined",
    [({}, True), ({"gap_mm": 2.0}, False), ({"angle_deg": 5.0}, True), ({"gap_mm": 0.0}, False)],
)
def test_the_limits_of_a_bridge(change, joined):
    _, broken = broken_tube(gap=4.0)
    options = CoronaryRepairOptions(spacing_mm=SPACING, **change)
    assert (count_components(bridged(broken, SPACING, options)[0]) == 1) == joined


@pytest.mark.parametrize(
    "gap, turn, joined",
    [(8, 0, True), (10, 0, False), (4.5, 45, True), (8, 45, False), (4.5, 65, False)],
)
def test_the_wider_a_gap_the_straighter_its_ends(gap, turn, joined):
    """Both ends turn away from the straight way between them by ``turn`` degrees."""
    middle, along = np.array([30.0, 30.0, 8.0]), np.radians(turn)
    mask = np.zeros((120, 120, 32), bool)
    for side in (-1, 1):
        end = middle + [side * (gap / 2 + 1.5), 0, 0]
        out = np.array([side * np.cos(along), np.sin(along), 0])
        mask |= tube(mask.shape, end, end + 14 * out, 1.5)
    assert bool(bridged(mask, SPACING, OPTIONS)[1]) == joined


def test_earlier_files_may_allow_any_turn():
    """Their angle went up to 180 degrees; what is beyond 90 is like 90."""
    line = Centreline.of(broken_tube()[1], SPACING)
    given = checked(CoronaryRepairOptions, {"angle_deg": 180.0})
    joined = [len(bridges(line, Limits(9.0, angle, 3.0))) for angle in (given.angle_deg, 90.0)]
    assert joined == [1, 1] and Limits(9.0, 180.0, 3.0).least_cosine >= 0


def test_vessels_that_pass_each_other_are_not_joined():
    shape = (80, 40, 30)
    one = tube(shape, (4, 6, 7), (36, 6, 7), 1.0)
    other = tube(shape, (4, 11, 7), (36, 11, 7), 1.0)
    result, joints = bridged(one | other, SPACING, OPTIONS)
    assert not joints and count_components(result) == 2


def test_a_wide_end_is_not_joined_to_a_thin_vessel():
    shape = (60, 60, 30)
    wide = tube(shape, (4, 14, 7), (14, 14, 7), 3.0)
    thin = tube(shape, (20, 4, 7), (20, 25, 7), 0.6)
    assert not bridged(thin | wide, SPACING, OPTIONS)[1]
    generous = CoronaryRepairOptions(spacing_mm=SPACING, radius_ratio=8.0)
    assert bridged(thin | wide, SPACING, generous)[1]


def test_bridges_close_no_loop():
    shape = (60, 60, 24)
    mask = tube(shape, (5, 5, 6), (24, 5, 6), 1) | tube(shape, (24, 5, 6), (24, 24, 6), 1)
    mask |= tube(shape, (24, 24, 6), (9, 24, 6), 1) | tube(shape, (5, 5, 6), (5, 20, 6), 1)
    assert count_components(mask) == 1
    assert not bridged(mask, SPACING, OPTIONS)[1]  # its two ends face each other


def test_the_repair_follows_its_mask_through_axis_swaps_and_mirrors():
    _, broken = broken_tube()
    result, _ = repair(broken, SPACING, OPTIONS)
    swapped, _ = repair(np.ascontiguousarray(broken.transpose(2, 0, 1)), SPACING, OPTIONS)
    assert dice(swapped, result.transpose(2, 0, 1)) > 0.98
    mirrored, _ = repair(np.ascontiguousarray(broken[::-1]), SPACING, OPTIONS)
    assert dice(mirrored, result[::-1]) > 0.98
    again, _ = repair(broken, SPACING, OPTIONS)
    np.testing.assert_array_equal(again, result)


def test_dust_goes_and_a_distal_piece_stays():
    _, broken = broken_tube(gap=12.0)  # too wide for a bridge
    noisy = broken.copy()
    noisy[4:6, 40:42, 30:32] = True
    result, changes = repair(noisy, SPACING, OPTIONS)
    assert count_components(result) == 2 and changes["dust_voxels"] == 8
    assert result[72, 20, 20], "the distal piece: the two largest components would be too few"


def test_fragments_are_kept_by_size_and_evidence():
    mask = np.zeros((60, 40, 40), bool)
    mask[2:20, 2:12, 2:12] = True  # 225 mm^3: certain
    mask[30:36, 2:10, 2:10] = True  # 48 mm^3
    mask[50:53, 30:33, 30:33] = True  # 3.4 mm^3
    everywhere = without_fragments(mask, SPACING, OPTIONS)
    assert count_components(everywhere) == 2
    near = np.zeros_like(mask)
    assert count_components(without_fragments(mask, SPACING, OPTIONS, near)) == 1
    near[35] = True
    assert count_components(without_fragments(mask, SPACING, OPTIONS, near)) == 2


def test_closing_and_smoothing_keep_a_vessel():
    whole, _ = broken_tube()
    holed = whole.copy()
    holed[30, 20, 20] = False
    assert closed(holed, SPACING, 1.0)[30, 20, 20]
    np.testing.assert_array_equal(closed(holed, SPACING, 0.0), holed)
    thin = tube((60, 24, 24), (4, 6, 6), (26, 6, 6), 0.6)
    blurred = smoothed(thin, SPACING, 0.6)
    assert blurred.sum() == pytest.approx(thin.sum(), rel=0.25), "a fixed level would lose it"
    assert count_components(blurred) == 1
