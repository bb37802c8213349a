"""What the points of a case must fulfil before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError, problem
from .frame import UNIT_RADIUS
from .sampling import LIMIT, Evidence

MAX_NEAR = 2.0
# Between a corner of the cube and a class at the other end of the ball of radius 0.95.
MAX_VOLUME = 1.01 * (np.sqrt(3) + 0.95)
BALANCE = (0.4, 0.6)
# Of fewer points a single one tips the balance; they exist in tiny trials only.
BALANCE_POINTS = 20
SLOPE = (0.9, 1.1)
# Stored distances over those to the stored surface points. Specks that no stored point lies on
# make the first ones shorter, rightly; only far too short means another unit.
RATIO = (0.5, 1.1)
RATIO_POINTS = 500
# Where the anatomy is but a few voxels, a tenth of one, which the fields are exact to, is much of
# every distance. What is smaller yet is refused before (cardiform.volumes.check_extent).
COARSE_VOX = 8  # radius of the anatomy, in its longest voxel edges
COARSE_SLOPE, COARSE_RATIO, FIELD_VOX = (0.5, 1.5), (0.5, 1.5), 0.1
REMEDY = "look at the label map; if it is sound, report this as a defect"


def check_points(
    arrays: Mapping[str, np.ndarray],
    evidence: Evidence,
    near_sigma: tuple[float, ...],
    where: str | Path = "points",
) -> None:
    """Hold a points npz against what its field promises.

    Parameters
    ----------
    arrays : the points npz (see docs/architecture.md).
    evidence : what the fields say, from :func:`cardiform.geometry.sampling.case_points`.
    near_sigma : offsets of the near points, unit frame.
    where : the file's name in messages.

    Raises
    ------
    InputError
        All violations of ranges, or else all of single classes.
    """
    facts = [*_range_facts(arrays), *_surface_facts(arrays, evidence.surface_sdf)]
    if not facts:  # balance and slopes of points out of range would mean nothing
        for channel in np.flatnonzero(arrays["annotated"]):
            facts += _class_facts(arrays, int(channel), max(near_sigma), evidence.slopes)
    if facts:
        remedy = _remedy(arrays, max(near_sigma))
        raise InputError([problem(where, fact, remedy) for fact in facts])


def _remedy(arrays, sigma: float) -> str:
    """What to do; ``sigma``: the widest offset of near points, unit frame."""
    exact = FIELD_VOX * float(arrays["spacing"].max() * arrays["scale"])
    if sigma >= exact:
        return REMEDY
    return f"raise points.near_sigma: distances are exact to {exact:.2g}, a tenth of a voxel"


def _range_facts(arrays) -> list[str]:
    facts = []
    annotated = arrays["annotated"]
    whole = annotated & ~arrays.get("cut", np.zeros_like(annotated))
    for name in ("surface", "near", "volume"):
        points = arrays[f"{name}_points"]
        largest = float(np.abs(points).max(initial=0))
        if not (np.isfinite(points).all() and largest <= LIMIT):
            facts.append(f"{name} points reach {largest:.3g} (at most {LIMIT})")
    for name, limit in (("near", MAX_NEAR), ("volume", MAX_VOLUME)):
        sdf = arrays[f"{name}_sdf"]
        known = sdf[:, annotated]
        known = known[~np.isnan(known)]
        if not np.isfinite(sdf[:, whole]).all():
            facts.append(f"{name} distances of annotated classes are not finite")
        elif np.abs(known).max(initial=0) > limit:
            facts.append(f"{name} distances reach {np.abs(known).max():.3g} (at most {limit:.3g})")
        if not np.isnan(sdf[:, ~annotated]).all():
            facts.append(f"{name} distances of classes that are not annotated are not NaN")
    return facts


def _surface_facts(arrays, surface_sdf) -> list[str]:
    voxel = float(arrays["spacing"].max() * arrays["scale"])
    worst = float(np.abs(surface_sdf).max(initial=0))
    if not worst < voxel:
        return [f"surface points lie up to {worst:.3g} off their surface (a voxel: {voxel:.3g})"]
    return []


def _class_facts(arrays, channel: int, sigma: float, slopes) -> list[str]:
    """Balance, width, slope and unit of one class."""
    value = int(arrays["class_values"][channel])
    own = arrays["near_sdf"][arrays["near_labels"] == value, channel].astype(np.float32)
    own = own[~np.isnan(own)]
    if not len(own):
        return [f"class {value} has no near points"]
    facts = []
    voxel = float(arrays["spacing"].max() * arrays["scale"])
    coarse = voxel * COARSE_VOX > UNIT_RADIUS
    slope, around = (COARSE_SLOPE, COARSE_RATIO) if coarse else (SLOPE, RATIO)
    width = 3 * sigma + (FIELD_VOX * voxel if coarse else 0)
    inside = float((own < 0).mean())
    if len(own) >= BALANCE_POINTS and not BALANCE[0] <= inside <= BALANCE[1]:
        facts.append(f"class {value}: {inside:.0%} of the near points lie inside (40-60 %)")
    median = float(np.median(np.abs(own)))
    if not median < width:
        facts.append(f"class {value}: near points are {median:.3g} away (sigma {sigma:.3g})")
    if not slope[0] <= slopes[value] <= slope[1]:
        limits = "-".join(map(str, slope))
        facts.append(f"class {value}: the slope of the distances is {slopes[value]:.3g} ({limits})")
    ratio = _ratio(arrays, channel, value)
    if channel in np.flatnonzero(arrays.get("cut", [])):
        around = (0.0, around[1])  # the rim of the cut is a surface, and no points lie on it
    if not around[0] <= ratio <= around[1]:
        facts.append(f"class {value}: distances are {ratio:.3g} of those to the surface points")
    return facts


def _ratio(arrays, channel: int, value: int) -> float:
    """Stored distances over distances to the stored surface points, far enough away that
    the gaps between these do not matter."""
    surface = arrays["surface_points"][arrays["surface_labels"] == value]
    if not len(surface):
        return float("nan")
    stored = np.abs(arrays["volume_sdf"][:RATIO_POINTS, channel].astype(np.float32))
    known = ~np.isnan(stored)  # all of them, where the scan does not cut the class
    if not known.any():
        return 1.0
    stored = stored[known]
    tree = cKDTree(surface, balanced_tree=False, compact_nodes=False)  # asked but a few times
    measured, _ = tree.query(arrays["volume_points"][:RATIO_POINTS][known])
    far = measured >= np.median(measured)
    return float(np.median(stored[far] / measured[far]))
