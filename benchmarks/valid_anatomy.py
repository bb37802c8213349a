"""How well `valid` tells hearts from broken ones: procedural hearts, and faults made in them.

    python benchmarks/valid_anatomy.py --out /tmp/valid

Draws hearts, learns the rules of cardiform.anatomy.validity from some, and judges others, as they
are and broken in a known way: a class moved, grown or shrunk by voxels, two labels swapped, the
ventricles joined through the septum. Beside them, `plain shares`: classes that touch in 90 % of the
training hearts must touch, those that do in 2 % must not, however few the hearts. Hearts are drawn
once. Coronaries take no part.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from cardiform.anatomy.validity import FACE, Anatomy, gaps  # noqa: E402
from cardiform.labels import load_label_table  # noqa: E402
from cardiform.ldm.cube import (  # noqa: E402  # noqa: E402
    Cube,
    class_centroids,
    edge_mm,
    heart_centers,
    labelled_box,
    on_cube,
    reach_mm,
)
from cardiform.volumes import LabelMap  # noqa: E402

SPACING_MM = 2.0
JUDGED = 30  # hearts in each repetition
LV, RV = 3, 5  # channels, in the order of the label table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--hearts", type=int, default=200)
    parser.add_argument("--voxels", type=int, default=32, help="along each edge (default: 32)")
    parser.add_argument("--training", type=int, nargs="+", default=[10, 15, 30, 160])
    parser.add_argument("--repetitions", type=int, default=20)
    args = parser.parse_args()
    table = load_label_table("")
    classes = [c for c in table if c.name != "coronary"]
    hearts = cohort(args, [c.value for c in classes], [c.name for c in classes])
    parts = [c.expected for c in classes]
    for number in args.training:
        rows = {"sound": [], **{name: [] for name in FAULTS}}
        for seed in range(args.repetitions):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(hearts))
            judge(hearts[order[:number]], hearts[order[number:][:JUDGED]], parts, rng, rows)
        print(f"\n{number} training hearts: share called valid")
        print(f"{'hearts judged':30}{'rules':>8}{'plain shares':>14}")
        for name, found in rows.items():
            print(f"{name:30}" + "{:8.2f}{:14.2f}".format(*np.mean(found, axis=0)))


def judge(train, others, parts, rng, rows) -> None:
    """Append (rules, plain shares), valid or not, of every heart and fault."""
    known = np.ones(len(parts), bool)
    rules = Anatomy.of(((heart, known) for heart in train), parts)
    touch = np.mean([gaps(heart, len(parts)) == FACE for heart in train], axis=0)
    plain = dataclasses.replace(rules, touching=touch >= 0.9, apart=touch <= 0.02, spare=FACE)
    for heart in others:
        broken = {"sound": heart, **{name: fault(heart, rng) for name, fault in FAULTS.items()}}
        for name, made in broken.items():
            rows[name].append([all(judge.check(made).values()) for judge in (rules, plain)])


def cohort(args, values, names) -> np.ndarray:
    """(N, S, S, S) uint8 channels of hearts, in cubes of one edge as resample_labels makes them."""
    path = args.out / f"hearts_{args.hearts}_{args.voxels}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    maps = [digitised(seed) for seed in range(args.hearts)]
    middles = [class_centroids(m, dict(zip(names, values))) for m in maps]
    centers = heart_centers(middles, names)
    boxes = [labelled_box(m, values) for m in maps]
    edge = edge_mm(np.array([reach_mm(b, c) for b, c in zip(boxes, centers)]), args.voxels)
    channels = np.zeros(256, np.uint8)
    channels[values] = np.arange(1, len(values) + 1)
    spacing = edge / args.voxels
    cubes = [on_cube(m, Cube(c, spacing, args.voxels), values) for m, c in zip(maps, centers)]
    hearts = np.stack([channels[cube] for cube in cubes])
    print(f"{len(hearts)} hearts, voxels of {spacing:.2f} mm")
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(path, hearts)
    return hearts


def digitised(seed: int) -> LabelMap:
    from cardiform.phantom.heart import draw_phantom
    from cardiform.phantom.scans import Oddity, _grid

    phantom = draw_phantom(90_000 + seed, missing=("coronary",))
    shape, affine = _grid(phantom.bounds(), np.full(3, SPACING_MM), Oddity())
    return LabelMap(phantom.label_map(shape, affine), affine)


def moved(heart, rng, by) -> np.ndarray:
    channel = rng.integers(1, heart.max() + 1)
    made = np.where(heart == channel, 0, heart)
    shift = int(rng.choice([-by, by]))
    made[np.roll(heart == channel, shift, axis=int(rng.integers(3)))] = channel
    return made


def grown(heart, rng, by) -> np.ndarray:
    channel = rng.integers(1, heart.max() + 1)
    return np.where(ndimage.binary_dilation(heart == channel, iterations=by), channel, heart)


def shrunk(heart, rng) -> np.ndarray:
    channel = rng.integers(1, heart.max() + 1)
    lost = (heart == channel) & ~ndimage.binary_erosion(heart == channel)
    return np.where(lost, 0, heart)


def swapped(heart, rng) -> np.ndarray:
    one, other = rng.choice(np.arange(1, heart.max() + 1), 2, replace=False)
    channels = np.arange(heart.max() + 1, dtype=heart.dtype)
    channels[[one, other]] = other, one
    return channels[heart]


def joined(heart) -> np.ndarray:
    """A voxel of the left ventricle that touches the right one, where the septum is thinnest."""
    left, right = heart == LV, heart == RV
    ways = ndimage.distance_transform_edt(~left) + ndimage.distance_transform_edt(~right)
    ways[left | right] = np.inf
    near_right = ndimage.binary_dilation(right)
    made = heart.copy()
    made[(ways <= ways[near_right].min() + 1) & near_right & ~right] = LV
    return made


FAULTS = {
    "one class moved by 1 voxel": lambda heart, rng: moved(heart, rng, 1),
    "moved by 2 voxels": lambda heart, rng: moved(heart, rng, 2),
    "moved by 3 voxels": lambda heart, rng: moved(heart, rng, 3),
    "one class grown by 1 voxel": lambda heart, rng: grown(heart, rng, 1),
    "grown by 2 voxels": lambda heart, rng: grown(heart, rng, 2),
    "one class shrunk by 1 voxel": shrunk,
    "two labels swapped": swapped,
    "ventricles joined": lambda heart, rng: joined(heart),
}


if __name__ == "__main__":
    main()
