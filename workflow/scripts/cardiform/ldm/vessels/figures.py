"""How vessels that were drawn compare with true ones: in size, and whether they are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from ..copies import bound
from .fine import dense
from .tree import VesselTree

POINT_MM = 1.0  # between the points of which distances are measured
SIZES = ("length_mm", "ends", "radius_mm", "root_radius_mm", "reach_mm")
COLUMNS = (
    ("connected", 3, 10), ("usual", 3, 7), ("parts", 2, 7), ("nearest_train_mm", 2, 17),
    ("copies", 3, 8),
)  # fmt: skip
ROOT_MM = 5.0  # of a tree, from its origin, over which its radius there is taken


def sizes(tree: VesselTree) -> dict[str, float]:
    """Measures of the trees of one heart: :data:`SIZES`, and how many ``trees`` there are.

    reach_mm : the longest way from a root to an end.
    """
    way = np.zeros(len(tree))
    for node, before in enumerate(tree.before.tolist()):
        if before >= 0:
            way[node] = way[before] + tree.steps[node]
    length = tree.length
    near = way <= ROOT_MM
    return {
        "trees": float(len(tree.roots)),
        "length_mm": length,
        "ends": float(tree.tips),
        "radius_mm": float((tree.radii * tree.steps).sum() / length) if length else 0.0,
        "root_radius_mm": float(tree.radii[near].mean()) if near.any() else 0.0,
        "reach_mm": float(way.max(initial=0.0)),
    }


def spread_against(found: Sequence[VesselTree], true: Sequence[VesselTree]) -> dict[str, dict]:
    """Size -> mean and deviation of both sets, and Wasserstein distance over the true deviation."""
    made, real = ([sizes(tree) for tree in trees] for trees in (found, true))
    result = {}
    for name in SIZES:
        a, b = (np.array([row[name] for row in rows]) for rows in (made, real))
        spread = float(b.std())
        result[name] = {
            "mean": float(a.mean()),
            "sd": float(a.std()),
            "true_mean": float(b.mean()),
            "true_sd": spread,
            "w1": float(wasserstein_distance(a, b)) / spread if spread else None,
        }
    return result


class Points:
    """Trees as points, about which distances are asked for."""

    def __init__(self, trees: Sequence[VesselTree]):
        self.trees = [cKDTree(dense(tree, POINT_MM)[0]) for tree in trees]

    def to(self, other: Points) -> np.ndarray:
        """(N, M) mm: mean distance to the other tree, the mean of both directions."""
        result = np.empty((len(self.trees), len(other.trees)))
        for i, a in enumerate(self.trees):
            for j, b in enumerate(other.trees):
                result[i, j] = (b.query(a.data)[0].mean() + a.query(b.data)[0].mean()) / 2
        return result

    def each_to(self, other: Points) -> np.ndarray:
        """(N,) mm, of the pairs alone."""
        pairs = zip(self.trees, other.trees, strict=True)
        return np.array(
            [(b.query(a.data)[0].mean() + a.query(b.data)[0].mean()) / 2 for a, b in pairs]
        )


def compare(
    drawn: Mapping[str, Mapping[str, VesselTree]],
    figures: Mapping[str, Mapping[str, Mapping]],
    true: Mapping[str, VesselTree],
    coded: Mapping[str, VesselTree],
    train: Mapping[str, VesselTree],
) -> dict:
    """All figures of drawn trees.

    drawn : set (``generated``, ``test``) -> heart -> its tree; those of ``test`` were drawn into
        the hearts of ``true``.    figures : set -> heart -> figures of ``draw_case``.
    true : test case -> its own tree, which the scan does not cut.    coded : what the coarse grid
        keeps of it; of other cases it does not count.
    train : training case -> its tree.

    Returns
    -------
    Set -> ``hearts``; ``empty``, the share without a vessel, which has neither sizes nor distances;
    means of the figures; ``sizes`` as of :func:`spread_against`; ``usual``, the share that is
    connected, with as many trees and of such a length as training hearts have them;
    ``nearest_train_mm`` and ``copies``. ``test`` has
    ``own_mm``, the distance to the true tree of the same heart, too. Rows ``train`` and ``coded``
    are the training trees, and those of ``true`` behind the coarse grid: what perfect votes reach.
    """
    reference = list(true.values())
    training = Points(list(train.values()))
    usual = Points(reference).to(training).min(axis=1)
    least = bound(usual)
    result: dict = {
        "train": {"hearts": len(train), "sizes": spread_against(list(train.values()), reference)},
        "true": {"hearts": len(true), "nearest_train_mm": _mean(usual), "copies_below_mm": least},
    }
    # trees that the scan cuts are no measure of what the grid keeps
    if whole := {name: tree for name, tree in coded.items() if name in true}:
        kept = {name: tree for name, tree in whole.items() if len(tree)}
        result["coded"] = {"hearts": len(whole), "empty": 1 - len(kept) / len(whole)}
        if kept:
            result["coded"]["sizes"] = spread_against(list(kept.values()), reference)
            result["coded"]["own_mm"] = _own_mm(kept, true)
    limits = _limits(list(train.values()))
    for name, trees in drawn.items():
        if not trees:
            continue
        there = {heart: tree for heart, tree in trees.items() if len(tree)}
        rows = list(figures[name].values())
        row: dict = {
            "hearts": len(trees),
            "empty": 1 - len(there) / len(trees),
            **{key: _mean([r[key] for r in rows]) for key in rows[0]},
            "usual": _mean([_is_usual(r, limits) for r in rows]),
        }
        if there:
            row["sizes"] = spread_against(list(there.values()), reference)
            points = Points(list(there.values()))
            nearest = points.to(training).min(axis=1)
            row |= {"nearest_train_mm": _mean(nearest), "copies": _mean(nearest < least)}
        known = {heart: tree for heart, tree in there.items() if heart in true}
        if known and name == "test":
            row["own_mm"] = _own_mm(known, true)
        result[name] = row
    return result


def _own_mm(trees: Mapping[str, VesselTree], true: Mapping[str, VesselTree]) -> float:
    """mm from each tree to the true one of the same heart."""
    own = [Points(list(found)) for found in (trees.values(), [true[name] for name in trees])]
    return _mean(own[0].each_to(own[1]))


def _limits(train: Sequence[VesselTree]) -> dict[str, tuple[float, float]]:
    """The least and the greatest number of trees, and length, of training hearts."""
    rows = [sizes(tree) for tree in train]
    return {
        name: (min(row[name] for row in rows), max(row[name] for row in rows))
        for name in ("trees", "length_mm")
    }


def _is_usual(row: Mapping[str, float], limits: Mapping[str, tuple[float, float]]) -> bool:
    """Whether vessels are connected, in as many trees and of such a length as training hearts
    have them: a stump at the aorta is connected, too."""
    within = all(low <= row[name] <= high for name, (low, high) in limits.items())
    return bool(row["connected"]) and within


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def lines(found: Mapping) -> list[str]:
    """The figures as lines of text."""
    text = [f"{'':11}{'hearts':>7}" + "".join(f"{key:>{width}}" for key, _, width in COLUMNS)]
    for name in ("true", "coded", "train", "test", "generated"):
        row = found.get(name)
        if row is None:
            continue
        cells = [f"{row[key]:.{digits}f}" if key in row else "-" for key, digits, _ in COLUMNS]
        widths = [width for *_, width in COLUMNS]
        text.append(
            f"{name:11}{row['hearts']:>7}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths))
        )
    text.append(f"{'W1 / sd':11}" + "".join(f"{size:>16}" for size in SIZES))
    for name in ("coded", "train", "test", "generated"):
        if "sizes" in found.get(name, {}):
            rows = found[name]["sizes"]
            values = [
                f"{rows[s]['mean']:.4g} ({rows[s]['w1']:.2f})"
                if rows[s]["w1"] is not None
                else f"{rows[s]['mean']:.4g}"
                for s in SIZES
            ]
            text.append(f"{name:11}" + "".join(f"{value:>16}" for value in values))
    return text
