"""How far a label map can be trusted, class by class, without any truth.

Two signals count: how well a trained model reproduces the class from the label map without its
specks, and whether it touches what it touches in sound label maps. They were chosen among more by
benchmarks/confidence.py, which says how well they do (docs/confidence.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..anatomy.components import components
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from .overlap import overlap

# A class's signals, from 0 (doubtful) to 1.
Signals = Mapping[str, Mapping[str, float] | None]

SMOOTH_MM = 4.0  # deviation of the smoothing that says what lies around a speck
CRUMB = 0.05  # share of a class: smaller parts are no anatomy
TILE = 64  # voxels: specks within such a cube are looked at together
# Of the doubts of each signal in the error of Dice, by least squares on the set-up of
# benchmarks/confidence.py
WEIGHTS = {"reconstruction": 0.45, "contact": 0.42}


def signals(
    given: np.ndarray,
    reconstructed: np.ndarray,
    table: LabelTable,
    usual: Mapping[str, np.ndarray] | None = None,
) -> dict[str, dict[str, float] | None]:
    """What speaks for each class of a label map.

    given : (X, Y, Z) uint8.
    reconstructed : on the same grid, what a model makes of :func:`cleaned`, which it was not
        trained on.
    usual : of :func:`usual_contact`; without it there is no signal ``contact``.

    Returns
    -------
    Class name -> ``reconstruction``, the Dice of both, and ``contact``, the share of its faces
    that meet what is usual. None for a class that the label map does not have.
    """
    agreeing, touching = overlap(given, reconstructed, table), contact(given, table)
    found: dict[str, dict[str, float] | None] = dict.fromkeys(table.names)
    for name, shares in touching.items():
        row = {"reconstruction": float(agreeing[name]["dice"] or 0.0)}
        if usual is not None and name in usual:
            row["contact"] = float(np.minimum(shares, usual[name]).sum())
        found[name] = row
    return found


def confidence(
    found: Signals, typical: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, float | None]:
    """Per class one value from 0 to 1: the higher, the higher its Dice with the truth most likely.

    It ranks label maps; it is no estimate of that Dice, which large errors undercut by far.

    found : of :func:`signals`.    typical : of :func:`typical_signals`.

    Returns
    -------
    Class name -> confidence; None for a class that the label map does not have.
    """
    result: dict[str, float | None] = dict.fromkeys(found)
    for name, row in doubts(found, typical).items():
        if row is not None:
            error = sum(weight * row.get(signal, 0.0) for signal, weight in WEIGHTS.items())
            result[name] = float(min(max(1 - error, 0.0), 1.0))
    return result


def doubts(
    found: Signals, typical: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, dict[str, float] | None]:
    """Per class how far each signal falls below what is usual, from 0 to 1; None: no such class.

    typical : of :func:`typical_signals`; 1 for what it lacks.
    """
    result: dict[str, dict[str, float] | None] = dict.fromkeys(found)
    for name, row in found.items():
        if row is not None:
            usual = (typical or {}).get(name, {})
            result[name] = {
                signal: 1 - value / most if value < (most := usual.get(signal, 1.0)) else 0.0
                for signal, value in row.items()
            }
    return result


def typical_signals(sound: Sequence[Signals]) -> dict[str, dict[str, float]]:
    """Per class the median of each signal over sound label maps, held-out ones say.

    A network reproduces thin classes less well even where they are right.
    """
    rows: dict[str, list[Mapping[str, float]]] = {}
    for found in sound:
        for name, row in found.items():
            rows.setdefault(name, []).extend([row] if row is not None else [])
    return {
        name: {s: float(np.median([row[s] for row in those])) for s in those[0]}
        for name, those in rows.items()
        if those
    }


def usual_contact(sound: Iterable[np.ndarray], table: LabelTable) -> dict[str, np.ndarray]:
    """Mean of :func:`contact` over sound label maps, those of a training say."""
    return mean_contact(contact(labels, table) for labels in sound)


def mean_contact(several: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Per class the mean shares over the label maps that have it.

    several : of :func:`contact`, for each label map.
    """
    found: dict[str, list[np.ndarray]] = {}
    for touching in several:
        for name, shares in touching.items():
            found.setdefault(name, []).append(shares)
    return {name: np.mean(shares, axis=0) for name, shares in found.items()}


def contact(labels: np.ndarray, table: LabelTable) -> dict[str, np.ndarray]:
    """Per class that is there (1 + C,): the shares of its outer faces that meet the background
    and each class of the table."""
    pairs = np.zeros(1 << 16)
    labels = _with_rim(labels)
    for axis in range(3):
        turned = np.moveaxis(labels, axis, 0)
        border = turned[:-1] != turned[1:]
        one, other = (x[border].astype(np.uint16) for x in (turned[:-1], turned[1:]))
        for first, second in ((one, other), (other, one)):
            pairs += np.bincount(first << 8 | second, minlength=1 << 16)
    counts = pairs.reshape(256, 256)[:, [0, *table.values]]
    return {c.name: r / r.sum() for c in table if (r := counts[c.value]).any()}


def _with_rim(labels: np.ndarray) -> np.ndarray:
    """The part of a label map that is labelled, and a voxel around it where there is one."""
    boxes = list(class_boxes(labels).values())
    if not boxes:
        return labels
    ends = np.array([[(part.start, part.stop) for part in box] for box in boxes])
    starts, stops = ends[..., 0].min(axis=0) - 1, ends[..., 1].max(axis=0) + 1
    return labels[tuple(slice(max(a, 0), b) for a, b in zip(starts, stops))]


def in_expected_parts(labels: np.ndarray, table: LabelTable) -> dict[str, float]:
    """Per class that is there the share of its voxels in its largest parts, as many as expected."""
    boxes = class_boxes(labels)
    shares = {}
    for label in (c for c in table if c.value in boxes):
        _, voxels = components(labels[boxes[label.value]] == label.value)
        sizes = np.sort(voxels[1:])[::-1]
        shares[label.name] = float(sizes[: label.expected[-1]].sum() / sizes.sum())
    return shares


def cleaned(labels: np.ndarray, spacing: np.ndarray, table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8: small loose parts become what lies around them.

    A network that encodes surfaces sees a speck as large as it is wrinkled: without them it
    shows what it makes of the structures.
    """
    lost = np.zeros(labels.shape, bool)
    for value, box in class_boxes(labels).items():
        if value in table.values:
            labelled, voxels = components(labels[box] == value)
            crumbs = voxels < CRUMB * voxels[1:].sum()
            crumbs[0] = False
            lost[box] |= crumbs[labelled]
    result, places = labels.copy(), np.argwhere(lost)
    tiles, tile_of = np.unique(places // TILE, axis=0, return_inverse=True)
    for number in range(len(tiles)):
        own = places[tile_of.ravel() == number]
        part = tuple(slice(a, b) for a, b in zip(own.min(axis=0), own.max(axis=0) + 1))
        around, given, gone = smoothed(labels, spacing, table, part), labels[part], lost[part]
        result[part][gone] = np.where(around == given, 0, around)[gone]
    return result


def smoothed(
    labels: np.ndarray,
    spacing: np.ndarray,
    table: LabelTable,
    box: tuple[slice, ...] = (slice(None),) * 3,
) -> np.ndarray:
    """uint8 in the shape of ``box``: at each voxel the class with most weight about it, background
    too.

    box : of the voxels that are asked for, all by default.
    """
    places, blurs = [], []
    for part, size, mm in zip(box, labels.shape, spacing):
        start, stop, _ = part.indices(size)
        blur = _blur(stop - start, SMOOTH_MM / float(mm))
        reach = (blur.shape[1] - blur.shape[0]) // 2
        # beyond the volume lies what its outermost voxels are
        places.append(np.clip(np.arange(start - reach, stop + reach), 0, size - 1))
        blurs.append(blur)
    near = labels[np.ix_(*places)]
    there = np.unique(near)
    most = _blurred(near == 0, blurs)
    result = np.zeros(most.shape, np.uint8)
    for value in (v for v in table.values if v in there):
        weight = _blurred(near == value, blurs)
        more = weight > most
        most[more] = weight[more]
        result[more] = value
    return result


def _blur(size: int, deviation: float) -> np.ndarray:
    """(size, size + 2 * reach): a row of weights for each voxel, those of a Gaussian, in voxels."""
    reach = int(4 * deviation + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    rows = np.zeros((size, size + 2 * reach), np.float32)
    for start, row in enumerate(rows):
        row[start : start + len(kernel)] = kernel / kernel.sum()
    return rows


def _blurred(mask: np.ndarray, blurs: Sequence[np.ndarray]) -> np.ndarray:
    """A mask weighted along each axis."""
    weight = mask.astype(np.float32)
    for blur in blurs:  # each takes the first axis and puts its own last: three turns
        weight = np.tensordot(weight, blur, axes=(0, 1))
    return weight
