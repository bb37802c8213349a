"""A procedural heart: label map and bounds from one description."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.grids import box_corners
from .anatomy import Anatomy, chambers_and_vessels, draw_anatomy
from .coronaries import END_RADIUS_MM, TrueBranch, branch_names, coronary_trees
from .painting import LABELS, Painted
from .shapes import Shape, Tube, Union


@dataclass(frozen=True, kw_only=True)
class Phantom(Painted):
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

    def _to_heart(self, points: np.ndarray) -> np.ndarray:
        return (points - self.shift) @ self.rotation / self.size

    def _to_world(self, points: np.ndarray) -> np.ndarray:
        return self.size * points @ self.rotation.T + self.shift

    def _world_box(self, solid: Shape) -> np.ndarray:
        corners = self._to_world(box_corners(*solid.box))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])


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
