"""Label maps of a few voxels: what the check accepts is sampled, what it refuses is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardiform.cohort.checks import check_case
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.geometry.cases import mesh_case, sample_case
from cardiform.geometry.lookup import StoredField
from cardiform.geometry.points_check import COARSE_SLOPE, SLOPE
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions, PointsOptions
from cardiform.volumes import save_label_map

TABLE = LabelTable()
POINTS = PointsOptions(
    surface_points=1000, min_class_points=100, near_points=1500, volume_points=1000
)
WORDS = "voxels only: too little for surfaces and distances"
NOTHING_LEFT = "is cut by its border in every class, and no surface is left"


def problems_at_check(case, folder) -> list[str]:
    (report,) = check_case(case, TABLE, folder)
    return json.loads(report.read_text())["problems"]


def problems_at_sampling(case, folder) -> list[str]:
    """All that stops the stages of a case."""
    try:
        mesh_case(case, table=TABLE, options=MeshesOptions(), out=folder)
        sample_case(case, table=TABLE, options=POINTS, meshes=folder, out=folder / "points")
    except InputError as error:
        return error.problems
    return []


def case_of(folder, data, spacing=(1.0, 1.0, 1.0)) -> Case:
    path = folder / "a.nii.gz"
    affine = np.diag([-spacing[0], *spacing[1:], 1.0])
    affine[:3, 3] = [90, -12, 33]
    save_label_map(path, data, affine)
    return Case(case_id="a", patient_id="a", labels=str(path))


def placed(part) -> np.ndarray:
    data = np.zeros(np.array(np.shape(part)) + 6, np.uint8)
    data[tuple(slice(3, 3 + n) for n in np.shape(part))] = part
    return data


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A part of one to twelve voxels each way, solid, noisy, sparse, nested or round; spacing."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 13 if seed % 3 == 0 else 6, 3)
    part = np.ones(size, np.uint8)
    kind = seed % 5
    if kind == 1:
        part = rng.integers(0, 4, size)
    elif kind == 2:
        part = (rng.random(size) < 0.3) * rng.integers(1, 3, size)
    elif kind == 3:
        part[tuple(slice(n // 3, max(n // 3 + 1, n - n // 3)) for n in size)] = 2
    elif kind == 4:
        index = np.moveaxis(np.indices(size), 0, -1) - (size - 1) / 2
        part = np.linalg.norm(index / np.maximum(size / 2, 0.5), axis=-1) <= 1
    if not np.any(part):
        part[0, 0, 0] = 1
    spacing = 10 ** rng.uniform(-0.5, 0.5, 3) if seed % 2 else np.ones(3)
    return placed(part), spacing


@pytest.mark.parametrize("margin", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_what_the_check_accepts_is_sampled_and_the_rest_is_refused_alike(
    tmp_path, seed, margin
) -> None:
    data, spacing = drawn(seed)
    if not margin:  # up to the border of the image on some sides
        first = np.random.default_rng(seed).integers(0, 2, (3, 2)) * 3
        data = data[tuple(slice(a, n - b) for n, (a, b) in zip(data.shape, first))]
    case = case_of(tmp_path, data, spacing)
    found = problems_at_check(case, tmp_path / "qc")
    assert problems_at_sampling(case, tmp_path / "meshes") == found
    assert all(line.startswith(case.labels) for line in found)
    assert all(WORDS in line or NOTHING_LEFT in line for line in found)


def shells() -> np.ndarray:
    part = np.zeros((6, 6, 6), np.uint8)
    part[:] = 5
    part[1:-1, 1:-1, 1:-1] = 0
    part[2:-2, 2:-2, 2:-2] = 5
    return part


@pytest.mark.parametrize(
    ("part", "spacing", "accepted"),
    [
        (np.ones((1, 1, 1)), (1.5, 1.5, 1.5), False),
        (np.ones((2, 2, 2)), (1, 1, 1), False),
        (np.ones((2, 2, 2)), (0.4, 0.4, 3), False),
        (np.ones((5, 5, 1)), (0.4, 0.4, 3), False),  # 2 x 2 x 3 mm of voxels of 3 mm
        (np.ones((3, 3, 4)), (2, 1, 1), True),
        (np.ones((3, 4, 5)), (0.5, 0.5, 2.5), True),
        (np.ones((3, 1, 1)), (1, 1, 1), True),
        (shells(), (1, 1, 1), True),
    ],
)
def test_three_of_the_longest_edges_are_enough(tmp_path, part, spacing, accepted) -> None:
    case = case_of(tmp_path, placed(part), spacing)
    found = problems_at_check(case, tmp_path / "qc")
    assert (found == []) is accepted
    assert problems_at_sampling(case, tmp_path / "meshes") == found


def test_a_speck_beside_a_heart_is_sampled(tmp_path) -> None:
    data = placed(np.ones((12, 12, 12)))
    data[0, 0, 0] = 9
    case = case_of(tmp_path, data)
    assert problems_at_check(case, tmp_path / "qc") == []
    assert problems_at_sampling(case, tmp_path / "meshes") == []


def test_hearts_are_held_to_the_narrow_limits(tmp_path, monkeypatch) -> None:
    """From eight voxels of radius on: distances that are 0.85 as steep are refused."""
    assert COARSE_SLOPE[0] < 0.85 < SLOPE[0]
    lookup = StoredField.lookup
    monkeypatch.setattr(StoredField, "lookup", lambda *a: lookup(*a) * np.float32(0.85))
    for size, refused in ((4, False), (14, True)):
        case = case_of(tmp_path, placed(np.ones((size,) * 3)))
        found = problems_at_sampling(case, tmp_path / f"meshes{size}")
        assert any("the slope of the distances is 0.8" in line for line in found) is refused
