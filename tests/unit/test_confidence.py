"""Confidence without a truth: what is sound is trusted, what is not is doubted, class by class."""

from __future__ import annotations

import numpy as np
import pytest

from cardiform.labels import LabelTable
from cardiform.metrics.confidence import (
    WEIGHTS,
    cleaned,
    confidence,
    contact,
    doubts,
    signals,
    smoothed,
    typical_signals,
    usual_contact,
)

TABLE = LabelTable(tuple(c for c in LabelTable() if c.value in (1, 3, 9)))
SPACING = np.array([2.0, 2.0, 3.0])


def heart(inner: float = 16.0, gap: float = 0.0) -> np.ndarray:
    """A ball in a shell, mm; the third class is not there."""
    index = np.indices((32, 32, 22)).transpose(1, 2, 3, 0) * SPACING
    radius = np.linalg.norm(index - [31, 31, 32], axis=-1)
    labels = np.zeros((32, 32, 22), np.uint8)
    labels[(radius < 26) & (radius >= inner + gap)] = 1
    labels[radius < inner] = 3
    return labels


USUAL = usual_contact([heart(15.0), heart(16.0), heart(17.0)], TABLE)


def measured(given, reconstructed=None):
    made = heart() if reconstructed is None else reconstructed
    return signals(given, made, TABLE, USUAL)


TYPICAL = typical_signals([measured(heart())])


def test_a_sound_map_is_trusted_and_an_absent_class_has_no_value():
    found = measured(heart())
    assert found["coronary"] is None and set(WEIGHTS) == found["myocardium"].keys()
    assert confidence(found, TYPICAL) == {"myocardium": 1, "left_ventricle": 1, "coronary": None}


def faulty(fault: str) -> np.ndarray:
    given = heart()
    if fault == "speckle":
        outside = np.argwhere(given == 0)
        given[tuple(outside[np.random.default_rng(0).integers(len(outside), size=800)].T)] = 1
    elif fault == "half":
        given[:, 16:][given[:, 16:] == 1] = 0
    elif fault == "gap":
        given = heart(gap=6.0)
    return given


@pytest.mark.parametrize("fault", ["speckle", "half", "gap"])
def test_a_class_with_faults_is_doubted(fault):
    found = measured(faulty(fault))
    assert confidence(found, TYPICAL)["myocardium"] < 0.95
    doubted = doubts(found, TYPICAL)
    assert doubted["myocardium"]["reconstruction"] > 0.05
    assert doubted["left_ventricle"]["reconstruction"] == 0, "its neighbour is as it should be"


def test_a_worse_map_is_trusted_less():
    gaps = [confidence(measured(heart(gap=g)), TYPICAL)["myocardium"] for g in (0.0, 3.0, 6.0)]
    assert gaps[0] > gaps[1] > gaps[2]


def test_what_is_usual_is_no_reason_to_doubt():
    found = {"a": {"reconstruction": 0.6}, "b": None}
    assert doubts(found)["a"] == {"reconstruction": pytest.approx(0.4)}
    usual = typical_signals([found, {"a": {"reconstruction": 0.5}}, {"a": {"reconstruction": 0.9}}])
    assert usual == {"a": {"reconstruction": 0.6}}
    assert doubts(found, usual)["a"] == {"reconstruction": 0.0}
    assert doubts(found)["b"] is None and confidence(found)["b"] is None
    assert confidence(found, usual)["a"] == 1.0


def test_a_class_that_no_model_makes_is_not_trusted():
    found = measured(heart(), np.zeros((32, 32, 22), np.uint8))
    assert found["myocardium"]["reconstruction"] == 0
    assert confidence(found, TYPICAL)["myocardium"] == pytest.approx(1 - WEIGHTS["reconstruction"])


def test_confidence_stays_between_0_and_1():
    assert 0 <= confidence({"a": dict.fromkeys(WEIGHTS, 0.0)})["a"] < 0.2
    assert confidence({"a": dict.fromkeys(WEIGHTS, 1.0)})["a"] == 1.0


def test_without_sound_maps_the_reconstruction_alone_counts():
    found = signals(heart(), heart(), TABLE)
    assert found["left_ventricle"] == {"reconstruction": 1.0}
    assert confidence(found)["left_ventricle"] == 1.0


def test_specks_are_cleaned_away_and_large_parts_stay():
    labels = heart()
    labels[0, 0, 0] = labels[16, 16, 10] = 1  # outside, and within the ball
    assert (cleaned(labels, SPACING, TABLE) == heart()).all()
    labels = heart()
    labels[:, :, 10] = 0  # both structures fall apart into halves
    assert (cleaned(labels, SPACING, TABLE) == labels).all()


def test_smoothing_goes_by_millimetres():
    labels = heart()
    labels[2, 2, 2] = 3
    found = smoothed(labels, SPACING, TABLE)
    assert found[2, 2, 2] == 0 and (found != heart()).mean() < 0.05
    assert (smoothed(labels, SPACING * 20, TABLE) == labels).all(), "nothing is within 4 mm of it"


def test_what_touches_what():
    shares = contact(heart(), TABLE)
    assert shares["left_ventricle"] == pytest.approx([0, 1, 0, 0])
    assert shares["myocardium"].sum() == pytest.approx(1) and shares["myocardium"][2] > 0.1
    assert contact(heart(gap=6.0), TABLE)["left_ventricle"] == pytest.approx([1, 0, 0, 0])
    assert measured(heart(gap=6.0))["left_ventricle"]["contact"] == 0
