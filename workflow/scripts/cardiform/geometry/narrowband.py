"""Signed distances near a surface as sparse voxels of the unit frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again
from ..files import save_npz
from ..formats import Format
from .field_of_view import Cut
from .frame import Frame, apply_affine
from .grids import box_corners
from .lookup import Field

SPARSE = Format(
    "sparse-voxel",
    {
        "coords": "u16 (V, 3)",
        "sdf": "f16 (V)",
        "resolution": "i64",
        "band_voxels": "f64",
        "coarse_sign": "i8 (R/8, R/8, R/8)",
        "center": "f64 (3)",
        "scale": "f64",
        "format_version": "i64",
        "known?": "bool (V)",
    },
    again("voxelize_labels", "window_ct"),
)
BLOCK = 8
# A distance changes by one per unit length; the fields come close to that, not exactly.
STEEPEST = 1.05
BLOCKS_AT_A_TIME = 512

# (N, 3) float64 unit-frame points -> (N,) signed distances in unit lengths, negative inside
UnitDistance = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NarrowBand:
    """The voxels of a cubic grid over [-1, 1]^3 that lie within a band about one surface.

    coords : (V, 3) uint16 voxel indices, sorted by x, then y, then z. Voxel i has its centre at
        (i + 0.5) * 2 / resolution - 1 along an axis.
    sdf : (V,) float16 signed distance, negative inside, in units of the half-band: within [-1, 1].
    resolution : voxels along each axis.
    band_voxels : half-band in voxels.
    coarse_sign : (R/8, R/8, R/8) int8, the sign at the centre of every block of 8^3 voxels;
        a block that stores nothing has this sign throughout.
    frame : unit frame of the case.
    known : (V,) bool, False where what the scan cuts off may lie nearer; None: all are.
    """

    coords: np.ndarray
    sdf: np.ndarray
    resolution: int
    band_voxels: float
    coarse_sign: np.ndarray
    frame: Frame
    known: np.ndarray | None = None

    @property
    def voxel_mm(self) -> float:
        """Voxel edge, mm."""
        return 2 / self.resolution / self.frame.scale

    @classmethod
    def empty(cls, resolution: int, band_voxels: float, frame: Frame) -> NarrowBand:
        """The band about nothing: outside everywhere."""
        coarse = np.ones((resolution // BLOCK,) * 3, np.int8)
        coords, sdf = np.zeros((0, 3), np.uint16), np.zeros(0, np.float16)
        return cls(coords, sdf, resolution, band_voxels, coarse, frame)

    def save(self, path: str | Path) -> None:
        """Write a sparse npz, compressed."""
        save_npz(
            path,
            compressed=True,
            # Column by column the indices compress twice as well.
            coords=np.asfortranarray(self.coords),
            sdf=self.sdf,
            resolution=np.int64(self.resolution),
            band_voxels=np.float64(self.band_voxels),
            coarse_sign=self.coarse_sign,
            center=np.asarray(self.frame.center, np.float64),
            scale=np.float64(self.frame.scale),
            format_version=np.int64(SPARSE.version),
            **({} if self.known is None else {"known": self.known}),
        )

    @classmethod
    def load(cls, path: str | Path) -> NarrowBand:
        """Read a sparse npz; InputError where it is none."""
        arrays = SPARSE.load(path)
        return cls(
            coords=np.ascontiguousarray(arrays["coords"]),
            sdf=arrays["sdf"],
            resolution=int(arrays["resolution"]),
            band_voxels=float(arrays["band_voxels"]),
            coarse_sign=arrays["coarse_sign"],
            frame=Frame(arrays["center"], float(arrays["scale"])),
            known=arrays.get("known"),
        )


def narrow_band(
    distance: UnitDistance,
    low: np.ndarray,
    high: np.ndarray,
    frame: Frame,
    resolution: int,
    band_voxels: float,
) -> NarrowBand:
    """All voxels whose centres lie closer to the surface than the band.

    Parameters
    ----------
    distance : UnitDistance
        Its slope may not exceed 1.05.
    low, high : (3,) float
        Box of the unit frame that holds the inside; the band around it is added here.
    resolution : int
        A multiple of 8, at most 65,536.

    Notes
    -----
    Blocks of 8^3 voxels are asked in their middle; where a surface cannot come near enough,
    none of their voxels is asked. Memory and time grow with the voxels that are kept.
    """
    if resolution % BLOCK or not BLOCK <= resolution <= 1 << 16:
        raise InputError(f"resolution {resolution} is not a multiple of {BLOCK} up to 65536")
    voxel = 2 / resolution
    band = band_voxels * voxel
    edge = BLOCK * voxel
    count = resolution // BLOCK
    first = np.clip(np.floor((np.asarray(low) - band + 1) / edge), 0, count - 1).astype(int)
    last = np.clip(np.floor((np.asarray(high) + band + 1) / edge), 0, count - 1).astype(int)
    shape = last - first + 1
    coarse = np.ones((count,) * 3, np.int8)
    inner = np.indices((BLOCK,) * 3).reshape(3, -1).T
    reach = band + edge * np.sqrt(3) / 2 * STEEPEST
    kept_coords, kept_values = [], []
    blocks = int(np.prod(shape))
    for start in range(0, blocks, BLOCKS_AT_A_TIME * BLOCK):
        numbers = np.arange(start, min(start + BLOCKS_AT_A_TIME * BLOCK, blocks))
        index = np.stack(np.unravel_index(numbers, shape), axis=1) + first
        middle = distance((index + 0.5) * edge - 1)
        coarse[tuple(index.T)] = np.where(middle < 0, -1, 1)
        index = index[np.abs(middle) < reach]
        for part in range(0, len(index), BLOCKS_AT_A_TIME):
            corners = index[part : part + BLOCKS_AT_A_TIME, None] * BLOCK
            voxels = (corners + inner).reshape(-1, 3)
            sdf = distance((voxels + 0.5) * voxel - 1) / np.float32(band)
            kept = np.abs(sdf) < 1
            kept_coords.append(voxels[kept].astype(np.uint16))
            kept_values.append(sdf[kept].astype(np.float16))
    coords = np.concatenate(kept_coords) if kept_coords else np.zeros((0, 3), np.uint16)
    values = np.concatenate(kept_values) if kept_values else np.zeros(0, np.float16)
    order = np.argsort(voxel_keys(coords, resolution))
    return NarrowBand(coords[order], values[order], resolution, band_voxels, coarse, frame)


def voxel_keys(coords: np.ndarray, resolution: int) -> np.ndarray:
    """(N,) int64 numbers of (N, 3) voxels, in the order in which files store them."""
    x, y, z = coords.astype(np.int64).T
    return (x * resolution + y) * resolution + z


def field_band(
    field: Field, frame: Frame, resolution: int, band_voxels: float, cut: Cut | None = None
) -> NarrowBand:
    """The band about the surface of a class.

    cut : how the scan cuts it. The band is closed at the planes, and ``known`` says where that
        is no surface; of a class of which nothing is known for sure it is empty.
    """
    if cut is not None and not cut.planes:
        return NarrowBand.empty(resolution, band_voxels, frame)

    def distance(unit: np.ndarray) -> np.ndarray:
        return field.lookup(frame.to_world(unit)) * np.float32(frame.scale)

    corners = box_corners(np.zeros(3), np.array(field.shape) - 1.0)
    box = frame.to_unit(apply_affine(field.crop_affine, corners))
    low, high = box.min(axis=0), box.max(axis=0)
    band = narrow_band(distance, low, high, frame, resolution, band_voxels)
    if cut is None:
        return band
    unit = (band.coords + 0.5) * (2 / resolution) - 1
    away = band.sdf.astype(np.float64) * (band_voxels * band.voxel_mm)
    return dataclasses.replace(band, known=cut.knows(frame.to_world(unit), away))
