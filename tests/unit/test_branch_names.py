"""Names of coronary branches on phantoms, and on hearts that are made otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_trees import (
    CORONARY,
    VALUES,
    erased,
    figures_of,
    phantom,
    traced_tree,
    with_tube,
)

from cardiform.volumes import LabelMap

SEEDS = range(6)
LEFT_MAIN, LAD, LCX, RCA = 0, 1, 2, 5  # of the phantom's branches, where nothing else is said


def numbers(heart, name: str) -> list[int]:
    """The branches of a phantom with a name."""
    return [k for k, b in enumerate(heart.coronary_branches()) if b.name == name]


def lengths(forest, named) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, branch in zip(named.names, forest.branches):
        found[name] = found.get(name, 0.0) + branch.length
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_phantoms_are_named(seed):
    heart, label_map = phantom(seed)
    forest, named = traced_tree(label_map)
    figures = figures_of(heart, forest, named)
    assert figures["named"] >= 0.95 and figures["found"] >= 0.95, figures
    assert figures["radius_error"] <= 0.2 and figures["invented"] <= 0.02, figures
    assert named.origins[:2] == ("aorta", "aorta") and not any(named.origins[2:])
    sides = {branch.tree: side for branch, side in zip(forest.branches, named.sides)}
    assert {sides[0], sides[1]} == {"left", "right"} and named.notes == ()
    mains = {n for n, course in zip(named.names, named.courses) if course == "main"}
    assert mains == {"left_main", "LAD", "LCX", "RCA"}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_heart_has_the_same_names(axis):
    """Dextrocardia: the names come from the structures."""
    heart, label_map = phantom(2)
    affine, mirror = label_map.affine.copy(), np.ones(3)
    affine[axis] *= -1
    mirror[axis] = -1
    forest, named = traced_tree(LabelMap(label_map.data, affine))
    figures = figures_of(heart, forest, named, mirror)
    assert figures["named"] >= 0.95 and figures["radius_error"] <= 0.2


def test_the_axes_of_the_file_do_not_count():
    heart, label_map = phantom(1)
    data = np.ascontiguousarray(label_map.data.transpose(2, 0, 1)[::-1])
    affine = label_map.affine[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (data.shape[0] - 1)
    affine[:3, 0] *= -1
    forest, named = traced_tree(LabelMap(data, affine))
    assert figures_of(heart, forest, named)["named"] >= 0.95


@pytest.mark.parametrize("absent", ["LCX", "LAD", "RCA"])
def test_an_absent_vessel_is_not_made_up(absent):
    heart, label_map = phantom(2)
    forest, named = traced_tree(erased(heart, label_map, numbers(heart, absent)))
    found = lengths(forest, named)
    assert found.get(absent, 0.0) < 10, found
    for name in {"LAD", "LCX", "RCA"} - {absent}:
        assert found[name] > 60, found
    assert "left_main" not in found or absent == "RCA", "without a fork there is no left main"


def test_a_single_coronary():
    """The right artery leaves the left main; none begins at the aorta."""
    heart, label_map = phantom(2)
    branches = heart.coronary_branches()
    [main, *_] = numbers(heart, "RCA")
    right = branches[main].points
    away = np.cumsum(np.linalg.norm(np.diff(right, axis=0), axis=1))
    start = int(np.searchsorted(away, 16.0))
    near = np.linalg.norm(right[:start].mean(axis=0) - voxels(label_map), axis=1) < 11
    data = label_map.data.copy()
    index = np.argwhere(data == CORONARY)[near]
    data[tuple(index.T)] = 0
    joined = LabelMap(data, label_map.affine)
    left = branches[0].points
    front = left[0] + [10, 45, 20]
    arch = np.array([left[len(left) // 2], left[0] + [-25, 30, 22], front, right[start]])
    forest, named = traced_tree(with_tube(joined, arch, 1.8))
    springing = [k for k, origin in enumerate(named.origins) if origin == "aorta"]
    assert len(springing) == 1
    found = lengths(forest, named)
    assert found["RCA"] > 100 and found["LAD"] > 60 and found["LCX"] > 50, found
    assert found["common_trunk"] > 5, found


def test_a_bypass_graft():
    heart, label_map = phantom(2)
    branches = heart.coronary_branches()
    lad = branches[1].points
    aorta = np.argwhere(label_map.data == VALUES["aorta"])
    world = aorta @ label_map.affine[:3, :3].T + label_map.affine[:3, 3]
    high = world[(world[:, 2] > world[:, 2].max() - 6) & (world[:, 1] > -30)]
    front = high[high[:, 1].argmax()]
    target = lad[len(lad) * 2 // 3]
    way = np.array([front, front + [-20, 34, -8], (front + target) / 2 + [-14, 36, 0], target])
    forest, named = traced_tree(with_tube(label_map, way, 1.9, over_all=False))
    graft = [b for b, name in zip(forest.branches, named.names) if name == "graft"]
    assert len(graft) == 1 and graft[0].length > 40
    assert np.linalg.norm(graft[0].points[0] - front) < 6
    assert any("graft" in note for note in named.notes)
    others = [b for b in heart.coronary_branches() if b.name in ("LCX", "RCA")]
    found = lengths(forest, named)
    for name in ("LCX", "RCA"):
        drawn = sum(b.radii.size and length_of(b.points) for b in others if b.name == name)
        assert found[name] == pytest.approx(drawn, rel=0.15)


def test_an_origin_from_the_pulmonary_artery():
    heart, label_map = phantom(2)
    left = heart.coronary_branches()[0].points
    without = erased(heart, label_map, [LEFT_MAIN])
    artery = np.argwhere(label_map.data == VALUES["pulmonary_artery"])
    world = artery @ label_map.affine[:3, :3].T + label_map.affine[:3, 3]
    near = world[np.linalg.norm(world - left[-1], axis=1).argmin()]
    tree = with_tube(without, np.array([near, left[-1]]), 1.8)
    forest, named = traced_tree(tree)
    assert sorted(named.origins[:2]) == ["aorta", "pulmonary_artery"]
    figures = figures_of(heart, forest, named)
    assert figures["named"] >= 0.93, figures
    assert any("springs from the pulmonary artery" in note for note in named.notes)


def test_a_broken_tree_keeps_its_names():
    heart, label_map = phantom(4)
    branches = heart.coronary_branches()
    data = label_map.data.copy()
    index = np.argwhere(data == CORONARY)
    world = voxels(label_map)
    for number in (LAD, LCX, len(numbers(heart, "LAD")) + len(numbers(heart, "LCX")) + 1):
        place = branches[number].points[len(branches[number].points) * 3 // 5]
        data[tuple(index[np.linalg.norm(world - place, axis=1) < 4.0].T)] = 0
    forest, named = traced_tree(LabelMap(data, label_map.affine))
    assert named.origins.count("aorta") == 2 and named.origins.count("") >= 2
    figures = figures_of(heart, forest, named)
    assert figures["named"] >= 0.95, figures


@pytest.mark.parametrize(
    ("gone", "sides"),
    [
        (("right_atrium",), {"left", "right"}),
        (("left_atrium", "right_atrium", "left_atrial_appendage"), {"left", "right"}),
        (tuple(n for n in VALUES if n != "coronary"), {"unknown"}),
    ],
    ids=["no right atrium", "no atria", "nothing else"],
)
def test_without_the_structures_there_are_no_names(gone, sides):
    heart, label_map = phantom(0)
    data = np.where(np.isin(label_map.data, [VALUES[n] for n in gone]), 0, label_map.data)
    forest, named = traced_tree(LabelMap(data.astype(np.uint8), label_map.affine))
    assert set(named.names) == {"unnamed"} and set(named.sides) == sides
    assert any("no names: the label map lacks" in note for note in named.notes)
    assert figures_of(heart, forest, named)["found"] >= 0.95


def test_a_missing_appendage_changes_nothing():
    heart, label_map = phantom(3)
    data = np.where(label_map.data == VALUES["left_atrial_appendage"], np.uint8(0), label_map.data)
    forest, named = traced_tree(LabelMap(data, label_map.affine))
    assert figures_of(heart, forest, named)["named"] >= 0.95


def voxels(label_map) -> np.ndarray:
    """(N, 3) RAS mm of the coronary voxels."""
    index = np.argwhere(label_map.data == CORONARY)
    return index @ label_map.affine[:3, :3].T + label_map.affine[:3, 3]


def length_of(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
