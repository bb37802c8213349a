"""Fused label maps and what each rule changed, measured against an expert's label map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..anatomy.components import count_components
from ..cohort.table import Case
from ..geometry.grids import cropped_affine
from ..geometry.isotropic import room_for
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from ..metrics.overlap import overlap
from ..metrics.topology import topology_figures
from ..volumes import LabelMap, labels_on, load_label_map
from .merge import fused


@dataclass(frozen=True)
class WholeTruth:
    """The truth on the grid of a label map, enlarged to hold all classes of the label table.

    labels : (X, Y, Z) uint8.
    rim : (3, 2) int, by how many voxels it is larger, before and behind each axis.
    """

    labels: np.ndarray
    rim: np.ndarray

    @classmethod
    def of(cls, case: Case, base: LabelMap, table: LabelTable) -> WholeTruth | None:
        """None where the case has no truth."""
        if not case.truth:
            return None
        truth = load_label_map(case.truth)
        shape = base.data.shape
        if (same := labels_on(truth, shape, base.affine)) is not None:
            return cls(same, np.zeros((3, 2), int))
        boxes = {value: box for value, box in truth.boxes.items() if value in table.values}
        rims = [room_for(shape, base.affine, truth, value) for value in boxes]
        rim = np.max([np.zeros((3, 2), int), *rims], axis=0)
        masks = {
            value: LabelMap(
                truth.data[box] == value, cropped_affine(truth.affine, [s.start for s in box])
            )
            for value, box in boxes.items()
        }
        wider = LabelMap(
            np.zeros(shape + rim.sum(axis=1), base.data.dtype, order="F"),
            cropped_affine(base.affine, -rim[:, 0]),
        )
        return cls(fused(wider, masks, table), rim)

    @property
    def inside(self) -> np.ndarray:
        """(X, Y, Z) uint8 on the grid of the label map itself."""
        ends = zip(self.rim[:, 0], self.labels.shape - self.rim[:, 1])
        return self.labels[tuple(slice(low, high) for low, high in ends)]


def truth_of(case: Case, base: LabelMap, table: LabelTable) -> np.ndarray | None:
    """(X, Y, Z) uint8: the truth on the grid of the label map; None where the case has none."""
    whole = WholeTruth.of(case, base, table)
    return None if whole is None else whole.inside


def verdict(
    before: np.ndarray, after: np.ndarray, truth: np.ndarray, table: LabelTable
) -> dict[str, dict[str, int]]:
    """How many of the voxels that a rule took from classes, and added, it did so rightly.

    before, after, truth : (X, Y, Z) uint8.

    Returns
    -------
    taken_true (the class's voxels in the truth, too: harm), taken_false, added_true and
    added_false (harm), each a number per class name. Classes that the truth lacks are left out:
    nobody annotated them.
    """
    changed = before != after
    real = truth[changed]
    annotated = [label for label in table if label.value in class_boxes(truth)]
    found: dict[str, dict[str, int]] = {}
    for what, values in (("taken", before[changed]), ("added", after[changed])):
        for name, right in (("true", values == real), ("false", values != real)):
            counts = np.bincount(values[right], minlength=256)
            found[f"{what}_{name}"] = {
                c.name: int(counts[c.value]) for c in annotated if counts[c.value]
            }
    return found


def against_truth(
    given: np.ndarray,
    result: np.ndarray,
    whole: WholeTruth,
    spacing: np.ndarray,
    table: LabelTable,
    thin: Iterable[str],
) -> dict[str, dict[str, float]]:
    """Figures of both label maps against the truth, on their own grid.

    What of the truth lies beyond that grid was missed.

    given, result : (X, Y, Z) uint8.    thin : names of thin structures.

    Returns
    -------
    Class of the truth -> dice_given and dice_fused; of thin structures cl_dice_given,
    cl_dice_fused, where there is a centreline, and components_truth, too.
    """
    both, truth, thin = {"given": given, "fused": result}, whole.labels, set(thin)
    maps = {name: np.pad(m, whole.rim) if whole.rim.any() else m for name, m in both.items()}
    annotated = class_boxes(truth)
    dice = {name: overlap(truth, m, table) for name, m in maps.items()}
    found: dict[str, dict[str, float]] = {}
    for label in table:
        if label.value not in annotated:
            continue
        figures = {f"dice_{name}": dice[name][label.name]["dice"] or 0.0 for name in maps}
        if label.name in thin:
            figures["components_truth"] = count_components(truth == label.value)
            for name, label_map in maps.items():
                cl_dice = _cl_dice(truth, label_map, label.value, spacing)
                figures |= {} if cl_dice is None else {f"cl_dice_{name}": cl_dice}
        found[label.name] = figures
    return found


def _cl_dice(truth, found, value: int, spacing) -> float | None:
    """It needs no distances, so that voxels of any shape will do."""
    boxes = [boxes[value] for m in (truth, found) if value in (boxes := class_boxes(m))]
    box = tuple(slice(min(s.start for s in b), max(s.stop for s in b)) for b in zip(*boxes))
    edge = float(np.prod(spacing) ** (1 / 3))
    return topology_figures(truth[box] == value, found[box] == value, edge)["cl_dice"]
