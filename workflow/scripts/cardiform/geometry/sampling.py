"""Training points of a case: on the surfaces, near them and in the unit cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, again
from ..formats import Format
from ..labels import LabelTable
from ..options.geometry import PointsOptions
from .field_of_view import Cut
from .frame import Frame, apply_affine
from .lookup import Field, distances
from .surface import Mesh, face_vectors
from .surface_boxes import BLOCK

POINTS = Format(
    "points",
    {
        "surface_points": "f32 (N, 3)",
        "surface_normals": "f32 (N, 3)",
        "surface_labels": "u8 (N)",
        "near_points": "f32 (M, 3)",
        "near_sdf": "f16 (M, C)",
        "near_labels": "u8 (M)",
        "volume_points": "f32 (K, 3)",
        "volume_sdf": "f16 (K, C)",
        "annotated": "bool (C)",
        "class_values": "u8 (C)",
        "center": "f64 (3)",
        "scale": "f64",
        "affine": "f64 (4, 4)",
        "spacing": "f32 (3)",
        "format_version": "i64",
        "cut?": "bool (C)",
        "cut_planes?": "f64 (P, 4)",
        "near_least?": "f16 (M, C)",
        "volume_least?": "f16 (K, C)",
    },
    again("sample_sdf"),
)
# The anatomy ends at 0.95; near points may not leave this cube.
LIMIT = 1.05
# One near draw brings this many candidates per wanted point and side.
SURPLUS = 1.3
# Wide offsets leave a thin vessel at once: rounds that lack inside points halve them. Beside a
# few voxels, whose field and mesh differ, narrow ones stay inside: the other rounds double them.
ROUNDS = 8
# Slopes are taken at the first volume points, over this many voxels to either side, but less than
# the anatomy: across it a distance does not rise all the way.
SLOPE_POINTS, STEP_VOX, STEP_UNIT = 500, 2.0, 0.095


@dataclass(frozen=True)
class Evidence:
    """What :func:`cardiform.geometry.points_check.check_points` asks the fields, not the file.

    surface_sdf : (N,) float32, distance of each surface point to its own class, unit frame.
    slopes : class value -> median length of the field's gradient at volume points.
    """

    surface_sdf: np.ndarray
    slopes: Mapping[int, float]


def case_points(
    fields: Mapping[int, Field],
    meshes: Mapping[int, Mesh],
    frame: Frame,
    table: LabelTable,
    options: PointsOptions,
    rng: np.random.Generator,
    cuts: Mapping[int, Cut] | None = None,
) -> tuple[dict[str, np.ndarray], Evidence]:
    """The arrays of a points npz, and what speaks for them.

    fields, meshes : by class value; the classes that are annotated.
    cuts : class value -> how the scan cuts it. No point lies on its cap, and distances that
        what lies behind it may shorten are NaN. A class of which nothing is known for sure is
        not annotated.

    Returns
    -------
    arrays : dict
        The points npz: all coordinates and distances in the unit frame, points shuffled,
        so that any first part is a fair sample.
    evidence : Evidence

    Raises
    ------
    InputError
        The cuts leave nothing.
    """
    cuts = {value: cut for value, cut in (cuts or {}).items() if value in fields}
    meshes = _in_view(meshes, cuts)
    fields = {value: field for value, field in fields.items() if value in meshes}
    channels = [fields.get(value) for value in table.values]
    samplers = {value: SurfaceSampler(mesh) for value, mesh in meshes.items()}
    surface, normals, labels = surface_points(samplers, options, rng)
    own = _own_distances(fields, surface, labels)
    near, near_labels = near_points(fields, samplers, frame, options, rng, cuts)
    near_sdf = distances(channels, frame.to_world(near))
    volume = volume_points(fields, frame, options, rng)
    volume_sdf = distances(channels, frame.to_world(volume))
    slopes = {v: _slope(f, volume[:SLOPE_POINTS], frame) for v, f in fields.items()}
    first = next(iter(fields.values()))
    order, near_order = rng.permutation(len(surface)), rng.permutation(len(near))
    views = [cuts.get(value) for value in table.values]
    cut_off = _cut_off({"near": (near, near_sdf), "volume": (volume, volume_sdf)}, views, frame)
    if cut_off:
        cut_off["near_least"] = cut_off["near_least"][near_order]
    return {
        "surface_points": frame.to_unit(surface).astype(np.float32)[order],
        "surface_normals": normals[order],
        "surface_labels": labels[order],
        "near_points": near[near_order],
        "near_sdf": _unit_f16(near_sdf, frame)[near_order],
        "near_labels": near_labels[near_order],
        "volume_points": volume,
        "volume_sdf": _unit_f16(volume_sdf, frame),
        "annotated": np.array([value in fields for value in table.values]),
        "class_values": np.array(table.values, np.uint8),
        "center": np.asarray(frame.center, np.float64),
        "scale": np.array(frame.scale, np.float64),
        "affine": first.affine,
        "spacing": first.spacing.astype(np.float32),
        "format_version": np.array(POINTS.version, np.int64),
        **cut_off,
    }, Evidence(own[order] * np.float32(frame.scale), slopes)


def _in_view(meshes: Mapping[int, Mesh], cuts: Mapping[int, Cut]) -> dict[int, Mesh]:
    """The surfaces without their caps, those of which something is left; InputError: none."""
    parts = {v: cuts[v].open_part(mesh) if v in cuts else mesh for v, mesh in meshes.items()}
    parts = {value: mesh for value, mesh in parts.items() if len(mesh.faces)}
    if not parts:
        raise InputError("the scan cuts every class, and no surface is left; leave the case out")
    return parts


def _cut_off(points, views: Sequence[Cut | None], frame: Frame) -> dict[str, np.ndarray]:
    """What a points npz says of cuts; nothing where there are none.

    points : near and volume: (N, 3) unit points and their (N, C) distances in mm, of which those
        that the cuts hide are set to NaN.
    """
    if not any(views):
        return {}
    found = {"cut": np.array([v is not None for v in views])}
    found["cut_planes"] = _unit_planes(views, frame)
    for name, (unit, sdf) in points.items():
        found[f"{name}_least"] = _unit_f16(_hide(sdf, frame.to_world(unit), views), frame)
    return found


class SurfaceSampler:
    """Systematic draws by area from one mesh.

    Equal steps along the summed area with one random start spread the points more evenly
    than independent draws do, at no price.
    """

    def __init__(self, mesh: Mesh):
        vectors = face_vectors(mesh)
        lengths = np.linalg.norm(vectors, axis=1)
        self.mesh = mesh
        self.normals = (vectors / np.maximum(lengths, 1e-30)[:, None]).astype(np.float32)
        self.summed = np.cumsum(lengths)

    @property
    def area(self) -> float:
        """mm^2."""
        return float(self.summed[-1])

    def draw(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float64 points, mm, and their (N, 3) float32 outward normals."""
        at = (np.arange(number) + rng.random()) * (self.area / max(number, 1))
        last = len(self.summed) - 1
        face = np.minimum(np.searchsorted(self.summed, at, side="right"), last)
        # Uniform in a triangle: Osada et al., "Shape distributions", ACM TOG 21 (2002), eq. 1.
        root, other = np.sqrt(rng.random(number)), rng.random(number)
        weights = np.stack([1 - root, root * (1 - other), root * other], axis=1)
        corners = self.mesh.vertices[self.mesh.faces[face]]
        return np.einsum("nk,nkd->nd", weights, corners), self.normals[face]


def surface_points(
    samplers: Mapping[int, SurfaceSampler], options: PointsOptions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points by area, but enough of every class.

    Returns
    -------
    points : (N, 3) float64, RAS mm
    normals : (N, 3) float32, outward
    labels : (N,) uint8, class values
    """
    areas = [sampler.area for sampler in samplers.values()]
    counts = area_quotas(areas, options.surface_points, options.min_class_points)
    parts = [sampler.draw(n, rng) for sampler, n in zip(samplers.values(), counts)]
    labels = np.repeat(np.array(list(samplers), np.uint8), counts)
    return np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts]), labels


def area_quotas(areas: Sequence[float], total: int, least: int) -> np.ndarray:
    """(C,) int points per class: by area, none below ``least`` (or equal shares of
    ``total``, where that is fewer), ``total`` in all."""
    sizes = np.asarray(areas, np.float64)
    least = min(least, total // len(sizes))
    small = np.zeros(len(sizes), bool)
    while True:
        rest = total - least * small.sum()
        share = np.where(small, least, rest * sizes / max(sizes[~small].sum(), 1e-30))
        below = ~small & (share < least)
        if not below.any():
            return _rounded(share, total)
        small |= below


def near_points(
    fields: Mapping[int, Field],
    samplers: Mapping[int, SurfaceSampler],
    frame: Frame,
    options: PointsOptions,
    rng: np.random.Generator,
    cuts: Mapping[int, Cut] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Surface points with Gaussian offsets, half of them inside their own class.

    Every class has an equal share: by area the coronaries would have one point in thirty. All
    lie where the distance to their own class is known.

    Returns
    -------
    points : (M, 3) float32, unit frame
    labels : (M,) uint8, the class that a point was drawn from
    """
    sigmas = options.near_sigma
    groups = [(value, sigma) for value in samplers for sigma in sigmas]
    counts = _rounded(np.full(len(groups), options.near_points / len(groups)), options.near_points)
    points = [
        _balanced(
            fields[value], samplers[value], frame, sigma, number, rng, (cuts or {}).get(value)
        )
        for (value, sigma), number in zip(groups, counts)
    ]
    labels = np.repeat(np.array([value for value, _ in groups], np.uint8), counts)
    return np.concatenate(points), labels


def volume_points(
    fields: Mapping[int, Field], frame: Frame, options: PointsOptions, rng: np.random.Generator
) -> np.ndarray:
    """(K, 3) float32 unit points in the cube or a ball, a share of them within the classes."""
    within = _rounded(
        np.full(len(fields), options.volume_points * options.volume_within / len(fields)),
        round(options.volume_points * options.volume_within),
    )
    drawn = [frame.to_unit(inside_points(f, n, rng)) for f, n in zip(fields.values(), within) if n]
    missing = options.volume_points - sum(map(len, drawn))
    if options.volume_radius:
        way = rng.standard_normal((missing, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        anywhere = way * options.volume_radius * np.cbrt(rng.random((missing, 1)))
    else:
        anywhere = rng.uniform(-1, 1, (missing, 3))
    if not drawn:
        return anywhere.astype(np.float32)
    return rng.permutation(np.concatenate([*drawn, anywhere])).astype(np.float32)


def inside_points(field: Field, number: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 3) float64 points, RAS mm, uniform within a class: ``number``, or fewer of a class of a
    few voxels.

    From its voxels, which the blocks near the surface hold one by one; what lies between these
    blocks is inside or outside as a whole.
    """
    kept = field.near.table >= 0
    blocks, nodes = np.argwhere(kept), field.near.nodes[:, :BLOCK, :BLOCK, :BLOCK]
    row, *cell = np.nonzero(nodes < 0)
    voxels = blocks[row] * BLOCK + np.stack(cell, axis=1)
    voxels = voxels[(voxels < field.shape).all(axis=1)]
    deep = np.argwhere(~kept) * BLOCK
    centres = apply_affine(field.crop_affine, deep + (BLOCK - 1) / 2)
    deep = deep[field.lookup(centres) < 0]
    total, found = len(voxels) + BLOCK**3 * len(deep), [np.empty((0, 3))]
    for _ in range(ROUNDS if total else 0):
        missing = number - sum(map(len, found))
        which = rng.integers(total, size=int(SURPLUS * missing) + 1)
        of_block = which[which >= len(voxels)] - len(voxels)
        cells = np.stack(np.unravel_index(of_block % BLOCK**3, (BLOCK,) * 3), axis=1)
        places = np.concatenate(
            [voxels[which[which < len(voxels)]], deep[of_block // BLOCK**3] + cells]
        )
        world = apply_affine(field.crop_affine, places + rng.uniform(-0.5, 0.5, places.shape))
        found.append(rng.permutation(world[field.lookup(world) < 0])[:missing])
    return np.concatenate(found)


def _balanced(field, sampler, frame, sigma, number, rng, cut: Cut | None = None) -> np.ndarray:
    """(number, 3) float32 unit points about one surface, inside and outside in halves."""
    wanted = {True: number // 2, False: number - number // 2}
    kept = [np.empty((0, 3), np.float32)]
    for _ in range(ROUNDS):
        missing = max(wanted.values())
        if not missing:
            break
        base, _ = sampler.draw(max(int(2 * SURPLUS * missing), 16), rng)
        offset = rng.standard_normal(base.shape) * sigma
        points = (frame.to_unit(base) + offset).astype(np.float32)
        points = points[(np.abs(points) <= LIMIT).all(axis=1)]
        distance = field.lookup(frame.to_world(points))
        if cut is not None:
            known = cut.knows(frame.to_world(points), distance)
            points, distance = points[known], distance[known]
        inside = distance < 0
        for side in wanted:
            # Draws come in the order of the faces: a first part would be one end of the
            # vessel.
            found = rng.permutation(np.flatnonzero(inside == side))[: wanted[side]]
            kept.append(points[found])
            wanted[side] -= len(found)
        sigma = sigma / 2 if wanted[True] else sigma * 2
    else:
        # A structure of a few voxels has hardly an inside: its surface fills the rest.
        base, _ = sampler.draw(sum(wanted.values()), rng)
        kept.append(frame.to_unit(base).astype(np.float32))
    return np.concatenate(kept)


def _unit_planes(cuts: Sequence[Cut | None], frame: Frame) -> np.ndarray:
    """(P, 4) float64, unit frame: x, y, z and 1 times a row is the depth before a plane."""
    rows = {tuple(row) for cut in cuts if cut is not None for row in cut.slopes()}
    planes = np.array(sorted(rows)).reshape(-1, 4)
    planes[:, 3] = (planes[:, :3] @ frame.center + planes[:, 3]) * frame.scale
    return planes


def _hide(sdf: np.ndarray, world: np.ndarray, cuts: Sequence[Cut | None]) -> np.ndarray:
    """Make the (N, C) distances in mm NaN that a cut makes unknown, in place.

    Returns
    -------
    (N, C) float32: in their place the signed distance that (N, 3) RAS mm are away at least,
    where the side is known; NaN elsewhere.
    """
    least = np.full_like(sdf, np.nan)
    for channel, cut in enumerate(cuts):
        if cut is None:
            continue
        depth, column = cut.depth(world), sdf[:, channel]
        unknown = ~(np.abs(column) <= depth)
        sided = unknown & (depth > 0)
        # the side of the nearest plane is as far away as what may be behind it
        least[sided, channel] = np.sign(column[sided]) * depth[sided]
        column[unknown] = np.nan
    return least


def _own_distances(fields, points, labels) -> np.ndarray:
    result = np.empty(len(points), np.float32)
    for value, field in fields.items():
        result[labels == value] = field.lookup(points[labels == value])
    return result


def _slope(field: Field, unit: np.ndarray, frame: Frame) -> float:
    """Median length of the gradient at the farther half of (N, 3) unit points.

    Between the parts of a class, or beside a few voxels, distances rise and fall within a step.
    """
    points = frame.to_world(unit)
    away = np.abs(field.lookup(points))
    points = points[away >= np.median(away)]
    step = min(STEP_VOX * field.spacing.max(), STEP_UNIT / frame.scale)
    rise = [
        field.lookup(points + step * axis) - field.lookup(points - step * axis)
        for axis in np.eye(3)
    ]
    return float(np.median(np.linalg.norm(rise, axis=0)) / (2 * step))


def _unit_f16(sdf_mm: np.ndarray, frame: Frame) -> np.ndarray:
    return (sdf_mm * np.float32(frame.scale)).astype(np.float16)


def _rounded(shares: np.ndarray, total: int) -> np.ndarray:
    """Integers near ``shares`` that sum up to ``total``."""
    ends = np.rint(np.cumsum(shares)).astype(int)
    ends[-1] = total
    return np.diff(ends, prepend=0)
