"""Tetrahedra of a label map: every region filled, neighbours with one wall between them.

The regions are sets of tetrahedra of one lattice, so that neighbours share their walls whatever
happens to the corners. These move onto the smooth walls between the labels as far as no
tetrahedron becomes flatter than allowed: none is ever inverted, and no two triangles cross.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from ...errors import InputError
from ...volumes import LabelMap
from ..frame import apply_affine
from . import walls
from .lattice import UNIT, body_centred, edge_keys, refined
from .partition import Partition, Sizes
from .quality import sharpest, volumes

ANGLE_DEG = 12.0  # no dihedral angle is smaller, before coordinates are rounded for a file
# The first moves leave more room for later ones.
ANGLES_DEG = (25.0, 20.0, 16.0, 14.0, ANGLE_DEG)
ROUNDS = 2  # of moves at each angle
MATCHES = 10  # at most, of the volumes, at the last angle
VOLUME_ERROR = 0.01
VOLUME_AIM = 0.003
CUBE_EDGES = 8  # of the lattice at its coarsest, in edges at thin parts
GROWTH = 1.0
HALVINGS = 6
MOST = 12_000_000  # tetrahedra: about 12 GB of memory
REMEDY = "lower exports.edge_mm, or leave walls and tets out of exports.formats"


@dataclass(frozen=True)
class TetMesh:
    """Tetrahedra with the region of each; background is among them, around the others.

    points : (V, 3) float64, RAS mm.
    tets : (T, 4) int64, of positive volume.
    regions : (T,) int16 label values, 0 around the heart.
    """

    points: np.ndarray
    tets: np.ndarray
    regions: np.ndarray

    def solid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points, tetrahedra and regions without the background."""
        tets = self.tets[self.regions != 0]
        used, inverse = np.unique(tets, return_inverse=True)
        return self.points[used], inverse.reshape(-1, 4), self.regions[self.regions != 0]

    def walls(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The walls between the regions, each triangle once.

        Returns
        -------
        (V, 3) points, RAS mm; (F, 3) triangles, counter-clockwise seen from the outside;
        (F, 2) the label values inside and outside: 0, or the larger one.
        """
        neighbours = walls.paired_faces(self.tets)
        faces, sides = walls.wall_faces(self.tets, self.regions, neighbours)
        used, inverse = np.unique(faces, return_inverse=True)
        return self.points[used], inverse.reshape(-1, 3), sides

    def volumes(self) -> dict[int, float]:
        """Label value -> mm^3."""
        sizes = volumes(self.points, self.tets)
        values = np.unique(self.regions[self.regions != 0])
        return {int(v): float(sizes[self.regions == v].sum()) for v in values}


class Warp:
    """Corners on their way to the walls."""

    def __init__(self, points, tets, channels, partition: Partition, wanted: np.ndarray):
        self.points, self.all_tets, self.all_channels = points, tets, channels
        self.partition, self.wanted = partition, wanted
        count, kinds = len(points), len(partition.labels)
        regions = walls.regions_at(tets, channels, (count, kinds))
        active = regions.sum(axis=1) >= 2
        for _ in range(2):
            grown = active.copy()
            grown[tets[active[tets].any(axis=1)].ravel()] = True
            active = grown
        active[self._hull(tets)] = False
        self.rows = np.flatnonzero(active[tets].any(axis=1))
        self.tets = tets[self.rows]
        self.channels = channels[self.rows]
        self.neighbours = walls.paired_faces(self.tets)
        self.active = active
        self.inner = active[self.tets].all(axis=1)
        rest = np.ones(len(tets), bool)
        rest[self.rows] = False
        sizes = volumes(points, tets[rest])
        self.still = np.bincount(channels[rest], sizes, minlength=kinds)
        keys = np.unique(edge_keys(self.tets, count))
        self.edges = np.stack([keys // count, keys % count], axis=1)
        self.relabel()

    @staticmethod
    def _hull(tets) -> np.ndarray:
        neighbours = walls.paired_faces(tets)
        at, side = np.nonzero(neighbours < 0)
        return np.unique(np.take_along_axis(tets[at], walls.FACES[side], axis=1))

    def relabel(self) -> None:
        """Give every tetrahedron at a wall to the region of its middle."""
        shape = (len(self.points), len(self.partition.labels))
        regions = walls.regions_at(self.tets, self.channels, shape)
        at_wall = self.inner & (regions.sum(axis=1) >= 2)[self.tets].any(axis=1)
        rows = np.flatnonzero(at_wall)
        asked = regions[self.tets[rows]].any(axis=1)
        middles = self.points[self.tets[rows]].mean(axis=1)
        self.channels[rows] = self.partition.channels(middles, asked)
        self.channels = walls.smoothed(self.channels, self.neighbours, self.inner)
        self.settle()

    def settle(self) -> None:
        self.channels = walls.parted(self.tets, self.channels, self.neighbours)
        shape = (len(self.points), len(self.partition.labels))
        self.regions = walls.regions_at(self.tets, self.channels, shape)
        self.at_wall = np.flatnonzero((self.regions.sum(axis=1) >= 2) & self.active)
        self._averages()

    def _averages(self) -> None:
        """Which corners each corner is drawn to: those where the same regions meet, or more."""
        count = len(self.points)
        one, two = np.concatenate([self.edges, self.edges[:, ::-1]]).T
        fits = self.active[one]
        one, two = one[fits], two[fits]
        wall = self.regions.sum(axis=1) >= 2
        more = ~wall[one] | (self.regions[two] | ~self.regions[one]).all(axis=1)
        one, two = one[more], two[more]
        matrix = sparse.coo_array((np.ones(len(one)), (one, two)), shape=(count, count)).tocsr()
        degree = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)
        self.mean = sparse.diags_array(1 / degree) @ matrix
        self.drawn = np.flatnonzero(np.diff(matrix.indptr) > 0)

    def step(self, bound: float, towards: float = 1.0, along: float = 0.5) -> None:
        """Move all corners, as far as no angle has a cosine above ``bound``."""
        move = np.zeros_like(self.points)
        move[self.drawn] = along * ((self.mean @ self.points)[self.drawn] - self.points[self.drawn])
        rows = self.at_wall
        points, regions = self.points[rows], self.regions[rows]
        matrix, push = self._pull(points, regions)
        scale = np.trace(matrix, axis1=1, axis2=2)[:, None, None] * 1e-2 + 1e-9
        inverse = np.linalg.inv(matrix + scale * np.eye(3))
        onto = -(inverse @ push[..., None])[..., 0]
        length = np.linalg.norm(onto, axis=1, keepdims=True)
        onto *= np.minimum(1, self.longest_step / np.maximum(length, 1e-9))
        normal = (inverse @ (matrix @ move[rows][..., None]))[..., 0]
        move[rows] += towards * onto - normal
        self._move(move, bound)

    longest_step = 1.0

    def _pull(self, points: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the distances of the regions that meet at a point, less their mean: the sum of the
        gradients' squares (N, 3, 3), and of gradient times distance (N, 3)."""
        kinds = regions.shape[1]
        values = np.zeros(regions.shape)
        slopes = np.zeros((len(points), kinds, 3))
        for channel in range(kinds):
            at = np.flatnonzero(regions[:, channel])
            values[at, channel], slopes[at, channel] = self.partition.with_slope(
                channel, points[at]
            )
        number = regions.sum(axis=1, keepdims=True)
        values -= values.sum(axis=1, keepdims=True) / number
        slopes -= (slopes.sum(axis=1) / number)[:, None]
        values *= regions
        slopes *= regions[..., None]
        return np.einsum("nki,nkj->nij", slopes, slopes), np.einsum("nki,nk->ni", slopes, values)

    def _move(self, move: np.ndarray, bound: float) -> None:
        share = np.ones(len(self.points))
        rows = np.arange(len(self.tets))
        goal = self.points + move
        for number in range(100):
            bad = rows[sharpest(goal, self.tets[rows]) > bound]
            if not len(bad):
                break
            held = np.zeros(len(share), bool)
            held[self.tets[bad].ravel()] = True
            share[held] = share[held] / 2 if number < HALVINGS else 0.0
            goal[held] = self.points[held] + share[held, None] * move[held]
            rows = np.flatnonzero(held[self.tets].any(axis=1))
        else:
            raise AssertionError("the corners of before are allowed")
        self.points = goal

    def sizes(self) -> np.ndarray:
        """(K,) mm^3 of each region."""
        kinds = len(self.partition.labels)
        found = np.bincount(self.channels, volumes(self.points, self.tets), minlength=kinds)
        return found + self.still

    def contacts(self) -> np.ndarray:
        """(K, K) mm^2 of the wall between each two regions."""
        faces, sides = walls.wall_faces(self.tets, self.channels, self.neighbours)
        first, second, third = (self.points[faces[:, k]] for k in range(3))
        area = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
        found = np.zeros((len(self.partition.labels),) * 2)
        np.add.at(found, tuple(sides.T), area)
        return found + found.T

    def errors(self) -> np.ndarray:
        """(K,) share by which the volume of each region is off; 0 of background."""
        found = (self.sizes() - self.wanted) / np.maximum(self.wanted, 1e-9)
        found[0] = 0
        return found

    def match(self, limit: float) -> None:
        """Set what is added to the distances so that every region gets the volume of its voxels.

        A wall moves by half the difference of what is added on its two sides, as the distances
        grow in opposite directions: one linear system for all regions.

        limit : mm, of one change.
        """
        contacts = self.contacts()
        system = np.diag(contacts.sum(axis=1) + 1e-6) - contacts
        by = np.linalg.solve(system[1:, 1:], 2 * (self.errors() * self.wanted)[1:])
        self.partition.offsets[1:] += np.clip(by, -limit, limit)


def tet_mesh(
    label_map: LabelMap, smoothing_vox: float, edge_mm: float, names: Mapping[int, str]
) -> TetMesh:
    """Fill the regions of a label map with tetrahedra.

    smoothing_vox : of the distances, as of extract_meshes.
    edge_mm : length of edges at the walls; half of it in thin parts, longer away from walls.
    names : label value -> name, for messages.

    Raises
    ------
    InputError
        A class is too small: its volume cannot be kept within 1 %. Edges are so short that there
        would be more than :data:`MOST` tetrahedra.
    """
    partition = Partition.of(label_map, smoothing_vox)
    points, tets = _lattice(label_map, edge_mm)
    middles = points[tets].mean(axis=1)
    channels = partition.channels(middles)
    _check_small(label_map, partition, channels, names, edge_mm)
    points, tets, channels = _trimmed(points, tets, channels)
    voxel = abs(np.linalg.det(label_map.affine[:3, :3]))
    counts = np.bincount(label_map.data.ravel(order="K"), minlength=256)
    wanted = counts[list(partition.labels)] * voxel
    warp = Warp(points, tets, channels, partition, wanted)
    warp.longest_step = edge_mm / 2
    limit = float(label_map.spacing.max()) / 4
    for angle in ANGLES_DEG:
        bound = np.cos(np.radians(angle))
        for _ in range(ROUNDS):
            warp.step(bound)
        warp.relabel()
        warp.match(limit)
    for _ in range(MATCHES):
        warp.step(bound)
        if np.abs(warp.errors()).max() <= VOLUME_AIM:
            break
        warp.match(limit)
    _check(warp, names, edge_mm)
    channels = warp.all_channels.copy()
    channels[warp.rows] = warp.channels
    affine = label_map.affine.copy()
    affine[:3, :3] /= label_map.spacing
    tets = warp.all_tets
    if np.linalg.det(affine[:3, :3]) < 0:
        tets = tets[:, [0, 1, 3, 2]]
    values = np.array(partition.labels, np.int16)
    return TetMesh(apply_affine(affine, warp.points), tets, values[channels])


def _check_small(label_map, partition: Partition, channels, names, edge_mm: float) -> None:
    """InputError with a line for each class that no tetrahedron lies in."""
    there = np.bincount(channels, minlength=len(partition.labels))
    problems = []
    for label, count in zip(partition.labels, there):
        if label and not count:
            voxels = np.count_nonzero(label_map.data[label_map.boxes[label]] == label)
            fact = f"has {voxels} voxels: too few for edges of {edge_mm:.2g} mm"
            problems.append(f"class {names.get(label, label)} {fact}; {REMEDY}")
    if problems:
        raise InputError(problems)


def _check(warp: Warp, names: Mapping[int, str], edge_mm: float) -> None:
    """InputError with a line for each region whose volume is off."""
    problems = [
        f"the volume of class {names.get(label, label)} is {error:+.1%} off with edges of "
        f"{edge_mm:.2g} mm; {REMEDY}"
        for label, error in zip(warp.partition.labels, warp.errors())
        if abs(error) > VOLUME_ERROR
    ]
    if problems:
        raise InputError(problems)


def _lattice(label_map: LabelMap, edge_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (mm along the axes of the label map) and tetrahedra around all labelled voxels."""
    cube = CUBE_EDGES * edge_mm / 2
    sizes = Sizes.of(label_map, edge_mm, GROWTH, pad_mm=2 * cube)
    low = sizes.origin * sizes.spacing
    cells = np.ceil((np.array(sizes.near.shape) - 1) * sizes.spacing / cube).astype(int)
    if np.prod(cells.astype(float)) > 8 * MOST:  # most are outside
        raise _too_many(edge_mm)
    voxels = np.argwhere(sizes.near) * sizes.spacing
    marked = np.zeros(cells, bool)
    marked[tuple((voxels / cube).astype(int).T)] = True
    marked = ndimage.binary_dilation(marked, np.ones((3, 3, 3)))
    corners, tets = body_centred(marked)
    unit = cube / UNIT

    def too_long(middles: np.ndarray, longest: np.ndarray) -> np.ndarray:
        at = sizes.at(middles * unit + low)
        outside = (sizes.near[at] == 0) & (sizes.wall[at] > longest * unit)
        return (longest * unit > sizes.longest[at]) & ~outside

    corners, tets = refined(corners, tets, too_long, MOST)
    if len(tets) > MOST:
        raise _too_many(edge_mm)
    return corners * unit + low, tets


def _too_many(edge_mm: float) -> InputError:
    fact = f"more than {MOST:,} tetrahedra with edges of {edge_mm:.2g} mm"
    return InputError(f"{fact}; raise exports.edge_mm, or leave walls and tets out")


def _trimmed(points, tets, channels):
    """Without the background that is more than two tetrahedra away from the heart."""
    near = np.zeros(len(points), bool)
    near[tets[channels != 0].ravel()] = True
    for _ in range(2):
        keep = near[tets].any(axis=1)
        near[tets[keep].ravel()] = True
    tets, channels = tets[keep], channels[keep]
    used, inverse = np.unique(tets, return_inverse=True)
    return points[used], inverse.reshape(-1, 4), channels
