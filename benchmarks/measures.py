"""Measures of solids against their truth: the worst error of each over spacings and poses.

    python benchmarks/measures.py
    python benchmarks/measures.py --spacings 0.35,0.35,0.5 0.8,0.8,1.5 --poses tilted

Digitises balls, ellipsoids, tubes, shells, bent tubes, a muscle around a cavity and an appendage on
grids of these spacings (mm), tilted and mirrored ones too, measures them as the rule measure_shapes
does, and prints a row for each solid and measure: mean and worst relative error.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "support")]


def main() -> None:
    import solids

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [",".join(map(str, spacing)) for spacing in solids.SPACINGS]
    parser.add_argument("--spacings", nargs="+", default=default, metavar="X,Y,Z")
    names = [pose.name for pose in solids.POSES]
    parser.add_argument("--poses", nargs="+", default=names, choices=names)
    args = parser.parse_args()
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for text in args.spacings:
        spacing = tuple(float(edge) for edge in text.split(","))
        for pose in solids.POSES:
            if pose.name in args.poses:
                for solid, measure, found, true in solids.measured(spacing, pose):
                    errors[solid, measure].append(found / true - 1)
    print("| solid | measure | mean error | worst error | grids |\n|---|---|---:|---:|---:|")
    for (solid, measure), found in errors.items():
        mean, worst = np.mean(found), max(found, key=abs)
        print(f"| {solid} | `{measure}` | {mean:+.2%} | {worst:+.2%} | {len(found)} |")


if __name__ == "__main__":
    main()
