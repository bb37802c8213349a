"""What the stages after extract_meshes read of a case, and what they need not read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cardiform import volumes
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import read_json, write_json
from cardiform.geometry import cases, meshed
from cardiform.geometry.cases import mesh_case, sample_case, voxelize_case
from cardiform.geometry.field_of_view import cuts_of
from cardiform.geometry.meshed import MeshedCase
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions

TABLE = LabelTable()
POINTS = PointsOptions(surface_points=400, min_class_points=50, near_points=400, volume_points=400)


def write_heart(folder, *, cut: bool = False, flip: bool = False) -> Case:
    """Two balls, of which the lower one leaves the volume where ``cut``."""
    index = np.indices((40, 36, 32))
    data = np.zeros((40, 36, 32), np.uint8)
    data[np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (12, 17, 15)))) < 8] = 3
    low = 3 if cut else 15
    data[np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (29, 17, low)))) < 7] = 1
    path = folder / "a.nii.gz"
    volumes.save_label_map(path, data[:, ::-1] if flip else data, np.diag([0.8, 0.8, 1.0, 1]))
    return Case(case_id="a", patient_id="a", labels=str(path), status="ok")


def meshed_case(case: Case, folder) -> MeshedCase:
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder / "meshes")
    return MeshedCase.load(case, TABLE, folder / "meshes")


def run_both(case: Case, folder) -> None:
    common = {"table": TABLE, "meshes": folder / "meshes"}
    sample_case(case, options=POINTS, out=folder / "points", **common)
    voxelize_case(case, options=VoxelsOptions(resolution=32), out=folder / "voxels", **common)


@pytest.mark.parametrize("cut", [False, True])
def test_a_label_map_is_unpacked_once_for_all_three_stages(tmp_path, monkeypatch, cut):
    case, opened = write_heart(tmp_path, cut=cut), []

    def load(path):
        opened.append(path)
        return volumes.load_label_map(path)

    monkeypatch.setattr(cases, "load_label_map", load)
    monkeypatch.setattr(meshed, "load_label_map", load)
    found = meshed_case(case, tmp_path)
    run_both(case, tmp_path)
    assert len(opened) == 1
    assert found.cuts == {} if not cut else found.cuts[1].planes[0].side == -1


@pytest.mark.parametrize("cut", [False, True])
def test_what_the_frame_says_is_what_the_label_map_says(tmp_path, cut):
    case = write_heart(tmp_path, cut=cut)
    found = meshed_case(case, tmp_path)
    label_map = volumes.load_label_map(case.labels)
    low, high = volumes.labelled_box(label_map)
    assert found.extent == (high - low + 1).tolist()
    wanted = cuts_of(label_map, TABLE, case)
    assert found.cuts.keys() == wanted.keys()
    assert all(found.cuts[value].planes == wanted[value].planes for value in wanted)


def test_the_fields_of_another_label_map_are_refused_though_it_has_the_same_grid_and_classes(
    tmp_path,
):
    mesh_case(write_heart(tmp_path), table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    other = write_heart(tmp_path, flip=True)
    with pytest.raises(InputError, match=r"was not made from .*a.nii.gz; run extract_meshes again"):
        run_both(other, tmp_path)


@pytest.mark.parametrize("key", ["labels_sha256", "extent"])
def test_a_frame_that_says_less_lets_the_label_map_speak(tmp_path, key):
    case = write_heart(tmp_path, cut=True)
    found = meshed_case(case, tmp_path)
    record = read_json(found.path)
    del record[key]
    write_json(found.path, record)
    again = MeshedCase.load(case, TABLE, tmp_path / "meshes")
    assert again.extent == found.extent
    assert again.cuts[1].planes == found.cuts[1].planes
    run_both(case, tmp_path)


def test_another_word_on_cuts_in_the_case_table_is_heard(tmp_path):
    case = write_heart(tmp_path, cut=True)
    assert set(meshed_case(case, tmp_path).cuts) == {1}
    whole = dataclasses.replace(case, cut="none")
    assert MeshedCase.load(whole, TABLE, tmp_path / "meshes").cuts == {}
