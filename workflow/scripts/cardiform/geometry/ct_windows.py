"""The region of a CT window as sparse voxels, from a CT in HU or an earlier dense volume."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, problem
from ..labels import LabelClass, LabelTable
from ..options.geometry import MeshesOptions, WindowsOptions
from ..volumes import LabelMap, check_hounsfield, labels_on, load_image, load_label_map
from ..volumes.dense import read_npy
from .closed_band import voxel_affine
from .frame import Frame, apply_affine
from .grids import box_corners
from .narrowband import NarrowBand, field_band
from .sdf import class_fields
from .window_names import CtWindow

log = logging.getLogger(__name__)

REGION = 1
ONE_REGION = LabelTable((LabelClass(value=REGION, name="region", title="", color="#000000"),))


def window_case(case: Case, *, window: CtWindow, options: WindowsOptions, out: Path) -> list[Path]:
    """Write ``out/<case>/<window>.npz`` from the CT of a case, or from its dense volume.

    Raises
    ------
    InputError
        The CT is not in HU, or no volume is found.
    """
    if options.volumes:
        region, frame = volume_region(volume_path(case, window, options))
    else:
        region, frame = ct_region(case.image, window, _labels_of(case))
    path = out / case.case_id / f"{window.name}.npz"
    region_band(region, frame, options).save(path)
    return [path]


def ct_region(
    path: str | Path, window: CtWindow, labels: LabelMap | None = None
) -> tuple[LabelMap, Frame]:
    """Where a CT lies within the window (1), and the frame around the corners of its grid.

    labels : of the same case: the check of the cohort knows them, and judges by them, too.
    """
    image, affine = load_image(path)
    for doubt in check_hounsfield(path, image, labels_on(labels, image.shape, affine)):
        log.warning("%s: %s", path, doubt)
    inside = (image >= window.low) & (image <= window.high)
    return LabelMap(inside.astype(np.uint8), affine), volume_frame(image.shape, affine)


def _labels_of(case: Case) -> LabelMap | None:
    """None where a case has no label map that can be read: a window does not need one."""
    try:
        return load_label_map(case.labels) if case.labels else None
    except InputError:
        return None


def volume_region(path: Path) -> tuple[LabelMap, Frame]:
    """The same from a dense cubic volume, 1 (or true) inside.

    Such volumes carry no geometry: their cube is taken as the unit cube, a voxel as 1 mm.

    Raises
    ------
    InputError
        The file is no .npy of a cube of zeros and ones.
    """
    volume = read_npy(path)
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or not np.isin(volume, (0, 1)).all():
        fact = f"is no cube of zeros and ones: shape {volume.shape}, type {volume.dtype}"
        raise InputError(problem(path, fact, "save the binarised volume"))
    frame = Frame(np.zeros(3), 2 / len(volume))
    return LabelMap(volume.astype(np.uint8), voxel_affine(len(volume), frame)), frame


def volume_path(case: Case, window: CtWindow, options: WindowsOptions) -> Path:
    """``{case}/windows/{name}_w{width}_l{level}.npy`` somewhere below the folder of volumes."""
    pattern = f"**/{case.case_id}/windows/{window.volume_name}"
    found = sorted(Path(options.volumes).glob(pattern))
    if len(found) != 1:
        fact = f"holds {len(found)} files {pattern}, not one"
        raise InputError(problem(options.volumes, fact, "correct windows.volumes"))
    return found[0]


def source_files(case: Case, window: CtWindow, options: WindowsOptions) -> list[str | Path]:
    """What :func:`window_case` reads."""
    return [volume_path(case, window, options)] if options.volumes else [case.image]


def region_band(region: LabelMap, frame: Frame, options: WindowsOptions) -> NarrowBand:
    """The band about a region's surface; without a voxel where the region is empty."""
    if not region.data.any():
        return NarrowBand.empty(options.resolution, options.band_voxels, frame)
    fields = class_fields(region, ONE_REGION, MeshesOptions(smoothing_vox=options.smoothing_vox))
    return field_band(fields[REGION], frame, options.resolution, options.band_voxels)


def volume_frame(shape: tuple[int, ...], affine: np.ndarray) -> Frame:
    """The frame with the corners of a grid in the ball of radius 0.95."""
    corners = box_corners(np.zeros(3) - 0.5, np.array(shape[:3]) - 0.5)
    return Frame.around(apply_affine(affine, corners))


def verdict(path: Path, options: WindowsOptions) -> str:
    """Why a band is not to be trained on; empty where it is."""
    voxels = len(NarrowBand.load(path).sdf)
    if voxels < options.min_points:
        return f"filtered: {voxels} voxels, fewer than windows.min_points ({options.min_points})"
    if options.max_points and voxels > options.max_points:
        return f"filtered: {voxels} voxels, more than windows.max_points ({options.max_points})"
    return ""
