"""What a header says of the place of an image, in millimetres, and what of it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import InputError, problem
from .affines import check_affine, corners_apart_mm, place_tolerance_mm, shear_deg, spacing_of

# The codes of xyzt_units: unknown, metre, millimetre, micron.
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# Of a half turn, the three stored parts of the quaternion are 1 long, and rounded.
LONGEST_QUATERNION = 1 + 5e-4


def settle_qform(header: nib.Nifti1Header) -> str:
    """Why the qform of a header, as it was read, gives no place; empty if it gives one.

    nibabel puts other numbers in place of a zero spacing and the like without a word, so this
    comes before its repairs. The stored parts of a half turn, rounded to float32, may be longer
    than one, which nibabel refuses: they are shortened in the header.
    """
    fields = header.structarr
    pixdim = fields["pixdim"].astype(np.float64)
    parts = np.array([fields[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    length = float(np.linalg.norm(parts))
    try:
        header.get_qform_quaternion()
    except ValueError:
        with np.errstate(invalid="ignore"):
            parts /= length
        for axis, part in zip("bcd", parts):
            fields[f"quatern_{axis}"] = part
    offset = [fields[f"qoffset_{axis}"] for axis in "xyz"]
    if not np.isfinite([*parts, *offset]).all():
        return "qform is not finite"
    if length > LONGEST_QUATERNION:
        return f"qform is no rotation (a quaternion of length {length:.3g})"
    if not (np.isfinite(pixdim[1:4]).all() and (pixdim[1:4] > 0).all()):
        return f"qform has no spacing (pixdim {' x '.join(f'{v:.3g}' for v in pixdim[1:4])})"
    if pixdim[0] not in (-1, 0, 1):
        return f"qform has no handedness (pixdim[0] is {pixdim[0]:.3g}, not 1 or -1)"
    return ""


def unit_mm(path: str | Path, header: nib.Nifti1Header) -> float:
    """How many millimetres the unit of a header's lengths is; unknown is 1.

    Raises
    ------
    InputError
        A code that NIfTI does not know.
    """
    code = int(header["xyzt_units"]) & 7
    if code not in UNITS_MM:
        fact = f"has an unknown unit of length (xyzt_units {code})"
        raise InputError(problem(path, fact, "set it to millimetre (2) in the header"))
    return UNITS_MM[code]


@np.errstate(invalid="ignore", over="ignore")  # numbers that no image has are refused
def affine_mm(
    path: str | Path, header: nib.Nifti1Header, shape: Sequence[int], qform_fault: str
) -> np.ndarray:
    """(4, 4) float64, voxel indices to RAS mm: the sform if it has a code, else the qform.

    qform_fault : of :func:`settle_qform`.

    Raises
    ------
    InputError
        An unknown unit; no form has a code; the form is unusable (:func:`check_affine`); both
        have one, and they are different places.
    """
    unit = np.array([[unit_mm(path, header)]] * 3 + [[1.0]])
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None and qform is None:
        fact = "has neither sform nor qform, so its place in space is unknown"
        raise InputError(problem(path, fact, "set the affine in the header"))
    if sform is None and qform_fault:
        raise InputError(problem(path, qform_fault, "repair it in the header, or set the sform"))
    affine = unit * (qform if sform is None else sform)
    check_affine(path, affine)
    if sform is not None and qform is not None:
        _check_same_place(path, shape, affine, unit * qform, qform_fault)
    return affine


def _check_same_place(path, shape, sform: np.ndarray, qform: np.ndarray, fault: str) -> None:
    """InputError where the two forms are apart by more than rounding and what shear explains.

    A qform knows no shear. However a program has left it out, each axis is turned by no more
    than the shear, and the first voxel stays where it is.
    """
    spacing = spacing_of(sform)
    tolerance = place_tolerance_mm(shape, spacing)
    left_out = np.radians(shear_deg(sform)) * float((np.array(shape[:3]) * spacing).sum())
    apart = corners_apart_mm(shape, sform, qform)
    first = float(np.linalg.norm((sform - qform)[:3, 3]))
    if apart <= tolerance + left_out and first <= tolerance:
        return
    if fault:
        raise InputError(problem(path, fault, "repair it in the header, or set its code to 0"))
    fact = f"sform and qform differ by {apart / spacing.min():.2g} voxels"
    what = difference(sform, qform)
    raise InputError(problem(path, f"{fact} ({what})", "correct one of them in the header"))


def difference(sform: np.ndarray, qform: np.ndarray) -> str:
    """In a few words, what two forms of one image, (4, 4) in mm, disagree about."""
    spacings = spacing_of(sform), spacing_of(qform)
    if not np.allclose(spacings[0], spacings[1], rtol=0.01):
        first, second = (" x ".join(f"{v:.3g}" for v in spacing) for spacing in spacings)
        return f"a spacing of {first} mm, and of {second} mm"
    axes, others = (form[:3, :3] / spacing for form, spacing in zip((sform, qform), spacings))
    if np.linalg.det(axes) * np.linalg.det(others) < 0:
        return "an axis is flipped"
    turn = float(np.degrees(np.arccos(np.clip((axes * others).sum(axis=0), -1, 1))).max())
    if turn > 1.5 * shear_deg(sform) + 0.1:
        return f"turned by {turn:.3g} degrees"
    return f"shifted by {float(np.linalg.norm((sform - qform)[:3, 3])):.2g} mm"
