"""Measures of solids whose truth is known: within 2 % at the voxels of scanners, in any pose."""

from __future__ import annotations

import numpy as np
import pytest
from solids import (
    AORTA,
    APPENDAGE,
    ATRIUM,
    CAVITY,
    MARGIN_MM,
    MUSCLE,
    POSES,
    R_IN,
    RIGHT,
    SCENES,
    SPACINGS,
    ball,
    bend,
    cup,
    cylinder,
    even,
    on_grid,
    surfaces_of,
    varied,
    vessel_of,
    wall_of,
)

from cardiform.geometry.field_of_view import cuts_of
from cardiform.geometry.surface import Mesh
from cardiform.labels import LabelTable
from cardiform.measures.aorta import aortic_measures
from cardiform.measures.appendage import mouth_between
from cardiform.measures.sections import Surface
from cardiform.measures.shape import shape_figures
from cardiform.measures.table import WHOLE
from cardiform.measures.tubes import trace_vessel, vessel_measures
from cardiform.measures.wall import wall_measures

BAR = 0.02
poses = pytest.mark.parametrize("pose", POSES, ids=lambda pose: pose.name)
# Every spacing and every pose, but not each of the twelve pairs.
GRIDS = [(spacing, POSES[k % len(POSES)]) for k, spacing in enumerate(SPACINGS)]
grids = pytest.mark.parametrize(("spacing", "pose"), GRIDS, ids=str)


@grids
@pytest.mark.parametrize("scene", SCENES)
def test_measures_are_true(scene, spacing, pose):
    for solid, measure, found, true in SCENES[scene](spacing, pose):
        assert found == pytest.approx(true, rel=BAR), f"{solid}: {measure}"


def test_a_surface_without_inside_has_no_shape():
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert list(shape_figures(empty)) == []


@poses
def test_the_radius_follows_a_taper(pose):
    def inside(p):
        return (np.abs(p[:, 0]) < 30) & (np.hypot(p[:, 1], p[:, 2]) < 8 - p[:, 0] / 15)

    label_map = on_grid({AORTA: inside}, ((-30, -10, -10), (30, 10, 10)), (0.6, 0.6, 1.0), pose)
    [line] = vessel_of(label_map).lines
    assert line.radii == pytest.approx(8 - line.places[:, 0] / 15, rel=BAR)


def test_a_fork_has_three_branches_and_their_radii():
    middle = np.array([0.0, 0, 0])
    ends = {7.0: (-30.0, 0, 0), 5.0: (26.0, 18, 0), 4.0: (26.0, -18, 2)}
    tubes = [cylinder(r, middle, end) for r, end in ends.items()] + [ball(7.0)]
    label_map = on_grid(
        {AORTA: lambda p: np.any([tube(p) for tube in tubes], axis=0)},
        ((-30, -24, -8), (30, 24, 8)), (0.5, 0.5, 0.5),
    )  # fmt: skip
    rows = list(vessel_measures("aorta", vessel_of(label_map)))
    assert {m.part for m in rows} == {WHOLE, "branch_001", "branch_002", "branch_003"}
    radii = sorted(m.value for m in rows if m.part != WHOLE and m.measure == "radius_mean")
    assert radii == pytest.approx(sorted(ends), rel=2 * BAR), "near a fork vessels are wider"


def test_a_section_is_that_of_the_body_that_its_place_lies_in():
    """A plane through a bend meets both of its arms."""
    _, meshes = surfaces_of(
        on_grid({AORTA: bend(6.0, 20.0, 3.1)}, ((-26, 0, -6), (26, 26, 6)), (0.6, 0.6, 0.6))
    )
    surface = Surface(meshes[AORTA])
    place, across = np.array([20.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.0])
    area, middle = surface.section(place, across, 18.0)
    assert area == pytest.approx(np.pi * 36, rel=0.03)
    assert middle == pytest.approx([20, 2, 0], abs=0.3)
    assert np.isnan(surface.section(np.array([0.0, 2.0, 0.0]), across, 40.0)[0]), "between the arms"
    up = np.array([[0.0, 0.0, 1.0]])
    ahead, cosine, _ = surface.ahead(np.array([[0.0, 20.0, 0.0]]), up)
    assert ahead == pytest.approx([6.0], abs=0.1) and cosine == pytest.approx([1.0], abs=0.05)
    assert np.isnan(surface.ahead(np.array([[0.0, 0.0, 30.0]]), up)[0])


def test_the_wall_and_its_segments():
    wall, axis = wall_of(cup(varied, *GRIDS[2]))
    true = varied(wall.places / np.linalg.norm(wall.places, axis=1, keepdims=True))
    assert np.abs(wall.thickness / true - 1).mean() < BAR
    assert wall.thickness.mean() == pytest.approx(true.mean(), rel=BAR)
    assert axis.length == pytest.approx(R_IN + 10, rel=BAR)
    assert axis.up == pytest.approx([0, 0, 1], abs=0.05)
    assert axis.septum == pytest.approx([-1, 0, 0], abs=0.05)
    rows = list(wall_measures("myocardium", wall, axis, None))
    found = {int(m.part[-2:]): m.value for m in rows if m.part != WHOLE}
    assert sorted(found) == list(range(1, 18))
    # the same sectors on a fine grid of directions of the ball
    n = 400
    z = np.linspace(-1, 10 / R_IN, n)
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    z, turn = (x.ravel() for x in np.meshgrid(z, turn, indexing="ij"))
    flat = np.sqrt(1 - z**2)
    way = np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)
    middles = way * (R_IN + varied(way) / 2)[:, None]
    height = (middles[:, 2] + R_IN) / 30
    whole = way[:, 2] * (R_IN + varied(way)) < 10  # nearer to the base the way out ends at the rim
    # septum is -x, up is z: the front is (0, 0, 1) x (-1, 0, 0), which is -y
    angle = np.arctan2(-middles[:, 1], -middles[:, 0])
    for number, value in found.items():
        own = sector(number, height, angle) & whole
        assert value == pytest.approx(varied(way[own]).mean(), rel=1.5 * BAR), number


def sector(number, height, angle):
    """The 17 segments by their description, angle from the septum's middle to the front."""
    if number == 17:
        return height < 0
    low = {0: 2, 1: 1, 2: 0}[(number > 6) + (number > 12)] / 3
    own = (height >= low) & (height <= low + 1 / 3)
    degrees = np.degrees(angle) % 360
    if number > 12:  # front, septum, back, side
        middle = {13: 90, 14: 0, 15: 270, 16: 180}[number]
        return own & (np.abs((degrees - middle + 180) % 360 - 180) <= 45)
    # front, front and septum, back and septum, back, back and side, front and side
    middle = (90, 30, 330, 270, 210, 150)[(number - 1) % 6]
    return own & (np.abs((degrees - middle + 180) % 360 - 180) <= 30)


def test_an_even_wall_is_even():
    wall, _ = wall_of(cup(even, (0.8, 0.8, 1.5), POSES[1]))
    assert np.percentile(wall.thickness, [5, 95]) == pytest.approx([9.0, 9.0], rel=2 * BAR)
    assert wall.on_map(wall.thickness).mean() == pytest.approx(9.0, rel=BAR)


def an_aorta(p):
    """Up from the origin with a radius of 14 mm, an arch of 12 mm, down again with 10 mm."""
    out = np.hypot(p[:, 0] - 30, p[:, 2] - 50) - 30
    arch = (np.hypot(out, p[:, 1]) < 12) & (p[:, 2] >= 50)
    up = cylinder(14.0, (0, 0, -10), (0, 0, 50))(p)
    return up | arch | cylinder(10.0, (60, 0, 50), (60, 0, -60))(p)


@pytest.mark.parametrize("low", [-64.0, -20.0], ids=["whole", "cut"])
def test_diameters_of_the_aorta(low):
    middle = np.array([0.0, 0, -22])
    solids = {AORTA: an_aorta, CAVITY: ball(20.0, middle)}
    box = ((-20.0, -20, low + MARGIN_MM), (74, 20, 92))
    label_map = on_grid(solids, box, (1.0, 1.0, 1.0))
    _, meshes = surfaces_of(label_map)
    cut = cuts_of(label_map, LabelTable()).get(AORTA)
    assert (cut is None) == (low == -64)

    def distance(p):
        return np.maximum(np.linalg.norm(p - middle, axis=1) - 20, 0)

    vessel = trace_vessel(label_map, AORTA, meshes[AORTA], {"left_ventricle": distance}, cut)
    rows = {(m.part, m.measure): m for m in aortic_measures("aorta", vessel, 22.0)}
    level = "diameter_at_pulmonary_level"
    assert rows["ascending", level].value == pytest.approx(28.0, rel=BAR)
    assert rows["descending", level].value == pytest.approx(20.0, rel=BAR)
    assert rows["ascending", "diameter_max"].value == pytest.approx(28.0, rel=2 * BAR)
    assert {key for key, m in rows.items() if m.cut} == (
        {("descending", "diameter_max")} if cut else set()
    )
    unknown = trace_vessel(label_map, AORTA, meshes[AORTA], {}, cut)
    assert not list(aortic_measures("aorta", unknown, 22.0)), "no ventricle shows the way"


def test_without_a_right_ventricle_there_are_no_segments():
    label_map = cup(varied, (1.0, 1.0, 1.0), POSES[0])
    label_map.data[label_map.data == RIGHT] = 0
    wall, axis = wall_of(label_map)
    rows = list(wall_measures("myocardium", wall, axis, None))
    assert {m.part for m in rows} == {WHOLE} and axis.septum is None


def test_classes_that_do_not_touch_have_no_mouth():
    solids = {ATRIUM: ball(6.0), APPENDAGE: ball(4.0, (15.0, 0, 0))}
    label_map = on_grid(solids, ((-6.0, -6, -6), (19, 6, 6)), (1.0, 1.0, 1.0))
    assert mouth_between(label_map, APPENDAGE, ATRIUM) is None
    assert mouth_between(label_map, APPENDAGE, MUSCLE) is None


def test_what_the_border_cuts_is_marked():
    tube = cylinder(6.0, (-20, 0, 0), (40, 0, 0))
    label_map = on_grid({AORTA: tube}, ((-20.0, -6, -6), (10, 6, 6)), (1.0, 1.0, 1.0))
    cuts = cuts_of(label_map, LabelTable())
    _, meshes = surfaces_of(label_map)
    vessel = trace_vessel(label_map, AORTA, meshes[AORTA], {}, cuts[AORTA])
    rows = list(vessel_measures("aorta", vessel))
    assert rows and all(m.cut for m in rows)
