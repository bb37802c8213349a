"""Anatomical consistency: what a label map of the heart must hold to, rule by rule.

Every rule looks at one or two classes by name and does nothing where the case, or the label
table, lacks one of them. All distances are millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import edt
import numpy as np
from scipy import ndimage

from ..anatomy.components import components, count_components, kept
from ..errors import InputError
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from ..options.fusion import FusionOptions

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def consistent(
    labels: np.ndarray, spacing: np.ndarray, table: LabelTable, options: FusionOptions
) -> tuple[np.ndarray, list[dict]]:
    """A label map that holds to ``options.rules``, and what each of them changed.

    labels : (X, Y, Z) uint8, in either memory order.    spacing : (3,) mm.

    Returns
    -------
    The label map, and per rule its name, ``voxels`` per class name (positive: gained), the
    ``components`` that it took away, or ``skipped`` with the reason.
    """
    state = _State(labels.copy(order="K"), np.asarray(spacing, float), table, options)
    report = []
    for name in options.rules:
        before = np.bincount(state.labels.ravel("K"), minlength=256)
        outcome = RULES[name](state)
        after = np.bincount(state.labels.ravel("K"), minlength=256)
        gained = {c.name: int(after[c.value] - before[c.value]) for c in table}
        report.append({"rule": name, "voxels": {n: v for n, v in gained.items() if v}, **outcome})
    return state.labels, report


def check_rules(options: FusionOptions) -> None:
    """InputError where a rule is unknown."""
    unknown = [name for name in options.rules if name not in RULES]
    if unknown:
        raise InputError(f"fusion.rules: no rule {', '.join(unknown)}; known: {', '.join(RULES)}")


class _State:
    """The label map as the rules change it."""

    def __init__(self, labels, spacing, table: LabelTable, options: FusionOptions):
        self.labels, self.spacing, self.table, self.options = labels, spacing, table, options
        self.values = dict(zip(table.names, table.values))
        self.original = labels.copy(order="K")

    def mask(self, name: str) -> np.ndarray | None:
        """The voxels of a class; None where the case has none."""
        value = self.values.get(name)
        if value is None:
            return None
        found = self.labels == value
        return found if found.any() else None

    def near(self, mask: np.ndarray, reach: float) -> np.ndarray:
        """(X, Y, Z) bool: voxels with less than ``reach`` mm between them and the mask."""
        # between centres; faces of neighbours are a voxel's diagonal nearer at most
        limit = reach + float(np.linalg.norm(self.spacing)) * 1.001
        return edt.edt(~mask, anisotropy=tuple(self.spacing)) <= limit

    def drop(self, name: str, mask: np.ndarray, keep: Callable) -> dict:
        """Give up the components of a class that ``keep(labelled, voxels)`` says False of.

        mask : the class as it is now.
        """
        labelled, voxels = components(mask)
        staying = np.asarray(keep(labelled, voxels), bool)
        staying[0] = True
        if staying[1:].any():
            self.labels[mask & ~kept(labelled, staying)] = 0
            return {"components": int((~staying).sum())}
        return {"components": 0, "skipped": f"all of {name} would go"}


def _touching(name: str, other: str) -> Callable[[_State], dict]:
    """Components of ``name`` that do not touch ``other`` go."""

    def rule(state: _State) -> dict:
        mask, touched = state.mask(name), state.mask(other)
        if mask is None or touched is None:
            return {"components": 0, "skipped": f"no {name} or no {other}"}
        near = state.near(touched, state.options.touch_mm)

        def keep(labelled, voxels):
            return np.bincount(labelled[near], minlength=len(voxels)) > 0

        return state.drop(name, mask, keep)

    return rule


def _coronary(state: _State) -> dict:
    """Coronaries run on the myocardium and come from the aorta."""
    options, mask = state.options, state.mask("coronary")
    found = [state.mask(name) for name in ("myocardium", "aorta")]
    carriers = [carrier for carrier in found if carrier is not None]
    if mask is None or not carriers:
        return {"components": 0, "skipped": "no coronary, or no myocardium and no aorta"}
    near = state.near(np.logical_or.reduce(carriers), options.coronary_mm)
    volume = float(np.prod(state.spacing))

    def keep(labelled, voxels):
        close = np.bincount(labelled[near], minlength=len(voxels)) > 0
        return close & (voxels * volume >= options.coronary_min_mm3)

    return state.drop("coronary", mask, keep)


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
    for number, box in _boxes(labelled, small):
        hole = labelled[box] == number
        rim = ndimage.binary_dilation(hole, _ALL_NEIGHBOURS) & ~hole
        if (state.labels[box][rim] == state.values["myocardium"]).all():
            state.labels[box][hole] = state.values["myocardium"]
            filled += 1
    return {"components": filled}


def _largest(state: _State) -> dict:
    """Chambers and great vessels keep as many components as the label table expects."""
    dropped = 0
    for label in state.table:
        mask = state.mask(label.name)
        if mask is None or label.name not in state.options.largest:
            continue

        def keep(labelled, voxels, number=label.expected[-1]):
            order = np.argsort(np.r_[-1, voxels[1:]], kind="stable")[::-1]
            staying = np.zeros(len(voxels), bool)
            staying[order[:number]] = True
            return staying

        dropped += state.drop(label.name, mask, keep)["components"]
    return {"components": dropped}


def _enclosed(state: _State) -> dict:
    """Voxels that lost their class and lie within the heart get the nearest one."""
    lost = (state.original > 0) & (state.labels == 0)
    if not lost.any():
        return {"components": 0}
    empty, voxels = components(state.labels == 0)
    enclosed = lost & ~_reaching_border(empty, len(voxels))[empty]
    if enclosed.any():
        places = np.argwhere(enclosed)
        low, high = places.min(axis=0) - 1, places.max(axis=0) + 2
        box = tuple(slice(max(a, 0), b) for a, b in zip(low, high))
        # the voxels around an enclosed part are labelled: its box and a rim hold the nearest
        nearest = ndimage.distance_transform_edt(
            state.labels[box] == 0,
            sampling=tuple(state.spacing),
            return_distances=False,
            return_indices=True,
        )
        filled = state.labels[box][tuple(nearest)]
        state.labels[box][enclosed[box]] = filled[enclosed[box]]
    return {"components": count_components(enclosed)}


def _reaching_border(labelled: np.ndarray, number: int) -> np.ndarray:
    """(number,) bool: which components have a voxel on a face of the image."""
    found = np.zeros(number, bool)
    for axis in range(3):
        for face in (0, -1):
            found[np.unique(labelled.take(face, axis))] = True
    return found


def _boxes(labelled: np.ndarray, chosen: np.ndarray):
    """Number and box, with a rim of one voxel, of the chosen components."""
    boxes = ndimage.find_objects(labelled)
    for number in np.flatnonzero(chosen):
        box = boxes[number - 1]
        yield (
            number,
            tuple(
                slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, labelled.shape)
            ),
        )


RULES: Mapping[str, Callable[[_State], dict]] = {
    "appendage_touches_atrium": _touching("left_atrial_appendage", "left_atrium"),
    "veins_touch_atrium": _touching("pulmonary_veins", "left_atrium"),
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
