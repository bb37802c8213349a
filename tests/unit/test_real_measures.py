"""Real hearts are measured without an error, whatever classes they have."""

from __future__ import annotations

import pytest

from cardiform.cohort.table import Case
from cardiform.geometry.cases import mesh_case
from cardiform.labels import LabelTable
from cardiform.measures.case import measure_case
from cardiform.measures.table import read_measures
from cardiform.options.geometry import MeshesOptions
from cardiform.options.measures import MeasuresOptions

TABLE = LabelTable()
# class and measure -> ml, cm2 or mm between which it lies in a heart that is alive, or was
USUAL = {
    ("left_ventricle", "long_axis_length"): (50, 120),
    ("myocardium", "wall_thickness_mean"): (4, 20),
    ("left_atrial_appendage", "ostium_area"): (0.3, 8),
    ("left_atrial_appendage", "depth"): (8, 60),
    ("aorta", "radius_mean"): (8, 20),
    ("pulmonary_artery", "radius_max"): (9, 25),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "anatomy_ten_classes", "ct_patient_nine_classes", "exvivo_atria_1", "exvivo_atria_3",
        "mri_biventricular_1_ed", "mri_biventricular_1_es",
    ],
)  # fmt: skip
def test_a_real_heart(name, real_hearts, tmp_path):
    case = Case(case_id=name, patient_id=name, labels=str(real_hearts / f"{name}.nii.gz"))
    mesh_case(case, table=TABLE, options=MeshesOptions(), out=tmp_path / "meshes")
    path, *_ = measure_case(
        case,
        table=TABLE,
        options=MeasuresOptions(),
        meshes=tmp_path / "meshes",
        trees=None,
        out=tmp_path / "measures",
    )
    found = read_measures(path).set_index(["class", "part", "measure"])["value"]
    assert found.index.is_unique and (found > 0).all()
    present = set(found.index.get_level_values("class"))
    seen = 0
    for (structure, measure), (low, high) in USUAL.items():
        if (structure, "whole", measure) in found.index:
            assert low < found[structure, "whole", measure] < high, (structure, measure)
            seen += 1
    assert seen >= (2 if {"myocardium", "left_atrial_appendage"} & present else 0)
    segments = [part for _, part, _ in found.index if part.startswith("segment_")]
    if {"myocardium", "right_ventricle"} <= present:
        assert len(segments) == 17
