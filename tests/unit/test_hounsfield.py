"""Which images are CTs in Hounsfield units, by their distribution, with labels and without."""

from __future__ import annotations

import numpy as np
import pytest
from ct_phantoms import chest, circular, heart_only, magnetic_resonance

from cardiform.errors import InputError
from cardiform.volumes import LabelMap, check_hounsfield, labels_on


def rescaled(low, high):
    hu = chest()[0]
    return low + (hu - hu.min()) / np.ptp(hu) * (high - low)


def metal(hu):
    hu = hu.copy()
    hu[20:23, 20:23, 20:23] = 30_000
    return hu


def z_scores(hu):
    return (hu - hu.mean()) / hu.std()


def hu():
    return chest()[0]


def stored(offset=1024):
    return np.maximum(hu(), -1024) + offset


GOOD = {
    "int16": lambda: hu().astype(np.int16),
    "float32": lambda: hu().astype(np.float32),
    "float64": hu,
    "slope and intercept": lambda: np.rint(hu() / 0.7).astype(np.int16) * 0.7 + 0.3,
    **{
        f"padding {value}": lambda value=value: circular(hu(), value)
        for value in (-1000, -1024, -2000, -2048, -3024, -8192, -32768, 0)
    },
    "two paddings": lambda: np.where(circular(hu(), -2000) < -1500, -3024, circular(hu(), -2000)),
    "clipped at both ends": lambda: np.clip(hu() * 1.0, -1024, 3071),
    "windowed": lambda: np.clip(hu(), -1000, 1000),
    "metal on an extended scale": lambda: metal(hu()),
    "little contrast": lambda: np.where(hu() > 100, 40 + hu() / 50, hu()),
    "much contrast": lambda: np.where(hu() > 200, hu() * 1.6, hu()),
    "without noise": lambda: np.rint(hu() / 50) * 50,
    "lung alone around it": lambda: hu()[6:],
}
BAD = {
    **{
        f"offset {offset}, padding {padding}": lambda offset=offset, padding=padding: (
            stored(offset) if padding is None else circular(stored(offset), padding)
        )
        for offset in (1000, 1024, 8192, 32768)
        for padding in (None, 0, -1, -976, -1000, -1024, -2000, -2048, -3024, -32768)
    },
    "intercept twice": lambda: hu() - 1024,
    "intercept twice, clipped": lambda: np.maximum(hu() - 1024, -2048),
    "8 bit": lambda: np.rint(rescaled(0, 255)).astype(np.uint8),
    "signed 8 bit": lambda: np.rint(rescaled(-128, 127)).astype(np.int8),
    "8 bit with padding": lambda: circular(np.rint(rescaled(1, 255)), -1),
    "within 0 and 1": lambda: rescaled(0, 1),
    "within -1 and 1": lambda: rescaled(-1, 1),
    "within 0 and 1, padding": lambda: circular(rescaled(0, 1), -1000),
    "z-scores": lambda: z_scores(hu()),
    "z-scores, padding": lambda: circular(z_scores(hu()), -1000),
    "z-scores, one hot voxel": lambda: np.where(np.arange(hu().size).reshape(hu().shape) == 5, 900,
                                                z_scores(hu())),
    "magnetic resonance": lambda: magnetic_resonance(chest()[1]),
    "magnetic resonance, overshoot": lambda: np.where(
        np.arange(hu().size).reshape(hu().shape) % 997, magnetic_resonance(chest()[1]), -25
    ),
    "labels": lambda: chest()[1],
    "labels of another scale": lambda: chest()[1].astype(np.int16) * 100,
    "wrapped to 16 bit": lambda: hu().astype(np.int16).astype(np.uint16),
    "constant": lambda: np.full(hu().shape, 40),
    "constant below 0": lambda: np.full(hu().shape, -1000),
    "not a number": lambda: np.where(hu() > 380, np.nan, hu()),
    "infinite": lambda: np.where(hu() > 380, np.inf, hu()),
    "air alone": lambda: -1000 + np.random.default_rng(0).normal(0, 60, hu().shape),
}  # fmt: skip


def judge(image, labelled):
    return check_hounsfield("ct.nii.gz", np.asarray(image, np.float32), labelled)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_what_scanners_and_exports_leave_is_accepted(name, labelled) -> None:
    image = GOOD[name]()
    labels = chest()[1][-len(image) :] if labelled else None
    assert judge(image, labels) == []


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_ct_is_refused_in_one_line(name, labelled) -> None:
    with pytest.raises(InputError) as caught:
        judge(BAD[name](), chest()[1] if labelled else None)
    (line,) = caught.value.problems
    assert line.startswith("ct.nii.gz: ") and line.count("; ") >= 1 and "\n" not in line


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * 1.5, lambda x: np.minimum(x, 130)])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_heart_without_air_and_lung_is_accepted_and_its_stored_values_are_not(
    change, labelled
) -> None:
    image, labels = heart_only(*chest()[:2])
    image, labels = change(image), labels if labelled else None
    assert (image > -300).all()
    assert judge(image, labels) == []
    for padding in (-1, -2000):
        with pytest.raises(InputError, match="stored values"):
            judge(circular(image + 1024, padding), labels)


@pytest.mark.parametrize("padding", [-1000, -2000])
def test_a_heart_cut_out_of_its_scan_is_accepted_with_a_doubt(padding) -> None:
    """No fat, no lung: what is around it says that it is a CT, but nothing says its scale."""
    hu, labels, _ = chest()
    image = np.where(labels > 0, np.maximum(hu, 30), padding)
    assert judge(image, None) == [
        "the image has neither fat nor air but padding: is it in Hounsfield units?"
    ]
    with pytest.raises(InputError, match="stored values"):
        judge(np.where(labels > 0, image + 1024, padding), labels)


def test_the_labels_find_what_the_rest_of_the_image_hides() -> None:
    """A small heart in much air: few dense voxels, all of them where the structures are."""
    hu, labels, _ = chest()
    hu, labels = (np.pad(part, 40, constant_values=v) for part, v in ((hu, -1000), (labels, 0)))
    image = np.where(hu == -1000, -1000, hu + 1024)
    judge(image, None)
    with pytest.raises(InputError, match="where the label map has its structures"):
        judge(image, labels)


def test_labels_in_air_and_in_metal_are_warned_of() -> None:
    hu = chest()[0]
    assert judge(hu, hu < -700) == [
        "the image shows air or lung where structures are labelled: do they fit?"
    ]
    assert judge(hu, hu > 900) == [
        "the image shows bone or metal where structures are labelled: do they fit?"
    ]


def test_a_label_map_in_place_of_the_ct_has_its_own_remedy() -> None:
    with pytest.raises(InputError, match="give the CT, not a label map"):
        judge(chest()[1], None)


@pytest.mark.parametrize("order", "CF")
def test_the_layout_of_the_arrays_does_not_matter(order) -> None:
    hu, labels, _ = chest()
    image = np.asarray(circular(hu + 1024, -1000), np.float32, order=order)
    for other in "CF":
        with pytest.raises(InputError, match=r"median of 1\d\d\d "):
            check_hounsfield("ct.nii.gz", image, np.asarray(labels, order=other))


def test_labels_count_on_the_very_grid_of_the_image_alone() -> None:
    labels = LabelMap(np.ones((4, 5, 6), np.uint8), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 2
    assert labels_on(labels, (4, 5, 6), np.eye(4)) is labels.data
    assert labels_on(labels, (4, 6, 5), np.eye(4)) is None
    assert labels_on(labels, (4, 5, 6), moved) is None
    assert labels_on(None, (4, 5, 6), np.eye(4)) is None
