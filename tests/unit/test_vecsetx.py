"""Weights in VecSetX's layout: the same distances, and what is wrong with a file in one line."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import refused
from inside import run_inside
from points_files import write_points_file

from cardiform.artefact.model import load_model
from cardiform.cohort.splits import write_split
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import sha256_file
from cardiform.labels import LabelTable
from cardiform.options.vecset import VecsetOptions
from cardiform.training.checkpoint import resume_key
from cardiform.vecset.model import PRESETS, VECSET, VecSet
from cardiform.vecset.train import start_from, vecset_job
from cardiform.vecset.vecsetx import PRESET, convert_vecsetx, read_checkpoint

TABLE = LabelTable()
DIM, DEPTH, LATENTS, CODES = 128, 2, 12, 6  # two heads of 64
POINTS, QUERIES = 40, 30


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sizes = {"dim": DIM, "depth": DEPTH, "heads": 2, "latents": LATENTS, "latent_dim": CODES}
    monkeypatch.setitem(PRESETS, PRESET, replace(PRESETS[PRESET], **sizes))


def layer(weights: dict, name: str, rows: int, columns: int, bias: bool = True) -> None:
    weights[f"{name}.weight"] = torch.randn(rows, columns) / columns**0.5
    if bias:
        weights[f"{name}.bias"] = torch.randn(rows) / 10


def block(weights: dict, name: str, attends: bool) -> None:
    """A norm and what stands behind it."""
    weights[f"{name}.norm.weight"] = 1 + torch.randn(DIM) / 10
    weights[f"{name}.norm.bias"] = torch.randn(DIM) / 10
    if attends:
        layer(weights, f"{name}.fn.to_q", DIM, DIM, bias=False)
        layer(weights, f"{name}.fn.to_kv", 2 * DIM, DIM, bias=False)
        layer(weights, f"{name}.fn.to_out", DIM, DIM)
    else:
        layer(weights, f"{name}.fn.net.0", 8 * DIM, DIM)
        layer(weights, f"{name}.fn.net.2", DIM, 4 * DIM)


def basis() -> torch.Tensor:
    """(3, 24): pi, 2 pi ... 128 pi for each axis."""
    result = torch.zeros(3, 24)
    for axis in range(3):
        for octave in range(8):
            result[axis, 8 * axis + octave] = math.pi * 2**octave
    return result


def random_weights(learned: bool, bottleneck: str) -> dict:
    """A state dict in the layout of VecSetX."""
    torch.manual_seed(3)
    weights = {"point_embed.basis": basis()}
    layer(weights, "point_embed.mlp", DIM, 51)
    if learned:
        weights["latents.weight"] = torch.randn(LATENTS, DIM)
    block(weights, "cross_attend_blocks.0", attends=True)
    block(weights, "cross_attend_blocks.1", attends=False)
    for number in range(DEPTH):
        block(weights, f"layers.{number}.0", attends=True)
        block(weights, f"layers.{number}.1", attends=False)
    block(weights, "decoder_cross_attn", attends=True)
    weights["to_outputs.0.weight"], weights["to_outputs.0.bias"] = torch.randn(2, DIM)
    layer(weights, "to_outputs.1", 1, DIM)
    if bottleneck == "normalized":
        layer(weights, "bottleneck.pre_bottleneck_proj", CODES, DIM)
        # latents with little variance: what is added to it counts
        weights["bottleneck.pre_bottleneck_proj.weight"] /= 100
        weights["bottleneck.pre_bottleneck_proj.bias"] /= 100
        layer(weights, "bottleneck.post_bottleneck_proj", DIM, CODES)
        weights["bottleneck.gamma"], weights["bottleneck.beta"] = torch.randn(2, CODES)
    if bottleneck == "kl":
        layer(weights, "bottleneck.mean_fc", CODES, DIM)
        layer(weights, "bottleneck.logvar_fc", CODES, DIM)
        layer(weights, "bottleneck.proj", DIM, CODES)
    return weights


def vecsetx_distances(w: dict, points, starts, queries) -> torch.Tensor:
    """(Q,) what a network of that layout answers at (Q, 3), by its description."""

    def linear(name, x):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name, x):
        return F.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"])

    def embed(x):
        angles = x @ w["point_embed.basis"]
        return linear("point_embed.mlp", torch.cat([angles.sin(), angles.cos(), x], dim=-1))

    def attend(name, x, context=None):
        x = norm(f"{name}.norm", x)
        context = x if context is None else context
        query = linear(f"{name}.fn.to_q", x)
        key, value = linear(f"{name}.fn.to_kv", context).split(DIM, dim=-1)
        heads = []
        for q, k, v in zip(*(t.split(64, dim=-1) for t in (query, key, value))):
            heads.append((q @ k.T / 8).softmax(dim=-1) @ v)
        return linear(f"{name}.fn.to_out", torch.cat(heads, dim=-1))

    def feed(name, x):
        value, gate = linear(f"{name}.fn.net.0", norm(f"{name}.norm", x)).split(4 * DIM, dim=-1)
        return linear(f"{name}.fn.net.2", value * F.gelu(gate))

    learned = w.get("latents.weight")
    x = embed(points[starts]) if learned is None else learned
    x = attend("cross_attend_blocks.0", x, embed(points)) + x
    x = feed("cross_attend_blocks.1", x) + x
    if "bottleneck.gamma" in w:
        codes = linear("bottleneck.pre_bottleneck_proj", x)
        centred = codes - codes.mean(-1, keepdim=True)
        codes = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        codes = codes * w["bottleneck.gamma"] + w["bottleneck.beta"]
        x = linear("bottleneck.post_bottleneck_proj", codes)
    elif "bottleneck.mean_fc.weight" in w:
        x = linear("bottleneck.proj", linear("bottleneck.mean_fc", x))
    x = x if learned is None else x + learned
    for number in range(DEPTH):
        x = attend(f"layers.{number}.0", x) + x
        x = feed(f"layers.{number}.1", x) + x
    answer = attend("decoder_cross_attn", embed(queries), x)
    return linear("to_outputs.1", norm("to_outputs.0", answer)).squeeze(-1)


def checkpoint(path, weights, **more):
    torch.save({"model": weights, "epoch": 3, "args": argparse.Namespace(lr=1e-4), **more}, path)
    return path


@pytest.mark.parametrize("bottleneck", ["normalized", "kl", "identity"])
@pytest.mark.parametrize("learned", [False, True], ids=["points", "learned"])
def test_the_network_computes_the_same(tmp_path, learned, bottleneck):
    weights = random_weights(learned, bottleneck)
    path = checkpoint(tmp_path / "theirs.pth", weights)
    options = convert_vecsetx(path, tmp_path / "model.pt", TABLE)
    assert options.bottleneck == bottleneck
    assert options.queries == ("learned" if learned else "fps")
    stored = load_model(tmp_path / "model.pt", VECSET)
    model = VecSet.from_options(stored.section("vecset", VecsetOptions), len(TABLE)).eval()
    stored.fill(model)
    points, queries = torch.rand(POINTS, 3) * 2 - 1, torch.rand(QUERIES, 3) * 2 - 1
    starts = torch.randperm(POINTS)[:LATENTS]
    classes = F.one_hot(torch.randint(len(TABLE), (POINTS,)), len(TABLE)).float()
    labelled = torch.cat([points, classes], dim=-1)
    with torch.no_grad():
        codes = model.encode(labelled[None], starts[None])
        found = model.query(model.expand(codes), queries[None])[0]
        wanted = vecsetx_distances(weights, points, starts, queries)
    assert wanted.std() > 0.03  # it depends on where it is asked
    scale = float(wanted.abs().max())
    for channel in range(len(TABLE)):
        torch.testing.assert_close(found[:, channel], wanted, rtol=0, atol=1e-5 * scale)


def test_latents_of_another_width_are_an_option(tmp_path, monkeypatch):
    weights = random_weights(True, "normalized")
    monkeypatch.setitem(PRESETS, PRESET, replace(PRESETS[PRESET], latent_dim=4))
    path = checkpoint(tmp_path / "theirs.pth", weights)
    assert convert_vecsetx(path, tmp_path / "model.pt", TABLE).latent_dim == CODES


def test_a_training_starts_from_them(tmp_path):
    path = checkpoint(tmp_path / "theirs.pth", random_weights(True, "normalized"))
    convert_vecsetx(path, tmp_path / "model.pt", TABLE)
    model = VecSet.from_options(VecsetOptions(preset=PRESET, queries="learned"), len(TABLE))
    start_from(model, str(tmp_path / "model.pt"), TABLE)
    stored = load_model(tmp_path / "model.pt").weights
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, stored[name], rtol=0, atol=0)
    other = VecSet.from_options(VecsetOptions(preset="demo"), len(TABLE))
    with pytest.raises(InputError, match="does not fit the model"):
        start_from(other, str(tmp_path / "model.pt"), TABLE)
    with pytest.raises(InputError, match="was made for the classes"):
        start_from(model, str(tmp_path / "model.pt"), LabelTable(tuple(TABLE)[:3]))


def write_case(path, seed: int) -> None:
    """A points file of one sphere, class 3."""
    rng = np.random.default_rng(seed)
    way = rng.normal(size=(200, 3))
    surface = (0.5 * way / np.linalg.norm(way, axis=1, keepdims=True)).astype(np.float32)
    volume = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
    sdf = np.full((200, len(TABLE)), np.nan, np.float16)
    sdf[:, TABLE.values.index(3)] = np.linalg.norm(volume, axis=1) - 0.5
    labels, annotated = np.full(200, 3, np.uint8), np.isin(TABLE.values, 3)
    write_points_file(
        path, surface_points=surface, surface_labels=labels, near_points=volume, near_sdf=sdf,
        near_labels=labels, volume_points=volume, volume_sdf=sdf, annotated=annotated,
        class_values=np.array(TABLE.values, np.uint8),
    )  # fmt: skip


def test_a_job_starts_from_them_and_their_content_is_part_of_its_key(tmp_path):
    write_case(tmp_path / "a.npz", 0)
    write_split(tmp_path / "s.csv", [Case(case_id="a", patient_id="a", labels="")], tmp_path)
    path = checkpoint(tmp_path / "theirs.pth", random_weights(True, "normalized"))
    convert_vecsetx(path, tmp_path / "model.pt", TABLE)

    def job(pretrained: str):
        options = VecsetOptions(
            preset=PRESET, queries="learned", input_points=64, pretrained=pretrained
        )
        split = tmp_path / "s.csv"
        return vecset_job(options, TABLE, split, split, tmp_path / "shared")

    fresh, started = job(""), job(str(tmp_path / "model.pt"))
    stored = load_model(tmp_path / "model.pt").weights
    for name, value in started.network.state_dict().items():
        torch.testing.assert_close(value, stored[name], rtol=0, atol=0)
    assert not torch.equal(fresh.network.head.bias, stored["head.bias"])
    keys = [resume_key(made.options, made.identity) for made in (started, fresh)]
    assert keys[0]["pretrained (content)"] == sha256_file(tmp_path / "model.pt")
    assert "pretrained (content)" not in keys[1]
    assert started.train_set[0, 0]["fps"].shape == (0,)


class Planted:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def spoiled(weights: dict, name: str) -> dict:
    return {k: v for k, v in weights.items() if k != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {}, "has no weights of VecSetX"),
        (lambda w: {**w, "latents.weight": "x"}, "no tensors (latents.weight)"),
        (lambda w: {**w, "to_outputs.1.bias": torch.tensor(1.0)}, "no tensors (to_outputs.1.bias)"),
        (lambda w: {**w, "point_embed.basis": basis()[:, :8]}, "has another point embedding"),
        (lambda w: {**w, "point_embed.basis": basis() * 2}, "has another point embedding"),
        (lambda w: {**w, "point_embed.mlp.weight": torch.ones(51)}, "another point embedding"),
        (lambda w: spoiled(w, "to_outputs.1.bias"), "head.bias is missing"),
        (lambda w: spoiled(w, "layers.1.0.norm.weight"), "attention_norm.weight is missing"),
        (lambda w: {**w, "layers.2.0.norm.weight": torch.ones(DIM)}, "trunk.2.attention_norm"),
        (lambda w: {**w, "to_outputs.1.weight": torch.ones(2, DIM)}, "head.weight is (20, 128)"),
        (lambda w: {**w, "more.weight": torch.ones(2)}, "more.weight is unknown"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, change, words):
    path = checkpoint(tmp_path / "theirs.pth", change(random_weights(False, "normalized")))
    with pytest.raises(InputError) as caught:
        convert_vecsetx(path, tmp_path / "model.pt", TABLE)
    [line] = caught.value.problems
    assert line.startswith(str(path)) and words in line and "give a checkpoint" in line
    assert not (tmp_path / "model.pt").exists()


def test_no_code_of_a_checkpoint_is_run(tmp_path):
    path = checkpoint(tmp_path / "theirs.pth", {}, optimizer=Planted(tmp_path / "planted"))
    with pytest.raises(InputError, match="damaged or no file"):
        read_checkpoint(path)
    assert not (tmp_path / "planted").exists()


def test_the_script(tmp_path):
    path = checkpoint(tmp_path / "theirs.pth", random_weights(False, "normalized"))
    out = tmp_path / "models" / "model.pt"
    result = run_inside("import_vecsetx.py", "--weights", path, "--out", out)
    assert result.returncode == 0, result.stderr
    assert load_model(out, VECSET).table.names == TABLE.names
    mine = tmp_path / "mine.pt"
    mine.write_text("mine")
    refused(run_inside("import_vecsetx.py", "--weights", path, "--out", mine), "was not made by")
    assert mine.read_text() == "mine"
    missing = ("--weights", tmp_path / "none.pth", "--out", tmp_path / "new.pt")
    refused(run_inside("import_vecsetx.py", *missing), "none.pth", "does not exist")
