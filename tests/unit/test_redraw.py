"""Samples that lack what training hearts have are drawn again."""

from __future__ import annotations

import types

import numpy as np
import pytest

from cardiform.cohort.manifest import write_manifest
from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import write_json
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.ldm.hearts_on_grid import LABELS, Grid
from cardiform.ldm.redraw import APART, Drawn, Redraw
from cardiform.volumes import save_label_map

TABLE = LabelTable(STACOM_2025[:2])
GRID = Grid(LABELS, 12, 60.0, TABLE)


def heart(gap=0) -> np.ndarray:
    """Channels of two blocks, so many voxels apart."""
    data = np.zeros((12, 12, 12), np.uint8)
    data[2:5, 3:8, 3:8] = 1
    data[5 + gap : 9, 3:8, 3:8] = 2
    return data


class Bench:
    """Draws hearts with the gaps that a sample has one after the other."""

    def __init__(self, *gaps):
        self.gaps, self.asked, self.kept = gaps, [], {}

    def make(self, numbers, more):
        self.asked.append((list(numbers), more))
        for number in numbers:
            yield heart(self.gaps[number][more // APART])

    def keep(self, number, sample, drawn):
        assert number not in self.kept
        self.kept[number] = sample, drawn

    def run(self, redraw, numbers):
        redraw.draw(numbers, self.make, lambda sample: sample, self.keep)


@pytest.fixture
def cohort(tmp_path):
    """Three hearts whose blocks touch, on the grid, and their split."""
    names = ["a", "b", "c"]
    rows = []
    for name in names:
        path = tmp_path / f"{name}.nii.gz"
        save_label_map(path, heart(), GRID.cube(np.zeros(3)).affine)
        rows.append((name, path, path.stat().st_size, "0" * 64, "ok"))
    write_manifest(tmp_path / "manifest.tsv", rows)
    write_json(tmp_path / "grid.json", GRID.stored())
    cases = [Case(case_id=n, patient_id=n, labels="x.nii.gz") for n in names]
    write_split(tmp_path / "train.csv", cases, tmp_path)
    return tmp_path


def redraw_of(cohort, most=2, grid=GRID) -> Redraw:
    return Redraw.of(most, cohort / "manifest.tsv", cohort / "train.csv", grid)


def test_only_what_does_not_fit_is_drawn_again(cohort):
    bench = Bench((0,), (3, 3, 0), (3, 0), (3, 3, 3))
    bench.run(redraw_of(cohort), [0, 1, 2, 3])
    assert bench.asked == [([0, 1, 2, 3], 0), ([1, 2, 3], APART), ([1, 3], 2 * APART)]
    drawn = {number: how for number, (_, how) in bench.kept.items()}
    assert drawn == {0: Drawn(1), 1: Drawn(3), 2: Drawn(2), 3: Drawn(3, fits=False)}
    assert np.array_equal(bench.kept[1][0], heart()) and np.array_equal(bench.kept[3][0], heart(3))


def test_without_it_each_is_drawn_once(cohort):
    for redraw in (Redraw(), redraw_of(cohort, most=0)):
        bench = Bench((3,), (0,))
        bench.run(redraw, [0, 1])
        assert bench.asked == [([0, 1], 0)] and bench.kept[0][1] == Drawn()
        assert redraw.figures({"x": Drawn()}) == {} and not redraw.key


def test_fields_without_classes_are_drawn_once():
    field = types.SimpleNamespace(has_classes=False)
    assert Redraw.of(3, None, None, field) == Redraw()


def test_figures_say_how_often_and_what_does_not_fit(cohort, caplog):
    drawn = {"one": Drawn(), "two": Drawn(3, fits=False), "three": Drawn(2)}
    found = redraw_of(cohort).figures(drawn)
    assert found == {"redrawn": {"draws": 6, "fit_at_once": 1 / 3, "unfit": ["two"]}}
    assert "1 of 3 hearts do not fit after 3 draws: two" in caplog.text


def test_the_rules_decide_the_samples(cohort):
    first = redraw_of(cohort).key
    assert first == redraw_of(cohort).key != redraw_of(cohort, most=3).key
    lines = (cohort / "train.csv").read_text().splitlines()
    (cohort / "train.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert redraw_of(cohort).key != first


def test_what_it_cannot_learn_rules_from_is_refused(cohort):
    with pytest.raises(InputError, match="--redraw needs --voxels and --train"):
        Redraw.of(2, None, cohort / "train.csv", GRID)
    other = Grid(LABELS, 12, 61.0, TABLE)
    with pytest.raises(InputError, match=r"manifest\.tsv: is of another grid than the model"):
        redraw_of(cohort, grid=other)
    write_split(cohort / "train.csv", [Case(case_id="z", patient_id="z", labels="x")], cohort)
    with pytest.raises(InputError, match=r"train\.csv: has no case among the voxels"):
        redraw_of(cohort)
