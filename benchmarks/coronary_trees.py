"""Traced coronary trees against true centrelines: names, places and radii of phantoms.

    python benchmarks/coronary_trees.py --hearts 8 --spacings 0.5 0.7 1.0

Draws hearts of ten classes on grids of several spacings, traces their coronaries as the rule
trace_coronary does, and compares with the tubes that were drawn. Rows: clean labels, the same heart
mirrored, and labels with breaks and specks. All shares are of length, all radii in voxels.
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import timed

FIGURES = ("named", "found", "invented", "length_ratio", "radius_error", "radius_bias")
KINDS = ("clean", "mirrored", "broken")
NOISE = {"breaks": 1.0, "speckle": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hearts", type=int, default=8, help="phantoms of each row")
    parser.add_argument("--first", type=int, default=0, help="their first seed")
    parser.add_argument("--spacings", type=float, nargs="+", default=[0.5, 0.7, 1.0], help="mm")
    args = parser.parse_args()
    print("| labels | spacing mm | hearts | " + " | ".join(FIGURES) + " | worst named | CPU s |")
    print("|---|" + "---:|" * (len(FIGURES) + 4))
    for spacing in args.spacings:
        hearts = [heart(args.first + k, spacing) for k in range(args.hearts)]
        for kind in KINDS:
            row(kind, spacing, hearts)


def heart(seed: int, spacing: float):
    """A phantom, its label map, and where its scan ends."""
    from cardiform.phantom import draw_phantom
    from cardiform.volumes import LabelMap

    phantom = draw_phantom(seed, least_vessel_radius=max(0.8, spacing * np.sqrt(3) / 2))
    low, high = phantom.bounds()
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low - 2.0
    shape = tuple(int(n) for n in np.ceil((high - low + 4.0) / spacing))
    return phantom, LabelMap(phantom.label_map(shape, affine), affine)


def row(kind: str, spacing: float, hearts) -> None:
    found, seconds = [], []
    for phantom, label_map in hearts:
        used, figures = timed(measured, kind, phantom, label_map)
        found.append(figures)
        seconds.append(used)
    mean = [np.mean([figures[name] for figures in found]) for name in FIGURES]
    worst = min(figures["named"] for figures in found)
    text = " | ".join(f"{value:.3f}" for value in mean)
    print(
        f"| {kind} | {spacing:g} | {len(hearts)} | {text} | {worst:.3f} | {np.mean(seconds):.1f} |",
        flush=True,
    )


def measured(kind: str, phantom, label_map) -> dict[str, float]:
    """Figures of one heart (:func:`cardiform.coronary.tree_figures.tree_figures`)."""
    from cardiform.coronary.branch_names import name_branches
    from cardiform.coronary.surroundings import Surroundings
    from cardiform.coronary.trace_case import traced
    from cardiform.coronary.tree_figures import tree_figures
    from cardiform.labels import LabelTable
    from cardiform.options.coronary import CoronaryTraceOptions
    from cardiform.volumes import LabelMap

    table = LabelTable()
    value = table[table.channel("coronary")].value
    data, affine = label_map.data, label_map.affine.copy()
    turn = np.ones(3)
    if kind == "mirrored":
        affine[0] *= -1
        turn[0] = -1
    if kind == "broken":
        data = noisy(data, value, label_map.spacing, phantom.seed)
    label_map = LabelMap(data, affine)
    around = Surroundings(label_map, table)
    forest = traced(label_map, value, around, CoronaryTraceOptions())
    named = name_branches(forest, around)
    true = [(b.name, b.points * turn, b.radii) for b in phantom.coronary_branches()]
    own = [(name, b.points, b.radii) for name, b in zip(named.names, forest.branches)]
    return tree_figures(true, own, float(label_map.spacing[0]))


def noisy(data: np.ndarray, value: int, spacing: np.ndarray, seed: int) -> np.ndarray:
    """A label map whose coronaries have gaps, and specks in the background."""
    from cardiform.anatomy.corruption import corrupt

    mask = data == value
    label = corrupt(mask, spacing, NOISE, np.random.default_rng(seed))
    result = np.where(mask, np.uint8(0), data)
    result[label & (result == 0)] = value
    return result


if __name__ == "__main__":
    main()
