"""Generated hearts without specks."""

from __future__ import annotations

import numpy as np
import pytest

from cardiform.anatomy.components import count_components
from cardiform.labels import LabelClass, LabelTable
from cardiform.ldm.samples import class_meshes
from cardiform.ldm.specks import without_specks

TABLE = LabelTable(
    (
        LabelClass(value=1, name="wall", title="Wall", color="#111111"),
        LabelClass(value=2, name="veins", title="Veins", color="#222222", components=3, fewest=2),
    )
)


def heart() -> np.ndarray:
    """Classes: a wall with a speck of two voxels in the background and one within the veins, and
    four parts of veins, the least of them a voxel."""
    values = np.zeros((16, 16, 16), int)
    values[1:7, 1:7, 1:7] = 1
    values[10, 10, 2:4] = 1
    values[9:14, 9:14, 9:14] = 2
    values[11, 11, 11] = 1
    values[1:4, 10:13, 1:4] = 2
    values[1:4, 1:4, 12:15] = 2
    values[8, 1, 14] = 2
    return values


def logits_of(values: np.ndarray) -> np.ndarray:
    return np.stack([np.where(values == k, 2.0, -1.0) for k in range(3)]).astype(np.float32)


def test_specks_belong_to_what_surrounds_them():
    values = heart()
    given = logits_of(values)
    given[2][11, 11, 11] = 1.0  # the next best there
    before = given.copy()
    found = without_specks(given, TABLE, 0.05)
    expected = values.copy()
    expected[10, 10, 2:4] = 0
    expected[11, 11, 11] = 2
    expected[8, 1, 14] = 0
    assert (found.argmax(axis=0) == expected).all()
    assert (given == before).all(), "what was given is not changed"
    changed = values != expected
    assert (found[:, ~changed] == given[:, ~changed]).all()


def test_surfaces_are_closed_where_a_speck_was():
    before, after = (
        class_meshes(logits, TABLE, np.eye(4))
        for logits in (logits_of(heart()), without_specks(logits_of(heart()), TABLE, 0.05))
    )
    assert before["wall"].vertices.max() > 9 > 7 > after["wall"].vertices.max()


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_a_part_that_is_large_enough_stays(share):
    given = logits_of(heart())
    assert (without_specks(given, TABLE, share) == given).all()


def test_usual_parts_stay_however_small_they_are():
    values = heart()
    values[1:4, 1:4, 12:15] = 0
    values[8, 1, 14] = 2  # the third of the veins, of which three are usual
    found = without_specks(logits_of(values), TABLE, 0.5).argmax(axis=0)
    assert count_components(found == 2) == 3 and found[8, 1, 14] == 2


def test_equal_logits_do_not_keep_a_speck():
    given = logits_of(heart())
    given[0][10, 10, 2:4] = 2.0  # argmax takes the first of equals: the wall must not be it
    given[1][10, 10, 2:4] = np.nextafter(np.float32(2.0), np.float32(3.0))
    assert (without_specks(given, TABLE, 0.05).argmax(axis=0)[10, 10, 2:4] == 0).all()
