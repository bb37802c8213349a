"""How far a label map can be trusted, class by class, without any truth.

Two signals count: how well a trained model reproduces the class from the label map without its
specks, and whether it touches what it touches in sound label maps. They were chosen among more by
benchmarks/confidence.py, which says how well they do (docs/confidence.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from ..anatomy.components import components
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from .overlap import overlap

# A class's signals, from 0 (doubtful) to 1.
Signals = Mapping[str, Mapping[str, float] | None]

SMOOTH_MM = 4.0  # deviation of the smoothing that says what lies around a speck
CRUMB = 0.05  # share of a class: smaller parts are no anatomy
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
                signal: max(1 - value / max(usual.get(signal, 1.0), 1e-6), 0.0)
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
    found: dict[str, list[np.ndarray]] = {}
    for labels in sound:
        for name, shares in contact(labels, table).items():
            found.setdefault(name, []).append(shares)
    return {name: np.mean(shares, axis=0) for name, shares in found.items()}


def contact(labels: np.ndarray, table: LabelTable) -> dict[str, np.ndarray]:
    """Per class that is there (1 + C,): the shares of its outer faces that meet the background
    and each class of the table."""
    pairs = np.zeros(1 << 16)
    for axis in range(3):
        turned = np.moveaxis(labels, axis, 0)
        border = turned[:-1] != turned[1:]
        one, other = (x[border].astype(np.uint16) for x in (turned[:-1], turned[1:]))
        for first, second in ((one, other), (other, one)):
            pairs += np.bincount(first << 8 | second, minlength=1 << 16)
    counts = pairs.reshape(256, 256)[:, [0, *table.values]]
    return {c.name: r / r.sum() for c in table if (r := counts[c.value]).any()}


def cleaned(labels: np.ndarray, spacing: np.ndarray, table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8: small loose parts become what lies around them.

    A network that encodes surfaces sees a speck as large as it is wrinkled: without them it
    shows what it makes of the structures.
    """
    result, around = labels.copy(), None
    for value, box in class_boxes(labels).items():
        labelled, voxels = components(labels[box] == value)
        crumbs = voxels < CRUMB * voxels[1:].sum()
        crumbs[0] = False
        if value not in table.values or not crumbs.any():
            continue
        around = smoothed(labels, spacing, table) if around is None else around
        lost = crumbs[labelled]
        result[box][lost] = np.where(around[box][lost] == value, 0, around[box][lost])
    return result


def smoothed(labels: np.ndarray, spacing: np.ndarray, table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8: at each voxel the class with most weight about it, background too."""
    deviation = SMOOTH_MM / np.asarray(spacing, float)
    most = ndimage.gaussian_filter((labels == 0).astype(np.float32), deviation, mode="nearest")
    result = np.zeros_like(labels)
    boxes = class_boxes(labels)
    margin = np.ceil(4 * deviation).astype(int)
    for value in table.values:
        if value not in boxes:
            continue
        box = tuple(
            slice(max(s.start - m, 0), min(s.stop + m, n))
            for s, m, n in zip(boxes[value], margin, labels.shape)
        )
        weight = ndimage.gaussian_filter(
            (labels[box] == value).astype(np.float32), deviation, mode="nearest"
        )
        more = weight > most[box]
        most[box][more] = weight[more]
        result[box][more] = value
    return result
