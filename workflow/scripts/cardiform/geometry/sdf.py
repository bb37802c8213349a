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
from .far_field import FarGrid, far_field, far_grid
from .frame import apply_affine
from .grids import cropped_affine
from .interpolation import halved, trilinear
from .surface import Mesh, extract_surface, signed_volume, surface_area

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
CHUNK = 1 << 16


@dataclass(frozen=True)
class ClassField:
    """The signed distance to one class: exact to a tenth of a voxel near its surface.

    values : (X, Y, Z) float32, mm, negative inside, at the voxel centres of the crop.
    origin : (3,) int, voxel index of ``values[0, 0, 0]`` in the label map.
    affine : (4, 4) float64, voxel indices of the label map to RAS mm.
    shift : mm added to the distances to keep the class's volume.
    voxels : voxels of the class.
    touches_border : the class reaches the border of the label map and may be cut.
    far_grid : the coarse lattice of the case, for points off the crop.
    matched : the surface, where matching the volume brought it along.
    """

    values: np.ndarray
    origin: np.ndarray
    affine: np.ndarray
    shift: float
    voxels: int
    touches_border: bool
    far_grid: FarGrid
    matched: Mesh | None = None

    @functools.cached_property
    def far(self) -> np.ndarray:
        """Coarse (x, y, z) float32 distances on ``far_grid``, mm; made when first asked for."""
        return far_field(self.far_grid, self.values, self.origin)

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

    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool: the class on the crop, read back from the field."""
        return self.values < 0

    def surface(self) -> Mesh:
        """The zero surface."""
        return self.matched or extract_surface(self.values, self.crop_affine)

    def lookup(self, world: np.ndarray) -> np.ndarray:
        """(N,) float32 signed distance in mm at (N, 3) RAS mm."""
        return distances([self], world)[:, 0]

    def lookup_index(self, index: np.ndarray) -> np.ndarray:
        """(N,) float32 signed distance in mm at (N, 3) float32 voxel indices."""
        local = index - self.origin.astype(np.float32)
        last = np.array(self.values.shape, np.float32) - 1
        inside = ((local >= 0) & (local <= last)).all(axis=1)
        result = np.empty(len(index), np.float32)
        result[inside] = trilinear(self.values, local[inside])
        outside = ~inside
        if outside.any():
            result[outside] = self.far_grid.lookup(self.far, index[outside])
        return result


def distances(fields: Sequence[ClassField | None], world: np.ndarray) -> np.ndarray:
    """(N, C) float32 signed distances in mm at (N, 3) RAS mm; NaN where a field is None.

    fields : all of one label map.
    """
    result = np.full((len(world), len(fields)), np.nan, np.float32)
    known = [f for f in fields if f is not None]
    if not known:
        return result
    inverse = np.linalg.inv(known[0].affine)
    for start in range(0, len(world), CHUNK):
        part = slice(start, start + CHUNK)
        index = apply_affine(inverse, world[part].astype(np.float64)).astype(np.float32)
        for channel, field in enumerate(fields):
            if field is not None:
                result[part, channel] = field.lookup_index(index)
    return result


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
    boxes = class_boxes(label_map.data)
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


def class_boxes(data: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """The bounding box of every value above 0 in an (X, Y, Z) uint8 label map."""
    # find_objects walks in C order; NIfTI data come in Fortran order.
    if data.flags.f_contiguous and not data.flags.c_contiguous:
        boxes = [box and box[::-1] for box in ndimage.find_objects(data.T)]
    else:
        boxes = ndimage.find_objects(data)
    return {value: box for value, box in enumerate(boxes, start=1) if box is not None}


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
    distance = edt.edt(mask.view(np.uint8) + np.uint8(1), anisotropy=tuple(map(float, spacing)))
    volume = np.float32(np.prod(spacing))
    for plane, inside in zip(distance, mask):  # a plane at a time stays within the cache
        plane -= np.minimum(np.sqrt(volume / plane) / 2, plane / 2)
        np.negative(plane, out=plane, where=inside)
    if not sigma_vox:
        return distance
    smooth = _gaussian(distance, sigma_vox)
    rest = distance - smooth
    smooth += _gaussian(rest, sigma_vox, out=rest)
    for plane, original, inside in zip(smooth, distance, mask):
        flipped = (plane < 0) != inside
        plane[flipped] = original[flipped] / 2
    return smooth


def _gaussian(values: np.ndarray, sigma: float, out: np.ndarray | None = None) -> np.ndarray:
    return ndimage.gaussian_filter(values, sigma, truncate=3.0, mode="nearest", output=out)


def _class_field(label_map, value, box, grid, options, shift) -> ClassField:
    spacing = label_map.spacing
    mask, origin = _padded_mask(label_map.data, value, box, spacing)
    raw = smooth_distance(mask, spacing, options.smoothing_vox)
    field = ClassField(
        values=raw,
        origin=origin,
        affine=label_map.affine,
        shift=0.0,
        voxels=int(np.count_nonzero(mask)),
        touches_border=any(s.start == 0 or s.stop == n for s, n in zip(box, label_map.data.shape)),
        far_grid=grid,
    )
    if shift is None:
        return _volume_matched(field, mask)
    return dataclasses.replace(field, values=_shifted(raw, mask, shift, spacing), shift=shift)


def _padded_mask(data, value, box, spacing) -> tuple[np.ndarray, np.ndarray]:
    """The class on its box and a rim around it, which may reach past the image."""
    pad = np.clip(np.ceil(PAD_MM / spacing), *PAD_VOX).astype(int)
    start = np.array([s.start for s in box]) - pad
    stop = np.array([s.stop for s in box]) + pad
    mask = np.zeros(stop - start, bool)
    mask[tuple(slice(p, -p) for p in pad)] = data[box] == value
    return mask, start


def _shifted(raw, mask, shift, spacing) -> np.ndarray:
    values = raw + np.float32(shift)
    least = np.float32(MIN_DISTANCE_VOX * spacing.min())
    np.minimum(values, -least, out=values, where=mask)
    np.maximum(values, least, out=values, where=~mask)
    return values


def _volume_matched(field: ClassField, mask: np.ndarray) -> ClassField:
    """``field`` shifted so that its surface encloses as much as the voxels do."""
    bound = MAX_SHIFT_VOX * float(field.spacing.min())
    shift = 0.0
    for _ in range(VOLUME_PASSES):
        found = _at_shift(field, mask, shift)
        shift = float(np.clip(shift + found.excess / found.area, -bound, bound))
        if found.error <= VOLUME_TOLERANCE or shift == found.field.shift:
            break
    else:
        found = _at_shift(field, mask, shift)
    if found.error > VOLUME_ERROR:
        found = _volume_searched(field, mask, best=found)
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


def _at_shift(
    field: ClassField, mask: np.ndarray, shift: float, *, finer: bool = False
) -> _Shifted:
    values = _shifted(field.values, mask, shift, field.spacing)
    if finer:
        nodes = halved(values)
        nodes[nodes == 0] = np.finfo(np.float32).tiny  # a triangle would degenerate there
        mesh = extract_surface(nodes, cropped_affine(field.crop_affine, np.zeros(3), 0.5))
    else:
        mesh = extract_surface(values, field.crop_affine)
    found = dataclasses.replace(field, values=values, shift=shift, matched=mesh)
    return _Shifted(found, signed_volume(mesh) - field.voxel_volume, surface_area(mesh))


def _volume_searched(field: ClassField, mask: np.ndarray, best: _Shifted) -> _Shifted:
    """The shift that keeps the volume of a structure as thin as a voxel, or the best one.

    The volume falls as the shift grows. Voxel centres keep their sides, so that no shift moves
    the surface by a voxel.
    """
    bound = float(field.spacing.max())
    finer = field.values.size <= FINER_VOXELS
    if finer:
        best = _at_shift(field, mask, best.field.shift, finer=True)
    low, high = ((at, _at_shift(field, mask, at, finer=finer).excess) for at in (-bound, bound))
    for number in range(VOLUME_SEARCH):
        if best.error <= VOLUME_TOLERANCE or not low[1] > 0 > high[1]:
            break
        # Where the line between the ends is zero, and every third time the middle.
        at = low[1] / (low[1] - high[1]) if number % 3 else 0.5
        shift = low[0] + at * (high[0] - low[0])
        found = _at_shift(field, mask, shift, finer=finer)
        best = min(best, found, key=lambda shifted: shifted.error)
        end = (shift, found.excess)
        low, high = (end, high) if found.excess > 0 else (low, end)
    return best
