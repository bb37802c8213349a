"""Which region a point of space belongs to: the smooth distances of all labels of a label map."""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np

from ...volumes import LabelMap, labelled_box
from ..interpolation import trilinear
from ..sdf import smooth_distance

PAD_VOX = 5
BEHIND = 1e6  # mm: the distance to a class that is not asked
CHUNK = 1 << 17


@dataclass(frozen=True)
class Partition:
    """Every point is of the label whose distance is the least; 0 is what no class holds.

    Points are in mm along the axes of the label map, its first voxel's middle at 0.

    labels : values of the label map, 0 first.
    fields : (X, Y, Z) float32 mm of each label, on a crop; negative inside.
    origins : (3,) voxel index of each crop's first voxel.
    spacing : (3,) voxel edges, mm.
    offsets : (K,) mm added to the distances, which set the volumes; to be changed.
    """

    labels: tuple[int, ...]
    fields: tuple[np.ndarray, ...]
    origins: tuple[np.ndarray, ...]
    spacing: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, label_map: LabelMap, smoothing_vox: float) -> Partition:
        """The partition of a label map.    smoothing_vox : that of extract_meshes."""
        spacing = label_map.spacing
        low, high = labelled_box(label_map)
        everything = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high))
        fields, origins = [], []
        for label, box in [(0, everything), *sorted(label_map.boxes.items())]:
            part = label_map.data[box]
            mask = np.pad(part == label if label else part != 0, PAD_VOX)
            field = smooth_distance(np.ascontiguousarray(mask), spacing, smoothing_vox)
            fields.append(field if label else -field)
            origins.append(np.array([s.start for s in box]) - PAD_VOX)
        labels = (0, *sorted(label_map.boxes))
        return cls(labels, tuple(fields), tuple(origins), spacing, np.zeros(len(labels)))

    def distance(self, channel: int, points: np.ndarray) -> np.ndarray:
        """(N,) float32 mm of one label at (N, 3) points."""
        return self.with_slope(channel, points, slope=False)[0]

    def with_slope(
        self, channel: int, points: np.ndarray, slope: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N,) float32 mm of one label at (N, 3) points, and its (N, 3) gradient."""
        field = self.fields[channel]
        index = (points / self.spacing - self.origins[channel]).astype(np.float32)
        values = trilinear(field, index)
        slopes = np.zeros((len(points), 3))
        if slope:
            slopes = trilinear_slopes(field, index) / self.spacing
        beyond = index - np.clip(index, 0, np.array(field.shape, np.float32) - 1)
        far = np.flatnonzero(beyond.any(axis=1))
        more = np.linalg.norm(beyond[far] * self.spacing, axis=1)
        values[far] += more if channel else -more
        return values + np.float32(self.offsets[channel]), slopes

    def channels(self, points: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """(N,) int8, which of ``labels`` the points are of.

        asked : (N, K) bool, the labels that come into question; None: all.
        """
        result = np.empty(len(points), np.int8)
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            best = np.full(len(points[part]), BEHIND, np.float32)
            for channel in range(len(self.labels)):
                rows = self._near(channel, points[part])
                if asked is not None:
                    rows &= asked[part, channel]
                at = np.flatnonzero(rows)
                values = self.distance(channel, points[part][at])
                nearer = values < best[at]
                best[at[nearer]] = values[nearer]
                result[start + at[nearer]] = channel
        return result

    def _near(self, channel: int, points: np.ndarray) -> np.ndarray:
        """(N,) bool: within the crop of a label; of 0, everywhere."""
        if not channel:
            return np.ones(len(points), bool)
        low = self.origins[channel] * self.spacing
        high = low + (np.array(self.fields[channel].shape) - 1) * self.spacing
        return ((points >= low) & (points <= high)).all(axis=1)


def trilinear_slopes(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N, 3) float32 gradient, per node, of what :func:`trilinear` makes of a lattice."""
    shape = np.array(values.shape)
    low = np.clip(index.astype(np.int32), 0, shape - 2)
    x, y, z = np.clip(index - low, 0, 1).T
    at = (low[:, 0].astype(np.int64) * shape[1] + low[:, 1]) * shape[2] + low[:, 2]
    flat, along = values.ravel(), (shape[1] * shape[2], shape[2], 1)
    nodes = np.empty((2, 2, 2, len(at)), np.float32)
    for corner in np.ndindex(2, 2, 2):
        nodes[corner] = flat[at + sum(n * step for n, step in zip(corner, along))]

    def mixed(rise: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Between four rises, (2, 2, N), along their two axes."""
        low, high = rise[0] + u * (rise[1] - rise[0])
        return low + v * (high - low)

    over_x = mixed(nodes[1] - nodes[0], y, z)
    over_y = mixed(nodes[:, 1] - nodes[:, 0], x, z)
    over_z = mixed(nodes[:, :, 1] - nodes[:, :, 0], x, y)
    return np.stack([over_x, over_y, over_z], axis=1)


@dataclass(frozen=True)
class Sizes:
    """How long the edges of tetrahedra may be: short at walls, shorter where a part is thin.

    longest : (X, Y, Z) float32 mm.
    wall : (X, Y, Z) float32 mm to the nearest voxel of another label.
    near : (X, Y, Z) uint8 label of the voxels.
    origin : (3,) voxel index of the first voxel.    spacing : (3,) mm.
    """

    longest: np.ndarray
    wall: np.ndarray
    near: np.ndarray
    origin: np.ndarray
    spacing: np.ndarray

    @classmethod
    def of(cls, label_map: LabelMap, edge_mm: float, growth: float, pad_mm: float) -> Sizes:
        """edge_mm : at walls; half of it in parts that no ball of this diameter fits in.
        growth : by which edges grow per mm from the walls.    pad_mm : room around the labels.
        """
        spacing = label_map.spacing
        low, high = labelled_box(label_map)
        pad = np.ceil(pad_mm / spacing).astype(int) + 1
        inner = label_map.data[tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high))]
        near = np.ascontiguousarray(np.pad(inner, [(p, p) for p in pad]))
        how: dict = {"anisotropy": tuple(map(float, spacing))}
        wall = edt.edt(near.astype(np.uint16) + 1, **how)
        radius = max(edge_mm / 2, float(spacing.max()))
        deep = edt.edt((wall <= radius).view(np.uint8), **how)  # to what is that deep
        rest = (near == 0) | (deep <= radius)
        thin = edt.edt(rest.view(np.uint8), **how)  # to what no ball of that radius reaches
        if rest.all():
            thin = np.full(near.shape, np.inf, np.float32)
        longest = np.minimum(edge_mm + growth * wall, edge_mm / 2 + growth * thin)
        return cls(longest.astype(np.float32), wall, near, low - pad, spacing)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """(N, 3) int64 -> index arrays of the voxels at these points, the nearest within."""
        index = np.rint(points / self.spacing).astype(np.int64) - self.origin
        return tuple(np.clip(index, 0, np.array(self.near.shape) - 1).T)
