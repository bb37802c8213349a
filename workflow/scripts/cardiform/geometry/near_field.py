"""Distances of one class near its surface: the nodes of the blocks that it passes, no others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .surface_boxes import BLOCK, in_blocks, widened

# A point that is nearer to the surface than this many of the shortest voxel edges is in a block.
BAND_VOX = 4.0
SMALL_VOXELS = 1 << 20  # crops up to this size are kept as a whole
NODES = BLOCK + 1  # along an edge, with those that the next block begins with
WITHIN = NODES**3


@dataclass(frozen=True)
class NearField:
    """The blocks of a crop that are near the surface.

    table : (x, y, z) int32, the row of every block of the crop in ``nodes``; -1: it is not kept.
    nodes : (B, 9, 9, 9) float32, mm: distances at the voxels of a block and the first ones of the
        next along each axis.
    shape : voxels of the crop.
    """

    table: np.ndarray
    nodes: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def of_blocks(
        cls, marked: np.ndarray, values: np.ndarray, shape: tuple[int, int, int]
    ) -> NearField:
        """From the blocks that are kept, (x, y, z) bool, and their (B, 8, 8, 8) voxels.

        Where the next block is not kept its first voxels are not known, and far from the surface:
        the distance rises on as it did.
        """
        table = np.full(marked.shape, -1, np.int32)
        table[marked] = np.arange(len(values))
        nodes = values
        for axis in range(3):
            following = np.full_like(table, -1)
            np.moveaxis(following, axis, 0)[:-1] = np.moveaxis(table, axis, 0)[1:]
            after = following[marked]
            lines = np.moveaxis(nodes, axis + 1, 1)
            more = 2 * lines[:, -1] - lines[:, -2]
            known = after >= 0
            more[known] = lines[after[known], 0]
            nodes = np.concatenate([nodes, np.expand_dims(more, axis + 1)], axis=axis + 1)
        return cls(table, np.ascontiguousarray(nodes), shape)

    def lookup(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of (N, 3) float32 voxel indices of the crop: which ones are near, and their distances.

        Returns
        -------
        near : (M,) int64, rows of ``local``, in order.
        values : (M,) float32, mm, trilinear between the voxels.
        """
        x, y, z = (np.ascontiguousarray(column) for column in local.T)
        last = [np.float32(n - 1) for n in self.shape]
        inside = (x >= 0) & (x <= last[0])
        for column, end in ((y, last[1]), (z, last[2])):
            inside &= (column >= 0) & (column <= end)
        near = np.flatnonzero(inside)
        at = [column[near] for column in (x, y, z)]
        cells = [np.minimum(column.astype(np.int32), n - 2) for column, n in zip(at, self.shape)]
        bx, by, bz = (cell >> 3 for cell in cells)
        row = self.table.ravel()[(bx * self.table.shape[1] + by) * self.table.shape[2] + bz]
        kept = row >= 0
        near = near[kept]
        weights = [(column - cell)[kept] for column, cell in zip(at, cells)]
        ix, iy, iz = ((cell & 7)[kept] for cell in cells)
        first = row[kept].astype(np.int64) * WITHIN + ((ix * NODES + iy) * NODES + iz)
        return near, _trilinear(self.nodes.ravel(), first, *weights)


def _trilinear(flat: np.ndarray, first: np.ndarray, wx, wy, wz) -> np.ndarray:
    """(N,) values of blocks between the nodes from ``first`` on."""

    def along_z(offset: int) -> np.ndarray:
        near = flat[first + offset]
        return near + wz * (flat[first + (offset + 1)] - near)

    def along_y(offset: int) -> np.ndarray:
        near = along_z(offset)
        return near + wy * (along_z(offset + NODES) - near)

    near = along_y(0)
    return near + wx * (along_y(NODES * NODES) - near)


def near_blocks(
    values: np.ndarray, marked: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of a crop that hold points near the surface (``BAND_VOX``), and their voxels.

    Of a small crop, whose voxels are coarse or few, all blocks.

    values : (X, Y, Z) float32, mm.
    marked : (x, y, z) bool, the blocks that the surface passes: only they and those beside them
        are looked at.
    spacing : (3,) float64, mm.

    Returns
    -------
    kept : (x, y, z) bool
    voxels : (B, 8, 8, 8) float32; past the crop the distances rise on.
    """
    x, y, z = in_blocks(values.shape)
    small = values.size <= SMALL_VOXELS
    width = [(0, n * BLOCK - size) for n, size in zip((x, y, z), values.shape)]
    if any(more for _, more in width):
        values = np.pad(values, width, mode="reflect", reflect_type="odd")
    blocks = values.reshape(x, BLOCK, y, BLOCK, z, BLOCK).transpose(0, 2, 4, 1, 3, 5)
    if small:
        return np.ones((x, y, z), bool), blocks.reshape(-1, BLOCK, BLOCK, BLOCK)
    kept = widened(marked)
    voxels = blocks[kept]
    # a cell's other voxels may be nearer than that one of its block, by a diagonal
    band = BAND_VOX * spacing.min() + np.linalg.norm(spacing)
    near = (np.abs(voxels) < np.float32(band)).any(axis=(1, 2, 3))
    kept[kept] = near
    return kept, voxels[near]
