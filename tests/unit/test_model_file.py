"""model.pt: whole or not at all, says what it is, readable without running code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from damage import flip

from cardiform.artefact.model import Kind, Model, case_hash, check_weights, load_model, save_model
from cardiform.coronary.model import DENOISER, NEAR
from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.ldm.autoencoder_model import AUTOENCODER
from cardiform.ldm.diffusion_model import DIFFUSION
from cardiform.options.coronary import CoronaryOptions, NearOptions
from cardiform.options.field import option
from cardiform.options.ldm import AutoencoderOptions, DiffusionOptions
from cardiform.options.vecset import VecsetOptions
from cardiform.options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from cardiform.vecset.model import VECSET
from cardiform.vqvae.model import CONTINUOUS, QUANTISED

TOY = Kind("toy", "a toy", "train_toy")
OTHER = Kind("other", "another toy", "train_other")


@dataclass(frozen=True)
class ToyOptions:
    width: int = option(4, "its width")
    sizes: tuple[int, ...] = option((1, 2), "more of it")


def weights(value=1.0):
    return {"a": torch.full((3, 3), value), "b": torch.arange(4)}


def save(path, kind=TOY, content=None, **changes):
    what = {
        "options": {"toy": ToyOptions()},
        "labels": LabelTable(),
        "figures": {"validation": {"loss": np.float32(0.5)}, "best": 3},
        "training_cases": ["c0", "c1"],
        "source_sha256": "abc",
    }
    save_model(path, kind, weights() if content is None else content, **what | changes)


def test_a_model_comes_back_as_it_was(tmp_path):
    path = tmp_path / "model.pt"
    save(path, extra={"grid": {"size": 3}})
    found = load_model(path, TOY)
    assert torch.equal(found.weights["a"], weights()["a"])
    assert found.kind == "toy" and found.options == {"toy": {"width": 4, "sizes": [1, 2]}}
    assert found.section("toy", ToyOptions) == ToyOptions()
    assert found.figures == {"validation": {"loss": 0.5}, "best": 3}
    assert found.table == LabelTable() and found.extra == {"grid": {"size": 3}}
    assert set(found.versions) == {"cardiform", "torch"} and found.source_sha256 == "abc"
    assert found.training_cases == [case_hash("c0"), case_hash("c1")]
    assert found.trained_on("c1") and not found.trained_on("c2")
    torch.load(path, weights_only=True)  # as anyone may read it


def test_no_case_id_is_in_the_file(tmp_path):
    save(tmp_path / "model.pt", training_cases=["a_patients_name"])
    assert b"a_patients_name" not in (tmp_path / "model.pt").read_bytes()


def test_another_kind_is_refused_in_one_line(tmp_path):
    save(tmp_path / "model.pt")
    for wanted, words in (
        ((OTHER,), "is a model of kind toy, not another toy; give the model.pt of train_other"),
        ((OTHER, VECSET), "not another toy or a VecSet autoencoder; give the model.pt of train_"),
    ):
        with pytest.raises(InputError) as caught:
            load_model(tmp_path / "model.pt", *wanted)
        assert len(caught.value.problems) == 1 and words in caught.value.problems[0]
    assert load_model(tmp_path / "model.pt", OTHER, TOY).kind == "toy"
    assert load_model(tmp_path / "model.pt").kind == "toy"


def test_options_of_another_version(tmp_path):
    """What the file lacks is at its default; what is unknown here would be ignored."""

    @dataclass(frozen=True)
    class Younger(ToyOptions):
        depth: int = option(7, "its depth")

    save(tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    assert model.section("toy", Younger) == Younger(4, (1, 2), 7)
    save(tmp_path / "younger.pt", options={"toy": Younger()})
    with pytest.raises(InputError, match=r"not known here \(depth\); update Cardiform"):
        load_model(tmp_path / "younger.pt").section("toy", ToyOptions)


def test_a_file_of_a_newer_format(tmp_path):
    save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save(content | {"format_version": 3}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model format 3, this version reads 1, 2: .*newer"):
        load_model(tmp_path / "model.pt")


def test_what_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match="cannot be stored"):
        save(tmp_path / "m.pt", figures={"x": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "text", "code", "foreign", "absent"])
def test_a_damaged_model_is_named_and_runs_no_code(tmp_path, damage):
    path = tmp_path / "model.pt"
    save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("not a model")
    elif damage == "code":
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    elif damage == "foreign":
        torch.save({"weights": weights()}, path)
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"model\.pt"):
        load_model(path)
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def altered(path, **changes):
    content = torch.load(path, weights_only=True)
    torch.save(content | changes, path)


def test_a_path_that_is_wrong_is_to_be_corrected_and_nothing_to_be_deleted(tmp_path):
    with pytest.raises(InputError, match="does not exist; correct the path"):
        load_model(tmp_path / "none.pt")
    (tmp_path / "cases.tsv").write_text("case_id")
    for path in (tmp_path / "cases.tsv", tmp_path):
        with pytest.raises(InputError, match=r"; give the model\.pt of a training; if it is one"):
            load_model(path)


ODD = [
    {"options": {}},
    {"options": {"toy": None}},
    {"options": {"toy": {"width": "wide"}}},
    {"options": {"toy": {"width": 0}}},
]


@pytest.mark.parametrize("changes", ODD, ids=str)
def test_options_that_are_not_valid_are_one_line(tmp_path, changes):
    @dataclass(frozen=True)
    class Checked:
        width: int = option(4, "its width", minimum=1)

    save(tmp_path / "model.pt")
    altered(tmp_path / "model.pt", **changes)
    with pytest.raises(InputError, match=r"model\.pt") as caught:
        load_model(tmp_path / "model.pt").section("toy", Checked)
    assert len(caught.value.problems) == 1


def test_entries_of_a_younger_writer_are_passed_over(tmp_path):
    save(tmp_path / "model.pt")
    altered(tmp_path / "model.pt", foo=1)
    assert load_model(tmp_path / "model.pt").kind == "toy"


@pytest.mark.parametrize("key", ["weights", "options", "figures", "extra"])
def test_an_entry_that_is_nothing_is_named(tmp_path, key):
    save(tmp_path / "model.pt")
    altered(tmp_path / "model.pt", **{key: None})
    with pytest.raises(InputError, match=rf"\((no )?{key}"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("labels", [[], [{"value": 1, "name": "a", "foo": 2}]], ids=len)
def test_a_label_table_that_is_none(tmp_path, labels):
    save(tmp_path / "model.pt")
    full = [LabelTable().as_dicts()[0] | row for row in labels]
    altered(tmp_path / "model.pt", labels=full)
    with pytest.raises(InputError, match="has no valid label table"):
        load_model(tmp_path / "model.pt").table  # noqa: B018


def test_weights_that_do_not_fit_are_listed(tmp_path):
    save(tmp_path / "model.pt", content={"weight": torch.zeros(2, 3), "more": torch.zeros(1)})
    module = torch.nn.Linear(2, 2)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "model.pt").fill(module)
    for words in ("bias is missing", "more is unknown", "weight is (2, 3), the model has (2, 2)"):
        assert words in str(caught.value)
    save(tmp_path / "model.pt", content=torch.nn.Linear(2, 2).state_dict())
    model = load_model(tmp_path / "model.pt")
    model.fill(module)
    assert torch.equal(module.weight, model.weights["weight"])


@pytest.mark.parametrize(
    "changes",
    [
        {"options": None}, {"options": {"diffusion": {}}}, {"options": {"codebook": {}}},
        {"options": {"cardiform": {}, "cases": 3}}, {"options": {"cardiform": {}, "cases": [3]}},
        {"figures": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_broken_model_of_format_1_is_one_line(tmp_path, changes):
    content = {"weights": weights(), "options": {"vqvae": {}}, "labels": [], "figures": {}}
    torch.save({"format_version": 1, **content, **changes}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="format 1 that is not recognised"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("key", ["kind", "weights", "options", "labels", "training_cases"])
def test_a_missing_entry_is_named(tmp_path, key):
    save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content.pop(key)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"is no model file \(no {key}\)"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_changed_bit_is_noticed(tmp_path, place):
    """torch.load alone takes it for another weight."""
    save(tmp_path / "model.pt", content={"a": torch.randn(20_000)})
    flip(tmp_path / "model.pt", place)
    with pytest.raises(
        InputError, match=r"model\.pt: is damaged .*; if it is one, delete it and run"
    ):
        load_model(tmp_path / "model.pt")


def options_of(cls):
    """As format 1 stored them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(cls()).items()}


GRID = {"kind": "labels", "size": 16}
FORMAT_1 = [
    (VECSET, "vecset", VecsetOptions, options_of(VecsetOptions)),
    (CONTINUOUS, "vqvae", VqvaeOptions, {"vqvae": options_of(VqvaeOptions)}),
    (
        QUANTISED,
        "vqvae_codebook",
        VqvaeCodebookOptions,
        {"vqvae": options_of(VqvaeOptions), "codebook": options_of(VqvaeCodebookOptions)},
    ),
    (
        DENOISER,
        "coronary",
        CoronaryOptions,
        {"cardiform": options_of(CoronaryOptions), "cases": ["c0"]},
    ),
    (NEAR, "coronary_near", NearOptions, {"near": options_of(NearOptions), "cases": ["c0"]}),
    (
        AUTOENCODER,
        "autoencoder",
        AutoencoderOptions,
        {"autoencoder": options_of(AutoencoderOptions), "grid": GRID},
    ),
    (
        DIFFUSION,
        "diffusion",
        DiffusionOptions,
        {
            "diffusion": options_of(DiffusionOptions),
            "statistics": {"shape": [1]},
            "grid": GRID,
            "autoencoder": options_of(AutoencoderOptions),
            "autoencoder_weights": "autoencoder.",
        },
    ),
]


@pytest.mark.parametrize(("kind", "section", "cls", "options"), FORMAT_1, ids=lambda x: str(x)[:20])
def test_a_model_of_format_1_is_recognised(tmp_path, kind, section, cls, options):
    figures = {"steps": 3, "source_sha256": "abc"}
    content = {"weights": weights(), "options": options, "labels": [], "figures": figures}
    torch.save({"format_version": 1, **content}, tmp_path / "model.pt")
    found = load_model(tmp_path / "model.pt", kind)
    assert isinstance(found, Model) and found.kind == kind.name
    assert found.section(section, cls) == cls()
    assert found.figures == figures and found.source_sha256 == "abc"
    assert found.trained_on("c0") == ("cases" in options)
    assert found.extra.keys() == options.keys() & {"grid", "statistics"}
    others = {VECSET, CONTINUOUS, QUANTISED, DENOISER, NEAR, AUTOENCODER, DIFFUSION} - {kind}
    with pytest.raises(InputError, match=f"is a model of kind {kind.name}, not"):
        load_model(tmp_path / "model.pt", *others)


def test_a_foreign_model_of_format_1(tmp_path):
    content = {"weights": weights(), "options": {"lr": 1.0}, "labels": [], "figures": {}}
    torch.save({"format_version": 1, **content}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="format 1 that is not recognised"):
        load_model(tmp_path / "model.pt")


def test_weights_that_do_not_fit_are_a_short_line():
    wanted = {f"layer.{i}.weight": torch.zeros(4, 4) for i in range(200)}
    given = {name: torch.zeros(2, 4) for name in wanted}
    with pytest.raises(InputError) as caught:
        check_weights(given, wanted, "model.pt")
    (line,) = caught.value.problems
    assert len(line) < 300 and "layer.0.weight is (2, 4)" in line and "200 differ" in line
    assert "layer.199.weight" in line
