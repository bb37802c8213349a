"""Label maps as DICOM SEG, where the series that they were drawn on is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.table import OK, Case
from ..errors import InputError, first_line, problem
from ..files import atomic_path, sha256_file
from ..labels import LabelClass
from ..volumes import LabelMap
from .classes import plain, rgb

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # of RAS; DICOM is LPS
PLACE_VOX = 0.05  # by which a voxel of the label map may miss one of the series
COLUMN = "column dicom of the case table"
# SNOMED CT, as CID 3 of DICOM has it; a class of another table is an anatomical structure.
CODES = {
    "myocardium": ("74281007", "Myocardium"),
    "left_atrium": ("82471001", "Left atrium"),
    "left_ventricle": ("87878005", "Left ventricle"),
    "right_atrium": ("73829009", "Right atrium"),
    "right_ventricle": ("53085002", "Right ventricle"),
    "aorta": ("15825003", "Aorta"),
    "pulmonary_artery": ("81040000", "Pulmonary artery"),
    "left_atrial_appendage": ("33626005", "Left auricular appendage"),
    "coronary": ("41801008", "Coronary artery"),
    "pulmonary_veins": ("122972007", "Pulmonary vein"),
}
PLACED = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
STRUCTURE = ("123037004", "Anatomical Structure")


def libraries() -> Any:
    """highdicom and pydicom; InputError where they are not installed."""
    try:
        import highdicom
        import pydicom
    except ImportError:
        fact = "highdicom is not installed"
        remedy = "run pip install highdicom in the environment of export_shapes, or leave dcm out"
        raise InputError(problem("exports.formats dcm", fact, remedy)) from None
    return highdicom, pydicom


def check_dicom(cases: Iterable[Case], table: str | Path, cohort: Iterable[Case]) -> None:
    """InputError, before anything is computed, where DICOM SEG cannot be written: no library, no
    case of the ``cohort`` with a series, folders of ``cases`` that are not there."""
    libraries()
    if not any(case.dicom and case.status == OK for case in cohort):
        remedy = "name the folder of each series in column dicom, or leave dcm out"
        raise InputError(problem(table, "no case names a DICOM series", remedy))
    named = [case for case in cases if case.dicom and case.status == OK]
    if problems := [
        problem(case.dicom, "is no folder", f"correct {COLUMN} ({case.case_id})")
        for case in named
        if not Path(case.dicom).is_dir()
    ]:
        raise InputError(problems)


def series_files(case: Case) -> list[Path]:
    """The files in the folder of a case's series; InputError where it cannot be read."""
    try:
        return sorted(p for p in Path(case.dicom).iterdir() if p.is_file()) if case.dicom else []
    except OSError as error:
        remedy = f"correct {COLUMN} ({case.case_id})"
        raise InputError(problem(case.dicom, error.strerror or str(error), remedy)) from None


def write_dicom(path: Path, label_map: LabelMap, classes: list[LabelClass], case: Case) -> None:
    """Write a DICOM SEG (binary, a segment per class) that refers to the series of the case.

    Raises
    ------
    InputError
        The folder holds no series or several, or one of another grid than the label map's.
    """
    highdicom, pydicom = libraries()
    series = _series(case, pydicom)
    frames = _on_frames(label_map, series, case)
    numbers = np.zeros(256, np.uint8)
    numbers[[label.value for label in classes]] = np.arange(1, len(classes) + 1)
    uid = [series[0].SeriesInstanceUID, sha256_file(case.labels), repr(classes)]
    try:
        found = highdicom.seg.Segmentation(
            source_images=series,
            pixel_array=numbers[frames],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(highdicom, n, label) for n, label in enumerate(classes, start=1)
            ],
            series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["series", *uid]),
            series_number=int(series[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["instance", *uid]),
            instance_number=1,
            manufacturer="Cardiform",
            manufacturer_model_name="Cardiform",
            software_versions="1",
            device_serial_number="1",
            series_description="Cardiform",
        )
    except Exception as error:  # as many as there are faults of headers
        fact = f"is not fit for a DICOM SEG ({first_line(error)})"
        raise InputError(problem(case.dicom, fact, f"correct {COLUMN} ({case.case_id})")) from None
    with atomic_path(path) as temporary:
        found.save_as(temporary)


def _description(highdicom: Any, number: int, label: LabelClass) -> Any:
    code, meaning = CODES.get(label.name, STRUCTURE)
    coded = highdicom.sr.CodedConcept
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=plain(label)[:64],
        segmented_property_category=coded(STRUCTURE[0], "SCT", STRUCTURE[1]),
        segmented_property_type=coded(code, "SCT", meaning),
        # how the labels were drawn is not known here
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        display_color=highdicom.color.CIELabColor.from_rgb(*rgb(label)),
    )


def _series(case: Case, pydicom: Any) -> list:
    """The images of the series, in the order of their planes."""
    images: list = []
    known: dict[str, str] = {}
    for path in series_files(case):
        try:
            image = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        except Exception as error:  # as many as there are kinds of damage
            fact, remedy = f"cannot be read ({first_line(error)})", "copy or export it again"
            raise InputError(problem(path, fact, remedy)) from None
        if all(name in image for name in PLACED):
            images.append(image)
            known.setdefault(image.SeriesInstanceUID, str(path))
    if len(known) != 1:
        fact = f"holds {len(known)} DICOM series" if known else "holds no DICOM images with a place"
        remedy = f"name a folder of one series in {COLUMN} ({case.case_id})"
        raise InputError(problem(case.dicom, fact, remedy))
    normal = np.cross(*np.reshape(images[0].ImageOrientationPatient, (2, 3)).astype(float))
    images.sort(key=lambda i: float(np.dot(normal, i.ImagePositionPatient)))
    places = np.array([i.ImagePositionPatient for i in images], float)
    evenly = np.linspace(places[0], places[-1], len(places))
    step = np.linalg.norm(places[-1] - places[0]) / max(len(places) - 1, 1)
    if np.abs(places - evenly).max() > PLACE_VOX * step:
        remedy = f"name a whole series in {COLUMN} ({case.case_id}), without files that occur twice"
        raise InputError(problem(case.dicom, "planes are not evenly apart", remedy))
    return images


def _on_frames(label_map: LabelMap, series: list, case: Case) -> np.ndarray:
    """(frames, rows, columns) uint8: the label map on the planes of the series.

    It may be a part of the series, and its axes in any order and direction.
    """
    into = np.linalg.inv(_affine(series)) @ TO_LPS @ label_map.affine
    shape = (len(series), int(series[0].Rows), int(series[0].Columns))
    turn = np.rint(into[:3, :3])
    ends = np.array(label_map.data.shape) - 1
    corners = np.array(np.meshgrid(*[(0, e) for e in ends], indexing="ij")).reshape(3, -1).T
    true = corners @ into[:3, :3].T + into[:3, 3]
    start = np.rint(into[:3, 3])
    placed = corners @ turn.T + start
    apart = float(np.abs(true - placed).max())
    fits = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    inside = (placed >= 0).all() and (placed < shape).all()
    if not (fits and inside and apart <= PLACE_VOX):
        label = " x ".join(map(str, label_map.data.shape))
        planes = f"{shape[2]} x {shape[1]} x {shape[0]}"
        fact = f"its series ({planes}) does not match the grid of {case.labels} ({label})"
        remedy = f"name the series that was labelled in {COLUMN} ({case.case_id})"
        raise InputError(problem(case.dicom, fact, remedy))
    axes = np.abs(turn).argmax(axis=1)  # of the label map, for frame, row and column
    part = label_map.data.transpose(axes)
    for axis in range(3):
        if turn[axis, axes[axis]] < 0:
            part = np.flip(part, axis)
    result = np.zeros(shape, np.uint8)
    low = placed.min(axis=0).astype(int)
    result[tuple(slice(a, a + n) for a, n in zip(low, part.shape))] = part
    return result


def _affine(series: list) -> np.ndarray:
    """(4, 4) frame, row and column to LPS mm."""
    along_row, along_column = np.reshape(series[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, series[0].PixelSpacing)
    first, last = (np.array(s.ImagePositionPatient, float) for s in (series[0], series[-1]))
    affine = np.eye(4)
    normal = np.cross(along_row, along_column)
    thick = float(series[0].get("SliceThickness") or 1.0)
    affine[:3, 0] = (last - first) / (len(series) - 1) if len(series) > 1 else normal * thick
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = along_row * between_columns
    affine[:3, 3] = first
    return affine
