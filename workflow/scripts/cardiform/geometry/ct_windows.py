"""The region of a CT window as sparse voxels, from a CT in HU or an earlier dense volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, problem
from ..labels import LabelClass, LabelTable
from ..options.geometry import MeshesOptions, WindowsOptions
from ..volumes import LabelMap, load_image
from .closed_band import voxel_affine
from .frame import Frame, apply_affine
from .grids import box_corners
from .narrowband import NarrowBand, field_band
from .sdf import class_fields
from .window_names import CtWindow

LEAST_SPAN_HU = 300  # air, soft tissue and bone lie further apart
MOST_HU = 20_000  # dense metal shows less
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
        region, frame = ct_region(case.image, window)
    path = out / case.case_id / f"{window.name}.npz"
    region_band(region, frame, options).save(path)
    return [path]


def ct_region(path: str | Path, window: CtWindow) -> tuple[LabelMap, Frame]:
    """Where a CT lies within the window (1), and the frame around the corners of its grid."""
    image, affine = load_image(path)
    check_hounsfield(path, image)
    inside = (image >= window.low) & (image <= window.high)
    return LabelMap(inside.astype(np.uint8), affine), volume_frame(image.shape, affine)


def volume_region(path: Path) -> tuple[LabelMap, Frame]:
    """The same from a dense cubic volume, 1 (or true) inside.

    Such volumes carry no geometry: their cube is taken as the unit cube, a voxel as 1 mm.

    Raises
    ------
    InputError
        The file is no .npy of a cube of zeros and ones.
    """
    try:
        with path.open("rb") as stream:
            volume = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        fact = f"is no .npy file ({error})"
        raise InputError(problem(path, fact, "write it with numpy.save")) from None
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


def check_hounsfield(path: str | Path, image: np.ndarray) -> None:
    """InputError where the values cannot be Hounsfield units.

    Air is near -1000, soft tissue near 40, cortical bone above 300; scanners pad with values
    down to about -8000 outside of the field of view.
    """
    if not np.isfinite(image).all():
        raise InputError(problem(path, "has values that are not finite", "repair the CT"))
    low, high = float(image.min()), float(image.max())
    remedy = "give the CT in Hounsfield units, with slope and intercept in its header"
    if low >= 0:
        fact = f"has no value below 0 ({low:g} to {high:g}): not Hounsfield units"
        raise InputError(problem(path, fact, remedy))
    if high - low < LEAST_SPAN_HU or high > MOST_HU:
        fact = f"has values from {low:g} to {high:g}: not Hounsfield units"
        raise InputError(problem(path, fact, remedy))


def verdict(path: Path, options: WindowsOptions) -> str:
    """Why a band is not to be trained on; empty where it is."""
    voxels = len(NarrowBand.load(path).sdf)
    if voxels < options.min_points:
        return f"filtered: {voxels} voxels, fewer than windows.min_points ({options.min_points})"
    if options.max_points and voxels > options.max_points:
        return f"filtered: {voxels} voxels, more than windows.max_points ({options.max_points})"
    return ""
