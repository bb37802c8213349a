"""DICOM SEG of a series that is named: read back in its place, refused where it does not fit."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from cardiform import volumes
from cardiform.cohort.table import Case, read_case_table, read_checked_cases, write_cases
from cardiform.errors import InputError
from cardiform.export import dicom
from cardiform.labels import LabelTable
from cardiform.volumes import LabelMap

TABLE = LabelTable()
CLASSES = [label for label in TABLE if label.value in (3, 6)]
# Columns run along x and a little y, rows along y, planes along z: oblique, as scanners have it.
ANGLE = 0.2
ALONG_ROW = np.array([np.cos(ANGLE), np.sin(ANGLE), 0.0])
ALONG_COLUMN = np.array([-np.sin(ANGLE), np.cos(ANGLE), 0.0])
FIRST_LPS = np.array([-40.0, 25.0, 700.0])
ROWS, COLUMNS, PLANES = 12, 14, 9
SPACING = (0.7, 0.8, 1.5)  # between columns, rows, planes


def lps_affine() -> np.ndarray:
    """Column, row and plane to LPS mm."""
    affine = np.eye(4)
    ways = (ALONG_ROW, ALONG_COLUMN, np.cross(ALONG_ROW, ALONG_COLUMN))
    affine[:3, :3] = np.transpose(ways) * SPACING
    affine[:3, 3] = FIRST_LPS
    return affine


def write_series(folder, planes=range(PLANES), series="1.2.3.4"):
    """A CT series whose files are in no order."""
    pydicom = pytest.importorskip("pydicom", reason="highdicom is not installed")
    folder.mkdir(exist_ok=True)
    for plane in planes:
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        image.SOPClassUID = pydicom.uid.CTImageStorage
        image.SOPInstanceUID = f"{series}.{plane + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.SeriesInstanceUID, image.StudyInstanceUID = series, "1.2.3"
        image.FrameOfReferenceUID = "1.2.5"
        image.PatientID, image.PatientName = "a", "a^"
        image.PatientBirthDate = image.PatientSex = image.AccessionNumber = ""
        image.StudyDate, image.StudyTime, image.StudyID = "20260101", "120000", "1"
        image.ReferringPhysicianName = image.PositionReferenceIndicator = ""
        image.Modality, image.Manufacturer = "CT", "none"
        image.SeriesNumber, image.InstanceNumber = 4, plane + 1
        image.ImageOrientationPatient = [*ALONG_ROW.tolist(), *ALONG_COLUMN.tolist()]
        place = lps_affine() @ [0, 0, plane, 1]
        image.ImagePositionPatient = [round(float(v), 6) for v in place[:3]]
        image.PixelSpacing, image.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        image.Rows, image.Columns = ROWS, COLUMNS
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.PixelData = np.zeros((ROWS, COLUMNS), np.int16).tobytes()
        image.save_as(folder / f"{(plane * 7) % 11:03d}.dcm", enforce_file_format=True)


def label_map() -> LabelMap:
    """Two classes on a part of the series, in RAS, with axes in another order and direction."""
    data = np.zeros((COLUMNS, ROWS, PLANES), np.uint8)
    data[3:9, 2:6, 1:5] = 3
    data[10, 8, 7] = 6
    affine = np.diag([-1.0, -1, 1, 1]) @ lps_affine()
    part = data[1:, :, 1:]
    start = affine @ [1, 0, 1, 1]
    turned = np.flip(part.transpose(2, 0, 1), axis=1)
    ways = np.column_stack([affine[:3, 2], -affine[:3, 0], affine[:3, 1]])
    result = np.eye(4)
    result[:3, :3] = ways
    result[:3, 3] = start[:3] + affine[:3, 0] * (part.shape[0] - 1)
    return LabelMap(np.ascontiguousarray(turned), result)


@pytest.fixture
def case(tmp_path):
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    write_series(tmp_path / "series")
    found = label_map()
    volumes.save_label_map(tmp_path / "a.nii.gz", found.data, found.affine)
    return Case(
        case_id="a", patient_id="a", labels=str(tmp_path / "a.nii.gz"),
        dicom=str(tmp_path / "series"),
    )  # fmt: skip


def test_segments_lie_where_the_label_map_has_them(case, tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    dicom.write_dicom(tmp_path / "a.dcm", label_map(), CLASSES, case)
    found = highdicom.seg.segread(tmp_path / "a.dcm")
    assert found.SeriesInstanceUID != "1.2.3.4" and found.StudyInstanceUID == "1.2.3"
    for number, label in enumerate(CLASSES, start=1):
        segment = found.get_segment_description(number)
        assert segment.segment_label == label.title
        assert segment.segmented_property_type.value == dicom.CODES[label.name][0]
        volume = found.get_volume(segment_numbers=[number], combine_segments=True)
        voxels = np.argwhere(volume.array > 0)
        lps = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        given = label_map()
        index = np.argwhere(given.data == label.value)
        ras = index @ given.affine[:3, :3].T + given.affine[:3, 3]
        assert len(voxels) == len(index)
        order = [np.lexsort(np.round(p, 2).T) for p in (lps * [-1, -1, 1], ras)]
        np.testing.assert_allclose((lps * [-1, -1, 1])[order[0]], ras[order[1]], atol=0.01)
    again = tmp_path / "again.dcm"
    dicom.write_dicom(again, label_map(), CLASSES, case)
    assert highdicom.seg.segread(again).SOPInstanceUID == found.SOPInstanceUID


def refusal(case, labels=None) -> str:
    with pytest.raises(InputError) as caught:
        dicom.write_dicom(
            Path(case.labels).with_name("a.dcm"), labels or label_map(), CLASSES, case
        )
    [line] = caught.value.problems
    return line


def test_a_series_that_does_not_fit_is_one_line(case, tmp_path):
    moved = label_map()
    moved.affine[:3, 3] += 0.4
    assert "does not match the grid of" in refusal(case, moved)
    coarse = label_map()
    coarse.affine[:3, :3] *= 1.1
    assert "does not match the grid of" in refusal(case, coarse)
    (tmp_path / "series" / f"{((PLANES - 1) * 7) % 11:03d}.dcm").unlink()
    assert "does not match the grid of" in refusal(case)
    write_series(tmp_path / "series", [20], series="1.2.9")
    assert "holds 2 DICOM series" in refusal(case)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("none")
    line = refusal(dataclasses.replace(case, dicom=str(empty)))
    assert line.startswith(f"{empty}: holds no DICOM images") and "column dicom" in line


@pytest.mark.parametrize("length", [140, 300, 420, 560])
def test_a_file_that_is_cut_short_is_one_line(case, tmp_path, length):
    path = tmp_path / "series" / f"{(4 * 7) % 11:03d}.dcm"
    path.write_bytes(path.read_bytes()[:length])
    line = refusal(case)
    assert line.startswith(str(tmp_path / "series")) and "; " in line and "\n" not in line


def test_a_plane_that_is_missing_within_the_series_is_one_line(case, tmp_path):
    (tmp_path / "series" / f"{(4 * 7) % 11:03d}.dcm").unlink()
    assert "planes are not evenly apart" in refusal(case)


def test_what_is_missing_is_said_before_anything_is_computed(case, tmp_path, monkeypatch):
    dicom.check_dicom([case], "cases.tsv", [case])
    without = dataclasses.replace(case, dicom="")
    dicom.check_dicom([without], "cases.tsv", [case, without])  # of another chunk
    with pytest.raises(InputError, match="no case names a DICOM series; name the folder"):
        dicom.check_dicom([without], "cases.tsv", [without])
    gone = dataclasses.replace(case, dicom=str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"gone: is no folder; correct column dicom .*\(a\)"):
        dicom.check_dicom([gone], "cases.tsv", [gone])
    skipped = dataclasses.replace(gone, status="skipped")
    dicom.check_dicom([case, skipped], "cases.tsv", [case, skipped])
    with pytest.raises(InputError, match=r"gone: No such file or directory; correct column dicom"):
        dicom.series_files(gone)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="highdicom is not installed; run pip install highdicom"):
        dicom.check_dicom([case], "cases.tsv", [case])


def test_the_column_is_read_relative_to_the_table_and_kept(tmp_path):
    (tmp_path / "cohort.tsv").write_text(
        "case_id\tlabels\tdicom\tcut\na\ta.nii\tseries/a\t\nb\tb.nii\t\taorta\n"
    )
    cases = read_case_table(tmp_path / "cohort.tsv")
    assert [c.dicom for c in cases] == [str(tmp_path / "series/a"), ""]
    write_cases(tmp_path / "cases.tsv", cases)
    assert read_checked_cases(tmp_path / "cases.tsv") == cases
    header = (tmp_path / "cases.tsv").read_text().splitlines()[0].split("\t")
    assert header[-2:] == ["cut", "dicom"]
    write_cases(tmp_path / "cases.tsv", [dataclasses.replace(c, cut="") for c in cases])
    assert [c.dicom for c in read_checked_cases(tmp_path / "cases.tsv")] == [c.dicom for c in cases]
    write_cases(tmp_path / "cases.tsv", [dataclasses.replace(c, dicom="", cut="") for c in cases])
    assert "dicom" not in (tmp_path / "cases.tsv").read_text()
