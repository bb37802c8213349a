"""The measures of one heart, and the solids of chambers and great vessels made from them.

Everything stands in the heart frame: RAS millimetres in the mean pose, origin at the centre
of the left ventricle's base. Size and course follow adult contrast CT in diastole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Cut, Ellipsoid, HalfSpace, Shape, Tube, Union

# The left ventricle points left, anterior and inferior; the right ventricle lies to the right
# of and before it. These axes are the columns of every short-axis construction.
APEX = np.array([-0.64, 0.54, -0.54]) / np.linalg.norm([0.64, 0.54, 0.54])
_RIGHT = np.array([0.7, 0.7, 0.0]) - np.dot([0.7, 0.7, 0.0], APEX) * APEX
TO_RV = _RIGHT / np.linalg.norm(_RIGHT)
UP = np.cross(TO_RV, APEX) * np.sign(np.cross(TO_RV, APEX)[2])
SHORT_AXIS = np.stack([TO_RV, UP, APEX], axis=1)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What differs between hearts: lengths in mm, factors around 1, shifts in mm.

    Drawn by :func:`draw_anatomy`; the anatomy of an average heart are the defaults.
    """

    lv_radius: float = 24.5
    lv_length: float = 82.0
    wall: float = 9.0
    rv: float = 1.0
    la: float = 1.0
    ra: float = 1.0
    la_flat: float = 1.0
    aorta_radius: float = 14.5
    arch_height: float = 100.0
    ascending_shift: tuple[float, float] = (0.0, 0.0)
    descending_shift: tuple[float, float] = (0.0, 0.0)
    pa_radius: float = 12.5
    pa_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    laa_length: float = 1.0
    laa_bend: float = 0.0
    laa_lobes: int = 1
    pv_radius: float = 7.0
    pv_spread: float = 1.0
    coronary_radius: float = 1.9
    diagonals: int = 2
    marginals: int = 2
    lad_reach: float = 0.9
    course: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    @property
    def lv_center(self) -> float:
        """Centre of the ventricular ellipsoid on the long axis, mm from the base."""
        return 0.36 * self.lv_length


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """An anatomy with the spread of a healthy to moderately diseased cohort."""

    def shift(size: float) -> float:
        return float(np.clip(rng.normal(0, size), -2 * size, 2 * size))

    def factor(spread: float) -> float:
        return float(np.exp(shift(spread)))

    return Anatomy(
        lv_radius=24.5 * factor(0.06),
        lv_length=82.0 * factor(0.05),
        wall=9.0 * factor(0.1),
        rv=factor(0.05),
        la=factor(0.06),
        ra=factor(0.06),
        la_flat=factor(0.06),
        aorta_radius=14.5 * factor(0.06),
        arch_height=float(rng.uniform(98, 106)),
        ascending_shift=(shift(2.0), shift(2.0)),
        descending_shift=(shift(2.5), shift(2.5)),
        pa_radius=12.5 * factor(0.05),
        pa_shift=(shift(1.5), shift(1.5), shift(1.5)),
        laa_length=factor(0.12),
        laa_bend=float(rng.uniform(-1, 1)),
        laa_lobes=int(rng.integers(1, 4)),
        pv_radius=7.0 * factor(0.08),
        pv_spread=factor(0.08),
        coronary_radius=1.9 * factor(0.08),
        diagonals=int(rng.integers(1, 4)),
        marginals=int(rng.integers(1, 4)),
        lad_reach=float(rng.uniform(0.78, 0.93)),
        course=tuple(shift(1.0) for _ in range(6)),
    )


def at(to_rv: float, up: float, apex: float) -> np.ndarray:
    """(3,) heart-frame point from short-axis coordinates, mm."""
    return SHORT_AXIS @ np.array([to_rv, up, apex], np.float64)


def chambers_and_vessels(a: Anatomy) -> dict[str, Shape]:
    """The solids of all classes but the coronaries, by class name, each whole.

    Where two overlap, the label table's priority decides (the myocardium is the filled
    ventricle here: the cavity goes before it).
    """
    aorta = _aorta(a)
    left_atrium = _left_atrium(a, aorta)
    left = _ventricle(a, a.wall)
    return {
        "myocardium": Cut(left, (HalfSpace(APEX, 1.0),), blend=3.0),
        "left_atrium": left_atrium,
        "left_ventricle": Cut(_ventricle(a, 0.0), (HalfSpace(APEX, 0.0),), blend=3.0),
        "right_atrium": _right_atrium(a),
        "right_ventricle": _right_ventricle(a, left),
        "aorta": aorta,
        "pulmonary_artery": _pulmonary_artery(a),
        "left_atrial_appendage": Cut(_appendage(a), (left_atrium,), margin=-2.0),
        "pulmonary_veins": Cut(_pulmonary_veins(a), (left_atrium,), margin=-3.0),
    }


def _ventricle(a: Anatomy, wall: float) -> Ellipsoid:
    """The left ventricle with ``wall`` mm around it, not cut at the base."""
    semi = np.array([a.lv_radius + wall, a.lv_radius + wall, 0.64 * a.lv_length + 0.85 * wall])
    return Ellipsoid(at(0, 0, a.lv_center), semi, SHORT_AXIS)


def _left_atrium(a: Anatomy, aorta: Shape) -> Shape:
    center = np.array([8.0, -22.0, 14.0])
    body = Ellipsoid(center, a.la * np.array([29.0, 20.0 * a.la_flat, 24.0]))
    mitral = at(-6, -4, 4)
    vestibule = Tube.along([center, (center + mitral) / 2, mitral], [19 * a.la, 18, 17])
    whole = Union((body, vestibule), blend=8.0)
    beside_root = Cut(whole, (aorta,), margin=1.5, blend=2.0)
    return Cut(beside_root, (HalfSpace(-APEX, 0.0),), blend=2.0)


def _right_atrium(a: Anatomy) -> Shape:
    center = np.array([51.0, 6.0, 4.0])
    body = Ellipsoid(center, a.ra * np.array([22.0, 23.0, 29.0]))
    auricle = Tube.along(
        [(46.0, 12.0, 20.0), (37.0, 24.0, 23.0), (27.0, 31.0, 21.0)], a.ra * np.array([14, 12, 7])
    )
    valve = at(38 * a.rv, -6, 3)
    vestibule = Tube.along([center, (center + valve) / 2, valve], [20 * a.ra, 18, 17])
    whole = Union((body, vestibule, auricle), blend=7.0)
    return Cut(whole, (HalfSpace(-APEX, 1.0),), blend=2.0)


def _right_ventricle(a: Anatomy, left: Shape) -> Shape:
    f, length = a.rv, a.lv_length
    beside = 0.5 * (a.wall + a.lv_radius - 33.5)  # a thick left ventricle pushes it aside
    base, middle = at(31 + beside, -6, -4), at(33 + beside, -6, 0.32 * length)
    body = Union(
        (
            Tube(np.stack([base, middle]), f * np.array([33.5, 32.0])),
            Tube(np.stack([middle, at(24, -2, 0.84 * length)]), f * np.array([32.0, 13.0])),
        ),
        blend=8.0,
    )
    inflow = Cut(body, (HalfSpace(APEX, -1.0),), blend=4.0)
    valve, ahead = _pulmonary_valve(a)
    below = valve - 13 * ahead
    outflow = Union(
        (
            Tube(np.stack([at(33, 10, 28), below]), np.array([21 * f, a.pa_radius * 1.1])),
            Tube(np.stack([below, valve + 3 * ahead]), a.pa_radius * np.array([1.1, 1.0])),
        ),
        blend=4.0,
    )
    whole = Union((inflow, outflow), blend=9.0)
    return Cut(whole, (left, HalfSpace(-ahead, -float(valve @ ahead))))


def _pulmonary_valve(a: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Centre of the valve, and the unit direction of the blood through it."""
    ahead = np.array([-0.15, -0.5, 0.85])
    centre = np.array([-14.0, 35.0, 26.0]) + 0.5 * np.array(a.pa_shift)
    return centre, ahead / np.linalg.norm(ahead)


def _aorta(a: Anatomy) -> Shape:
    r = a.aorta_radius
    sx, sy = a.ascending_shift
    dx, dy = a.descending_shift
    top = a.arch_height
    knots = [
        at(9, 7, 2),
        (9.5, 9.5, 16.0),
        (13.5 + sx / 2, 8.5 + sy / 2, 31.0),
        (18.0 + sx, 7.0 + sy, 52.0),
        (18.0 + sx, 3.0 + sy, 76.0),
        (9.0 + sx / 2, -12.0, top - 3),
        (-6.0, -35.0, top),
        (-15.0 + dx, -58.0 + dy, top - 18),
        (-17.0 + dx, -63.0 + dy, 60.0),
        (-16.0 + dx, -63.0 + dy, 10.0),
        (-10.0 + dx, -61.0 + dy, -60.0),
        (-6.0 + dx, -60.0 + dy, -130.0),
    ]
    factors = [0.9, 1.12, 0.96, 1.03, 1.02, 0.96, 0.9, 0.84, 0.8, 0.77, 0.74, 0.72]
    return Tube.along(knots, [r * f for f in factors], step=1.5)


def _pulmonary_artery(a: Anatomy) -> Shape:
    r, shift = a.pa_radius, np.array(a.pa_shift)
    valve, ahead = _pulmonary_valve(a)
    fork = np.array([-14.0, 1.0, 57.0]) + shift

    def vessel(offsets, factors) -> Tube:
        return Tube.along(fork + np.array(offsets), r * np.array(factors), step=1.5)

    trunk = Tube.along(
        [valve - 5 * ahead, valve + 5 * ahead, np.array([-18.5, 21.0, 44.0]) + shift, fork],
        [r, 1.02 * r, 1.02 * r, 0.92 * r],
        step=1.5,
    )
    root = Cut(trunk, (HalfSpace(ahead, float(valve @ ahead)),))
    right = vessel(
        [(0, 0, 0), (15, -20, -3), (40, -23, -7), (68, -23, -11)], [0.8, 0.7, 0.68, 0.58]
    )
    left = vessel([(0, 0, 0), (-18, -17, 4), (-40, -36, 1)], [0.8, 0.72, 0.58])
    return Union((root, right, left), blend=4.0)


def _appendage(a: Anatomy) -> Shape:
    start = np.array([-8.0, -10.0, 22.0])
    length, bend = a.laa_length, a.laa_bend
    way = [
        start,
        start + length * np.array([-14.0, 11.0, 4.0 + 2 * bend]),
        start + length * np.array([-26.0, 22.0, 1.0 + 2 * bend]),
        start + length * np.array([-29.0, 30.0, -8.0 - 3 * bend]),
    ]
    body = Tube.along(way, [9.0, 8.5, 9.5, 5.5])
    lobes = [
        Tube(np.stack([way[k], way[k] + length * np.array(tip)]), np.array([7.5, 4.5]))
        for k, tip in ((2, (-11, -3, -5)), (1, (-7, -4, -9)), (2, (-7, 6, 8)))[: a.laa_lobes]
    ]
    return Union((body, *lobes), blend=4.0)


def _pulmonary_veins(a: Anatomy) -> Shape:
    r, s = a.pv_radius, a.pv_spread
    edge = 29.0 * (a.la - 1) + 1
    left = np.array([-14.0 - edge, -29.0, 14.0])
    right = np.array([29.0 + edge, -30.0, 13.0])
    veins = [
        (left, (-19, -7, 14 * s), (-39, -13, 25 * s)),
        (left, (-17, -14, -11 * s), (-35, -26, -17 * s)),
        (right, (16, -4, 14 * s), (34, -9, 23 * s)),
        (right, (15, -14, -11 * s), (32, -24, -16 * s)),
    ]
    tubes = [
        Tube.along([start, start + np.array(middle), start + np.array(end)], [r + 2.5, r, 0.85 * r])
        for start, middle, end in veins
    ]
    return Union(tuple(tubes), blend=3.0)
