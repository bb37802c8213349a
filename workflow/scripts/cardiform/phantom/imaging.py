"""What else a case has besides its label map: a CT-like volume and a point cloud."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from ..files import atomic_path
from ..geometry.distances import distance_to

# Typical attenuation in contrast-enhanced cardiac CT, HU, by class value.
HU = {1: 110, 2: 380, 3: 400, 4: 230, 5: 280, 6: 400, 7: 300, 8: 370, 9: 380, 10: 370}
FAT_HU, LUNG_HU, AIR_HU = -90, -850, -1024
FAT_MM = 7.0  # epicardial fat; the lung begins beyond it
BLUR_MM, NOISE_HU = 0.6, 25.0


def ct_volume(labels: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(X, Y, Z) int16 HU: blood with contrast, muscle, fat and lung, blurred and noisy.

    labels : (X, Y, Z) uint8 of the STACOM-2025 table.    spacing : (3,) mm.
    """
    lookup = np.zeros(256, np.float32)
    lookup[list(HU)] = list(HU.values())
    volume = lookup[labels]
    outside = labels == 0
    distance = distance_to(~outside, spacing)
    volume[outside] = np.where(distance[outside] < FAT_MM, FAT_HU, LUNG_HU)
    volume = ndimage.gaussian_filter(volume, BLUR_MM / np.asarray(spacing))
    noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape).astype(np.float32), 0.6)
    volume += noise * (NOISE_HU / noise.std())
    return np.clip(np.rint(volume), AIR_HU, 3071).astype(np.int16)


def point_cloud(
    labels: np.ndarray, affine: np.ndarray, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float32 RAS mm uniform within the labelled voxels, and their (N,) uint8 labels."""
    voxels = np.argwhere(labels)
    chosen = voxels[rng.integers(len(voxels), size=number)]
    index = chosen + rng.uniform(-0.5, 0.5, (number, 3))
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return points.astype(np.float32), labels[tuple(chosen.T)]


def write_point_cloud(path: str | Path, points: np.ndarray, labels: np.ndarray) -> None:
    """HDF5 with the datasets ``points`` (N, 3) mm and ``labels`` (N,), written at once."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as archive:
        archive.create_dataset("points", data=points, compression="gzip", shuffle=True)
        archive.create_dataset("labels", data=labels, compression="gzip")
