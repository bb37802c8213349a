"""Real coronary trees that nobody corrupted: the repair leaves them as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardiform.anatomy.components import components, count_components
from cardiform.cohort.table import Case
from cardiform.coronary.repair_case import repair_case
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.labels import LabelTable
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.volumes import load_label_map

TABLE = LabelTable()
CORONARY = TABLE[TABLE.channel("coronary")].value


def repaired(path, out):
    """Given and repaired structure on their own grid, and the report."""
    case = Case(case_id="tree", patient_id="tree", labels=str(path))
    repair_case(case, table=TABLE, options=CoronaryRepairOptions(), out=out)
    given = load_label_map(path).data == CORONARY
    return given, load_label_map(out / "tree.nii.gz").data > 0, json.loads(
        (out / "tree.json").read_text()
    )  # fmt: skip


def kept(given, made):
    assert count_components(made) == count_components(given)
    assert made.sum() == pytest.approx(given.sum(), rel=0.03)
    assert 2 * (made & given).sum() / (made.sum() + given.sum()) > 0.97


def test_two_whole_trees(tmp_path, real_hearts):
    """Left and right tree of an anatomical model, both at the aorta."""
    given, made, report = repaired(real_hearts / "anatomy_ten_classes.nii.gz", tmp_path)
    assert count_components(given) == report["components_after"] == 2
    kept(given, made)
    thin = ThinStructure.load(tmp_path / "tree.npz")
    labelled, voxels = components(thin.repaired)
    assert len(voxels) == 3
    assert set(np.unique(labelled[thin.roots])) == {0, 1, 2}, "each springs from the aorta"
    assert np.bincount(labelled[thin.roots])[1:].max() < 0.1 * voxels[1:].min()


def test_a_vessel_in_slices_of_3_mm(tmp_path, real_data):
    given, made, report = repaired(real_data / "thorax_heart1_lad9.nii.gz", tmp_path)
    assert count_components(given) == 1 and report["bridges"] == 0
    kept(given, made)
