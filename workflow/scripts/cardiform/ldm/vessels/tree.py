"""Vessel trees about the middle of the cube of a heart: nodes with radii, each tied to the one
before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...anatomy.tree import Branch, Forest, resampled
from ...cohort.table import Case
from ...errors import again
from ...files import save_npz
from ...formats import Format
from ...geometry.frame import apply_affine
from ...volumes import image_grid

STEP_MM = 1.0  # between the nodes of a branch
TREE = Format(
    "vessel-tree",
    {
        "points": "f32 (K, 3)",
        "radii": "f32 (K)",
        "before": "i32 (K)",
        "structure": "text",
        "cut": "bool",
        "format_version": "i64",
    },
    again("encode_vessels", "encode_set_vessels"),
)


@dataclass(frozen=True, eq=False)
class VesselTree:
    """All trees of one heart.

    points : (K, 3) float64 mm from the middle of the cube, axes of RAS.    radii : (K,) float64 mm.
    before : (K,) int, the node from which one comes to this, always an earlier one; -1: a root.
    """

    points: np.ndarray
    radii: np.ndarray
    before: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def nothing(cls) -> VesselTree:
        """No node at all."""
        return cls(np.zeros((0, 3)), np.zeros(0), np.zeros(0, int))

    @classmethod
    def of_branches(
        cls, branches: Sequence[tuple[np.ndarray, np.ndarray, int]], step: float = STEP_MM
    ) -> VesselTree:
        """Of branches, a parent before its children, their nodes about ``step`` mm apart.

        branches : points (K, 3), radii (K,), and the number of the branch at whose end it begins,
            -1 at a root.
        """
        rows: list[np.ndarray] = []
        before: list[int] = []
        last: list[int] = []
        for points, radii, parent in branches:
            even = resampled(np.column_stack([points, radii]), step)
            previous = -1
            if parent >= 0:  # the fork is a node of the parent
                even, previous = even[1:], last[parent]
            for row in even:
                before.append(previous)
                rows.append(row)
                previous = len(rows) - 1
            last.append(previous)
        if not rows:
            return cls.nothing()
        table = np.array(rows)
        return cls(table[:, :3], table[:, 3], np.array(before, int))

    @classmethod
    def of_forest(cls, forest: Forest, middle: np.ndarray) -> VesselTree:
        """Of traced trees; middle : (3,) RAS mm of the cube."""
        return cls.of_branches([(b.points - middle, b.radii, b.parent) for b in forest.branches])

    @cached_property
    def children(self) -> np.ndarray:
        """(K,) int: nodes that come next."""
        return np.bincount(self.before[self.before >= 0], minlength=len(self))

    @cached_property
    def steps(self) -> np.ndarray:
        """(K,) float64 mm from the node before; 0 at a root."""
        there = self.before >= 0
        way = np.zeros(len(self))
        way[there] = np.linalg.norm(self.points[there] - self.points[self.before[there]], axis=1)
        return way

    @property
    def length(self) -> float:
        """mm of all branches together."""
        return float(self.steps.sum())

    @property
    def tips(self) -> int:
        """Ends of vessels."""
        return int((self.children == 0).sum())

    @property
    def roots(self) -> np.ndarray:
        """Nodes at which trees begin."""
        return np.flatnonzero(self.before < 0)

    @cached_property
    def root_of(self) -> np.ndarray:
        """(K,) int: the root of every node."""
        found = np.arange(len(self))
        for node, before in enumerate(self.before.tolist()):
            if before >= 0:
                found[node] = found[before]
        return found

    def moved(self, matrix: np.ndarray, shift: np.ndarray) -> VesselTree:
        """Under ``points @ matrix.T + shift``; radii as the volume."""
        scale = float(np.cbrt(abs(np.linalg.det(matrix))))
        return VesselTree(self.points @ matrix.T + shift, self.radii * scale, self.before)

    def forest(self, origin: str, middle: np.ndarray | None = None) -> Forest:
        """The branches between roots, forks and ends; at a fork the longer way is the same vessel.

        origin : class that all trees spring from.    middle : (3,) mm that is added.
        """
        ahead = self._ahead()
        following: list[list[int]] = [[] for _ in range(len(self))]
        for node, before in enumerate(self.before.tolist()):
            if before >= 0:
                following[before].append(node)
        for nodes in following:
            nodes.sort(key=lambda node: -ahead[node])
        branches: list[Branch] = []
        courses = 0
        for tree, root in enumerate(self.roots.tolist()):
            todo = [(root, root, -1, courses)]
            courses += 1
            while todo:
                start, node, parent, course = todo.pop(0)
                way = [start] if start == node else [start, node]
                while len(following[way[-1]]) == 1:
                    way.append(following[way[-1]][0])
                forks = following[way[-1]]
                if len(way) < 2:  # a root that is a fork at once
                    todo += [(start, n, parent, courses + k) for k, n in enumerate(forks)]
                    courses += len(forks)
                    continue
                points = self.points[way] + (0 if middle is None else middle)
                branches.append(Branch(points, self.radii[way], parent, course, tree, bool(forks)))
                own = len(branches) - 1
                for k, following_node in enumerate(forks):
                    todo.append((way[-1], following_node, own, course if k == 0 else courses))
                    courses += k > 0
        return Forest(tuple(branches), (origin,) * len(self.roots))

    def _ahead(self) -> np.ndarray:
        """(K,) mm of the longest way from the node before, through a node, to an end."""
        ahead = self.steps.copy()
        for node in range(len(self) - 1, -1, -1):
            before = self.before[node]
            if before >= 0:
                ahead[before] = max(ahead[before], self.steps[before] + ahead[node])
        return ahead


@dataclass(frozen=True)
class StoredTree:
    """The tree of a case.

    structure : the class that it is.    cut : the scan shows a part of it only.
    """

    tree: VesselTree
    structure: str
    cut: bool = False

    @property
    def known(self) -> bool:
        """Whether it can be learned from, and measured by."""
        return len(self.tree) > 0 and not self.cut


def encode_case(
    case: Case,
    *,
    trace: Callable[[Case], tuple[Forest, bool]],
    structure: str,
    voxels: Mapping[str, Path],
    out: Path,
) -> list[Path]:
    """Write ``out/<case>.npz``: its trees in the cube in which ``voxels[case]`` lies.

    trace : case -> its trees, RAS mm, and whether the scan cuts them.    structure : the class
        that they are.
    """
    shape, affine = image_grid(voxels[case.case_id])
    middle = apply_affine(affine, (np.array([shape]) - 1) / 2)[0]
    path = out / f"{case.case_id}.npz"
    forest, cut = trace(case)
    save_tree(path, VesselTree.of_forest(forest, middle), structure, cut)
    return [path]


def save_tree(path: str | Path, tree: VesselTree, structure: str, cut: bool = False) -> None:
    """Write it as npz; see :class:`StoredTree`."""
    save_npz(
        path,
        compressed=True,
        points=tree.points.astype(np.float32),
        radii=tree.radii.astype(np.float32),
        before=tree.before.astype(np.int32),
        structure=np.array(structure),
        cut=np.array(cut),
        format_version=TREE.version,
    )


def load_tree(path: str | Path) -> StoredTree:
    """The tree of a file; InputError where it is none."""
    content = TREE.load(path)
    points, radii = (content[name].astype(np.float64) for name in ("points", "radii"))
    tree = VesselTree(points, radii, content["before"].astype(int))
    return StoredTree(tree, str(content["structure"]), bool(content["cut"]))
