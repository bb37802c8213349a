"""Hearts as varied as real label maps are: measures, courses, ends, walls, what is labelled.

What real hearts showed and the usual phantoms lack: veins of three to six trees that branch,
appendages with lobes, arteries with twigs, lungs' arteries that fork, an aorta that ends early or
has its arch, caval veins at the right atrium, cavities apart from their neighbours (walls that are
background), papillary muscles and trabeculae, and label maps of few classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.grids import box_corners
from .anatomy import APEX, SHORT_AXIS, Anatomy, chambers_and_vessels
from .coronaries import END_RADIUS_MM, coronary_trees, twigs
from .painting import LABELS, Painted
from .shapes import Cut, HalfSpace, Shape, Tube, Union
from .trees import appendage, caval_veins, lung_arteries, pulmonary_veins, shortened
from .waves import MOST_SLOPE, Rough, Waves

# Number of waves, shortest, longest and highest, mm.
SPACE_BANDS = [(4, 90.0, 220.0, 5.0), (4, 35.0, 80.0, 1.2), (3, 14.0, 28.0, 0.4)]
WALL_BANDS = [(4, 25.0, 60.0, 1.2)]
TRABECULAE_BANDS = [(6, 7.0, 16.0, 0.6)]
# What is labelled: its share of the hearts, and the classes that are there (None: all).
LABELLED: tuple[tuple[float, tuple[str, ...] | None], ...] = (
    (0.74, None),
    (0.10, ("myocardium", "left_ventricle", "right_ventricle")),
    (0.08, ("left_atrium", "right_atrium", "left_atrial_appendage", "pulmonary_veins")),
    (0.08, ("left_atrium", "left_atrial_appendage", "pulmonary_veins")),
)
# Of a heart with all classes each of these may lack.
MAY_LACK = {"coronary": 0.15, "left_atrial_appendage": 0.08, "pulmonary_veins": 0.08, "aorta": 0.05}


@dataclass(frozen=True, kw_only=True)
class WideHeart(Painted):
    """A heart that is stretched and bent.

    shapes : class name -> whole solid, heart frame.
    rotation : (3, 3); shift : (3,) mm; size : uniform scale; stretch : (3,) factors along the
        heart frame's axes; bent : of the heart frame.
    view : lowest and highest z, RAS mm.    missing : names of classes that are not there.
    """

    shapes: dict[str, Shape]
    rotation: np.ndarray
    shift: np.ndarray
    size: float
    stretch: np.ndarray
    bent: Waves
    view: tuple[float, float] = (-np.inf, np.inf)
    missing: tuple[str, ...] = ()

    @property
    def block_safety(self) -> float:  # type: ignore[override]
        # bent space and rough surfaces each stretch distances by their slope
        return 1.6 * (1 + MOST_SLOPE) ** 2 / float(self.stretch.min())

    @property
    def solids(self) -> tuple[Shape | None, ...]:
        return tuple(None if c.name in self.missing else self.shapes[c.name] for c in LABELS)

    @property
    def scan_range(self) -> tuple[float, float]:
        return self.view

    def _to_heart(self, points: np.ndarray) -> np.ndarray:
        straight = (points - self.shift) @ self.rotation / (self.size * self.stretch)
        return self.bent.move(straight)

    def _to_world(self, points: np.ndarray) -> np.ndarray:
        straight = self.bent.undo(points)
        return (straight * self.size * self.stretch) @ self.rotation.T + self.shift

    def _world_box(self, solid: Shape) -> np.ndarray:
        low, high = solid.box
        corners = box_corners(low - self.bent.most, high + self.bent.most)
        world = (corners * self.size * self.stretch) @ self.rotation.T + self.shift
        return np.stack([world.min(axis=0), world.max(axis=0)])


def draw_wide(
    seed: int,
    *,
    least_vessel_radius: float = END_RADIUS_MM,
    missing: tuple[str, ...] | None = None,
) -> WideHeart:
    """The varied heart of ``seed``.

    missing : names of classes to leave out; None: drawn as real label maps lack them.
    """
    rng = np.random.default_rng((seed, 1))
    lacks = _lacking(rng)
    anatomy = _anatomy(rng)
    stretch = np.exp(np.clip(rng.normal(0, 0.08, 3), -0.16, 0.16))
    size = float(np.exp(np.clip(rng.normal(0, 0.12), -0.22, 0.22)))
    least = least_vessel_radius / (size * stretch.min()) * 1.1
    heart = WideHeart(
        shapes=_shapes(anatomy, rng, least),
        rotation=Rotation.from_euler("xyz", rng.normal(0, 15.0, 3), degrees=True).as_matrix(),
        shift=rng.normal(0, 6.0, 3),
        size=size,
        stretch=stretch,
        bent=Waves.draw(rng, SPACE_BANDS),
        missing=lacks if missing is None else tuple(missing),
    )
    low, high = _view(heart, rng)
    return WideHeart(**{**vars(heart), "view": (low, high)})


def _lacking(rng: np.random.Generator) -> tuple[str, ...]:
    """Names of classes that a heart lacks."""
    shares = np.array([share for share, _ in LABELLED])
    there = LABELLED[rng.choice(len(LABELLED), p=shares / shares.sum())][1]
    drawn = rng.random(len(MAY_LACK))
    if there is not None:
        return tuple(c.name for c in LABELS if c.name not in there)
    return tuple(name for (name, share), x in zip(MAY_LACK.items(), drawn) if x < share)


def _anatomy(rng: np.random.Generator) -> Anatomy:
    """Measures with the spread of hearts in systole and diastole, of small and large people."""

    def shift(size: float) -> float:
        return float(np.clip(rng.normal(0, size), -2 * size, 2 * size))

    def factor(spread: float) -> float:
        return float(np.exp(shift(spread)))

    return Anatomy(
        lv_radius=23.0 * factor(0.12),
        lv_length=80.0 * factor(0.08),
        wall=9.0 * factor(0.2),
        rv=0.97 * factor(0.06),
        la=factor(0.11),
        ra=factor(0.1),
        la_flat=factor(0.15),
        aorta_radius=14.0 * factor(0.12),
        arch_height=float(rng.uniform(90, 110)),
        ascending_shift=(shift(3.0), shift(3.0)),
        descending_shift=(shift(5.0), shift(5.0)),
        pa_radius=12.5 * factor(0.1),
        pa_shift=(shift(2.0), shift(2.0), shift(2.0)),
        pv_radius=5.5 * factor(0.15),
        coronary_radius=float(rng.uniform(1.3, 2.3)),
        diagonals=int(rng.integers(1, 5)),
        marginals=int(rng.integers(1, 4)),
        lad_reach=float(rng.uniform(0.75, 0.95)),
        course=tuple(shift(1.5) for _ in range(6)),
    )


def _shapes(a: Anatomy, rng: np.random.Generator, least: float) -> dict[str, Shape]:
    """All solids of one heart, coronaries included."""
    smooth = chambers_and_vessels(a)
    trees = coronary_trees(a, smooth, least)
    more = twigs(a, smooth, [t for tree in trees for t in tree], rng, least)
    # walls of atria and right ventricle may be background: their cavities are smaller then
    walls = rng.uniform(0.5, 3.5, 3) * (rng.random() < 0.5)
    left_atrium = _rough(smooth["left_atrium"], rng, -0.6 * walls[0])
    cavity = _rough(smooth["left_ventricle"], rng, 0.0, TRABECULAE_BANDS)
    right_atrium = Union((smooth["right_atrium"], *caval_veins(a, rng)), blend=5.0)
    aorta = _aorta(smooth["aorta"], rng)
    return {
        "myocardium": _wall(smooth["myocardium"], rng),
        "left_atrium": left_atrium,
        "left_ventricle": Cut(cavity, _papillary_muscles(a, rng), blend=1.0),
        "right_atrium": _rough(right_atrium, rng, -walls[1]),
        "right_ventricle": _rough(smooth["right_ventricle"], rng, -walls[2], TRABECULAE_BANDS),
        "aorta": aorta,
        "pulmonary_artery": lung_arteries(smooth["pulmonary_artery"], a, rng),
        "left_atrial_appendage": Cut(appendage(rng), (left_atrium,), margin=-2.0),
        "pulmonary_veins": Cut(pulmonary_veins(a, rng), (left_atrium,), margin=-3.0),
        "coronary": Union(sum(trees, ()) + more),
    }


def _rough(shape: Shape, rng, grown: float, more=()) -> Shape:
    return Rough(shape, Waves.draw(rng, [*WALL_BANDS, *more], width=1), grown)


def _wall(filled: Shape, rng: np.random.Generator) -> Shape:
    """The filled ventricle, some of it without the wall next to the valves."""
    tilt = APEX + rng.normal(0, 0.08, 3)
    tilt /= np.linalg.norm(tilt)
    level = rng.uniform(0.0, 12.0) * (rng.random() < 0.4)
    rough = _rough(filled, rng, 0.0)
    return Cut(rough, (HalfSpace(tilt, level),), blend=2.0) if level else rough


def _papillary_muscles(a: Anatomy, rng: np.random.Generator) -> tuple[Shape, ...]:
    """Two columns from the wall into the cavity, which become wall; in some hearts none."""
    if rng.random() < 0.6:
        return ()
    muscles = []
    for angle in np.radians([135.0, 225.0] + rng.normal(0, 15, 2)):
        side = np.array([np.cos(angle), np.sin(angle)]) * a.lv_radius
        knots = [SHORT_AXIS @ [*(f * side), g * a.lv_length] for f, g in ((0.62, 0.8), (0.5, 0.4))]
        radius = rng.uniform(2.5, 4.5)
        muscles.append(Tube.along(knots, [radius, 0.7 * radius]))
    return tuple(muscles)


def _aorta(whole: Shape, rng: np.random.Generator) -> Shape:
    """The aorta: whole, with vessels from its arch, or the ascending part alone."""
    assert isinstance(whole, Tube)
    drawn = rng.random()
    if drawn < 0.3:
        return shortened(whole, rng.uniform(45, 110))
    if drawn < 0.6:
        return whole
    top = int(whole.points[:, 2].argmax())
    parts: list[Shape] = [whole]
    for step in (-16, -4, 8)[: rng.integers(1, 4)]:
        start = whole.points[np.clip(top + step, 0, len(whole.points) - 1)]
        end = start + np.array([rng.normal(0, 6), rng.normal(0, 4), rng.uniform(20, 40)])
        parts.append(Tube.along([start, end], rng.uniform(3.5, 6.0) * np.array([1.0, 0.9])))
    return Union(tuple(parts), blend=3.0)


def _view(heart: WideHeart, rng: np.random.Generator) -> tuple[float, float]:
    """Lowest and highest z of the scan: with the arch or below it, some short of the apex."""

    def top(name: str) -> float:
        low, high = heart.shapes[name].box
        return float(heart._to_world(np.array([[*(low[:2] + high[:2]) / 2, high[2]]]))[0, 2])

    lung, arch = top("pulmonary_artery"), top("aorta")
    high = rng.uniform(min(lung - 4, arch), max(arch, lung) + 6)
    boxes = [heart._world_box(heart.shapes[n]) for n in ("myocardium", "right_ventricle")]
    apex = min(box[0, 2] for box in boxes) + heart.bent.most
    more = rng.uniform(4, 30) if rng.random() < 0.85 else -rng.uniform(4, 14)
    return float(apex - more), float(high)
