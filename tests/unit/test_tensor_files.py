"""model.safetensors: the content of every family's model.pt, bit for bit, and nothing that runs."""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from damage import flip

from cardiform.artefact import tensor_files
from cardiform.artefact.model import Model, case_hash, load_model, save_portable
from cardiform.artefact.tensor_files import is_tensor_file, load_tensors, save_tensors
from cardiform.coronary.model import DENOISER, NEAR
from cardiform.errors import InputError
from cardiform.ldm.autoencoder_model import AUTOENCODER
from cardiform.ldm.diffusion_model import DIFFUSION
from cardiform.vecset.model import VECSET
from cardiform.vqvae.model import CONTINUOUS, QUANTISED

ARCHIVE = Path(__file__).parents[1] / "data" / "results_before.tar.xz"
MODELS = {  # where a results folder has a model of each kind
    VECSET: "vecset",
    CONTINUOUS: "vqvae/stage0",
    QUANTISED: "vqvae/stage2",
    DENOISER: "coronary/cardiform",
    NEAR: "coronary/near",
    AUTOENCODER: "ldm/labels/autoencoder",
    DIFFUSION: "ldm/labels/diffusion",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with tarfile.open(ARCHIVE) as archive:
        models = [m for m in archive.getmembers() if m.name.endswith("model.pt")]
        archive.extractall(folder, models, filter="data")
    return folder / "results" / "before"


def drawn(value: torch.Tensor) -> torch.Tensor:
    """Random bits of the type and shape of a tensor: NaN, infinite and subnormal numbers, too."""
    raw = value.reshape(-1).view(torch.uint8)
    return (
        torch.randint(0, 256, raw.shape, dtype=torch.uint8).view(value.dtype).reshape(value.shape)
    )


def bits(value: torch.Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.name)
def test_a_model_of_each_kind_comes_back_bit_for_bit(results, tmp_path, kind):
    before = load_model(results / MODELS[kind] / "model.pt", kind)
    torch.manual_seed(0)
    before = Model(**vars(before) | {"weights": {n: drawn(w) for n, w in before.weights.items()}})
    save_portable(tmp_path / "model.safetensors", before)
    after = load_model(tmp_path / "model.safetensors", kind)
    assert after.weights.keys() == before.weights.keys() and before.weights
    for name, value in before.weights.items():
        found = after.weights[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape), name
        assert bits(found) == bits(value), name
    for name in ("kind", "options", "labels", "figures", "training_cases", "extra", "versions"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.source_sha256 == before.source_sha256


def test_the_same_model_is_the_same_file(results, tmp_path):
    model = load_model(results / "vecset" / "model.pt")
    for name in "ab":
        save_portable(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def a_model(**changes) -> Model:
    content = {
        "kind": "toy", "weights": {"a": torch.arange(6.0)}, "options": {"toy": {"width": 4}},
        "labels": [], "figures": {}, "training_cases": [case_hash("c0")],
    }  # fmt: skip
    return Model(**content | changes)


def test_views_shared_and_empty_tensors(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    weights = {
        "whole": whole, "again": whole, "turned": whole.T, "part": whole[:, 1], "none": whole[:0],
        "one": torch.tensor(3), "half": whole.bfloat16(), "yes": whole > 3,
    }  # fmt: skip
    save_portable(tmp_path / "m", a_model(weights=weights))
    found = load_model(tmp_path / "m").weights
    assert all(torch.equal(found[n], w) and found[n].dtype == w.dtype for n, w in weights.items())


def test_no_case_and_no_folder_is_in_the_file(tmp_path):
    paths = {"resume_from": "/home/me/a", "pretrained": "/home/me/b", "perceptual_file": "/home/c"}
    statistics = {"incomplete": ["patient_x"], "shape": [1]}
    model = a_model(options={"toy": paths | {"width": 4}}, extra={"statistics": statistics})
    save_portable(tmp_path / "m", model)
    raw = (tmp_path / "m").read_bytes()
    assert b"/home" not in raw and b"patient_x" not in raw
    found = load_model(tmp_path / "m")
    assert found.extra["statistics"] == {"incomplete": [case_hash("patient_x")], "shape": [1]}
    assert found.options["toy"] == dict.fromkeys(paths, "") | {"width": 4}
    assert model.extra["statistics"]["incomplete"] == ["patient_x"], "the model itself stays"


@pytest.mark.parametrize("place", [0.02, 0.2, 0.4, 0.6, 0.8, 0.99])
def test_a_changed_bit_is_noticed(tmp_path, place):
    save_portable(tmp_path / "m", a_model(weights={"a": torch.randn(500)}))
    flip(tmp_path / "m", place)
    with pytest.raises(InputError, match="m: is damaged or ") as caught:
        load_model(tmp_path / "m")
    assert len(caught.value.problems) == 1


def rewritten(path, change):
    """Let ``change`` alter the JSON of a file, whose checksum stays."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    content = json.loads(header["__metadata__"][tensor_files.KEY])
    header["__metadata__"][tensor_files.KEY] = json.dumps(change(content))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c | {"labels": [1]},
        lambda c: c | {"more": 1},
        lambda c: {k: v for k, v in c.items() if k != "sha256"},
        lambda c: [c],
        lambda c: None,
    ],
)
def test_json_that_was_changed(tmp_path, change):
    save_portable(tmp_path / "m", a_model())
    rewritten(tmp_path / "m", change)
    with pytest.raises(InputError, match="m: is "):
        load_model(tmp_path / "m")


def test_a_newer_format_and_another_kind_are_one_line(tmp_path):
    save_tensors(tmp_path / "m", vars(a_model()) | {"path": ""}, version=3)
    with pytest.raises(InputError, match=r"model format 3, this version reads 1, 2: .*newer"):
        load_model(tmp_path / "m")
    save_portable(tmp_path / "m", a_model())
    with pytest.raises(InputError, match="is a model of kind toy, not a VecSet"):
        load_model(tmp_path / "m", VECSET)


FOREIGN = {
    "no metadata": struct.pack("<Q", 2) + b"{}",
    "of another program": struct.pack("<Q", 34) + b'{"__metadata__":{"format":"pt"}}  ',
    "longer than the file": struct.pack("<Q", 1000) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"{abc",
    "not text": struct.pack("<Q", 4) + b"{\xff\xfe\xfd",
    "nothing": b"",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_one_line(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match="m: is damaged or no file of this project"):
        load_model(tmp_path / "m")


def test_what_a_file_is_follows_from_its_content(results, tmp_path):
    model = load_model(results / "vecset" / "model.pt")
    save_portable(tmp_path / "model.pt", model)
    assert is_tensor_file(tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt", VECSET).kind == "vecset"
    assert not is_tensor_file(results / "vecset" / "model.pt")
    assert not is_tensor_file(tmp_path / "none")


def test_what_was_read_does_not_follow_the_file(tmp_path):
    save_tensors(tmp_path / "m", {"weights": {"a": torch.ones(4)}}, 1)
    found = load_tensors(tmp_path / "m", "")["weights"]["a"]
    raw = bytearray((tmp_path / "m").read_bytes())
    raw[-16:] = bytes(16)
    with (tmp_path / "m").open("r+b") as stream:
        stream.write(raw)
    assert torch.equal(found, torch.ones(4))
