"""The benchmark of real hearts: what it keeps has a key, and a class may be in no heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cardiform.cohort.table import Case
from cardiform.volumes import save_label_map

pytestmark = pytest.mark.no_cover


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import real_hearts

    return real_hearts


@pytest.fixture
def heart(tmp_path):
    """A heart of 1 ml of myocardium (8 mm3 a voxel), and what was made of it: half of that."""
    labels, affine = np.zeros((8, 8, 8), np.uint8), np.diag([2.0, 2, 2, 1])
    labels.flat[:125] = 1
    save_label_map(tmp_path / "heart.nii.gz", labels, affine)
    labels.flat[:63] = 0
    save_label_map(tmp_path / "made" / "heart.nii.gz", labels, affine)
    return Case(case_id="heart", patient_id="heart", labels=str(tmp_path / "heart.nii.gz"))


def test_what_other_settings_made_is_refused(benchmark, tmp_path):
    path = tmp_path / "new" / "model.pt"
    assert benchmark.to_make(path, steps=3, start="")
    assert benchmark.to_make(path, steps=4, start="")  # nothing was made by the call before
    path.write_text("made")

    assert not benchmark.to_make(path, steps=4, start="")
    with pytest.raises(SystemExit, match=r"model.pt: made with other settings \(steps\); give"):
        benchmark.to_make(path, steps=5, start="")


def test_what_has_no_key_is_refused(benchmark, tmp_path):
    (tmp_path / "model.pt").write_text("made")
    with pytest.raises(SystemExit, match=r"other settings \(steps\)"):
        benchmark.to_make(tmp_path / "model.pt", steps=5)


def test_volumes_of_hearts_that_lack_classes(benchmark, heart, tmp_path, capsys):
    benchmark.print_volumes({"real": [(heart, tmp_path)]})
    printed = capsys.readouterr().out

    assert "real myocardium: 1 1 1 ml, 1 hearts\n" in printed
    assert "real coronary: none\n" in printed


def test_volume_of_what_was_made_as_a_share(benchmark, heart, tmp_path):
    row = benchmark.shares([(heart, tmp_path)], tmp_path / "made")["heart"]

    assert row.pop("myocardium") == 62 / 125
    assert set(row.values()) == {None}
