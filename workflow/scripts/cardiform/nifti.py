"""NIfTI label maps and images: load, save, geometry checks."""

from __future__ import annotations

import gzip
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from .errors import InputError, problem
from .files import atomic_path

# Headers may differ by rounding; a tenth of a voxel is another place.
PLACE_TOLERANCE_VOX = 0.1
# Radians. A qform keeps three of four quaternion components, in float32; of a turn by almost
# 180 degrees, as LPS files have, the fourth is then known to 3.5e-4 only.
QUATERNION_ROUNDING = 1e-3
# Distances use the column norms as spacing: measured error is noise below one degree.
MAX_SHEAR_DEG = 1.0
# Mesh files hold float32: at 100 m they are 0.004 mm exact.
MAX_AWAY_MM = 1e5
INTEGER_TOLERANCE = 1e-3

nib.imageglobals.logger.setLevel(logging.ERROR)  # header repairs are reported here, once


@dataclass(frozen=True)
class LabelMap:
    """A label map on its grid.

    data : (X, Y, Z) uint8, class values, 0 outside.
    affine : (4, 4) float64, voxel indices to RAS millimetres.
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) float64 voxel edges, mm."""
        return spacing_of(self.affine)


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) float64 voxel edges in mm: the column norms of the affine."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def load_label_map(path: str | Path) -> LabelMap:
    """Read a label map as uint8.

    Raises
    ------
    InputError
        Unreadable or truncated file; not 3-D (one trailing volume is squeezed); values
        that are not integers within 0-255; unusable affine (:func:`check_affine`).
    """
    image = _open(path)
    _check_volume_shape(path, image.shape)
    raw = _read(path, image)
    return LabelMap(_to_labels(path, raw.reshape(raw.shape[:3])), check_affine(path, image))


def load_image(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with slope and intercept applied: (X, Y, Z) float32 and its affine."""
    image = _open(path)
    _check_volume_shape(path, image.shape)
    data = np.asarray(_read(path, image), dtype=np.float32)
    return data.reshape(data.shape[:3]), check_affine(path, image)


def image_grid(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (three axes) and affine of an image, from its header alone."""
    image = _open(path)
    _check_volume_shape(path, image.shape)
    return image.shape[:3], check_affine(path, image)


def save_label_map(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an (X, Y, Z) uint8 label map, atomically and reproducibly."""
    save_image(path, np.asarray(data, np.uint8), affine)


def save_image(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write an (X, Y, Z) image in its own dtype, atomically and reproducibly."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if _forms_apart_mm(image) > place_tolerance_mm(image.shape, spacing_of(affine)):
        image.set_qform(None, code=0)  # a qform knows no shear: what it says is another place
    _save(image, path)


def save_like(path: str | Path, data: np.ndarray, like: str | Path) -> None:
    """Write labels with the header of another file: its affine, codes, units, dtype and shape.

    data : (X, Y, Z) integers on the grid of ``like``.
    """
    image = _open(like)
    header = image.header.copy()
    header.set_slope_inter(1, 0)
    kind = header.get_data_dtype()
    _save(nib.Nifti1Image(data.reshape(image.shape).astype(kind), image.affine, header), path)


def check_affine(path: str | Path, image) -> np.ndarray:
    """The image's affine as float64.

    Raises
    ------
    InputError
        Not finite, singular or zero spacing, far from the origin; sheared; sform and qform in
        different places.
    """
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all():
        raise InputError(problem(path, "affine is not finite", "repair the header"))
    spacing = spacing_of(affine)
    if spacing.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3])) < 1e-9 * spacing.prod():
        raise InputError(
            problem(path, f"affine is singular (spacing {_text(spacing)} mm)", "repair the header")
        )
    away = float(np.abs(affine[:3, 3]).max())
    if away > MAX_AWAY_MM:
        text = f"lies {away:.2g} mm from the origin of its space"
        raise InputError(problem(path, text, "repair the translation in the header"))
    axes = affine[:3, :3] / spacing
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    shear = float(np.degrees(np.arcsin(min(cosine, 1.0))))
    if shear > MAX_SHEAR_DEG:
        raise InputError(
            problem(
                path,
                f"axes are sheared by {shear:.1f} degrees",
                "resample to an orthogonal grid (nearest neighbour)",
            )
        )
    _check_forms(path, image, affine, spacing)
    return affine


def place_tolerance_mm(shape: tuple[int, ...], spacing: np.ndarray) -> float:
    """How far, mm, the corners of one and the same grid may lie apart in two headers."""
    size_mm = float(np.linalg.norm(np.array(shape[:3]) * spacing))
    return PLACE_TOLERANCE_VOX * float(spacing.min()) + QUATERNION_ROUNDING * size_mm


def _check_forms(path, image, affine, spacing) -> None:
    header = image.header
    if not hasattr(header, "get_sform"):
        return
    _, scode = header.get_sform(coded=True)
    _, qcode = header.get_qform(coded=True)
    if not scode and not qcode:
        raise InputError(
            problem(
                path,
                "has neither sform nor qform, so its place in space is unknown",
                "set the affine in the header",
            )
        )
    if scode and qcode:
        shift_mm = _forms_apart_mm(image)
        voxels = shift_mm / spacing.min()
        if shift_mm > place_tolerance_mm(image.shape, spacing):
            raise InputError(
                problem(
                    path,
                    f"sform and qform differ by {voxels:.2g} voxels",
                    "correct one of them in the header",
                )
            )


def _forms_apart_mm(image) -> float:
    """The most that sform and qform differ at a corner of the grid."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape[:3]])).reshape(3, -1)
    difference = image.header.get_sform() - image.header.get_qform()
    shift = difference[:3, :3] @ corners + difference[:3, 3:]
    return float(np.linalg.norm(shift, axis=0).max())


def _open(path):
    path = Path(path)
    if not path.is_file():
        raise InputError(problem(path, "does not exist", "correct the path in the case table"))
    try:
        return nib.load(path)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            problem(
                path,
                f"is not a readable NIfTI file ({_first_line(error)})",
                "export the file again",
            )
        ) from None


def _read(path, image) -> np.ndarray:
    try:
        _check_gzip(path)
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            problem(
                path,
                f"cannot be read to its end ({_first_line(error)})",
                "copy or export the file again",
            )
        ) from None


def _check_gzip(path) -> None:
    """Read a .gz file to its end, where its checksum is compared.

    nibabel stops at the last voxel, short of it: a changed byte would pass as other labels.
    """
    if str(path).endswith(".gz"):
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass


def _check_volume_shape(path, shape) -> None:
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise InputError(
            problem(
                path,
                f"shape {'x'.join(map(str, shape))} is not one 3-D volume",
                "export a single volume",
            )
        )


def _to_labels(path, raw: np.ndarray) -> np.ndarray:
    """(X, Y, Z) raw values as uint8 class values."""
    if raw.dtype.kind not in "fiub":
        raise InputError(problem(path, f"holds {raw.dtype} values", "export integer labels"))
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise InputError(
                problem(path, "holds values that are not finite", "export integer labels")
            )
        rounded = np.rint(raw)
        worst = float(np.abs(raw - rounded).max())
        if worst > INTEGER_TOLERANCE:
            raise InputError(
                problem(
                    path,
                    f"values are not integers (off by {worst:.3g})",
                    "export labels, not probabilities, and resample by nearest neighbour",
                )
            )
        raw = rounded
    low, high = raw.min(), raw.max()
    if low < 0 or high > 255:
        raise InputError(
            problem(path, f"values run from {low:g} to {high:g}", "labels lie within 0-255")
        )
    return raw.astype(np.uint8, copy=False)


def _save(image, path) -> None:
    # The gzip header would carry the temporary name and the time: the same content shall
    # always be the same bytes.
    with atomic_path(path) as temporary:
        content = image.to_bytes()
        if str(path).endswith(".gz"):
            compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            content = compressor.compress(content) + compressor.flush()
        temporary.write_bytes(content)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _text(vector) -> str:
    return " x ".join(f"{v:.3g}" for v in vector)
