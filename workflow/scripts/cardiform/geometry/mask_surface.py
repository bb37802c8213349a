"""The surface of a mask, by the field of distances that the caller sees behind it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..labels import LabelClass
from ..volumes import LabelMap, spacing_of
from .grids import cropped_affine
from .surface import Mesh, extract_surface

# (X, Y, Z) bool mask with a rim of False, (3,) voxel edges in mm
# -> (X, Y, Z) float32, negative inside, nowhere zero
MaskField = Callable[[np.ndarray, np.ndarray], np.ndarray]


def surface_of_mask(
    mask: np.ndarray,
    affine: np.ndarray,
    field: MaskField,
    *,
    pad: int,
    start: ArrayLike = (0.0, 0.0, 0.0),
    step: float = 1,
) -> Mesh:
    """The closed surface of a mask, RAS mm, outward; empty where nothing is inside.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Every ``step``-th voxel of a grid along each axis, from the voxel ``start`` on.
    affine : (4, 4) float64
        Indices of that grid to RAS mm.
    field : MaskField
        Decides how smooth the surface is: :func:`blurred`,
        :func:`cardiform.geometry.sdf.smooth_distance`, ...
    pad : int
        Voxels of False that are put around the mask, so that the surface closes.
    """
    own = cropped_affine(affine, np.asarray(start) - float(pad) * step, step)
    return extract_surface(field(np.pad(mask, pad), spacing_of(own)), own)


def blurred(mask: np.ndarray, spacing: np.ndarray, *, sigma_vox: float) -> np.ndarray:
    """The Gaussian blur of a mask, cut at one half: quick, but thin parts get lost.

    sigma_vox : in voxels; 0 gives the faces between the voxels with bevelled edges.

    Returns
    -------
    (X, Y, Z) float32 from -0.5 inside to 0.5 outside: no distances, ``spacing`` is not used.
    """
    smooth = mask.astype(np.float32)
    if sigma_vox:
        smooth = ndimage.gaussian_filter(smooth, sigma_vox)
    return np.where(smooth == 0.5, np.float32(1e-6), 0.5 - smooth)


def blurred_as_large(mask: np.ndarray, spacing: np.ndarray, *, sigma_vox: float) -> np.ndarray:
    """The Gaussian blur of a mask, cut where as many voxels are inside as before, at one half at
    most: quick, and vessels of a voxel or two stay. Otherwise as :func:`blurred`."""
    smooth = 0.5 - blurred(mask, spacing, sigma_vox=sigma_vox)
    inside = int(np.count_nonzero(mask))
    level = np.partition(smooth, smooth.size - inside, axis=None)[-inside] if inside else 0.5
    apart = min(0.5, float(level) * (1 - 1e-3)) - smooth
    return np.where(apart == 0, np.float32(1e-6), apart)


def class_surfaces(
    label_map: LabelMap, classes: Iterable[LabelClass]
) -> list[tuple[np.ndarray, np.ndarray, str, float]]:
    """What a picture shows of a label map: vertices, faces, colour and opacity of each class."""
    smoothed = functools.partial(blurred_as_large, sigma_vox=1.0)
    found = []
    for label in classes:
        inside = label_map.data == label.value
        mesh = surface_of_mask(inside, label_map.affine, smoothed, pad=1)
        found.append((mesh.vertices, mesh.faces, label.color, 1.0))
    return found
