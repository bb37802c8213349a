"""Evaluating a trained VecSet on a 256^3 grid: coarse to fine against every point.

    python benchmarks/adaptive.py --model results/demo/vecset/model.pt \\
        --points results/demo/points/phantom_007.npz

Prints evaluations and CPU seconds of both ways, of the field alone and with the ten surfaces,
and whether label maps and surfaces are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import timed

GRID = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.pt of train_vecset")
    parser.add_argument("--points", type=Path, required=True, help="points file of a case")
    args = parser.parse_args()

    import torch

    from cardiform.geometry.coarse_to_fine import START_STRIDE, sample_field
    from cardiform.options.vecset import VecsetReconstructOptions
    from cardiform.vecset.reconstruct import Reconstructor

    options = VecsetReconstructOptions(device="cpu")
    network = Reconstructor.load(args.model, options, torch.device("cpu"))
    field = network.field(network.encode(args.points, args.points.stem))
    affine = np.diag([2 / (GRID - 1)] * 3 + [1.0])
    affine[:3, 3] = -1
    values = network.table.values

    def measure(stride: int):
        spent, sampled = timed(sample_field, field, (GRID,) * 3, affine, lambda p: p, stride)
        meshing, surfaces = timed(lambda: [sampled.surface(c) for c in range(len(values))])
        return sampled, surfaces, (sampled.evaluations, spent, spent + meshing)

    lean, lean_surfaces, ours = measure(START_STRIDE)
    dense, dense_surfaces, peer = measure(1)
    print("| | dense | coarse to fine | ratio |\n|---|---:|---:|---:|")
    for name, a, b in zip(("evaluations", "field, CPU s", "field and surfaces, CPU s"), peer, ours):
        print(f"| {name} | {a:,.1f} | {b:,.1f} | {a / b:.1f}x |")
    differing = int((lean.labels(values) != dense.labels(values)).sum())
    same = [np.array_equal(a.vertices, b.vertices) for a, b in zip(lean_surfaces, dense_surfaces)]
    print(f"{differing} of {GRID**3:,} labels differ; {sum(same)} of {len(same)} surfaces equal")


if __name__ == "__main__":
    main()
