"""A procedural heart: label map and bounds from one description."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.grids import box_corners
from ..labels import LabelTable
from .anatomy import Anatomy, chambers_and_vessels, draw_anatomy
from .coronaries import END_RADIUS_MM, TrueBranch, branch_names, coronary_trees
from .shapes import Shape, Tube, Union, box_distance

LABELS = LabelTable()
# Points per evaluation: the working arrays stay within the cache of a core.
CHUNK_POINTS = 65_536
# Voxels along the edge of a block that is skipped or evaluated as a whole.
BLOCK = 4
# Distances of ellipsoids and blends are exact to first order only; a block is skipped where
# its centre is farther from the surface than this many half diagonals.
BLOCK_SAFETY = 1.6


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A heart of ten structures in a scanner.

    seed : the seed it was drawn from.
    anatomy : its measures.
    rotation : (3, 3) turn from the mean pose; shift : (3,) place of the left ventricle's base,
        RAS mm; size : uniform scale.
    least_vessel_radius : no coronary is thinner, mm.
    missing : names of classes that are not there.
    """

    seed: int
    anatomy: Anatomy
    rotation: np.ndarray
    shift: np.ndarray
    size: float = 1.0
    least_vessel_radius: float = END_RADIUS_MM
    missing: tuple[str, ...] = ()

    @cached_property
    def trees(self) -> tuple[tuple[Tube, ...], tuple[Tube, ...]]:
        """Left and right coronary tree, heart frame."""
        solids = chambers_and_vessels(self.anatomy)
        return coronary_trees(self.anatomy, solids, self.least_vessel_radius / self.size)

    def coronary_branches(self) -> list[TrueBranch]:
        """The true centrelines of both coronary trees with their names, RAS mm."""
        return [
            TrueBranch(name, main, self._to_world(tube.points), self.size * tube.radii)
            for tree, named in zip(self.trees, branch_names(self.anatomy))
            for tube, (name, main) in zip(tree, named, strict=True)
        ]

    @cached_property
    def solids(self) -> tuple[Shape | None, ...]:
        """The whole solid of every class in channel order, heart frame; None: missing."""
        shapes: dict[str, Shape] = dict(chambers_and_vessels(self.anatomy))
        shapes["coronary"] = Union(sum(self.trees, ()))
        return tuple(None if c.name in self.missing else shapes[c.name] for c in LABELS)

    @cached_property
    def scan_range(self) -> tuple[float, float]:
        """Lowest and highest z of the scan, RAS mm: it leaves the aortic arch out.

        The ascending and the descending aorta are two components, as in cardiac CT.
        """
        shapes = chambers_and_vessels(self.anatomy)
        aorta, pulmonary_artery = shapes["aorta"], shapes["pulmonary_artery"]
        assert isinstance(aorta, Tube) and isinstance(pulmonary_artery, Union)
        arch = (self._to_world(aorta.points)[:, 2] - self.size * aorta.radii).max()
        pulmonary = max(
            (self._to_world(t.points)[:, 2] + self.size * t.radii).max()
            for t in pulmonary_artery.parts
            if isinstance(t, Tube)
        )
        apex = self._world_box(shapes["myocardium"])[0, 2]
        rv = self._world_box(shapes["right_ventricle"])[0, 2]
        return float(min(apex, rv) - 6.0), float(min(arch - 4.0, pulmonary + 3.0))

    def bounds(self) -> np.ndarray:
        """(2, 3) corners of the world box that holds every structure, RAS mm."""
        boxes = np.stack([self._world_box(s) for s in self.solids if s is not None])
        low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
        low[2], high[2] = max(low[2], self.scan_range[0]), min(high[2], self.scan_range[1])
        return np.stack([low, high])

    def label_map(self, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
        """(X, Y, Z) uint8 class values at the voxel centres of the grid."""
        labels = np.zeros(shape, np.uint8)
        order = sorted(range(len(LABELS)), key=lambda c: -LABELS[c].priority)
        for channel in order:
            solid = self.solids[channel]
            if solid is not None:
                self._paint(labels, np.asarray(affine, np.float64), channel, self._world_box(solid))
        return labels

    def _whole(self, channel: int, points: np.ndarray) -> np.ndarray:
        """(N,) distances in mm to the whole solid of a class that is there, world points."""
        solid = self.solids[channel]
        assert solid is not None
        return self.size * solid.evaluate(self._to_heart(points))[0]

    def _to_heart(self, points: np.ndarray) -> np.ndarray:
        return (points - self.shift) @ self.rotation / self.size

    def _to_world(self, points: np.ndarray) -> np.ndarray:
        return self.size * points @ self.rotation.T + self.shift

    def _world_box(self, solid: Shape) -> np.ndarray:
        corners = self._to_world(box_corners(*solid.box))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def _paint(self, labels: np.ndarray, affine: np.ndarray, channel: int, box: np.ndarray) -> None:
        """Set the voxels of one whole solid, which lies in a world box, block by block."""
        value = LABELS[channel].value
        window = _voxel_window(box, affine, labels.shape)
        if window is None:
            return
        low, high = window
        blocks = -(-(high - low) // BLOCK)
        index = np.indices(blocks).reshape(3, -1).T * BLOCK + low
        centers = (index + (BLOCK - 1) / 2) @ affine[:3, :3].T + affine[:3, 3]
        half = np.linalg.norm(np.abs(affine[:3, :3]).sum(axis=1)) * (BLOCK - 1) / 2
        near = box_distance(box, centers) <= half
        index, centers = index[near], centers[near]
        distance = np.concatenate(
            [self._whole(channel, part) for part in _parts(centers)] or [np.empty(0)]
        )
        offsets = np.indices((BLOCK,) * 3).reshape(3, -1).T
        mixed = np.abs(distance) <= BLOCK_SAFETY * half
        self._set(labels, (index[distance < -BLOCK_SAFETY * half], offsets), affine, value)
        self._set(labels, (index[mixed], offsets), affine, value, channel)

    def _set(self, labels, blocks, affine, value: int, channel: int | None = None) -> None:
        """Set the voxels of blocks, those inside the channel's solid where one is given."""
        index, offsets = blocks
        low, high = self.scan_range
        for part in _parts(index, CHUNK_POINTS // len(offsets)):
            voxels = (part[:, None] + offsets).reshape(-1, 3)
            voxels = voxels[(voxels < labels.shape).all(axis=1)]
            world = voxels @ affine[:3, :3].T + affine[:3, 3]
            inside = (world[:, 2] > low) & (world[:, 2] < high)
            if channel is not None:
                inside[inside] = self._whole(channel, world[inside]) < 0
            labels[tuple(voxels[inside].T)] = value


def draw_phantom(
    seed: int, *, least_vessel_radius: float = END_RADIUS_MM, missing: tuple[str, ...] = ()
) -> Phantom:
    """The heart of ``seed``: its own measures, pose and size.

    least_vessel_radius : mm; half the voxel diagonal keeps the coronaries whole on a grid.
    missing : names of classes to leave out.
    """
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)
    turn = np.clip(rng.normal(0, 6.0, 3), -13, 13)
    return Phantom(
        seed=seed,
        anatomy=anatomy,
        rotation=Rotation.from_euler("xyz", turn, degrees=True).as_matrix(),
        shift=rng.normal(0, 6.0, 3),
        size=float(np.exp(np.clip(rng.normal(0, 0.05), -0.1, 0.1))),
        least_vessel_radius=least_vessel_radius,
        missing=tuple(missing),
    )


def _parts(array: np.ndarray, size: int = CHUNK_POINTS):
    return (array[k : k + size] for k in range(0, len(array), size))


def _voxel_window(box: np.ndarray, affine: np.ndarray, shape):
    """Lowest and highest voxel (exclusive) of a grid that may lie in a world box, or None."""
    corners = box_corners(*box) - affine[:3, 3]
    voxels = corners @ np.linalg.inv(affine[:3, :3]).T
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 1, shape)
    return (low, high) if (low < high).all() else None
