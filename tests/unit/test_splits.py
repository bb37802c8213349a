"""The split by patient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cardiform.cohort import splits
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.options.cohort import SplitOptions


def case(name, patient=None, **more):
    return Case(case_id=name, patient_id=patient or name, labels=f"{name}.nii.gz", **more)


def cases(number, visits=1):
    return [case(f"c{i:04d}", f"p{i // visits:04d}") for i in range(number)]


def test_split_follows_the_patient_and_never_moves():
    options = SplitOptions(validation=0.2, test=0.2, seed=3)
    parts = splits.split_cases(cases(600, visits=2), options)
    place = {c.case_id: part for part, members in parts.items() for c in members}
    by_patient = {}
    for c in cases(600, visits=2):
        by_patient.setdefault(c.patient_id, set()).add(place[c.case_id])
    assert all(len(parts_) == 1 for parts_ in by_patient.values())
    share = Counter(place.values())
    assert 80 < share["val"] < 160 and 80 < share["test"] < 160
    more = splits.split_cases([case("zz"), case("0"), *cases(600, visits=2)], options)
    assert all(place.get(c.case_id, part) == part for part, ms in more.items() for c in ms)
    other = splits.split_cases(cases(600, visits=2), SplitOptions(seed=4))
    assert [c.case_id for c in other["test"]] != [c.case_id for c in parts["test"]]


def test_folds_test_every_patient_once():
    members = cases(200)
    folds = [splits.split_cases(members, SplitOptions(folds=5, fold=k)) for k in range(5)]
    tested = Counter(c.case_id for fold in folds for c in fold["test"])
    assert tested == Counter(c.case_id for c in members)
    assert all(not set(f["test"]) & set(f["train"] + f["val"]) for f in folds)
    for options in (SplitOptions(folds=2), SplitOptions(folds=5, fold=5)):
        with pytest.raises(InputError):
            splits.split_cases(members, options)


def test_an_empty_part_is_told():
    with pytest.raises(InputError, match="a part is empty"):
        splits.split_cases(cases(1), SplitOptions())
    with pytest.raises(InputError, match="nothing to train on"):
        splits.split_cases(cases(50), SplitOptions(validation=0.5, test=0.5))
    parts = splits.split_cases(cases(50), SplitOptions(test=0))
    assert not parts["test"] and parts["train"]
    parts = splits.split_cases(cases(50), SplitOptions(validation=0))
    assert not parts["val"] and parts["train"]


@pytest.mark.parametrize("folder", ["points", "of A, B/points", 'a "b"/points', '"a", b/points'])
def test_any_folder_of_points_can_be_read_back(tmp_path, folder):
    splits.write_split(tmp_path / "train.csv", cases(1), Path(folder))
    assert splits.read_split(tmp_path / "train.csv") == [("c0000", Path(folder) / "c0000.npz")]
    text = (tmp_path / "train.csv").read_text()
    assert "," in folder or text.endswith(f",{folder}/c0000.npz\n"), "as it always was"
    (tmp_path / "train.csv").write_text(text[:-1] + ",x\n")
    with pytest.raises(InputError, match="has 4 of 3 columns"):
        splits.read_split(tmp_path / "train.csv")


def test_split_files_round_trip(tmp_path):
    splits.write_split(tmp_path / "train.csv", cases(2), Path("points"))
    assert (tmp_path / "train.csv").read_text().startswith("case_id,patient_id,path\n")
    assert splits.read_split(tmp_path / "train.csv") == [
        ("c0000", Path("points/c0000.npz")), ("c0001", Path("points/c0001.npz"))
    ]  # fmt: skip
