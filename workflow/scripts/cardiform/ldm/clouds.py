"""Voxels of point clouds."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from ..errors import InputError, problem
from ..labels import LabelTable, channel_of_value
from ..options.ldm import PointcloudsOptions
from ..volumes.clouds import Cloud
from .cube import Cube

TYPICAL = 99  # percentile of the filled voxels that a field's 1.0 stands for


def counts_on(cube: Cube, points: np.ndarray, channels: np.ndarray, number: int) -> np.ndarray:
    """(number, S, S, S) float32: points of each channel in each voxel; those outside are lost."""
    index = np.floor((points - cube.affine[:3, 3]) / cube.spacing + 0.5).astype(np.int64)
    within = ((index >= 0) & (index < cube.size)).all(axis=1)
    flat = np.ravel_multi_index((channels[within], *index[within].T), (number, *(cube.size,) * 3))
    counts = np.bincount(flat, minlength=number * cube.size**3)
    return counts.reshape(number, *(cube.size,) * 3).astype(np.float32)


def fields_on(
    cube: Cube, cloud: Cloud, table: LabelTable, options: PointcloudsOptions
) -> np.ndarray:
    """(classes, S, S, S) fields, one per class of ``table``; of points without classes one."""
    cloud = chosen_points(cloud, table)
    channels, number = np.zeros(len(cloud.points), np.int64), 1
    if cloud.labels is not None:
        lookup = np.array(channel_of_value(table.values), np.int64)
        channels, number = lookup[cloud.labels], len(table)
    return fields_of(counts_on(cube, cloud.points, channels, number), options)


def fields_of(counts: np.ndarray, options: PointcloudsOptions) -> np.ndarray:
    """Counts -> fields of one scale for the whole data set (see :func:`typical`), not clipped."""
    if options.method == "occupancy":
        return (counts > 0).astype(np.float32)
    if options.method == "gaussian":
        return np.stack([ndimage.gaussian_filter(c, options.sigma_vox) for c in counts])
    return counts


def typical(fields: np.ndarray) -> float:
    """What a well-filled voxel of one sample holds."""
    total = fields.sum(axis=0)
    return float(np.percentile(total[total > 1e-6], TYPICAL)) if (total > 1e-6).any() else 0.0


def volume_of(fields: np.ndarray, scale: float) -> np.ndarray:
    """(S, S, S) float32 within [0, 1] of fields without classes."""
    return np.clip(fields.sum(axis=0) / scale, 0, 1)


def label_map_of(fields: np.ndarray, scale: float, values, threshold: float) -> np.ndarray:
    """(S, S, S) uint8: the class of the largest field where all together exceed ``threshold``."""
    inside = fields.sum(axis=0) / scale >= threshold
    inside &= fields.max(axis=0) > 0
    return np.where(inside, np.asarray(list(values), np.uint8)[fields.argmax(axis=0)], 0)


def middles_of(cloud: Cloud, table: LabelTable) -> dict[str, np.ndarray]:
    """Class name -> (3,) mm, the mean of its points."""
    if cloud.labels is None:
        return {}
    found = ((c.name, cloud.points[cloud.labels == c.value]) for c in table)
    return {name: points.mean(axis=0) for name, points in found if len(points)}


def chosen_points(cloud: Cloud, table: LabelTable, where: str = "") -> Cloud:
    """The points of the classes that take part."""
    if cloud.labels is None:
        return cloud
    rows = np.isin(cloud.labels, table.values)
    if not rows.any():
        fact = "has no point of the classes that take part"
        raise InputError(
            problem(where or cloud.name, fact, "remove this sample, or drop fewer classes")
        )
    return dataclasses.replace(cloud, points=cloud.points[rows], labels=cloud.labels[rows])
