"""Anatomical consistency: what a label map of the heart must hold to, rule by rule.

Every rule looks at one or two classes by name and does nothing where the case, or the label
table, lacks one of them. All distances are millimetres.

A rule gives up a part of a class only where neither its size nor its place speaks for it: hearts
with bypass grafts, vessels of an unusual origin or a mirrored heart are no faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from ..anatomy.components import components, count_components, kept
from ..errors import InputError
from ..geometry.distances import distance_to
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from ..options.fusion import FusionOptions
from .filling import surrounding
from .truth import verdict

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)
GAP_MM = 5.0  # a part no farther than this from the rest was cut off by a gap in the label
BREAK_MM = 10.0  # the same for a piece of a coronary that lies on the heart
# Coronary pieces of so few voxels, or such a share of the least size, are noise.
CRUMB_VOXELS, CRUMB = 2, 0.2
SPECK_MM3 = 50.0  # smaller parts of chambers, appendage and veins are specks
# A part as large as both of these is anatomy, wherever it lies.
LARGE_SHARE, LARGE_MM3 = 0.1, 200.0


def consistent(
    labels: np.ndarray,
    spacing: np.ndarray,
    table: LabelTable,
    options: FusionOptions,
    *,
    given: np.ndarray | None = None,
    replaced: Sequence[int] = (),
    truth: np.ndarray | None = None,
) -> tuple[np.ndarray, list[dict]]:
    """A label map that holds to ``options.rules``, and what each of them changed.

    labels : (X, Y, Z) uint8, in either memory order.    spacing : (3,) mm.
    given : the label map before masks replaced some classes; by default ``labels``.
    replaced : values of those classes.
    truth : (X, Y, Z) uint8, an expert's label map on the same grid, for figures alone.

    Returns
    -------
    The label map, and per rule its name, ``voxels`` per class name (positive: gained), the
    ``components`` that it took away, or ``skipped`` with the reason, and with a ``truth`` how
    many of the voxels were taken and added rightly (:func:`cardiform.fusion.truth.verdict`).
    """
    given = labels if given is None else given
    state = _State(labels, np.asarray(spacing, float), table, options, given, replaced)
    report = []
    for name in options.rules:
        before = state.labels.copy(order="K")
        outcome = RULES[name](state)
        counts = [np.bincount(m.ravel("K"), minlength=256) for m in (before, state.labels)]
        gained = {c.name: int(counts[1][c.value] - counts[0][c.value]) for c in table}
        entry = {"rule": name, "voxels": {n: v for n, v in gained.items() if v}, **outcome}
        if truth is not None:
            entry |= verdict(before, state.labels, truth, table)
        report.append(entry)
    return state.labels, report


def check_rules(options: FusionOptions) -> None:
    """InputError where a rule is unknown."""
    unknown = [name for name in options.rules if name not in RULES]
    if unknown:
        raise InputError(f"fusion.rules: no rule {', '.join(unknown)}; known: {', '.join(RULES)}")


class _State:
    """The label map as the rules change it.

    original : as it came, before any mask; masked : with the masks, before any rule.
    """

    def __init__(self, labels, spacing, table, options, given, replaced):
        self.labels, self.spacing, self.table, self.options = labels, spacing, table, options
        self.values = dict(zip(table.names, table.values))
        self.original, self.masked, self.replaced = given, labels, list(replaced)
        self.labels = labels.copy(order="K")

    def mask(self, name: str) -> np.ndarray | None:
        """The voxels of a class; None where the case has none."""
        value = self.values.get(name)
        if value is None:
            return None
        found = self.labels == value
        return found if found.any() else None

    def parts(self, name: str) -> _Parts | None:
        """The connected parts of a class; None where the case has none."""
        value = self.values.get(name, 0)
        box = class_boxes(self.labels).get(value)
        if box is None:
            return None
        return _Parts(self.labels, value, _grown(box, self.labels.shape), self.spacing)

    def drop(self, name: str, parts: _Parts, doubted, specks, reach) -> dict:
        """Give up the ``doubted`` parts of a class that nothing speaks for.

        A large part stays, and so does one that lies within ``reach`` of a part that stays,
        where that is no speck. All three are arrays (K,), a value per part: two bool and mm.
        """
        staying = ~doubted | parts.large
        staying[0] = True
        for these in (~specks, specks):
            while (left := these & ~staying).any():
                if not (more := left & parts.beside(staying & ~specks, reach)).any():
                    break
                staying |= more
        if not staying[1:].any():
            return {"components": 0, "skipped": f"all of {name} would go"}
        self.labels[parts.box][~staying[parts.labelled]] = 0
        return {"components": int((~staying).sum())}


class _Parts:
    """The connected parts of a class; number 0 is what lies beside it.

    box : of the class and a rim of one voxel.
    labelled : (x, y, z) within it, the number of every voxel.
    voxels, mm3 : (K,) the size of every part.
    """

    def __init__(self, labels: np.ndarray, value: int, box, spacing: np.ndarray):
        self.box, self.spacing, self.shape = box, spacing, labels.shape
        self.labelled, self.voxels = components(labels[box] == value)
        self.mm3 = self.voxels * float(np.prod(spacing))
        self.mm3[0] = 0

    @property
    def large(self) -> np.ndarray:
        """(K,) bool: too large to be a fault of the label."""
        return self.mm3 >= max(LARGE_SHARE * self.mm3.sum(), LARGE_MM3)

    @property
    def at_border(self) -> np.ndarray:
        """(K,) bool: which reach a face of the image; what they hang on may lie beyond."""
        faces = np.zeros(self.labelled.shape, bool)
        for axis, (side, length) in enumerate(zip(self.box, self.shape)):
            view = np.moveaxis(faces, axis, 0)
            view[:1] |= side.start == 0
            view[-1:] |= side.stop == length
        return self._having(faces)

    def within_another(self, labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(K,) bool: which of the ``chosen`` ones a single other structure encloses."""
        found = np.zeros(len(self.mm3), bool)
        for number, _, rim in _rims(labels[self.box], self.labelled, chosen):
            found[number] = rim[0] > 0 and (rim == rim[0]).all()
        return found

    def near(self, mask: np.ndarray, *reaches: float) -> list[np.ndarray]:
        """For each reach (K,) bool: the parts with less than that between them and a mask.

        mask : (X, Y, Z) bool, of the whole image.    reaches : mm.
        """
        margin = [int(np.ceil(self._limit(max(reaches)) / s)) for s in self.spacing]
        grown = [(max(s.start - m, 0), s.stop + m) for s, m in zip(self.box, margin)]
        inner = tuple(slice(s.start - g[0], s.stop - g[0]) for s, g in zip(self.box, grown))
        gap = self._gap(mask[tuple(slice(*g) for g in grown)])[inner]
        return [self._having(gap <= self._limit(reach)) for reach in reaches]

    def beside(self, chosen: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """(K,) bool: the parts within their ``reach``, (K,) mm, of a ``chosen`` one, (K,) bool."""
        limits = self._limit(reach).astype(np.float32)[self.labelled]
        return self._having(self._gap(kept(self.labelled, chosen)) <= limits)

    def _gap(self, mask: np.ndarray) -> np.ndarray:
        return distance_to(mask, self.spacing)

    def _limit(self, reach):
        # between centres; faces of neighbours are a voxel's diagonal nearer at most
        return reach + float(np.linalg.norm(self.spacing)) * 1.001

    def _having(self, where: np.ndarray) -> np.ndarray:
        return np.bincount(self.labelled[where], minlength=len(self.mm3)) > 0


def _touching(name: str, other: str, *also: str) -> Callable[[_State], dict]:
    """Parts of ``name`` that lie apart from ``other`` go, and specks that do not touch it.

    also : structures that parts may hang on instead.
    """

    def rule(state: _State) -> dict:
        parts, touched = state.parts(name), state.mask(other)
        if parts is None or touched is None:
            return {"components": 0, "skipped": f"no {name} or no {other}"}
        touching, close = parts.near(touched, state.options.touch_mm, GAP_MM)
        for mask in map(state.mask, also):
            if mask is not None:
                close |= parts.near(mask, state.options.touch_mm)[0]
        specks = parts.mm3 < SPECK_MM3
        doubted = ~touching & (specks | ~close) & ~parts.at_border
        return state.drop(name, parts, doubted, specks, np.full(len(specks), GAP_MM))

    return rule


def _coronary(state: _State) -> dict:
    """Coronaries run on the heart and the great vessels, whichever these are."""
    options, parts = state.options, state.parts("coronary")
    carriers = np.isin(state.labels, [v for n, v in state.values.items() if n != "coronary"])
    if parts is None or not carriers.any():
        return {"components": 0, "skipped": "no coronary, or no other structure"}
    [close] = parts.near(carriers, options.coronary_mm)
    small = parts.mm3 < options.coronary_min_mm3
    crumbs = small & (
        (parts.voxels <= CRUMB_VOXELS) | (parts.mm3 < CRUMB * options.coronary_min_mm3)
    )
    # small pieces that lie on the heart are more often of a broken vessel than noise
    reach = np.where(close, BREAK_MM, GAP_MM)
    return state.drop("coronary", parts, ~close | small, crumbs, reach)


def _holes(state: _State) -> dict:
    """Cavities that the myocardium encloses alone become myocardium."""
    mask = state.mask("myocardium")
    if mask is None:
        return {"components": 0, "skipped": "no myocardium"}
    labelled, voxels = components(state.labels == 0)
    small = voxels * float(np.prod(state.spacing)) < state.options.hole_mm3
    small[0] = False
    small &= ~_reaching_border(labelled, len(voxels))
    filled = 0
    for number, box, rim in _rims(state.labels, labelled, small):
        if (rim == state.values["myocardium"]).all():
            state.labels[box][labelled[box] == number] = state.values["myocardium"]
            filled += 1
    return {"components": filled}


def _largest(state: _State) -> dict:
    """Of chambers and great vessels, what is beyond the expected number and lies apart goes."""
    dropped = 0
    for label in state.table:
        parts = state.parts(label.name) if label.name in state.options.largest else None
        if parts is None or len(parts.mm3) - 1 <= label.expected[-1]:
            continue
        order = np.argsort(np.r_[np.inf, parts.mm3[1:]], kind="stable")[::-1]
        specks = parts.mm3 < SPECK_MM3
        doubted = np.ones(len(specks), bool)
        doubted[order[: 1 + label.expected[-1]]] = False
        doubted &= ~parts.at_border
        reach = np.where(parts.within_another(state.labels, doubted & specks), -np.inf, GAP_MM)
        dropped += state.drop(label.name, parts, doubted, specks, reach)["components"]
    return {"components": dropped}


def _enclosed(state: _State) -> dict:
    """Voxels that lost their class get that of what surrounds them."""
    lost = (state.original > 0) & (state.labels == 0)
    if not lost.any():
        return {"components": 0}
    # what a mask lay on that a rule took away is there again
    covered = lost & (state.masked != state.original) & ~np.isin(state.original, state.replaced)
    state.labels[covered] = state.original[covered]
    lost &= ~covered
    places = np.argwhere(lost)
    through = lost | np.isin(state.labels, state.replaced)
    classes, certain = surrounding(state.labels, places, through, state.spacing)
    if not certain.all():
        empty, voxels = components(state.labels == 0)
        open_ = _reaching_border(empty, len(voxels))[empty[tuple(places.T)]]
        classes[~certain & open_] = 0
    state.labels[tuple(places.T)] = classes
    filled = covered
    filled[tuple(places.T)] = classes > 0
    return {"components": count_components(filled)}


def _reaching_border(labelled: np.ndarray, number: int) -> np.ndarray:
    """(number,) bool: which components have a voxel on a face of the image."""
    found = np.zeros(number, bool)
    for axis in range(3):
        for face in (0, -1):
            found[np.unique(labelled.take(face, axis))] = True
    return found


def _grown(box, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box with a rim of one voxel."""
    return tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape))


def _rims(labels: np.ndarray, labelled: np.ndarray, chosen: np.ndarray):
    """Of each chosen component its number, its box, and the classes of all voxels around it."""
    boxes = ndimage.find_objects(labelled)
    for number in np.flatnonzero(chosen):
        box = _grown(boxes[number - 1], labelled.shape)
        inside = labelled[box] == number
        rim = ndimage.binary_dilation(inside, _ALL_NEIGHBOURS) & ~inside
        yield number, box, labels[box][rim]


RULES: Mapping[str, Callable[[_State], dict]] = {
    "appendage_touches_atrium": _touching("left_atrial_appendage", "left_atrium"),
    "veins_touch_atrium": _touching("pulmonary_veins", "left_atrium", "right_atrium"),
    "coronary_on_heart": _coronary,
    "myocardium_holes": _holes,
    "largest_components": _largest,
    "enclosed_voxels": _enclosed,
}


def changes(before: np.ndarray, after: np.ndarray, table: LabelTable) -> dict:
    """Per class: voxels before and after, Dice between both, components before and after."""
    boxes = [class_boxes(before), class_boxes(after)]
    result = {}
    for label in table:
        masks = [
            array[box[label.value]] == label.value if label.value in box else None
            for array, box in zip((before, after), boxes)
        ]
        if masks[0] is None and masks[1] is None:
            continue
        both = int(((before == label.value) & (after == label.value)).sum())
        voxels = [0 if m is None else int(m.sum()) for m in masks]
        parts = [0 if m is None else count_components(m) for m in masks]
        result[label.name] = {
            "voxels_before": voxels[0],
            "voxels_after": voxels[1],
            "dice_before_after": 2 * both / sum(voxels),
            "components_before": parts[0],
            "components_after": parts[1],
            "components_expected": label.components,
            "components_fewest": label.expected[0],
            "components_most": label.expected[-1],
        }
    return result
