"""Features on active voxels, and the index maps that all operators of one structure share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

# Columns (dx, dy) of the 3^3 neighbourhood that come after (0, 0): the others by symmetry.
HALF_COLUMNS = ((0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, eq=False)
class Structure:
    """Which voxels of a batch of cubic grids are active; its index maps are made once.

    coords : (N, 4) int32, sample and voxel index x, y, z; rows sorted in that order, no doubles.
    resolution : voxels along each axis.
    samples : number of samples; one may have no voxel.
    made_from : its halving where it was subdivided from that: need not be searched for.
    """

    coords: Tensor
    resolution: int
    samples: int
    made_from: Halving | None = None

    @classmethod
    def of_samples(cls, coords: list[Tensor], resolution: int) -> Structure:
        """From one (V, 3) integer tensor per sample, each sorted by x, y, z."""
        rows = [torch.nn.functional.pad(c.int(), (1, 0), value=i) for i, c in enumerate(coords)]
        return cls(torch.cat(rows), resolution, len(coords))

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def device(self) -> torch.device:
        return self.coords.device

    @cached_property
    def keys(self) -> Tensor:
        """(N,) int64, increasing. A rim of one voxel keeps steps beyond the border unambiguous."""
        edge = self.resolution + 2
        sample, x, y, z = self.coords.long().unbind(1)
        return ((sample * edge + x + 1) * edge + y + 1) * edge + z + 1

    @cached_property
    def neighbours(self) -> Tensor:
        """(N, 27) int32 rows of the 3^3 neighbourhood, N where a voxel is not active.

        Column ((dx + 1) * 3 + dy + 1) * 3 + dz + 1; column 26 - k is the opposite of k, so
        half of them is searched. Within a column of voxels (dx, dy) the three dz follow each
        other in the sorted keys: one search finds all three.
        """
        keys, count = self.keys, len(self)
        rows = torch.arange(count, device=self.device)
        table = torch.full((count + 1, 27), count, dtype=torch.int32, device=self.device)
        table[:count, 13] = rows.int()
        edge = self.resolution + 2
        padded = torch.cat([keys, keys.new_full((3,), torch.iinfo(torch.int64).max)])

        def connect(column: int, at: Tensor, wanted: Tensor) -> Tensor:
            hit = padded[at] == wanted
            table[:count, column] = torch.where(hit, at, count).int()
            # misses all write to the spare last row
            table[torch.where(hit, at, count), 26 - column] = rows.int()
            return hit

        connect(14, rows + 1, keys + 1)
        for dx, dy in HALF_COLUMNS:
            wanted = keys + (dx * edge + dy) * edge - 1
            at = torch.searchsorted(keys, wanted)
            middle = ((dx + 1) * 3 + dy + 1) * 3
            for dz in range(3):
                at = at + connect(middle + dz, at, wanted + dz)
        return table[:count]

    @cached_property
    def spconv_pairs(self) -> dict:
        """What spconv finds out about the neighbourhoods; its first operator fills it."""
        return {}

    @cached_property
    def halved(self) -> Halving:
        """The structure of half the resolution that covers this one.

        Raises
        ------
        ValueError
            The resolution is odd.
        """
        if self.made_from is not None:
            return self.made_from
        if self.resolution % 2:
            raise ValueError(f"a grid of {self.resolution} voxels cannot be halved")
        coarse = self.coords.clone()
        coarse[:, 1:] //= 2
        edge = self.resolution // 2
        sample, x, y, z = coarse.long().unbind(1)
        keys = ((sample * edge + x) * edge + y) * edge + z
        unique, parent = torch.unique(keys, return_inverse=True)
        parts = [unique // edge**3, unique // edge**2 % edge, unique // edge % edge, unique % edge]
        return Halving.link(
            self, Structure(torch.stack(parts, 1).int(), edge, self.samples), parent
        )

    def subdivided(self, occupied: Tensor) -> Structure:
        """The structure of twice the resolution with the children that are ``occupied``.

        occupied : (N, 8) bool; child ``(x * 2 + y) * 2 + z`` with offsets 0 or 1.
        """
        parent, octant = occupied.nonzero(as_tuple=True)
        steps = torch.stack([octant // 4, octant // 2 % 2, octant % 2], dim=1)
        coords = self.coords[parent]
        coords[:, 1:] = coords[:, 1:] * 2 + steps.int()
        fine = Structure(coords, 2 * self.resolution, self.samples)
        order = fine.keys.argsort()
        fine = Structure(coords[order], 2 * self.resolution, self.samples)
        return replace(fine, made_from=Halving.link(fine, self, parent[order]))


@dataclass(frozen=True, eq=False)
class Halving:
    """How a structure and the one of half its resolution belong together.

    coarse : the structure of half the resolution.
    parent : (N,) int64 row of each fine voxel's parent.
    children : (M, 8) int32 rows of each parent's children, N where one is not active.
    by_octant : 8 tensors, the fine rows of each octant.
    """

    coarse: Structure
    parent: Tensor
    children: Tensor
    by_octant: list[Tensor]

    @classmethod
    def link(cls, fine: Structure, coarse: Structure, parent: Tensor) -> Halving:
        x, y, z = (fine.coords[:, 1:].long() % 2).unbind(1)
        octant = (x * 2 + y) * 2 + z
        count = len(fine)
        children = torch.full((len(coarse), 8), count, dtype=torch.int32, device=fine.device)
        children[parent, octant] = torch.arange(count, dtype=torch.int32, device=fine.device)
        by_octant = [(octant == o).nonzero().squeeze(1) for o in range(8)]
        return cls(coarse, parent, children, by_octant)

    @property
    def occupied(self) -> Tensor:
        """(M, 8) bool: which children are active."""
        return self.children < len(self.parent)


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """A feature row per active voxel.

    feats : (N, C) floating point.
    structure : its N voxels.
    """

    feats: Tensor
    structure: Structure

    def replace(self, feats: Tensor) -> SparseTensor:
        """Other features on the same voxels."""
        return SparseTensor(feats, self.structure)
