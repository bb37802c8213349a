"""Whether a second label map of a case, an expert's, is about the same structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from .extent import beyond, labelled_box
from .files import LabelMap

MOST_VOXELS = 20_000  # of a class: so many show where it lies
LEAST_DICE = 0.05  # of a label, however noisy, with the truth; by chance thin ones have less
OTHER_SHARE = 0.25  # of a class within other ones: it has another number

NUMBERS = "give the structures of the truth their values of the label table, or name no truth"
PLACE = "give the truth the place in space (affine) of the label map, or name no truth"
MASK_PLACE = "give the mask the place in space (affine) of the label map"


def check_truth(
    path: str | Path, truth: LabelMap, labels: LabelMap | None, names: Mapping[int, str]
) -> list[str]:
    """What is doubtful about the truth that belongs to a label map; their grids may differ.

    labels : None where they could not be read: then the classes alone are looked at.
    names : class value -> name, of the label table.

    Raises
    ------
    InputError
        It has no class of the table, or not one of its classes is what the label map has
        there: figures against it would mean nothing.
    """
    sizes = _sizes(truth)
    known = [value for value in sizes if value in names]
    unknown = ", ".join(str(value) for value in sizes if value not in names)
    if not known:
        fact = f"has label {unknown}, no class of the label table" if unknown else "holds no class"
        raise InputError(problem(path, fact, NUMBERS))
    doubts = [f"truth: label {unknown} is not in the label table"] if unknown else []
    given = _sizes(labels) if labels is not None else {}
    if labels is None or not given:
        return doubts
    shares = _shares(truth, labels, known)
    facts: dict[int, tuple[str, str]] = {}
    agreed = set()
    for value in known:
        own, other = shares[value][value], shares[value][1:].sum() - shares[value][value]
        dice = 2 * own * sizes[value] / (sizes[value] + given.get(value, 0))
        if other >= OTHER_SHARE and own < other:
            most = int(np.argmax(np.where(np.arange(256) == value, 0, shares[value])[1:])) + 1
            where = names.get(most, f"label {most}")
            facts[value] = f"{names[value]} ({value}) lies in {where} of the label map", NUMBERS
        elif value in given and dice < LEAST_DICE:
            fact = f"{names[value]} ({value}) is not where the label map has it (Dice {dice:.2f})"
            facts[value] = fact, PLACE
        elif value in given:
            agreed.add(value)
    if not agreed and (facts or _apart_mm(truth, labels)):
        away = _apart_mm(truth, labels)
        if away:
            fact = f"lies {away:.3g} mm beside all structures of the label map"
            raise InputError(problem(path, fact, PLACE))
        raise InputError([problem(path, fact, remedy) for fact, remedy in facts.values()])
    return doubts + [f"truth: {fact}" for fact, _ in facts.values()]


def check_mask(
    path: str | Path, mask: LabelMap, labels: LabelMap, value: int, name: str
) -> list[str]:
    """What is doubtful about a mask that takes the place of a class; their grids may differ.

    value, name : of the class.

    Raises
    ------
    InputError
        It holds several values, or lies beside all structures of the label map: the class would
        be lost, or take the place of the others.
    """
    found = list(mask.boxes)
    if len(found) > 1:
        fact = f"holds labels {', '.join(map(str, found))}, not one structure"
        raise InputError(problem(path, fact, f"give a mask of {name} alone"))
    doubts = []
    if unseen := len(beyond(labels, value, mask)):
        doubts = [f"does not reach {unseen:,} voxels of {name}, which stay as they are"]
    if not found:
        return doubts or [f"holds nothing: the case is left without {name}"]
    if labels.boxes and (away := _apart_mm(mask, labels)):
        fact = f"lies {away:.3g} mm beside all structures of the label map"
        raise InputError(problem(path, fact, MASK_PLACE))
    if value not in labels.boxes:
        return doubts
    own, given = _sizes(mask)[found[0]], _sizes(labels)[value]
    dice = 2 * _shares(mask, labels, found)[found[0]][value] * own / (own + given)
    if dice < LEAST_DICE:
        doubts.append(f"{name} is not where the label map has it (Dice {dice:.2f})")
    return doubts


def _sizes(label_map: LabelMap) -> dict[int, float]:
    """Class value -> mm^3, of the classes that are there."""
    counts = np.bincount(label_map.data.ravel(order="K"), minlength=256)
    voxel = abs(float(np.linalg.det(label_map.affine[:3, :3])))
    return {int(value): counts[value] * voxel for value in np.flatnonzero(counts) if value}


def _shares(truth: LabelMap, labels: LabelMap, values: list[int]) -> dict[int, np.ndarray]:
    """Class of the truth -> (256,) shares of its voxels in each class of the label map."""
    into = np.linalg.inv(labels.affine) @ truth.affine
    data = truth.data.T  # files come in Fortran order
    filled = np.flatnonzero(data)
    classes = data.reshape(-1)[filled]
    shares = {}
    for value in values:
        chosen = filled[classes == value]
        chosen = chosen[:: -(-len(chosen) // MOST_VOXELS)]
        index = np.stack(np.unravel_index(chosen, data.shape)[::-1], axis=1)
        index = np.rint(index @ into[:3, :3].T + into[:3, 3]).astype(np.int64)
        within = ((index >= 0) & (index < labels.data.shape)).all(axis=1)
        found = labels.data[tuple(index[within].T)]
        shares[value] = np.bincount(found, minlength=256) / len(chosen)
    return shares


def _apart_mm(truth: LabelMap, labels: LabelMap) -> float:
    """Gap between the boxes of all structures; 0 where they meet."""
    (low, high), (other_low, other_high) = _box(truth), _box(labels)
    gap = np.maximum(np.maximum(other_low - high, low - other_high), 0)
    return float(np.linalg.norm(gap))


def _box(label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest RAS mm of the centres of the labelled voxels' box."""
    corners = np.array(np.meshgrid(*np.transpose(labelled_box(label_map)))).reshape(3, -1)
    world = label_map.affine[:3, :3] @ corners + label_map.affine[:3, 3:]
    return world.min(axis=1), world.max(axis=1)
