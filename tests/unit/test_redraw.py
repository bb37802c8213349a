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
        self.kept[number] = sample, drawn
        if len(self.asked) == self.stopped:
            raise KeyboardInterrupt

    def run(self, redraw, numbers, stopped=0):
        """stopped : in so many calls of it, after the first sample of the last."""
        self.stopped, self.asked = stopped, []
        before = {number: how for number, (_, how) in self.kept.items()}
        redraw.draw(numbers, before, self.make, lambda sample: sample, self.keep)

    def drawn(self):
        return {number: how for number, (_, how) in self.kept.items()}


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
    assert bench.drawn() == {0: Drawn(1), 1: Drawn(3), 2: Drawn(2), 3: Drawn(3, fits=False)}
    assert np.array_equal(bench.kept[1][0], heart()) and np.array_equal(bench.kept[3][0], heart(3))


def test_a_stopped_call_is_gone_on_with(cohort):
    """No draw is made twice, and what comes out is what one call makes."""
    bench, whole = (Bench((0,), (3, 3, 0), (3, 0), (3, 3, 3)) for _ in range(2))
    whole.run(redraw_of(cohort), [0, 1, 2, 3])
    with pytest.raises(KeyboardInterrupt):
        bench.run(redraw_of(cohort), [0, 1, 2, 3], stopped=2)
    assert bench.drawn()[1] == Drawn(2, fits=False)
    bench.run(redraw_of(cohort), [0, 1, 2, 3])
    assert bench.asked == [([2, 3], APART), ([1, 3], 2 * APART)]
    assert bench.drawn() == whole.drawn()
    bench.run(redraw_of(cohort), [0, 1, 2, 3])
    assert not bench.asked, "all is done"


def test_more_draws_go_on_with_what_does_not_fit(cohort):
    bench = Bench((0,), (3, 3, 0))
    bench.run(redraw_of(cohort, most=1), [0, 1])
    assert bench.drawn() == {0: Drawn(), 1: Drawn(2, fits=False)}
    more = redraw_of(cohort, most=2)
    assert more.key == redraw_of(cohort, most=1).key
    bench.run(more, [0, 1])
    assert bench.drawn()[1] == Drawn(3) and redraw_of(cohort, most=1).current(Drawn(2))
    assert not redraw_of(cohort, most=1).current(Drawn(3)), "fewer would not have come so far"


def test_a_class_that_few_training_hearts_have_is_not_asked_for(cohort):
    for name in ("a", "b"):
        data = heart()
        data[data == 2] = 0
        save_label_map(cohort / f"{name}.nii.gz", data, GRID.cube(np.zeros(3)).affine)
    bench = Bench((9,))  # no voxel of the second class
    bench.run(redraw_of(cohort), [0])
    assert bench.drawn() == {0: Drawn()}


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
    assert first == redraw_of(cohort).key
    other = GRID.stored()
    other["classes"][0]["most"] += 1
    write_json(cohort / "grid.json", other)
    assert redraw_of(cohort).key != first, "a class may have more parts"
    write_json(cohort / "grid.json", GRID.stored())
    save_label_map(cohort / "a.nii.gz", heart(3), GRID.cube(np.zeros(3)).affine)
    assert redraw_of(cohort).key != first, "classes that need not touch"


def test_what_it_cannot_learn_rules_from_is_refused(cohort):
    with pytest.raises(InputError, match="--redraw needs --voxels and --train"):
        Redraw.of(2, None, cohort / "train.csv", GRID)
    other = Grid(LABELS, 12, 61.0, TABLE)
    with pytest.raises(InputError, match=r"manifest\.tsv: is of another grid than the model"):
        redraw_of(cohort, grid=other)
    write_split(cohort / "train.csv", [Case(case_id="z", patient_id="z", labels="x")], cohort)
    with pytest.raises(InputError, match=r"train\.csv: has no case among the voxels"):
        redraw_of(cohort)
