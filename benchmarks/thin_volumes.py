"""How much of their volume thin structures keep, whatever the spacing.

    python benchmarks/thin_volumes.py

Oblique tubes of several calibres on several grids, as masks; every figure is a volume as a share of
that of the voxels, the mean of some poses and the worst of them.

mesh           ours: what the surface encloses
field          ours: where the distances are negative: what points and sparse voxels see
two steps      the same mesh without the search of a shift: two steps of at most half a voxel
binary, blur   marching cubes of the mask, and of the mask blurred by one voxel
"""

from __future__ import annotations

import argparse
from unittest import mock

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path
from scipy.spatial.transform import Rotation

from cardiform.geometry import sdf
from cardiform.geometry.mask_surface import blurred, surface_of_mask
from cardiform.geometry.surface import signed_volume
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

SPACINGS = ((0.35, 0.35, 0.5), (0.6, 0.6, 0.6), (0.4, 0.4, 2.0), (0.8, 0.8, 3.0))
RADII = (0.4, 1.0, 1.5, 3.0)
POSES, POINTS, REACH, HALF = 3, 400_000, 12.0, 9.0
COLUMNS = ("mesh", "field", "two steps", "binary", "blur")


def tube(spacing, radius: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) bool, and its affine."""
    shape = np.ceil(2 * REACH / np.array(spacing)).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * spacing + rng.uniform(-0.5, 0.5, 3) * spacing
    points = np.moveaxis(np.indices(shape), 0, -1) * spacing + affine[:3, 3]
    way = Rotation.random(random_state=rng).apply([0, 0, 1])
    along = np.clip(points @ way, -HALF, HALF)
    return np.linalg.norm(points - along[..., None] * way, axis=-1) < radius, affine


def shares(mask: np.ndarray, affine: np.ndarray, rng) -> list[float]:
    """The volumes by each route, as shares of that of the voxels."""
    label_map = LabelMap(mask.astype(np.uint8), affine)

    def made():
        return sdf.class_fields(label_map, LabelTable(), MeshesOptions())[1]

    field = made()
    with mock.patch.object(sdf, "VOLUME_ERROR", np.inf):
        plain = made()
    points = rng.uniform(-REACH, REACH, (POINTS, 3))
    volumes = [
        signed_volume(field.surface()),
        float((field.lookup(points) < 0).mean()) * (2 * REACH) ** 3,
        signed_volume(plain.surface()),
    ]
    for sigma in (0.0, 1.0):
        blur = lambda m, s, sigma=sigma: blurred(m, s, sigma_vox=sigma)  # noqa: E731
        volumes.append(signed_volume(surface_of_mask(mask, affine, blur, pad=4)))
    return [volume / field.voxel_volume for volume in volumes]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    print("| radius, spacing mm | " + " | ".join(COLUMNS) + " |\n" + "|---" * 6 + "|")
    for radius in RADII:
        for spacing in SPACINGS:
            rng = np.random.default_rng(0)
            masks = [tube(spacing, radius, rng) for _ in range(POSES)]
            found = np.array([shares(m, a, rng) for m, a in masks if m.any()])
            worst = found[np.abs(found - 1).argmax(axis=0), range(len(COLUMNS))]
            cells = [f"{m:.2f} ({w:.2f})" for m, w in zip(found.mean(axis=0), worst)]
            name = f"{radius:g}, {' x '.join(map(str, spacing))}"
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
