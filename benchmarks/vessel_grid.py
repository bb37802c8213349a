"""What the coarse grid of latent diffusion keeps of vessel trees, without any network.

    python benchmarks/vessel_grid.py --results results/generation --split test

Needs target ldm's voxels and encode_vessels. Each tree is written into the channels of its heart's
grid, read from them, and grown again from the aorta of the heart without its vessels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path

from cardiform.anatomy.components import count_components
from cardiform.cohort.splits import read_split
from cardiform.labels import load_label_table
from cardiform.ldm.hearts_on_grid import load_grid
from cardiform.ldm.vessels.draw_case import canvas_of, is_connected
from cardiform.ldm.vessels.field import decode, encode
from cardiform.ldm.vessels.figures import Points, spread_against
from cardiform.ldm.vessels.fine import draw, fine_cube
from cardiform.ldm.vessels.growth import Limits, grow
from cardiform.ldm.vessels.tree import load_tree
from cardiform.options.vessels import VesselDrawingOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", required=True, type=Path, help="results/<cohort>")
    parser.add_argument("--trees", type=Path, help="folder of encode_vessels, if elsewhere")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--labels", default="", help="label table")
    args = parser.parse_args()
    voxels = args.results / "ldm" / "labels" / "voxels"
    trees = args.trees or args.results / "ldm" / "labels" / "vessels" / "trees"
    grid, table, options = (
        load_grid(voxels / "grid.json"),
        load_label_table(args.labels),
        VesselDrawingOptions(),
    )
    limits = Limits(options.gap_mm, options.branch_mm, options.smooth_mm)
    true, made, rows = [], [], []
    for name, _ in read_split(args.results / "split" / f"{args.split}.csv"):
        stored = load_tree(trees / f"{name}.npz")
        if not stored.known:
            continue
        label = table[table.channel(stored.structure)]
        canvas = canvas_of(voxels / f"{name}.nii.gz", grid, label, options.spacing_mm)
        votes = decode(encode(stored.tree, grid.size, grid.spacing), grid.size, grid.spacing)
        grown = grow(votes, canvas.walls, grid.spacing, limits)
        mask = draw(grown.tree, fine_cube(grid.edge_mm, options.spacing_mm))
        connected = is_connected(mask, canvas.walls.aorta & ~mask)
        rows.append((connected, count_components(mask), len(grown.tree.roots), grown.lost))
        true.append(stored.tree)
        made.append(grown.tree)
    means = np.mean(rows, axis=0)
    apart = Points(made).each_to(Points(true))
    print(f"{len(rows)} hearts, voxels of {grid.spacing:.2f} mm")
    print("connected {:.3f}, parts {:.2f}, trees {:.2f}, lost {:.4f}".format(*means))
    print(f"mean distance {apart.mean():.2f} mm, of the worst heart {apart.max():.2f} mm")
    for size, row in spread_against(made, true).items():
        print(f"{size}: {row['mean']:.2f}, true {row['true_mean']:.2f}, W1/sd {row['w1']:.2f}")


if __name__ == "__main__":
    main()
