"""Generated hearts on coarse grids, as label maps are put there."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from cardiform.anatomy.components import count_components
from cardiform.geometry.coarse_to_fine import sample_field
from cardiform.geometry.surface import is_watertight
from cardiform.labels import LabelClass, LabelTable
from cardiform.ldm.cube import Cube
from cardiform.set_diffusion.decoded import Decoded, without_specks

SCALE = 1 / 80  # unit frame: of a cube of 160 mm
TABLE = LabelTable(
    (
        LabelClass(value=3, name="left", title="Left", color="#111111"),
        LabelClass(value=5, name="right", title="Right", color="#222222", components=2),
    )
)


def to_unit(points: np.ndarray) -> np.ndarray:
    return np.asarray(points) * SCALE


def box(points: np.ndarray, low, high) -> np.ndarray:
    """Distance to a box, mm (largest norm)."""
    return np.maximum(np.asarray(low) - points, points - np.asarray(high)).max(axis=1)


def ball(points: np.ndarray, middle, radius: float) -> np.ndarray:
    return np.linalg.norm(points - np.asarray(middle), axis=1) - radius


def field_of(left, right):
    """Two classes, each from mm to mm."""

    def distances(points):
        mm = np.asarray(points, np.float64) / SCALE
        return np.stack([left(mm), right(mm)], axis=1) * SCALE

    return distances


def decoded(left, right, spacing: float = 6.6, center=(0, 0, 0), share: float = 0.05) -> Decoded:
    cube = Cube(np.array(center, float), spacing, int(158 // spacing) // 2 * 2)
    return Decoded.of(field_of(left, right), cube, TABLE, to_unit, share)


@pytest.mark.parametrize("offset", np.linspace(0, 6.6, 7))
def test_surfaces_half_a_millimetre_apart_touch_wherever_the_grid_lies(offset):
    left = partial(box, low=(-40, -30, -30), high=(-0.3, 30, 30))
    right = partial(box, low=(0.3, -30, -30), high=(40, 30, 30))
    labels = decoded(left, right, center=(offset, 0, 0)).labels()
    middle = labels[:, len(labels) // 2, len(labels) // 2]
    assert set(middle) == {0, 3, 5}
    last, first = np.flatnonzero(middle == 3).max(), np.flatnonzero(middle == 5).min()
    assert first == last + 1, "no voxel of background between them"


def test_a_gap_as_wide_as_a_voxel_stays():
    left = partial(box, low=(-40, -30, -30), high=(-5, 30, 30))
    right = partial(box, low=(5, -30, -30), high=(40, 30, 30))
    labels = decoded(left, right).labels()
    middle = labels[:, len(labels) // 2, len(labels) // 2]
    assert np.flatnonzero(middle == 5).min() > np.flatnonzero(middle == 3).max() + 1


@pytest.mark.parametrize("spacing", [1.4, 3.3, 6.6])
@pytest.mark.parametrize("radius", [10.0, 25.0])
def test_volumes_do_not_depend_on_the_voxels(spacing, radius):
    heart = decoded(partial(ball, middle=(1, 2, 3), radius=radius), lambda p: p[:, 0] * 0 + 30,
                    spacing)  # fmt: skip
    found = (heart.labels() == 3).sum() * spacing**3
    assert found == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)


def specks(points: np.ndarray) -> np.ndarray:
    """A ball, and two crumbs."""
    balls = [((-20, 0, 0), 20.0), ((30, 30, 30), 3.0), ((-20, 50, 0), 4.0)]
    return np.min([ball(points, *one) for one in balls], axis=0)


def test_specks_are_in_no_file_of_a_heart():
    right = partial(ball, middle=(30, -20, 0), radius=12.0)
    kept, clean = (decoded(specks, right, 2.0, share=share) for share in (0.0, 0.05))
    assert kept.surfaces()["left"].vertices.max() > 45
    left = clean.surfaces()["left"]
    assert left.vertices.max() < 21 and is_watertight(left)
    before, after = kept.labels(), clean.labels()
    crumbs = (before == 3) & (after != 3)
    assert crumbs.sum() == (before == 3).sum() - (after == 3).sum() > 30
    assert not after[crumbs].any() and (before == after)[~crumbs].all()


def test_where_a_speck_was_another_class_shows():
    """One that reaches less deep there."""

    def right(points):
        return np.maximum(ball(points, (30, 30, 30), 12.0), -1.0)

    inside = decoded(lambda p: p[:, 0] * 0 + 30, right, 2.0).labels() == 5
    assert (decoded(specks, right, 2.0, share=0.0).labels()[inside] == 3).any()
    assert (decoded(specks, right, 2.0).labels()[inside] == 5).all()


def test_a_model_keeps_as_many_veins_as_the_built_in_table_expects():
    """A stored table holds one number of parts, not the range."""
    stored = LabelTable.from_dicts(LabelTable().as_dicts())
    veins, usual = stored.channel("pulmonary_veins"), dict(zip(stored.names, stored.usual_parts))
    assert usual["pulmonary_veins"] == range(2, 6) and usual["coronary"] == range(2, 3)
    balls = [((-30 + 15 * k, 0, 0), 7.0 - 1.5 * k) for k in range(4)]

    def field(points):
        mm = np.asarray(points) / SCALE
        result = np.full((len(points), len(stored)), 0.5)
        result[:, veins] = np.min([ball(mm, *one) for one in balls], axis=0) * SCALE
        return result

    heart = Decoded.of(field, Cube(np.zeros(3), 2.0, 60), stored, to_unit, 0.05)
    assert count_components(heart.labels() == 10) == 4


def test_usual_parts_stay_however_small_they_are():
    far = partial(ball, middle=(-40, -40, -40), radius=3.0)
    field = sample_field(
        field_of(far, specks), (80,) * 3, Cube(np.zeros(3), 2.0, 80).affine, to_unit
    )
    found = without_specks(field, TABLE, 0.05).labels(TABLE.values)
    assert (found == 3).any()
    # of the second class two parts are usual: the smaller crumb goes
    assert found[tuple((np.array([-20, 50, 0]) / 2 + 39.5).round().astype(int))] == 5
    assert found[tuple((np.array([30, 30, 30]) / 2 + 39.5).round().astype(int))] == 0


def test_what_was_given_is_not_changed():
    field = sample_field(
        field_of(specks, specks), (80,) * 3, Cube(np.zeros(3), 2.0, 80).affine, to_unit
    )
    before = [part.values.copy() for part in field.blocks]
    assert without_specks(field, TABLE, 0.05) is not field
    for part, values in zip(field.blocks, before):
        np.testing.assert_array_equal(part.values, values)
