"""The confidence that apply writes: what it is held against, and what counts of several folds."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from cardiform.apply.case import least_sure
from cardiform.apply.confidence import add_confidence
from cardiform.apply.models import Models
from cardiform.apply.networks import Content, Networks
from cardiform.apply.ready import Ready
from cardiform.apply.record import Record
from cardiform.apply.stages import find_stages
from cardiform.artefact.model import Model, case_hash
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.geometry.frame import Frame
from cardiform.labels import LabelTable
from cardiform.metrics.confidence import contact
from cardiform.options.geometry import PointsOptions
from cardiform.vecset.confidence import Sound
from cardiform.vecset.reconstruct import Made
from cardiform.volumes import load_label_map, save_label_map

TABLE = LabelTable(tuple(c for c in LabelTable() if c.value in (1, 3, 9)))
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
POINTS = PointsOptions(
    surface_points=300, min_class_points=20, near_points=100, volume_points=50
)  # fmt: skip


def heart(inner: float = 16.0, gap: float = 0.0, shift: int = 0) -> np.ndarray:
    """A ball in a shell, mm; the third class is not there."""
    index = np.indices((32, 32, 22)).transpose(1, 2, 3, 0) * [2.0, 2.0, 3.0]
    radius = np.linalg.norm(index - [31 + 2 * shift, 31, 32], axis=-1)
    labels = np.zeros((32, 32, 22), np.uint8)
    labels[(radius < 26) & (radius >= inner + gap)] = 1
    labels[radius < inner] = 3
    return labels


def specked() -> np.ndarray:
    labels = heart()
    labels[0, 0, 0] = 1
    return labels


CUT = heart(shift=6)  # the shell reaches past the volume, the ball does not


def case_of(folder, name: str, labels: np.ndarray) -> Case:
    path = folder / f"{name}.nii.gz"
    save_label_map(path, labels, AFFINE)
    return Case(case_id=name, patient_id=name, labels=str(path))


def sound_of(tmp_path, training, held_out) -> Sound:
    """held_out : of each case the label map, and what a model makes of it."""
    cases = [case_of(tmp_path, f"t{k}", labels) for k, labels in enumerate(training)]
    tested = []
    for k, (given, made) in enumerate(held_out):
        tested.append(case_of(tmp_path, f"h{k}", given))
        save_label_map(tmp_path / "made" / f"h{k}" / "labels.nii.gz", made, AFFINE)
    (tmp_path / "model.pt").write_text("weights")
    return Sound.of(cases, tested, tmp_path / "made", TABLE, tmp_path / "model.pt")


# --- what it is held against ---------------------------------------------------------------------


def test_what_sound_label_maps_are_like(tmp_path):
    hearts = [heart(15.0), heart(17.0)]
    found = sound_of(tmp_path, hearts, [(heart(), heart(15.0)), (heart(), heart())])
    assert list(found.contact) == ["myocardium", "left_ventricle"]
    mean = np.mean([contact(h, TABLE)["myocardium"] for h in hearts], axis=0)
    np.testing.assert_allclose(found.contact["myocardium"], mean)
    assert 0.9 < found.typical["left_ventricle"]["reconstruction"] < 1, "the median of two"
    assert found.counted == {"myocardium": 2, "left_ventricle": 2}
    assert (found.training_cases, found.held_out_cases) == (2, 2)


def test_cut_classes_do_not_count_and_specks_only_where_there_is_nothing_else(tmp_path):
    nothing = np.zeros_like(CUT)
    held_out = [(CUT, nothing), (specked(), nothing), (heart(), heart(15.0))]
    found = sound_of(tmp_path, [heart(), CUT], held_out)
    assert found.counted == {"myocardium": 1}, "the model makes nothing of most ventricles"
    assert 0.8 < found.typical["myocardium"]["reconstruction"] < 1
    whole = contact(heart(), TABLE)["myocardium"]
    np.testing.assert_array_equal(found.contact["myocardium"], whole)
    alone = sound_of(tmp_path, [heart()], [(specked(), heart())])
    assert alone.counted["myocardium"] == 1, "there is nothing else"


def test_it_is_read_back_and_is_of_one_model_file(tmp_path):
    found = sound_of(tmp_path, [heart(15.0)], [(heart(), heart(15.0))])
    model = tmp_path / "model.pt"
    found.write_beside(model)
    back = Sound.beside(model)
    assert back.table.as_dicts() == TABLE.as_dicts() and back.typical == found.typical
    assert all((back.contact[name] == shares).all() for name, shares in found.contact.items())
    other = tmp_path / "other" / "model.safetensors"
    other.parent.mkdir()
    other.write_text("the same weights in another file")
    back.write_beside(other)
    assert Sound.beside(other).typical == found.typical
    model.write_text("other weights")
    assert Sound.beside(model) is None
    text = (tmp_path / "reconstructions" / "confidence.json").read_text()
    assert "h0" not in text and "t0" not in text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c["classes"]["myocardium"].update(contact=[0.5]), "figures of 'myocardium'"),
        (lambda c: c["classes"]["myocardium"].update(typical_contact=1.5), "of 'myocardium'"),
        (lambda c: c["classes"]["myocardium"].update(typical_contact=float("nan")), "valid"),
        (lambda c: c["classes"].update({"a\nb": c["classes"]["myocardium"]}), r"of 'a\nb'"),
        (lambda c: c["labels"][0].update(more=3), "has no valid label table"),
        (lambda c: c.update(classes=[]), "not object"),
        (lambda c: c.update(format_version=2), "newer version of Cardiform"),
    ],
    ids=range(7),
)
def test_a_file_that_is_not_right_is_one_line(tmp_path, damage, words):
    sound_of(tmp_path, [heart()], [(heart(), heart(15.0))]).write(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    damage(content)
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        Sound.load(tmp_path / "c.json")
    (line,) = caught.value.problems
    assert words in line and "\n" not in line and ";" in line


# --- the case ------------------------------------------------------------------------------------


class Network:
    """In place of a trained VecSet: makes one label map of whatever it is given."""

    def __init__(self, made: np.ndarray):
        self.made, self.encoded = made, 0

    def encode(self, points, case_id):
        self.encoded += 1
        return torch.zeros(1, 1)

    def sample(self, latents, frame, grid):
        return self

    def labels(self, values):
        return self.made


@pytest.fixture
def sound(tmp_path):
    return sound_of(tmp_path, [heart(15.0), heart()], [(heart(), heart())])


def judged(tmp_path, sounds, given, made=(), training=(), networks=None):
    """Confidence and record of a case, and the networks of the folds.

    made : what each fold makes of the case as it is.    training : folds that know the case.
    """
    case = case_of(tmp_path, "new", given)
    stages = find_stages(tmp_path)
    stages = dataclasses.replace(stages, options=stages.options | {"points": POINTS})
    made = list(made) or [heart()] * len(sounds)
    networks = networks or [Network(labels) for labels in made]
    plain = Model(
        kind="vecset", weights={}, options={}, labels=TABLE.as_dicts(), figures={},
        training_cases=[],
    )  # fmt: skip
    knows = dataclasses.replace(plain, training_cases=[case_hash("new")])
    stored = [{"vecset": knows if k in training else plain} for k in range(len(sounds))]
    folders = [Models(tmp_path / str(k)) for k in range(len(sounds))]
    unsure = ["acme: has nothing"] if None in sounds else []
    content = Content(folders, stored, TABLE, stages, "", "", sounds, unsure)
    record = Record()
    whole = Made(Frame(np.zeros(3), 1.0), [], made[0], {}, made if len(made) > 1 else [])
    ready = Ready(case, TABLE, stages, tmp_path / "ready")
    found = add_confidence(
        record, ready, Networks(content, vecset=networks), whole, tmp_path / "cleaned"
    )
    return found, record, networks


def figures(record: Record, name: str) -> dict[str, float]:
    return {r["figure"]: r["value"] for r in record.rows if r["class"] == name}


def test_a_sound_label_map_is_trusted_without_another_pass(tmp_path, sound):
    found, record, [network] = judged(tmp_path, [sound], heart())
    assert found == {"myocardium": 1.0, "left_ventricle": 1.0} and network.encoded == 0
    assert {r["reference"] for r in record.rows} == {"cohort"} and record.notes == []
    assert set(figures(record, "myocardium")) == {
        "confidence", "reconstruction", "contact", "parts"
    }  # fmt: skip
    worse, _, _ = judged(tmp_path, [sound], heart(gap=6.0))
    assert worse["myocardium"] < 0.9
    assert least_sure(worse).startswith("least sure of ") and least_sure({}) == ""
    assert least_sure({"aorta": 1.0, "coronary": 0.991}) == "least sure of coronary 0.99"
    assert least_sure({"aorta": 1.0, "coronary": 0.996}) == "sure of every class that is judged"


def test_specks_cost_one_more_pass_of_each_fold_and_are_seen_in_the_parts(tmp_path, sound):
    folds = [sound, sound]
    _, record, networks = judged(tmp_path, folds, specked(), [np.zeros_like(CUT)] * 2,
                                 networks=[Network(heart()), Network(heart())])  # fmt: skip
    assert [n.encoded for n in networks] == [1, 1]
    row = figures(record, "myocardium")
    assert row["confidence"] > 0.99 and 0.99 < row["parts"] < 1
    passed = load_label_map(tmp_path / "cleaned" / "new.nii.gz").data
    np.testing.assert_array_equal(passed, heart())


def test_of_folds_those_count_that_do_not_know_the_case(tmp_path, sound):
    bad, good = np.zeros_like(CUT), heart()
    both, _, _ = judged(tmp_path, [sound, sound], heart(), [good, bad])
    one, _, _ = judged(tmp_path, [sound, sound], heart(), [good, bad], training=[1])
    other, _, _ = judged(tmp_path, [sound, sound], heart(), [good, bad], training=[0])
    every, _, _ = judged(tmp_path, [sound, sound], heart(), [good, bad], training=[0, 1])
    assert one["myocardium"] == 1 > both["myocardium"] > other["myocardium"]
    assert both["myocardium"] == pytest.approx((one["myocardium"] + other["myocardium"]) / 2)
    assert every == both
    some, _, _ = judged(tmp_path, [None, sound], heart(), [good, bad])
    assert some == other


def test_why_there_is_no_confidence(tmp_path, sound):
    found, record, _ = judged(tmp_path, [None], heart())
    assert found == {} and record.notes == ["no confidence: acme: has nothing"]
    found, record, _ = judged(tmp_path, [sound], CUT, [CUT])
    assert set(found) == {"left_ventricle"}
    assert "no confidence in myocardium: cut here, or" in record.notes[0]

    class Failing(Network):
        def encode(self, points, case_id):
            raise InputError(f"{points}: has too few points; look at it")

    found, record, _ = judged(tmp_path, [sound], specked(), networks=[Failing(heart())])
    said = "no confidence: without specks points/new.npz: has too few points; look at it"
    assert found == {} and record.notes == [said]
