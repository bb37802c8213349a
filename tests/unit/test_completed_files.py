"""Completed label maps as files: their names and formats, whatever model makes the classes."""

from __future__ import annotations

import functools

import nibabel as nib
import numpy as np
import pytest
from nifti_files import AFFINE

from cardiform.completion.files import check_names, complete_file, complete_files
from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.volumes import load_label_map

TABLE = LabelTable()

OTHER_FORMATS = {
    "a.mgz": nib.MGHImage, "a.mgh": nib.MGHImage, "a.hdr": nib.Nifti1Pair,
    "a.img.gz": nib.Nifti1Pair, "a.nii.bz2": nib.Nifti1Image, "A.NII.GZ": nib.Nifti1Image,
    "a.nii": nib.Nifti1Image,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_a_label_map_of_any_format_is_written_as_a_file_that_can_be_read(tmp_path, name):
    class Known:
        table = TABLE

        def complete(self, label_map, requests, case=None):
            return [np.where(label_map.data, label_map.data, TABLE.values[1])]

    data = np.zeros((12, 13, 14), np.uint8)
    data[3:9, 3:9, 3:9] = TABLE.values[0]
    given, out = tmp_path / name.lower(), tmp_path / "out"
    nib.save(OTHER_FORMATS[name](data, AFFINE), given)
    given.rename(tmp_path / name)
    how = functools.partial(complete_file, missing=TABLE.names[1:2], completer=Known())
    complete_files([tmp_path / name], out, how)
    (made,) = (path for path in out.iterdir() if path.name.lower().endswith((".nii", ".nii.gz")))
    expected = np.where(data, data, TABLE.values[1])
    assert made.name.split(".")[0] == name.split(".")[0]
    assert (load_label_map(made).data == expected).all()


def test_two_files_that_would_be_one_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.mgz: is called like .*a\.hdr"):
        check_names([tmp_path / "a.hdr", tmp_path / "a.mgz"], tmp_path / "out")
