"""Repair of a noisy vessel mask without learning: dust, closing, smoothing, bridges, fragments.

Bridges alone join parts: they look at directions and at where the parts spring from.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..geometry.distances import depth_in, distance_to
from ..options.coronary import CoronaryRepairOptions
from .bridging import Bridge, Limits, bridges, draw
from .centreline import Centreline
from .components import components, count_components, kept, without_small

LOWEST_LEVEL = 0.25  # of a smoothed mask: lower ones would bring specks along
CALIBRE_MM = 2.0  # along a vessel: the largest radius so near is its own
AROUND = [o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)]


def repair(
    mask: np.ndarray,
    spacing: float,
    options: CoronaryRepairOptions,
    supported: np.ndarray | None = None,
    roots: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """A mask with its gaps bridged, its specks gone and its wall smoothed.

    Parameters
    ----------
    mask : (X, Y, Z) bool on an isotropic grid.
    spacing : voxel edge, mm.
    supported : (X, Y, Z) bool, optional
        What lies near the structures that the vessel runs on: the evidence for loose pieces.
    roots : (X, Y, Z) bool, optional
        What lies against the vessel that it springs from. Two parts that both do are two trees
        and never joined.

    Returns
    -------
    The repaired mask and what each step changed: components before and after, voxels of dust,
    closing and smoothing, bridges and their length in mm, fragments dropped.
    """
    voxel = spacing**3
    dusted = without_small(mask, options.dust_mm3 / voxel)
    whole = closed_along(dusted, spacing, options.close_mm)
    smooth = kept_apart(whole, smoothed(whole, spacing, options.smooth_mm))
    whole, joints = bridged(smooth, spacing, options, roots)
    result = without_fragments(whole, spacing, options, supported)
    return result, {
        "components_before": count_components(mask),
        "components_after": count_components(result),
        "dust_voxels": int((mask & ~dusted).sum()),
        "smoothing_voxels": int((dusted ^ smooth).sum()),
        "bridges": len(joints),
        "bridged_mm": round(sum(_length(joint.course) for joint in joints), 2),
        "fragment_voxels": int((whole & ~result).sum()),
        "changed_voxels": int((mask ^ result).sum()),
        "voxels_before": int(mask.sum()),
        "voxels_after": int(result.sum()),
    }


def closed(mask: np.ndarray, spacing: float, radius: float) -> np.ndarray:
    """Closing by a ball of ``radius`` mm, through two distance transforms."""
    if radius <= 0 or not mask.any():
        return mask
    rim = int(np.ceil(radius / spacing)) + 1
    grown = distance_to(np.pad(mask, rim), spacing, radius) <= radius
    return (depth_in(grown, spacing) > radius)[(slice(rim, -rim),) * 3]


def closed_along(mask: np.ndarray, spacing: float, radius: float) -> np.ndarray:
    """What of :func:`closed` lies within the vessel's own calibre, and joins no parts.

    Vessels that run beside each other, of one tree or of two, stay what they are.
    """
    filled = closed(mask, spacing, radius)
    added = np.argwhere(filled & ~mask)
    line = Centreline.of(mask, spacing) if len(added) else None
    if line is None or not len(line):
        return mask
    calibre = line.radius.copy()
    for _ in range(int(np.ceil(CALIBRE_MM / spacing))):
        wider = calibre.copy()
        for a, b in (line.pairs.T, line.pairs.T[::-1]):
            np.maximum.at(wider, a, calibre[b])
        calibre = wider
    away, node = cKDTree(line.index).query(added)
    beside = added[away * spacing >= calibre[node]]
    filled[tuple(beside.T)] = False
    return kept_apart(mask, filled)


def kept_apart(mask: np.ndarray, grown: np.ndarray) -> np.ndarray:
    """``grown`` without what it adds to ``mask`` where that would join parts of it.

    What is added belongs to the nearest part, and touches no other.
    """
    return _apart(components(mask)[0], grown)


def trees_apart(mask: np.ndarray, repaired: np.ndarray, roots: np.ndarray | None) -> np.ndarray:
    """``mask`` without what joins two trees of a repaired structure (see :func:`repair`)."""
    if roots is None:
        return mask
    labelled, voxels = components(repaired)
    rooted = np.zeros(len(voxels), bool)
    rooted[labelled[roots]] = True
    rooted[0] = False
    trees = np.where(rooted[labelled] & mask, labelled, 0)
    parts, _ = components(mask)
    pairs = np.unique(np.column_stack([parts[trees > 0], trees[trees > 0]]), axis=0)
    several = np.flatnonzero(np.bincount(pairs[:, 0].astype(np.int64)) > 1)
    if not len(several):
        return mask
    joined = np.isin(parts, several)
    return (mask & ~joined) | _apart(np.where(joined, trees, 0), joined)


def _apart(labelled: np.ndarray, grown: np.ndarray) -> np.ndarray:
    """``grown`` without the voxels beside the parts where parts would touch; see kept_apart.

    labelled : (X, Y, Z) int, part of each voxel; 0: of none.
    """
    added = np.argwhere(grown & (labelled == 0))
    if labelled.max() < 2 or not len(added):
        return grown
    inside = np.argwhere(labelled)
    _, nearest = cKDTree(inside).query(added)
    owner = np.pad(np.where(grown, labelled, 0).astype(np.int32), 1)
    place = added + 1
    own = labelled[tuple(inside[nearest].T)].astype(np.int32)
    owner[tuple(place.T)] = own
    joins = np.zeros(len(added), bool)
    for offset in AROUND:
        other = owner[tuple((place + offset).T)]
        joins |= (other > 0) & (other != own)
    result = grown.copy()
    result[tuple(added[joins].T)] = False
    return result


def smoothed(mask: np.ndarray, spacing: float, sigma: float) -> np.ndarray:
    """Gaussian of ``sigma`` mm, cut where the volume stays: at one half thin vessels would go."""
    number = int(mask.sum())
    if sigma <= 0 or not number:
        return mask
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), sigma / spacing, truncate=3.0)
    high = blurred[blurred >= LOWEST_LEVEL]
    level = np.float32(LOWEST_LEVEL)
    if len(high) >= number:
        level = np.minimum(np.partition(high, -number)[-number], np.float32(0.5))
    more, fewer = blurred >= level, blurred > level
    # the level of a straight vessel is that of many voxels at once
    return more if more.sum() - number <= number - fewer.sum() else fewer


def bridged(
    mask: np.ndarray,
    spacing: float,
    options: CoronaryRepairOptions,
    roots: np.ndarray | None = None,
) -> tuple[np.ndarray, list[Bridge]]:
    """``mask`` with its gaps closed, and the bridges.

    roots : as of :func:`repair`.
    """
    line = Centreline.of(mask, spacing)
    labelled, voxels = components(mask)
    part = labelled[tuple(line.index.T)]
    rooted = np.zeros(len(voxels), bool)
    if roots is not None:
        rooted[labelled[roots]] = True
    limits = Limits(options.gap_mm, options.angle_deg, options.radius_ratio)
    large = voxels * spacing**3 >= options.fragment_mm3
    joints = bridges(line, limits, large=large[part], rooted=rooted[part])
    return draw(mask, spacing, joints), joints


def without_fragments(
    mask: np.ndarray,
    spacing: float,
    options: CoronaryRepairOptions,
    supported: np.ndarray | None = None,
) -> np.ndarray:
    """Loose pieces stay where they are large, or of some size and near what they belong to.

    Never a fixed number of components: a broken label has its distal tree in loose pieces.
    """
    labelled, voxels = components(mask)
    volume = voxels * spacing**3
    keep = volume >= options.fragment_mm3
    if supported is not None:
        near = np.bincount(labelled[supported], minlength=len(voxels)) > 0
        keep &= near | (volume >= options.certain_mm3)
    return kept(labelled, keep)


def _length(course: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(course, axis=0), axis=1).sum())
