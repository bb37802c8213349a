"""Measures of solids whose truth is known: within 2 % at the voxels of scanners, in any pose."""

from __future__ import annotations

import numpy as np
import pytest
from solids import POSES, SPACINGS, ball, bend, cylinder, ellipsoid, on_grid, surfaces_of

from cardiform.geometry.field_of_view import cuts_of
from cardiform.geometry.surface import Mesh
from cardiform.labels import LabelTable
from cardiform.measures.appendage import appendage_measures, mouth_between
from cardiform.measures.sections import Surface
from cardiform.measures.shape import shape_figures
from cardiform.measures.tubes import trace_vessel, vessel_measures
from cardiform.measures.wall import long_axis, measure_wall, wall_measures

BAR = 0.02
AORTA, APPENDAGE, ATRIUM, MUSCLE, CAVITY, RIGHT = 6, 8, 2, 1, 3, 5
poses = pytest.mark.parametrize("pose", POSES, ids=lambda pose: pose.name)
# Every spacing and every pose, but not each of the twelve pairs.
GRIDS = [(spacing, POSES[k % len(POSES)]) for k, spacing in enumerate(SPACINGS)]
grids = pytest.mark.parametrize(("spacing", "pose"), GRIDS, ids=str)


def shape_of(volume, area, variances) -> dict[str, float]:
    """The true figures of a solid: mm^3, mm^2, variances along its axes in mm^2."""
    axes = 4 * np.sqrt(np.sort(variances)[::-1])
    sphericity = (36 * np.pi * volume**2) ** (1 / 3) / area
    return {
        "volume": volume / 1000, "surface_area": area / 100, "sphericity": sphericity,
        "normalised_shape_index": np.sqrt(area) / np.cbrt(volume) / (4 * np.pi) ** 0.5
        * (4 * np.pi / 3) ** (1 / 3),
        "major_axis_length": axes[0], "minor_axis_length": axes[1], "least_axis_length": axes[2],
        "elongation": axes[1] / axes[0], "flatness": axes[2] / axes[0],
    }  # fmt: skip


def area_of_ellipsoid(a, b, c) -> float:
    """By the midpoint rule over a fine grid of angles."""
    n = 1000
    u, v = (np.arange(n) + 0.5) * np.pi / n, (np.arange(2 * n) + 0.5) * np.pi / n
    u, v = np.meshgrid(u, v, indexing="ij")
    across = np.sqrt(
        (b * c * np.sin(u) ** 2 * np.cos(v)) ** 2
        + (a * c * np.sin(u) ** 2 * np.sin(v)) ** 2
        + (a * b * np.sin(u) * np.cos(u)) ** 2
    )
    return float(across.sum() * (np.pi / n) ** 2)


def a_ball(r=14.0):
    truth = shape_of(4 / 3 * np.pi * r**3, 4 * np.pi * r**2, [r**2 / 5] * 3)
    return ball(r), ((-r,) * 3, (r,) * 3), truth


def an_ellipsoid(a=26.0, b=17.0, c=11.0):
    volume = 4 / 3 * np.pi * a * b * c
    truth = shape_of(volume, area_of_ellipsoid(a, b, c), np.square([a, b, c]) / 5)
    return ellipsoid((a, b, c)), ((-a, -b, -c), (a, b, c)), truth


def a_tube(r=9.0, half=24.0):
    area = 2 * np.pi * r**2 + 4 * np.pi * r * half
    truth = shape_of(2 * np.pi * r**2 * half, area, [half**2 / 3, r**2 / 4, r**2 / 4])
    return cylinder(r, (0, 0, -half), (0, 0, half)), ((-r, -r, -half), (r, r, half)), truth


def a_shell(inner=11.0, outer=20.0):
    volume = 4 / 3 * np.pi * (outer**3 - inner**3)
    variance = (outer**5 - inner**5) / (outer**3 - inner**3) / 5
    truth = shape_of(volume, 4 * np.pi * (outer**2 + inner**2), [variance] * 3)
    whole, hollow = ball(outer), ball(inner)
    return lambda p: whole(p) & ~hollow(p), ((-outer,) * 3, (outer,) * 3), truth


@grids
@pytest.mark.parametrize("solid", [a_ball, an_ellipsoid, a_tube, a_shell])
def test_size_and_shape(solid, spacing, pose):
    inside, box, truth = solid()
    _, meshes = surfaces_of(on_grid({1: inside}, box, spacing, pose))
    found = {name: value for name, value, _ in shape_figures(meshes[1])}
    assert found == pytest.approx(truth, rel=BAR)


def test_a_surface_without_inside_has_no_shape():
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert list(shape_figures(empty)) == []


def measures_of_vessel(label_map) -> dict[str, float]:
    _, meshes = surfaces_of(label_map)
    vessel = trace_vessel(label_map, AORTA, meshes[AORTA], {})
    return {m.measure: m.value for m in vessel_measures("aorta", vessel) if not m.part}


@grids
@pytest.mark.parametrize("radius", [5.0, 11.0])
def test_a_straight_vessel(radius, spacing, pose):
    start, end = np.array([-24.0, -10, 3]), np.array([22.0, 14, -4])
    box = (tuple(np.minimum(start, end) - radius), tuple(np.maximum(start, end) + radius))
    found = measures_of_vessel(on_grid({AORTA: cylinder(radius, start, end)}, box, spacing, pose))
    assert found.pop("branches") == 1
    assert found.pop("centreline_length") == pytest.approx(np.linalg.norm(end - start), rel=BAR)
    assert found == pytest.approx(
        dict.fromkeys(("radius_mean", "radius_min", "radius_max"), radius), rel=BAR
    )


@grids
@pytest.mark.parametrize(("radius", "turn", "around"), [(6.0, 24.0, 2.6), (10.0, 26.0, 3.0)])
def test_a_bent_vessel(radius, turn, around, spacing, pose):
    reach = turn + radius
    box = ((-reach, -radius, -radius), (reach, reach, radius))
    found = measures_of_vessel(on_grid({AORTA: bend(radius, turn, around)}, box, spacing, pose))
    assert found.pop("branches") == 1
    assert found.pop("centreline_length") == pytest.approx(turn * around, rel=BAR)
    assert found == pytest.approx(
        dict.fromkeys(("radius_mean", "radius_min", "radius_max"), radius), rel=BAR
    )


@poses
def test_the_radius_follows_a_taper(pose):
    def inside(p):
        return (np.abs(p[:, 0]) < 30) & (np.hypot(p[:, 1], p[:, 2]) < 8 - p[:, 0] / 15)

    label_map = on_grid({AORTA: inside}, ((-30, -10, -10), (30, 10, 10)), (0.6, 0.6, 1.0), pose)
    _, meshes = surfaces_of(label_map)
    [line] = trace_vessel(label_map, AORTA, meshes[AORTA], {}).lines
    assert line.radii == pytest.approx(8 - line.places[:, 0] / 15, rel=BAR)


def test_a_fork_has_three_branches_and_their_radii():
    middle = np.array([0.0, 0, 0])
    ends = {7.0: (-30.0, 0, 0), 5.0: (26.0, 18, 0), 4.0: (26.0, -18, 2)}
    tubes = [cylinder(r, middle, end) for r, end in ends.items()] + [ball(7.0)]
    label_map = on_grid(
        {AORTA: lambda p: np.any([tube(p) for tube in tubes], axis=0)},
        ((-30, -24, -8), (30, 24, 8)), (0.5, 0.5, 0.5),
    )  # fmt: skip
    _, meshes = surfaces_of(label_map)
    vessel = trace_vessel(label_map, AORTA, meshes[AORTA], {})
    rows = list(vessel_measures("aorta", vessel))
    assert {m.part for m in rows} == {"", "branch_001", "branch_002", "branch_003"}
    radii = sorted(m.value for m in rows if m.part and m.measure == "radius_mean")
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


R_IN = 20.0


def cup(thickness, spacing, pose):
    """A cavity of a ball open at z = 10 in muscle, the right ventricle on its side -x.

    thickness : (N, 3) unit directions -> (N,) mm.
    """

    def muscle(p):
        r = np.linalg.norm(p, axis=1)
        way = p / np.maximum(r, 1e-9)[:, None]
        return (r < R_IN + thickness(way)) & (p[:, 2] < 10)

    cavity = ball(R_IN)
    solids = {
        RIGHT: lambda p: ball(24.0, (-24.0, 0, 0))(p) & (p[:, 2] < 10),
        MUSCLE: muscle,
        CAVITY: lambda p: cavity(p) & (p[:, 2] < 10),
    }
    box = ((-48.0, -34, -34), (34, 34, 10))
    return on_grid(solids, box, spacing, pose)


def wall_of(label_map):
    fields, meshes = surfaces_of(label_map)
    wall = measure_wall(meshes[MUSCLE], fields[CAVITY])
    right = (meshes[RIGHT], fields[RIGHT]) if RIGHT in fields else None
    return wall, long_axis(meshes[CAVITY], fields[MUSCLE], right)


def varied(way):
    """Thicker at the back (+y) and at the tip."""
    return 9 + 2 * way[:, 1] - 1.5 * way[:, 2]


@pytest.mark.parametrize(("spacing", "pose"), GRIDS[1:], ids=str)
def test_the_wall_and_its_segments(spacing, pose):
    wall, axis = wall_of(cup(varied, spacing, pose))
    true = varied(wall.places / np.linalg.norm(wall.places, axis=1, keepdims=True))
    assert np.abs(wall.thickness / true - 1).mean() < BAR
    assert wall.thickness.mean() == pytest.approx(true.mean(), rel=BAR)
    assert axis.length == pytest.approx(R_IN + 10, rel=BAR)
    assert axis.up == pytest.approx([0, 0, 1], abs=0.05)
    assert axis.septum == pytest.approx([-1, 0, 0], abs=0.05)
    rows = list(wall_measures("myocardium", wall, axis, None))
    found = {int(m.part[-2:]): m.value for m in rows if m.part}
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


@grids
def test_an_even_wall(spacing, pose):
    def thickness(way):
        return np.full(len(way), 9.0)

    wall, _ = wall_of(cup(thickness, spacing, pose))
    assert wall.thickness.mean() == pytest.approx(9.0, rel=BAR)
    assert np.percentile(wall.thickness, [5, 95]) == pytest.approx([9.0, 9.0], rel=3 * BAR)
    assert wall.on_map(wall.thickness).mean() == pytest.approx(9.0, rel=BAR)


def test_without_a_right_ventricle_there_are_no_segments():
    label_map = cup(varied, (1.0, 1.0, 1.0), POSES[0])
    label_map.data[label_map.data == RIGHT] = 0
    wall, axis = wall_of(label_map)
    rows = list(wall_measures("myocardium", wall, axis, None))
    assert {m.part for m in rows} == {""} and axis.septum is None


@grids
def test_the_mouth_and_depth_of_an_appendage(spacing, pose):
    """A tube that grows out of a block: its mouth is a disc."""
    way = np.array([0.3, -0.4, 0.866])
    way /= np.linalg.norm(way)
    tube = cylinder(8.0, np.zeros(3), 26 * way)
    solids = {ATRIUM: lambda p: (p @ way < 0) & (np.abs(p) < 15).all(axis=1), APPENDAGE: tube}
    label_map = on_grid(solids, ((-18.0, -22, -15), (22, 18, 32)), spacing, pose)
    _, meshes = surfaces_of(label_map)
    mouth = mouth_between(label_map, APPENDAGE, ATRIUM)
    assert mouth.normal == pytest.approx(-way, abs=0.02)
    rows = appendage_measures("laa", mouth, meshes[APPENDAGE], None, max(spacing))
    found = {m.measure: m.value for m in rows}
    assert found == pytest.approx(
        {"ostium_area": np.pi * 0.64, "ostium_diameter": 16.0, "depth": 26.0}, rel=BAR
    )


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
