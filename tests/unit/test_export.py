"""The example of a bundle, and what a bundle's diffusion knows of its training cases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cardiform.artefact.model import case_hash
from cardiform.errors import InputError
from cardiform.export.example import _difference, draw_example
from cardiform.export.models import one_table
from cardiform.labels import LabelClass, LabelTable
from cardiform.ldm.generator import ShapeGenerator
from cardiform.phantom.scans import draw_scan


def table(*classes: tuple[int, str]) -> LabelTable:
    return LabelTable(
        tuple(LabelClass(value=v, name=n, title=n, color="#ffffff") for v, n in classes)
    )


def test_the_example_has_the_values_of_the_label_table():
    found = draw_example(table((42, "aorta"), (7, "liver")))
    assert set(np.unique(found.data)) == {0, 42}
    whole = draw_example(LabelTable())
    assert set(np.unique(whole.data)) == {0, *LabelTable().values}
    assert ((found.data == 42) == (whole.data == 6)).all()
    assert draw_example(table((1, "liver"))) is None, "there is no such phantom"


def test_the_example_is_no_heart_of_a_demo():
    example = draw_example(LabelTable()).data
    for seed in range(3):
        other, _ = draw_scan(0, 3.0, seed)
        assert other.shape != example.shape or (other != example).any()


@pytest.mark.parametrize(
    ("stored", "found", "words"),
    [
        (np.zeros(1000, np.uint8), np.r_[np.ones(1), np.zeros(999)].astype(np.uint8), ""),
        (np.zeros(1000, np.uint8), np.r_[np.ones(9), np.zeros(991)].astype(np.uint8), "0.9%"),
        (np.linspace(0, 1, 9), np.linspace(0, 1, 9) + 0.005, ""),
        (np.linspace(0, 1, 9), np.linspace(0, 1, 9) + 0.1, "by 10.0% of its range"),
        (np.linspace(0, 1, 9), np.full(9, np.nan), "of its range"),
        (np.zeros(3, np.uint8), np.zeros(4, np.uint8), "another shape"),
        (None, np.zeros(4, np.uint8), "another shape"),
    ],
    ids=range(7),
)
def test_how_far_an_example_may_come_out_otherwise(stored, found, words):
    said = _difference(stored, found)
    assert words in said and bool(words) == bool(said)


@pytest.mark.parametrize("stored", ["b", case_hash("b")])
def test_incomplete_training_cases_are_known_by_id_and_by_hash(stored):
    """A results folder names them, a bundle has hashes."""
    generator = SimpleNamespace(
        options=SimpleNamespace(complete_cases=True),
        grid=SimpleNamespace(has_classes=True),
        statistics=SimpleNamespace(incomplete=(stored,)),
    )
    assert ShapeGenerator.learned_from(generator, ["a", "b", "c"]) == ["a", "c"]


def test_latent_diffusion_alone_may_know_fewer_classes():
    def stored(kind, classes):
        return SimpleNamespace(kind=kind, labels=True, table=LabelTable(tuple(whole)[:classes]))

    whole, vecset, other = LabelTable(), Path("vecset.pt"), Path("other.pt")
    models = {vecset: stored("vecset", 10), other: stored("ldm_diffusion", 9)}
    assert one_table(models) == whole
    with pytest.raises(InputError, match=r"other\.pt: has another label table than vecset\.pt"):
        one_table(models | {other: stored("vqvae", 9)})
