"""Label map -> one smooth signed-distance field per class, and its distance at any point."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import edt
import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..labels import LabelTable
from ..options.geometry import MeshesOptions
from ..volumes import LabelMap, spacing_of
from ..volumes import class_boxes as class_boxes  # whose place this was
from .far_field import FarField, FarGrid, every_second, far_field, far_grid
from .grids import cropped_affine
from .interpolation import halved, trilinear
from .lookup import distances
from .near_field import SMALL_VOXELS, NearField, near_blocks
from .surface import Mesh, extract_surface, signed_volume, surface_area
from .surface_boxes import BLOCK, Box, boxes_about, in_blocks, surface_blocks, voxels_of, widened

# Room around a class where the fine field is known: PAD_MM, but within these bounds.
PAD_MM = 3.0
PAD_VOX = (5, 8)
# The volume is matched by moving the surface: two steps of at most half a voxel are enough for
# most structures; what is still off by more than VOLUME_ERROR is searched for.
MAX_SHIFT_VOX = 0.5
VOLUME_TOLERANCE = 0.002
VOLUME_ERROR = 0.015
VOLUME_PASSES = 2
VOLUME_SEARCH = 24
# Between voxel centres distances are interpolated. Crops up to this size take the surface from
# that on a grid of half the edges: beside single voxels, plain marching cubes see another one.
FINER_VOXELS = 1 << 20
# Voxel centres keep this distance from the surface, so that the mask can be read back.
MIN_DISTANCE_VOX = 0.1
FAR_OFF = 1e30  # mm, where only the side is known: no share of it is within reach


@dataclass(frozen=True)
class ClassField:
    """The signed distance to one class: exact to a tenth of a voxel near its surface.

    values : (X, Y, Z) float32, mm, negative inside, at the voxel centres of the crop.
    reach : mm, up to which these are distances; farther away they are no shorter than that, and
        may be of any length.
    deep : (X/2, Y/2, Z/2) float32, mm: unsmoothed distances at every second voxel, for what is
        farther away; None: nothing is.
    marked : (x, y, z) bool, the blocks of the crop that the surface passes.
    origin : (3,) int, voxel index of ``values[0, 0, 0]`` in the label map.
    affine : (4, 4) float64, voxel indices of the label map to RAS mm.
    shift : mm added to the distances to keep the class's volume.
    voxels : voxels of the class.
    touches_border : the class reaches the border of the label map and may be cut.
    far_grid : the coarse lattice of the case, for points off the crop.
    matched : the surface, where matching the volume brought it along.
    """

    values: np.ndarray
    reach: float
    deep: np.ndarray | None
    marked: np.ndarray
    origin: np.ndarray
    affine: np.ndarray
    shift: float
    voxels: int
    touches_border: bool
    far_grid: FarGrid
    matched: Mesh | None = None

    channel = 0  # of ``far``

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the crop."""
        x, y, z = self.values.shape
        return x, y, z

    @functools.cached_property
    def blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """What is kept of the field, of :func:`cardiform.geometry.near_field.near_blocks`."""
        return near_blocks(self.values, self.marked, self.spacing)

    @functools.cached_property
    def near(self) -> NearField:
        """The distances near the surface; made when first asked for."""
        return NearField.of_blocks(*self.blocks, self.shape)

    @functools.cached_property
    def far(self) -> FarField:
        """Coarse distances on ``far_grid``; made when first asked for."""
        values = far_field(self.far_grid, self.values, self.origin, self._within)
        return FarField(self.far_grid, values[..., None])

    @property
    def crop_affine(self) -> np.ndarray:
        """(4, 4) indices of ``values`` to RAS mm."""
        return cropped_affine(self.affine, self.origin)

    @property
    def spacing(self) -> np.ndarray:
        """(3,) float64 voxel edges, mm."""
        return spacing_of(self.affine)

    @property
    def voxel_volume(self) -> float:
        """Volume of the class's voxels, mm^3."""
        return self.voxels * float(abs(np.linalg.det(self.affine[:3, :3])))

    def _within(self, local: np.ndarray) -> np.ndarray:
        """(N,) float32 mm at (N, 3) float32 voxel indices of the crop."""
        result = trilinear(self.values, local)
        if self.deep is not None:
            off = np.flatnonzero(np.abs(result) > self.reach)
            result[off] = trilinear(self.deep, local[off] / np.float32(2)) + np.float32(self.shift)
        return result

    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool: the class on the crop, read back from the field."""
        return self.values < 0

    def surface(self) -> Mesh:
        """The zero surface."""
        if self.matched is not None:
            return self.matched
        where = voxels_of(widened(self.marked), self.shape)
        return extract_surface(self.values, self.crop_affine, where)

    def lookup(self, world: np.ndarray) -> np.ndarray:
        """(N,) float32 signed distance in mm at (N, 3) RAS mm."""
        return distances([self], world)[:, 0]


def class_fields(
    label_map: LabelMap,
    table: LabelTable,
    options: MeshesOptions,
    shifts: Mapping[int, float] | None = None,
) -> dict[int, ClassField]:
    """All fields of :func:`each_class_field` by class value."""
    return dict(each_class_field(label_map, table, options, shifts))


def each_class_field(
    label_map: LabelMap,
    table: LabelTable,
    options: MeshesOptions,
    shifts: Mapping[int, float] | None = None,
) -> Iterator[tuple[int, ClassField]]:
    """The value and the field of each class that is there, one at a time, in table order.

    Parameters
    ----------
    shifts : class value -> mm
        Shifts of an earlier call on the same label map (``ClassField.shift``): the same
        fields come out without extracting surfaces to match the volumes.

    Raises
    ------
    InputError
        The label map holds a value that the table lacks, or no class at all.
    """
    boxes = label_map.boxes
    unknown = sorted(set(boxes) - set(table.values))
    if unknown:
        raise InputError(
            f"label {', '.join(map(str, unknown))} is not in the label table "
            f"({', '.join(map(str, table.values))}); add it to the table or remap it"
        )
    if not boxes:
        raise InputError("no voxel is labelled; leave the case out")
    grid = far_grid(label_map.affine, list(boxes.values()), margin=PAD_VOX[1] + 1)
    for value in table.values:
        if value in boxes:
            shift = None if shifts is None else shifts[value]
            yield value, _class_field(label_map, value, boxes[value], grid, options, shift)


def smooth_distance(mask: np.ndarray, spacing: np.ndarray, sigma_vox: float) -> np.ndarray:
    """(X, Y, Z) float32 signed distance in mm to the smooth surface behind a mask.

    The sign agrees with the mask at every voxel centre.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        With a rim of False.
    spacing : (3,) float, mm
    sigma_vox : float
        Gaussian sigma in voxels; 0 leaves the distances unsmoothed.

    Notes
    -----
    1. Distance to the nearest voxel of the other kind, inside and outside in one pass.
    2. That voxel centre lies beyond the surface by ``sqrt(v / d) / 2`` on average: a ball
       cap of height t at distance d holds ``pi d t^2 / v`` voxel centres (v: voxel volume).
    3. Twicing (Tukey, Exploratory Data Analysis, 1977): smooth, then add the smoothed
       residual. A single Gaussian would shrink vessels.
    4. Where smoothing changed the sign at a voxel centre, keep half the distance: a line
       of single voxels keeps its surface.
    """
    distance = unsmoothed_distance(mask, spacing)
    if not sigma_vox:
        return distance
    smooth = _gaussian(distance, sigma_vox)
    rest = distance - smooth
    smooth += _gaussian(rest, sigma_vox, out=rest)
    for plane, original, inside in zip(smooth, distance, mask):
        flipped = np.flatnonzero((plane < 0) != inside)
        plane.flat[flipped] = original.flat[flipped] / 2
    return smooth


def unsmoothed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Steps 1 and 2 of :func:`smooth_distance`."""
    distance = edt.edt(mask.view(np.uint8) + np.uint8(1), anisotropy=tuple(map(float, spacing)))
    volume = np.float32(np.prod(spacing))
    for plane, inside in zip(distance, mask):  # a plane at a time stays within the cache
        beyond = volume / plane
        np.sqrt(beyond, out=beyond)
        np.minimum(beyond, plane, out=beyond)
        beyond /= 2
        plane -= beyond
        np.negative(plane, out=plane, where=inside)
    return distance


def _gaussian(values: np.ndarray, sigma: float, out: np.ndarray | None = None) -> np.ndarray:
    return ndimage.gaussian_filter(values, sigma, truncate=3.0, mode="nearest", output=out)


def _class_field(label_map, value, box, grid, options, shift) -> ClassField:
    spacing = label_map.spacing
    mask, marked, origin = _padded_mask(label_map.data, value, box, spacing)
    boxes = list(boxes_about(marked)) if mask.size > SMALL_VOXELS else []
    if len(boxes) <= 1:
        reach, deep = np.inf, None
        raw = smooth_distance(np.ascontiguousarray(mask), spacing, options.smoothing_vox)
        _keep_off(raw, spacing)
    else:
        reach = BLOCK * float(spacing.min())
        deep = unsmoothed_distance(every_second(mask), 2 * spacing)
        raw = _in_boxes(mask, boxes, spacing, options.smoothing_vox)
    field = ClassField(
        values=raw,
        reach=reach,
        deep=deep,
        marked=marked,
        origin=origin,
        affine=label_map.affine,
        shift=0.0,
        voxels=int(np.count_nonzero(mask)),
        touches_border=any(s.start == 0 or s.stop == n for s, n in zip(box, label_map.data.shape)),
        far_grid=grid,
    )
    if shift is None:
        return _volume_matched(field)
    return dataclasses.replace(field, values=_shifted(raw, shift, spacing), shift=shift)


def _padded_mask(data, value, box, spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class on its box and a rim around it, which may reach past the image; the blocks that
    its surface passes; and where the crop begins."""
    pad = np.clip(np.ceil(PAD_MM / spacing), *PAD_VOX).astype(int)
    start = np.array([s.start for s in box]) - pad
    stop = np.array([s.stop for s in box]) + pad
    shape = stop - start
    blocks = np.zeros([n * BLOCK for n in in_blocks(shape)], bool)
    mask = blocks[tuple(slice(0, n) for n in shape)]
    inner, part = mask[tuple(slice(p, -p) for p in pad)], data[box]
    for y in range(part.shape[1]):  # of files x is the fastest axis, here z: a plane fits the cache
        inner[:, y] = part[:, y] == value
    return mask, surface_blocks(blocks), start


def _in_boxes(
    mask: np.ndarray, boxes: Sequence[Box], spacing: np.ndarray, sigma_vox: float
) -> np.ndarray:
    """:func:`smooth_distance` in boxes of blocks and a block around them; elsewhere a long one.

    Right up to a block's width: what lies nearer is within the block around a box.
    """
    values = np.full(mask.shape, FAR_OFF, np.float32)  # without their signs
    cores = []
    for box in boxes:
        rim, core = (
            tuple(
                slice(max((s.start - more) * BLOCK, 0), min((s.stop + more) * BLOCK, n))
                for s, n in zip(box, mask.shape)
            )
            for more in (1, 0)
        )
        made = smooth_distance(np.ascontiguousarray(mask[rim]), spacing, sigma_vox)
        np.abs(made, out=made)
        np.maximum(made, _least(spacing), out=made)
        # beside a box the surface of another one may be nearer
        np.minimum(values[rim], made, out=values[rim])
        within = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(core, rim))
        cores.append((core, made[within].copy()))
    for core, made in cores:
        values[core] = made
    np.negative(values, out=values, where=mask)
    return values


def _least(spacing: np.ndarray) -> np.float32:
    return np.float32(MIN_DISTANCE_VOX * spacing.min())


def _keep_off(values: np.ndarray, spacing: np.ndarray) -> None:
    """No voxel centre of a (X, Y, Z) float32 field nearer to the surface than :func:`_least`."""
    least = _least(spacing)
    near = np.flatnonzero(np.abs(values) < least)
    values.flat[near] = np.where(values.flat[near] < 0, -least, least)


def _shifted(raw: np.ndarray, shift: float, spacing: np.ndarray) -> np.ndarray:
    """The field moved outward by so many mm; no voxel centre changes its side."""
    if not shift:
        return raw
    least = _least(spacing)
    values = np.empty_like(raw)
    for before, plane in zip(raw, values):
        sign = np.copysign(np.float32(1), before)
        np.add(before, np.float32(shift), out=plane)
        plane *= sign
        np.maximum(plane, least, out=plane)
        plane *= sign
    return values


def _volume_matched(field: ClassField) -> ClassField:
    """``field`` shifted so that its surface encloses as much as the voxels do."""
    bound = MAX_SHIFT_VOX * float(field.spacing.min())
    shift = 0.0
    for _ in range(VOLUME_PASSES):
        found = _at_shift(field, shift)
        shift = float(np.clip(shift + found.excess / found.area, -bound, bound))
        if found.error <= VOLUME_TOLERANCE or shift == found.field.shift:
            break
    else:
        found = _at_shift(field, shift)
    if found.error > VOLUME_ERROR:
        found = _volume_searched(field, best=found)
    return found.field


@dataclass(frozen=True)
class _Shifted:
    """A field after a shift; ``excess``: mm^3 that its surface holds beyond the voxels."""

    field: ClassField
    excess: float
    area: float

    @property
    def error(self) -> float:
        """The excess as a share of the voxels' volume, without its sign."""
        return abs(self.excess) / self.field.voxel_volume


def _at_shift(field: ClassField, shift: float, *, finer: bool = False) -> _Shifted:
    values = _shifted(field.values, shift, field.spacing)
    if finer:
        nodes = halved(values)
        nodes[nodes == 0] = np.finfo(np.float32).tiny  # a triangle would degenerate there
        mesh = extract_surface(nodes, cropped_affine(field.crop_affine, np.zeros(3), 0.5))
    else:
        mesh = dataclasses.replace(field, values=values, matched=None).surface()
    found = dataclasses.replace(field, values=values, shift=shift, matched=mesh)
    return _Shifted(found, signed_volume(mesh) - field.voxel_volume, surface_area(mesh))


def _volume_searched(field: ClassField, best: _Shifted) -> _Shifted:
    """The shift that keeps the volume of a structure as thin as a voxel, or the best one.

    The volume falls as the shift grows. Voxel centres keep their sides, so that no shift moves
    the surface by a voxel.
    """
    bound = float(field.spacing.max())
    finer = field.values.size <= FINER_VOXELS
    if finer:
        best = _at_shift(field, best.field.shift, finer=True)
    low, high = ((at, _at_shift(field, at, finer=finer).excess) for at in (-bound, bound))
    for number in range(VOLUME_SEARCH):
        if best.error <= VOLUME_TOLERANCE or not low[1] > 0 > high[1]:
            break
        # Where the line between the ends is zero, and every third time the middle.
        at = low[1] / (low[1] - high[1]) if number % 3 else 0.5
        shift = low[0] + at * (high[0] - low[0])
        found = _at_shift(field, shift, finer=finer)
        best = min(best, found, key=lambda shifted: shifted.error)
        end = (shift, found.excess)
        low, high = (end, high) if found.excess > 0 else (low, end)
    return best
