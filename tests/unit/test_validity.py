"""Valid anatomy: distances between classes, and rules as strict as the training hearts bear."""

from __future__ import annotations

import numpy as np
import pytest
from hearts import heart
from scipy.ndimage import distance_transform_edt

from cardiform.anatomy.validity import ALWAYS, FACE, FAR, SPARE, Anatomy, gaps

ONE_PART = [range(1, 2)] * 3
TWO = [range(1, 2)] * 2
ALL = np.ones(3, bool)


def learned(hearts, parts=ONE_PART, known=None):
    return Anatomy.of(((h, ALL[: len(parts)] if known is None else known) for h in hearts), parts)


def boxes(between: int, aside: int = 0) -> np.ndarray:
    """Two classes with some voxels between them, one of them moved aside."""
    data = np.zeros((14, 9, 9), np.uint8)
    data[1:4, 1:4, 1:4] = 1
    data[4 + between : 7 + between, 1 + aside : 4 + aside, 1:4] = 2
    return data


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_a_distance_transform(seed, order):
    rng = np.random.default_rng(seed)
    data = np.zeros((12, 9, 10), np.uint8)
    for channel in range(1, 6):  # blocks that may cover each other
        corner = rng.integers(0, 8, 3)
        data[tuple(slice(c, c + rng.integers(1, 4)) for c in corner)] = channel
    found = gaps(np.asarray(data, order=order), 5)
    for a in range(1, 6):
        away = distance_transform_edt(data != a)
        for b in set(range(1, 6)) - {a}:
            there = (data == a).any() and (data == b).any()
            least = round(away[data == b].min() ** 2) if there else FAR
            assert found[a - 1, b - 1] == (least if least <= SPARE[-1] else FAR)


def test_rules_of_hearts_that_are_alike_are_strict():
    anatomy = learned([heart(), heart(1)])
    assert anatomy.spare == FACE
    assert all(anatomy.check(heart(2)).values())
    split = heart()
    split[7, 7, 7] = 3
    assert not anatomy.check(split)["connected"]
    lost = np.where(heart() == 3, 0, heart())
    assert not anatomy.check(lost)["complete"] and not anatomy.check(lost)["touching"]
    leaking = heart()
    leaking[4, 2:4, 2:4] = 2  # the wall is open towards class 3
    assert not anatomy.check(leaking)["apart"]


def in_pieces(number: int) -> np.ndarray:
    """A class of one part, and one in pieces."""
    data = np.zeros((20, 6, 6), np.uint8)
    data[1:19, 1:3, 1:5] = 1
    data[1 : 1 + 2 * number : 2, 3, 2] = 2
    return data


def test_a_class_that_training_hearts_have_in_pieces_may_have_any_number_of_them():
    thin = learned([in_pieces(n) for n in (4, 5, 1, 6)], TWO)
    assert thin.check(in_pieces(8))["connected"]
    split = in_pieces(8)
    split[10:12, 1:3, 1:5] = 0
    assert not thin.check(split)["connected"], "the other class is judged as ever"
    few = learned([in_pieces(1)] * 18 + [in_pieces(3)] * 2, TWO)
    assert not few.check(in_pieces(3))["connected"], "a tenth of them are faults"
    one = learned([in_pieces(1)] * 2 + [in_pieces(3)], TWO)
    assert not one.check(in_pieces(3))["connected"], "one heart is no rule"
    unknown = learned([in_pieces(1), in_pieces(4)], TWO, np.array([True, False]))
    assert not unknown.check(in_pieces(4))["connected"], "nothing is known of it"


def test_a_contact_that_a_training_heart_lacks_by_an_edge_is_no_fault_in_another():
    train = [boxes(0)] * 19 + [boxes(0, 3)]  # in the last of them, two classes share an edge alone
    anatomy = learned(train, TWO)
    assert anatomy.touching[0, 1] and anatomy.spare == 2
    assert anatomy.check(boxes(0, 3))["touching"]
    assert not anatomy.check(boxes(1))["touching"], "a voxel lies between"
    assert learned(train[:-1], TWO).spare == FACE
    assert not learned([*train[1:], *[boxes(2)] * 3], TWO).touching[0, 1], f"below {ALWAYS:.0%}"


def test_a_heart_that_no_room_makes_valid_is_no_reason_to_give_some():
    anatomy = learned([boxes(0)] * 19 + [boxes(3)], TWO)
    assert anatomy.touching[0, 1] and anatomy.spare == FACE
    assert not anatomy.check(boxes(1))["touching"]


def test_classes_that_come_near_in_some_hearts_are_not_held_apart_by_few():
    near, far = boxes(1), boxes(4)
    assert learned([far] * 12, TWO).apart[0, 1]
    assert learned([far] * 11 + [near], TWO).apart[0, 1], "no training heart says otherwise"
    # one of twelve touches: the other eleven hold them apart, and call it not valid
    anatomy = learned([far] * 11 + [boxes(0)], TWO)
    assert not anatomy.apart[0, 1]


def test_room_is_given_until_training_hearts_are_valid_by_the_others():
    def four(first, second):
        """Classes in a row: 1 and 2, 3 and 4 with some voxels between, 2 and 3 far apart."""
        return np.concatenate([boxes(first), np.where(boxes(second), boxes(second) + 2, 0)])

    parts, known = [range(1, 2)] * 4, np.ones(4, bool)
    usual = [four(1, 1)] * 14
    strict = learned(usual, parts, known)
    assert strict.apart[0, 1] and strict.apart[2, 3] and strict.apart[1, 2]
    # Classes 1 and 2 touch in one heart, though no other comes nearer than with a voxel between:
    # so what classes 3 and 4 never did with a voxel between, they may still do.
    anatomy = learned([*usual, four(0, 1)], parts, known)
    assert not anatomy.apart[0, 1] and not anatomy.apart[2, 3]
    assert anatomy.apart[1, 2], "far apart in all of them"


def test_many_hearts_are_a_rule_without_room():
    near = boxes(0, 3)  # an edge between them in each
    few, many = learned([near] * 10, TWO), learned([near] * 60, TWO)
    assert not few.apart[0, 1], "another place of the grid, and they touch"
    assert many.apart[0, 1]
    mixed = [near] * 120 + [boxes(0)]
    assert learned(mixed, TWO).apart[0, 1], "one of 121"
    assert not learned(mixed[100:], TWO).apart[0, 1], "one of 21"


def test_what_no_heart_shows_is_no_rule():
    anatomy = learned([heart()], known=np.array([True, True, False]))
    assert not anatomy.touching[:, 2].any() and not anatomy.apart[:, 2].any()
    assert anatomy.touching[0, 1]
    assert not anatomy.check(np.zeros_like(heart()), np.array([True, False, False]))["complete"]
