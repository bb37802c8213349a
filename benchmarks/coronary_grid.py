"""Refining at 256 voxels: cells near the label alone, against every voxel of the grid.

    python benchmarks/coronary.py --work /tmp/coronary && \\
        python benchmarks/coronary_grid.py --model /tmp/coronary/cardiform/model.pt

Encoding is done once and counts for neither. Prints CPU seconds, query points and their ratios,
and how many voxels of the two masks differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import timed


def main() -> None:
    import torch
    from coronary import NOISE, noisy_tree, repair_options

    from cardiform.coronary.cases import fine_grid
    from cardiform.coronary.refine import load_refiner
    from cardiform.geometry.frame import apply_affine
    from cardiform.options.coronary import CoronaryRefineOptions

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.pt of preset cardiform")
    parser.add_argument("--resolution", type=int, default=256, help="voxels of the longest edge")
    args = parser.parse_args()
    torch.set_num_threads(1)
    *_, thin = noisy_tree(1000, NOISE["kinds of the training"])
    options, cpu = CoronaryRefineOptions(), torch.device("cpu")
    refiner = load_refiner(args.model, options, repair_options(), cpu)
    field = refiner.field("", thin)
    shape, affine = fine_grid(thin, args.resolution)
    near, (voxels, values) = timed(field.on_grid, shape, affine)
    into = np.linalg.inv(thin.affine) @ affine

    def dense() -> np.ndarray:
        planes = []
        rows = np.indices(shape[1:]).reshape(2, -1).T
        for x in range(shape[0]):
            index = np.column_stack([np.full(len(rows), x), rows]).astype(np.float64)
            planes.append(field.distances(apply_affine(into, index).astype(np.float32)) < 0)
        return np.concatenate(planes).reshape(shape)

    everywhere, whole = timed(dense)
    mask = np.zeros(shape, bool)
    mask[tuple(voxels[values < 0].T)] = True
    print("| | CPU s | query points |\n|---|---:|---:|")
    print(f"| every voxel of {'x'.join(map(str, shape))} | {everywhere:.1f} | {whole.size:,} |")
    print(f"| near the label | {near:.2f} | {len(voxels):,} |")
    print(f"| ratio | {everywhere / near:.0f} | {whole.size / len(voxels):.0f} |")
    print(f"\n{int((mask ^ whole).sum())} of {int(whole.sum()):,} voxels differ")


if __name__ == "__main__":
    main()
