"""Time to compare a set of generated hearts with real ones, and what of it decides the figures.

    OMP_NUM_THREADS=2 python benchmarks/hearts_compared.py --hearts 100

Procedural hearts on 32^3 voxels, nine classes, stand for all sets: test hearts, training hearts,
reconstructions (blurred) and generated ones (augmented). ``--full`` measures every pair of hearts
with all points, as the figures are defined; the largest difference of a figure is printed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from measuring import peak_mib
from scipy.ndimage import gaussian_filter

from cardiform.labels import LabelTable
from cardiform.ldm import set_figures
from cardiform.ldm.cube import labelled_box, on_cube
from cardiform.ldm.data import moved, to_channels
from cardiform.ldm.evaluate import References, evaluate, table_of_figures
from cardiform.ldm.hearts_on_grid import LABELS, Grid
from cardiform.options.ldm import AutoencoderOptions, GenerationOptions
from cardiform.phantom.scans import draw_scan
from cardiform.volumes import LabelMap

TABLE = LabelTable(tuple(c for c in LabelTable() if c.name != "coronary"))
GRID = Grid(LABELS, 32, 180.0, TABLE)
DRAWN = 40  # phantoms; all other hearts are these, augmented


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hearts", type=int, default=100, help="of each set")
    parser.add_argument("--points", type=int, default=1024, help="per class and heart")
    parser.add_argument("--full", action="store_true", help="every pair with all points, too")
    args = parser.parse_args()
    base = phantoms(min(args.hearts, DRAWN))
    test, train, made = (augmented(base, args.hearts, seed) for seed in range(3))
    coded = [[blurred(heart) for heart in hearts] for hearts in (test, train)]
    references = References(train, test, coded[0], reconstructed_train=coded[1])
    options = GenerationOptions(points=args.points)

    def timed():
        start, cpu = time.perf_counter(), time.process_time()
        threads = torch.get_num_threads()
        found = evaluate(made, references, GRID, options, threads=threads)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{threads} threads: {wall:.0f} s, {cpu:.0f} CPU s, {peak_mib():.0f} MiB")
        return found

    figures = timed()
    print("\n".join(table_of_figures(figures)))
    if args.full:
        set_figures.SCREENS = ()
        every = timed()
        differences = [
            abs(figures[row][part][key] - every[row][part][key])
            for row in every["hearts"]
            if row != "test"
            for part in ("all_classes",)
            for key in every[row][part]
        ]
        print(f"largest difference: {max(differences):.1e}")


def phantoms(number: int) -> list[np.ndarray]:
    """Whole hearts as (32, 32, 32) uint8 channels."""
    hearts, count = [], 0
    while len(hearts) < number:
        label_map = LabelMap(*draw_scan(count, 3.0, 0))
        count += 1
        label_map.data[~np.isin(label_map.data, TABLE.values)] = 0
        if set(TABLE.values) <= set(np.unique(label_map.data)):
            cube = GRID.cube(labelled_box(label_map, TABLE.values).mean(axis=0))
            hearts.append(to_channels(on_cube(label_map, cube, TABLE.values), GRID))
    return hearts


def augmented(hearts: list[np.ndarray], number: int, seed: int) -> list[np.ndarray]:
    """``number`` hearts, each turned, scaled and shifted."""
    ranges = AutoencoderOptions()
    return [
        moved(
            torch.from_numpy(hearts[i % len(hearts)]), ranges, np.random.default_rng((seed, i))
        ).numpy()
        for i in range(number)
    ]


def blurred(heart: np.ndarray) -> np.ndarray:
    """A heart as an autoencoder might give it back."""
    shares = [gaussian_filter((heart == k).astype(np.float32), 0.7) for k in range(len(TABLE) + 1)]
    return np.argmax(shares, axis=0).astype(np.uint8)


if __name__ == "__main__":
    main()
