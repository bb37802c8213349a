"""Hearts from a set-latent diffusion: known classes, and what no training heart had."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cardiform.errors import InputError
from cardiform.files import save_npz
from cardiform.labels import LabelClass, LabelTable
from cardiform.ldm.hearts_on_grid import Grid
from cardiform.options.set_diffusion import MOST_MODES, SetDiffusionOptions
from cardiform.set_diffusion import encode, statistics
from cardiform.set_diffusion.data import SetDataset
from cardiform.set_diffusion.generator import SetGenerator
from cardiform.set_diffusion.latents import SET_LATENTS, SetLatents
from cardiform.set_diffusion.slots import Slots
from cardiform.set_diffusion.statistics import Statistics
from cardiform.set_diffusion.task import network_of

NAMES = ("ball", "other", "lost")  # the third is in no heart
TABLE = LabelTable(
    tuple(
        LabelClass(value=k + 1, name=name, title=name, color="#ff0000")
        for k, name in enumerate(NAMES)
    )
)
CHANNELS = np.repeat([0, 1], 6).astype(np.uint8)
WIDTH = 4  # place, and one number as a code


def heart(rng) -> SetLatents:
    """Two classes, of six latents each; where it lies and its size are its own."""
    places = rng.normal(size=(12, 3)) * 0.05 + np.where(CHANNELS, 0.3, -0.3)[:, None]
    latents = np.c_[places, rng.normal(size=12)].astype(np.float32)
    frame = np.array([*rng.normal(size=3) * 8, np.log(60) + 0.2 * rng.normal()])
    volumes = np.array([rng.uniform(50, 100), rng.uniform(50, 100), np.nan])
    return SetLatents(latents, frame, np.array([1, 1, 0], bool), volumes, np.array([60, np.nan]))


class Balls:
    """In place of a VecSet: each class is a ball about its latents."""

    table, device = TABLE, torch.device("cpu")
    training = SimpleNamespace(bottleneck="none")

    def field(self, latents: torch.Tensor):
        places = latents[0, :, :3].double().numpy()
        own = [places[k == CHANNELS] for k in range(2)]
        balls = [(p.mean(axis=0), 0.2 + np.ptp(p, axis=0).mean() / 4) for p in own]

        def distances(points):
            found = [np.linalg.norm(points - m, axis=-1) - r for m, r in balls]
            return np.stack([*found, np.ones(len(points))], axis=-1)

        return distances


@pytest.fixture(scope="module")
def hearts():
    rng = np.random.default_rng(0)
    return [heart(rng) for _ in range(8)]


@pytest.fixture(scope="module")
def generator(hearts):
    torch.manual_seed(0)
    options = SetDiffusionOptions(dim=16, depth=1, heads=2)
    slots = Slots(hearts[0].latents[:, :3], CHANNELS)
    found = Statistics.of(hearts, 0)
    network = network_of(options, slots, found, len(NAMES)).eval()
    grid = Grid("labels", 40, 200.0, TABLE)
    return SetGenerator(options, found, slots, network, Balls(), grid, ("x_age", "x_no"), 1.0)


@pytest.fixture(scope="module")
def stored(hearts, tmp_path_factory):
    path = tmp_path_factory.mktemp("heart") / "a.npz"
    save_npz(path, **vars(hearts[3]), format_version=SET_LATENTS.version)
    return path


def made(generator, wanted, number: int):
    rows = generator.rows(range(number), wanted, seed=0, steps=4, guidance=1.0)
    return generator.hearts(rows)


def test_a_known_class_has_the_place_and_the_size_that_it_has_in_its_heart(
    generator, hearts, stored
):
    wanted = generator.wanted(3, {}, {}, ("ball",), stored)
    latents, frames = made(generator, wanted, 3)
    true = generator.decode(torch.from_numpy(hearts[3].latents), hearts[3].frame)
    own = true.labels() == 1
    assert own.sum() > 100
    for one, frame in zip(latents, frames):
        got = generator.decode(one, frame).labels()
        assert (got[own] == 1).all() and (got == 1).sum() == own.sum()
    assert float((latents[0] - latents[1])[CHANNELS == 1].abs().max()) > 0.01, "the rest is new"
    _, others = made(generator, generator.wanted(3, {}, {}), 3)
    assert np.abs(others - frames).max() > 1, "without known classes hearts lie where they like"


def test_known_classes_that_nothing_follows_are_told_of(generator, stored, caplog):
    with caplog.at_level(logging.WARNING):
        generator.wanted(1, {}, {}, ("ball",), stored)
        assert not caplog.records
        dataclasses.replace(generator, strength=0.0).wanted(1, {}, {})
        assert not caplog.records
        dataclasses.replace(generator, strength=0.0).wanted(1, {}, {}, ("ball",), stored)
    [line] = caplog.messages
    assert "the rest does not follow the known classes" in line


def test_what_no_training_heart_had_is_refused(generator, stored):
    generator.wanted(1, {"ball": 60.0}, {"x_age": 60.0})
    with pytest.raises(InputError) as caught:
        generator.wanted(1, {"lost": 5.0}, {"x_no": 1.0}, ("lost",), stored)
    assert caught.value.problems == [
        "set_sampling.volumes: no training heart has a volume of lost; leave it out",
        "set_sampling.columns: no training heart has a number in x_no; leave it out",
        "set_sampling.known: no training heart has lost; leave it out",
    ]


def test_what_no_training_heart_had_is_no_condition_of_others(generator, hearts):
    """A validation heart may have it; to the network it would be a number without a scale."""
    whole = dataclasses.replace(hearts[0], volumes=np.full(3, 60.0), columns=np.array([60.0, 1.0]))
    item = SetDataset(["a"], [whole], generator.statistics)[0, 0]
    scores = generator.statistics.scores(item["asked"][None])
    assert scores.given.tolist() == [[True, True, False, True, False]]
    assert not scores.values[0, 2] and not scores.values[0, 4]


def test_statistics_are_read_back_with_their_counts_and_without(generator):
    tensors = generator.statistics.tensors()
    back = Statistics.from_tensors(tensors)
    assert back.asked_count.tolist() == [8, 8, 0, 8, 0]
    del (before := dict(tensors))["asked_count"]
    assert Statistics.from_tensors(before).asked_count.all()


def test_the_most_modes_are_those_of_the_option():
    [most] = [f for f in dataclasses.fields(SetDiffusionOptions) if f.name == "modes"]
    assert most.metadata["maximum"] == MOST_MODES and str(MOST_MODES) in most.metadata["help"]
    rows = torch.randn(MOST_MODES + 20, MOST_MODES + 10, generator=torch.manual_seed(0))
    assert statistics._modes(rows, 0)[0].shape[0] == MOST_MODES
    assert statistics._modes(rows, 7)[0].shape[0] == 7


# --- slots of a cohort whose hearts have different classes -------------------------------


def surface(*channels) -> tuple[np.ndarray, np.ndarray]:
    found = np.repeat(channels, 50)
    return np.random.default_rng(0).normal(size=(len(found), 3)).astype(np.float32), found


def test_slots_are_of_hearts_that_have_the_same_classes():
    """As many classes are not the same classes."""
    surfaces = [surface(0, 1), surface(0, 2), surface(1), surface(0, 2), surface(2)]
    whole, present = encode.alike(surfaces)
    assert present == {0, 2} and [s is t for s, t in zip(whole, (surfaces[1], surfaces[3]))]
    assert len(whole) == 2
    assert encode.alike([surface(0), surface(0), surface(0, 1)])[1] == {0, 1}, "all of them first"


def test_classes_without_slots_are_named(caplog, tmp_path):
    found = {"a": surface(0, 1), "b": surface(0, 2), "c": surface(0, 2)}

    def inputs(path, name):
        points, channels = found[name]
        return torch.from_numpy(np.c_[points, np.eye(3)[channels]][None]).float(), None

    network = SimpleNamespace(inputs=inputs, table=TABLE, model=SimpleNamespace(starts=20))
    with caplog.at_level(logging.WARNING):
        slots = encode.slots_of(network, dict.fromkeys(found, tmp_path))
    assert set(slots.channels.tolist()) == {0, 2} and len(slots.places) == 20
    assert caplog.messages == ["no slots for other: too few training hearts have them"]


def test_columns_of_cases_are_numbers_of_a_case_table(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("case_id\tx_age\tx_size\na\t50\t\nb\t \t3\nc\told\t1\n")
    found = encode.columns_of(path, ("x_age", "x_size"), ["a", "b", "d"])
    np.testing.assert_equal(found, {"a": [50, np.nan], "b": [np.nan, 3], "d": [np.nan, np.nan]})
    assert encode.columns_of("", (), ["a"])["a"].shape == (0,)
    with pytest.raises(InputError, match=r"t\.tsv:4: x_age is 'old', no number"):
        encode.columns_of(path, ("x_age",), ["a", "c"])
    path.write_text("name\tx_age\na\t50\n")
    with pytest.raises(InputError, match=r"t\.tsv: no column case_id, by which --columns"):
        encode.columns_of(path, ("x_age",), ["a"])


def test_a_class_that_the_given_heart_lacks_cannot_be_taken_from_it(generator, hearts, tmp_path):
    lacking = dataclasses.replace(hearts[3], present=np.array([1, 0, 0], bool))
    path = tmp_path / "lacking.npz"
    save_npz(path, **vars(lacking), format_version=SET_LATENTS.version)
    generator.wanted(1, {}, {}, ("ball",), path)
    with pytest.raises(InputError, match="is of a heart without other, which"):
        generator.wanted(1, {}, {}, ("ball", "other"), path)
