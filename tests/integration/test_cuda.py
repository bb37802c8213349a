"""Every training on a CUDA device: precisions, resuming, fused kernels, and the same as the CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_training
from inside import run_inside
from tiny_trainings import HELD_OUT, Trainings
from torch.nn.attention import SDPBackend, sdpa_kernel

from cardiform.apply.record import FIGURES
from cardiform.artefact.model import load_model
from cardiform.files import load_npz
from cardiform.labels import LabelTable
from cardiform.options.vecset import VecsetOptions
from cardiform.training.optimisation import build_optimizer
from cardiform.vecset.model import VecSet
from cardiform.volumes import load_label_map, save_label_map

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# The sum of its losses is noisy on so few samples; the others fall within the steps below.
ENGINE = tuple(name for name in Trainings.NAMES if name != "vqvae_codebook")
LEARNING = ("--steps", 24, "--warmup-steps", 2, "--lr", 3e-3, "--validate-every", 12)
MAIN_LOSS = {"autoencoder": "generator_loss"}
# folder of a results folder -> that of the trainings
APPLIED = {
    "vecset": "vecset", "vqvae/stage2": "vqvae_joint", "coronary/cardiform": "coronary",
    "ldm/labels/autoencoder": "autoencoder", "ldm/labels/diffusion": "diffusion",
    "points": "points", "sparse/64": "voxels", "coronary/repaired": "coronary_repair",
}  # fmt: skip
DRAWS = ("rand", "randn", "randint", "randperm")
DRAWS_LIKE = ("rand_like", "randn_like")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Inputs of all trainings; the models that others start from are made on the CPU."""
    trainings = Trainings(tmp_path_factory.mktemp("cuda"), steps=2, log_every=1)
    trainings.make_models()
    return trainings


def train(made: Trainings, name: str, out: Path, *more) -> None:
    result = run_inside(*made.command(name, out, "--device", DEVICE, *more))
    assert result.returncode == 0, result.stderr


def logged(out: Path, event: str = "log") -> list[dict]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ENGINE)
def test_the_loss_is_finite_and_falls(made, tmp_path, name, precision):
    train(made, name, tmp_path, *LEARNING, "--precision", precision)
    course = logged(tmp_path)
    losses = [line["figures"][MAIN_LOSS.get(name, "loss")] for line in course]
    assert len(losses) == 24 and all(map(math.isfinite, losses)), losses
    if name != "codebook_by_gradient":  # it can but follow latents that stay as they are
        assert sum(losses[-6:]) < sum(losses[:6]), losses
    if DEVICE == "cuda":
        assert all(line["memory_gb"] > 0 for line in course)
    for value in load_model(tmp_path / "model.pt").weights.values():
        assert value.device.type == "cpu" and torch.isfinite(value).all()


@pytest.mark.parametrize("name", ENGINE)
def test_a_stopped_training_goes_on_to_the_same_end(made, tmp_path, name):
    """With fp16, whose scale is part of what goes on; kernels add in no fixed order."""
    more = ("--precision", "fp16", "--steps", 3, "--checkpoint-every", 1)
    train(made, name, tmp_path / "whole", *more)
    stopped = ("--device", DEVICE, *more, "--max-minutes", 1e-9)
    code = run_inside(*made.command(name, tmp_path / "cut", *stopped)).returncode
    assert code == 75
    train(made, name, tmp_path / "cut", *more)
    assert logged(tmp_path / "cut", "resume")[0]["step"] == 1
    whole, cut = (logged(tmp_path / n)[-1]["figures"] for n in ("whole", "cut"))
    key = MAIN_LOSS.get(name, "loss")
    assert whole[key] == pytest.approx(cut[key], rel=5e-2)


@pytest.fixture
def same_draws(monkeypatch):
    """Random numbers come from the generator of the CPU, whatever device they are for."""

    def draw(real):
        def drawn(*sizes, device=None, **keys):
            return real(*sizes, **keys).to(device or "cpu")

        return drawn

    def draw_like(real):
        def drawn(tensor, dtype=None):
            return real(tensor.cpu(), dtype=dtype).to(tensor.device)

        return drawn

    for name in DRAWS:
        monkeypatch.setattr(torch, name, draw(getattr(torch, name)))
    for name in DRAWS_LIKE:
        monkeypatch.setattr(torch, name, draw_like(getattr(torch, name)))
    # convolutions in fp32 round to TF32 by default; the CPU does not
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", ENGINE)
def test_a_step_in_fp32_is_that_of_the_cpu(made, tmp_path, name, same_draws):
    more = ("--steps", 1, "--warmup-steps", 0, "--precision", "fp32")
    train(made, name, tmp_path / "here", *more)
    result = run_inside(*made.command(name, tmp_path / "cpu", "--device", "cpu", *more))
    assert result.returncode == 0, result.stderr
    for event in ("log", "validation"):
        here, cpu = (logged(tmp_path / n, event)[0]["figures"] for n in ("here", "cpu"))
        assert here == pytest.approx(cpu, rel=2e-3, abs=1e-5)


def test_k_means_of_the_codebook(made, tmp_path):
    train(made, "vqvae_codebook", tmp_path)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["train"]["usage"] >= 0.5
    assert figures["validation"]["vq"] < figures["before"]["vq"]


def test_a_training_of_the_cpu_goes_on_here_and_back(tmp_path):
    """Kernels of the optimizer and the gradients' scale are those of the device at hand."""
    for steps, device in ((1, "cpu"), (2, DEVICE), (3, "cpu"), (4, DEVICE)):
        with pytest.raises(SystemExit) as stopped:
            changes = {"device": device, "precision": "fp16", "max_minutes": 1e-9}
            toy_training.run(tmp_path, **changes)
        assert stopped.value.code == 75
        assert len(logged(tmp_path, "stop")) == steps


def test_the_optimizer_is_fused_on_the_device():
    layer = torch.nn.Linear(3, 3).to(DEVICE)
    optimizer = build_optimizer(layer.parameters(), VecsetOptions(), torch.device(DEVICE))
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("kernel", [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION])
def test_attention_of_the_vecset_takes_the_fused_kernels(kernel):
    """In bf16; where a kernel cannot do it, asking for it alone is an error."""
    if kernel == SDPBackend.FLASH_ATTENTION and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("flash attention needs compute capability 8")
    table = LabelTable()
    model = VecSet.from_options(VecsetOptions(preset="small"), len(table)).to(DEVICE)
    points = torch.rand(2, 1024, 3 + len(table), device=DEVICE)
    rows = torch.arange(512, device=DEVICE).expand(2, -1)
    queries = torch.rand(2, 256, 3, device=DEVICE)
    with torch.autocast(DEVICE, dtype=torch.bfloat16), sdpa_kernel([kernel]):
        model(points, rows, queries)[0].sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_trained_models_make_of_a_new_case_what_they_make_on_the_cpu(made, tmp_path):
    """All tasks of apply; but for rounding, and the noise that a completion begins with."""
    for place, source in APPLIED.items():
        (tmp_path / "acme" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "acme" / place).symlink_to(made.folder / source)
    given = load_label_map(made.folder / "demo" / "labels" / f"{HELD_OUT}.nii.gz")
    labels = np.where(given.data == 10, 0, given.data).astype(np.uint8)
    save_label_map(tmp_path / "new" / f"{HELD_OUT}.nii.gz", labels, given.affine)
    for out, device in (("here", DEVICE), ("cpu", "cpu")):
        words = ("--models", tmp_path / "acme", "--labels", tmp_path / "new", "--device", device)
        result = run_inside("apply_models.py", *words, "--out", tmp_path / out)
        assert result.returncode == 0, result.stderr
    here, cpu = (
        FIGURES.load(tmp_path / f / "figures" / f"{HELD_OUT}.json") for f in ("here", "cpu")
    )
    assert here["tasks"] == cpu["tasks"] == ["reconstruct", "encode", "refine", "complete", "fuse"]
    assert here["notes"] == cpu["notes"]
    maps = sorted(p.relative_to(tmp_path / "cpu") for p in (tmp_path / "cpu").rglob("*.nii.gz"))
    assert len(maps) >= 5
    for name in maps:
        first, second = (load_label_map(tmp_path / out / name).data for out in ("here", "cpu"))
        if name.parts[0] == "completed":
            np.testing.assert_array_equal(first[labels > 0], second[labels > 0])
        else:
            assert (first != second).mean() < 0.01, name
    first, second = (
        load_npz(tmp_path / out / "latents" / f"{HELD_OUT}.npz") for out in ("here", "cpu")
    )
    assert first.keys() == second.keys()
    for name in ("fold0_vecset", "fold0_ldm_mu"):
        spread = np.ptp(second[name])
        np.testing.assert_allclose(first[name], second[name], atol=0.02 * spread)


def test_a_heart_from_slices_is_that_of_the_cpu(made, tmp_path):
    results = tmp_path / "acme"
    results.mkdir()
    shares = ("--normals", "true", "--hidden-share", 0.5, "--slices-share", 0.5)
    train(made, "vecset", results / "vecset", *LEARNING, *shares)
    (results / "points").symlink_to(made.folder / "points")
    (results / "meshes").symlink_to(made.folder / "meshes")
    given = load_label_map(made.folder / "demo" / "labels" / f"{HELD_OUT}.nii.gz")
    labels = given.data.copy()
    labels[:, :, 1::2] = 0
    save_label_map(tmp_path / "slices.nii.gz", labels, given.affine)
    maps = {}
    for device in (DEVICE, "cpu"):
        words = ("--model", results / "vecset" / "model.pt", "--device", device)
        words += ("--label-maps", tmp_path / "slices.nii.gz", "--slices")
        result = run_inside("complete_vecset.py", *words, "--out", tmp_path / device)
        assert result.returncode == 0, result.stderr
        maps[device] = load_label_map(tmp_path / device / "slices.nii.gz").data
    np.testing.assert_array_equal(maps[DEVICE][:, :, ::2], maps["cpu"][:, :, ::2])
    assert (maps["cpu"][:, :, 1::2] > 0).any()
    assert (maps[DEVICE] != maps["cpu"]).mean() < 0.01
