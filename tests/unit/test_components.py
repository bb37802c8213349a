"""Connected components of masks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardiform.anatomy.components import components
from cardiform.cohort.checks import check_case
from cardiform.cohort.table import Case
from cardiform.labels import LabelTable
from cardiform.volumes import save_label_map

SPECKS = [(1, 1, 3), (3, 1, 1), (1, 3, 6), (5, 1, 5), (7, 7, 1), (1, 41, 60), (3, 3, 3), (5, 5, 5)]


@pytest.mark.parametrize("shape", SPECKS)
@pytest.mark.parametrize("order", "CF")
def test_specks_with_a_voxel_between_them_are_counted_in_any_shape(shape, order):
    mask = np.zeros(shape, bool, order=order)
    mask[::2, ::2, ::2] = True
    labelled, voxels = components(mask)
    assert labelled.shape == shape and voxels.tolist()[1:] == [1] * int(mask.sum())
    assert ((labelled > 0) == mask).all()


def test_a_slice_of_specks_is_checked(tmp_path):
    data = np.zeros((9, 9, 9), np.uint8)
    data[::2, 4, ::2] = 1
    save_label_map(tmp_path / "a.nii.gz", data, np.eye(4))
    case = Case(case_id="a", patient_id="a", labels=str(tmp_path / "a.nii.gz"))
    (report,) = check_case(case, LabelTable(), tmp_path)
    (found,) = json.loads(report.read_text())["classes"].values()
    assert found["components"] == 25
