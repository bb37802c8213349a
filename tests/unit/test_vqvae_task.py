"""The stages: what is trained and what stays, the terms of the loss, figures, resumed runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bands import write_cohort

from cardiform.artefact.model import load_model, save_model
from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.options.vqvae import (
    VqvaeCodebookOptions,
    VqvaeJointOptions,
    VqvaeOptions,
    VqvaePretrainOptions,
)
from cardiform.sparse.tensor import SparseTensor, Structure
from cardiform.training.engine import train
from cardiform.vqvae.codebook import cached_latents, check_usage, fit_codebook
from cardiform.vqvae.data import VoxelDataset, collate, find_instances
from cardiform.vqvae.model import CONTINUOUS, QUANTISED, SparseVQVAE
from cardiform.vqvae.quantizer import kmeans
from cardiform.vqvae.task import VqvaeTask, band_of
from cardiform.vqvae.train import Sets
from cardiform.vqvae.trained import load_network, load_quantized, load_weights

CPU = torch.device("cpu")
NETWORK = VqvaeOptions(channels=(8, 8, 8, 16), blocks=(1, 0, 0, 1), latent_dim=6, max_voxels=20_000)
QUICK = {
    "steps": 4, "batch_size": 4, "warmup_steps": 1, "validate_every": 2, "checkpoint_every": 2,
    "preview_every": 0, "log_every": 1, "workers": 0, "device": "cpu", "lr": 0.01,
}  # fmt: skip
CODEBOOK = VqvaeCodebookOptions(codebook_size=16, ema_batch=64, **QUICK)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Balls of several sizes: 8 to train on, 2 to validate."""
    folder = tmp_path_factory.mktemp("bands")
    radii = {f"c{i}": [0.3 + 0.04 * i, 0.5 - 0.02 * i] for i in range(5)}
    manifest = write_cohort(folder, radii)
    parts = (["c0", "c1", "c2", "c3"], ["c4"])
    train_set, validation = (find_instances([manifest], names) for names in parts)
    return Sets(
        VoxelDataset(train_set, 20_000, augment=True),
        VoxelDataset(validation, 20_000, augment=False),
        LabelTable(),
    )


def continuous() -> VqvaeTask:
    torch.manual_seed(0)
    return VqvaeTask(SparseVQVAE.from_options(NETWORK), NETWORK, VqvaePretrainOptions(**QUICK))


def quantized(codebook=CODEBOOK, stage=None, trained="all") -> VqvaeTask:
    torch.manual_seed(0)
    model = SparseVQVAE.from_options(NETWORK, codebook)
    if trained == "all":
        return VqvaeTask.joint(model, NETWORK, stage or VqvaeJointOptions(**QUICK), codebook)
    return VqvaeTask(model, NETWORK, stage, codebook, trained)


def fresh_batch(sets) -> dict:
    return collate([sets.validation[i, i] for i in range(2)])


def run(task, sets, out, **changes):
    options = dataclasses.replace(task.stage, **changes)
    return train(
        task, sets.train, sets.validation, options=options, out=out, identity={}, collate=collate
    )


def fitted(task, sets, codebook) -> tuple[dict, dict]:
    """Figures before and after."""
    latents = cached_latents(task.model, sets.train, codebook, CPU).values
    return fit_codebook(task, latents, sets.validation, codebook, CPU)


def write_model(folder, model, options, codebook=None) -> None:
    """model.pt of a stage."""
    sections = {"vqvae": options} | ({"vqvae_codebook": codebook} if codebook else {})
    save_model(
        folder / "model.pt",
        QUANTISED if codebook else CONTINUOUS,
        model.state_dict(),
        options=sections,
        labels=LabelTable(),
        figures={},
        training_cases=["a"],
        source_sha256="",
    )


def state(task) -> dict:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def moved(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_terms_of_the_continuous_loss(sets) -> None:
    task, batch = continuous(), fresh_batch(sets)
    loss, figures = task.loss(batch, "model", 0)
    decoded, _, _ = task.model(band_of(batch))
    l1 = (decoded.field.feats - batch["sdf"]).abs().mean()
    structure = batch["structure"]
    cross_entropy = 0.0
    for logits in reversed(decoded.logits):  # fine to coarse
        there = structure.halved.occupied.float()
        probability = torch.sigmoid(logits)
        terms = there * probability.log() + (1 - there) * (1 - probability).log()
        cross_entropy = cross_entropy - terms.mean()
        structure = structure.halved.coarse
    torch.testing.assert_close(loss, l1 + 0.1 * cross_entropy)
    torch.testing.assert_close(figures["recon"], l1)
    assert set(figures) == {"loss", "recon", "structure"}


def test_the_terms_of_the_joint_loss(sets) -> None:
    task, batch = quantized(), fresh_batch(sets)
    loss, figures = task.loss(batch, "model", 0)
    decoded, latents, codes = task.model(band_of(batch))
    error = decoded.field.feats - batch["sdf"]
    torch.testing.assert_close(figures["recon"], error.abs().mean() + error.square().mean())
    distance = task.model.quantizer.decode_indices(codes.indices) - latents.feats
    torch.testing.assert_close(figures["vq"], distance.square().mean())
    torch.testing.assert_close(figures["commitment"], distance.square().mean())
    expected = figures["recon"] + 0.1 * figures["structure"]
    weighted = expected + 1.0 * figures["vq"] + 0.25 * figures["commitment"]
    torch.testing.assert_close(loss, weighted)
    other = quantized(stage=VqvaeJointOptions(lambda_vq=3.0, lambda_commitment=0.5, **QUICK))
    loss, figures = other.loss(fresh_batch(sets), "model", 0)
    torch.testing.assert_close(loss, expected + 3.0 * figures["vq"] + 0.5 * figures["commitment"])
    assert {"usage", "perplexity"} <= set(figures)


def test_stage_0_trains_everything_and_learns(sets, tmp_path) -> None:
    task = continuous()
    before = state(task)
    outcome = run(task, sets, tmp_path, steps=45, ema_decay=0.0)
    assert moved(before, state(task)) == set(before)
    assert outcome.last["l1_voxels"] < 0.7 * outcome.baseline["l1_voxels"]
    assert not any(name.startswith("quantizer") for name in before)


@pytest.mark.parametrize("kind", ["codebook", "fsq"])
def test_stage_1_by_gradient_moves_the_quantiser_alone(sets, tmp_path, kind) -> None:
    codebook = dataclasses.replace(
        CODEBOOK, method="gradient", quantizer=kind, fsq_levels=(4, 4), ema_decay=0.0
    )
    task = quantized(codebook, codebook, trained="quantizer")
    before = state(task)
    run(task, sets, tmp_path)
    changed = moved(before, state(task))
    assert changed and all(name.startswith("quantizer.") for name in changed)
    trained = "quantizer.codebook" if kind == "codebook" else "quantizer.inward.weight"
    # with a frozen encoder nothing pulls at a straight-through inward projection but the decoder
    assert trained in changed


def test_stage_1_by_kmeans_moves_the_quantiser_alone(sets) -> None:
    task = quantized(CODEBOOK, CODEBOOK, trained="quantizer")
    before = state(task)
    first, last = fitted(task, sets, CODEBOOK)
    changed = moved(before, state(task))
    assert changed == {f"quantizer.{name}" for name in ("codebook", "counts", "sums")}
    assert last["vq"] < 0.5 * first["vq"]
    assert last["l1_voxels"] != first["l1_voxels"]


def test_kmeans_alone_leaves_the_means(sets) -> None:
    found = {}
    for method in ("kmeans", "kmeans_ema"):
        codebook = dataclasses.replace(CODEBOOK, method=method)
        task = quantized(codebook, codebook, trained="quantizer")
        fitted(task, sets, codebook)
        latents = cached_latents(task.model, sets.train, codebook, CPU)
        codes, _ = kmeans(latents.values, 16, 15, torch.Generator().manual_seed(0))
        found[method] = torch.equal(task.model.quantizer.codebook, codes)
    assert found == {"kmeans": True, "kmeans_ema": False}


def test_cached_latents_are_those_of_the_samples_as_they_are(sets) -> None:
    task = continuous()
    cached = cached_latents(task.model, sets.train, CODEBOOK, CPU)
    plain = VoxelDataset(sets.train.instances, 20_000, augment=False)
    with torch.no_grad():
        single = [task.model.encode(band_of(collate([plain[i, 0]]))).feats for i in range(8)]
    torch.testing.assert_close(cached.values, torch.cat(single))
    assert cached.window is None


def test_a_validation_moves_no_code(sets) -> None:
    task = quantized()
    before = state(task)
    task.evaluate([fresh_batch(sets)])
    task.after_step(0)
    assert not moved(before, state(task))


def test_stage_1_tells_of_too_few_latents(sets) -> None:
    codebook = dataclasses.replace(CODEBOOK, codebook_size=5000)
    task = quantized(codebook, codebook, trained="quantizer")
    with pytest.raises(InputError, match=r"latents for 5,000 codes; lower vqvae_codebook"):
        fitted(task, sets, codebook)


def test_a_collapsed_codebook_fails_the_stage() -> None:
    check_usage(0.5, 0.5, "x")
    with pytest.raises(InputError, match=r"stage1: the training latents use 3.0% of the codes"):
        check_usage(0.03, 0.5, "stage1")


def test_stage_2_moves_everything_and_the_codes_by_their_latents(sets, tmp_path) -> None:
    task = quantized()
    before = state(task)
    run(task, sets, tmp_path)
    assert moved(before, state(task)) == set(before)
    assert not any(p is task.model.quantizer.codebook for p in task.parameters("model"))


def test_stage_2_unfreezes_level_by_level(sets, tmp_path) -> None:
    """From the latents outwards; an interrupted training ends with the same bits."""
    stage = VqvaeJointOptions(**QUICK | {"steps": 7, "lr": 0.001}, unfreeze_steps=2)
    frozen = quantized(stage=stage)
    finer = [{id(p) for p in frozen.model.finer_parameters(level)} for level in range(4)]
    names = {n: id(p) for n, p in frozen.model.named_parameters()}
    levels = {  # by hand: which levels the parts of the network belong to
        0: ("stem", "encoder.0", "down.0", "up.0", "decoder.0", "head"),
        1: ("encoder.1", "down.1", "up.1", "decoder.1", "subdivision.0"),
        2: ("encoder.2", "down.2", "up.2", "decoder.2", "subdivision.1"),
    }
    for level, parts in levels.items():
        own = {i for n, i in names.items() if n.startswith(tuple(f"{p}." for p in parts))}
        assert own and finer[level + 1] == finer[level] | own and not finer[level] & own
    for until, level in ((1, 3), (2, 3), (3, 2), (5, 1), (7, 0)):
        task = quantized(stage=stage)
        before = state(task)
        run(task, sets, tmp_path / "parts", until=until, ema_decay=0.0)
        found = {names[n] for n in moved(before, state(task)) if n in names}
        assert found and not found & finer[level], until
        # not all of a level in its first step: the last layers of blocks are zero then
        assert all(found & finer[n + 1] - finer[n] for n in range(level, 3)), until
    whole = run(quantized(stage=stage), sets, tmp_path / "whole")
    parts = run(quantized(stage=stage), sets, tmp_path / "parts", until=0)
    assert parts.steps == whole.steps == 7
    assert not moved(whole.weights, parts.weights)


def test_stage_2_after_gradient_codes_trains_them_by_gradient(sets, tmp_path) -> None:
    task = quantized(dataclasses.replace(CODEBOOK, method="gradient"))
    assert any(p is task.model.quantizer.codebook for p in task.parameters("model"))
    before = state(task)
    run(task, sets, tmp_path)
    assert "quantizer.codebook" in moved(before, state(task))
    assert "quantizer.sums" not in moved(before, state(task))


def test_the_codes_follow_all_micro_batches_of_a_step(sets) -> None:
    """Two micro-batches leave the codes where one of both together leaves them."""
    tasks = [quantized(), quantized()]
    samples = [sets.validation[i, i] for i in range(2)]
    for task, batches in zip(tasks, ([samples], [samples[:1], samples[1:]])):
        for batch in batches:
            task.loss(collate(batch), "model", 0)
        torch.manual_seed(1)
        task.after_step(0)
    one, other = (task.model.quantizer for task in tasks)
    torch.testing.assert_close(one.counts, other.counts)
    torch.testing.assert_close(one.sums, other.sums)
    torch.testing.assert_close(one.recent, other.recent)


def test_validation_figures_of_a_perfect_and_a_blank_decoder(sets, monkeypatch) -> None:
    task, batch = continuous(), fresh_batch(sets)
    real = task.model.forward

    def decoded_as(change):
        def forward(band, samples):
            decoded, latents, codes = real(band, samples)
            field = decoded.field.replace(change(band.feats))
            return dataclasses.replace(decoded, field=field), latents, codes

        return forward

    monkeypatch.setattr(task.model, "forward", decoded_as(lambda sdf: sdf))
    perfect = task.evaluate([batch])
    assert perfect["l1_voxels"] == 0 and perfect["iou"] == 1
    monkeypatch.setattr(task.model, "forward", decoded_as(torch.ones_like))
    blank = task.evaluate([batch])
    far = lambda sdf: torch.where(sdf.abs() * 3.0 < 1.5, sdf, -sdf)  # noqa: E731
    monkeypatch.setattr(task.model, "forward", decoded_as(far))
    assert task.evaluate([batch])["iou"] == 1, "the sign counts within 1.5 voxels alone"
    expected = (1 - batch["sdf"]).abs().mean() * 3.0  # the band is three voxels
    assert blank["l1_voxels"] == pytest.approx(float(expected), rel=1e-5) and blank["iou"] == 0


def test_a_preview_is_a_picture_of_what_is_decoded(sets, tmp_path, monkeypatch) -> None:
    task = quantized()
    shown = {}
    monkeypatch.setattr(
        "cardiform.vqvae.task.section_picture",
        lambda path, distances, points, *rest, title: shown.update(
            inside=distances(points * 0.2), beyond=distances(points * 0 + 0.99), points=points
        ),
    )
    batch = fresh_batch(sets)
    first = batch["coords"][:, 0] == 0
    truth = SparseTensor(
        batch["sdf"][first], Structure.of_samples([batch["coords"][first][:, 1:]], 32)
    )
    real = task.model.decode(task.model.encode(truth), truth.structure)
    perfect = dataclasses.replace(real, field=truth)
    monkeypatch.setattr(task.model, "decode", lambda latents, samples: perfect)
    task.preview([batch], tmp_path, 7)
    # the structure fills the picture but for a margin
    assert torch.from_numpy(shown["points"]).norm(dim=1).mean() == pytest.approx(1 / 1.2, abs=0.04)
    assert (shown["inside"] == -1).all() and (shown["beyond"] == 1).all()
    monkeypatch.undo()
    task.preview([fresh_batch(sets)], tmp_path, 7)
    assert (tmp_path / "0000007.png").stat().st_size > 0


def test_a_structure_of_a_few_voxels_has_a_preview(sets, tmp_path) -> None:
    """None of them within half a voxel of the surface: no reason to end a training."""
    batch = fresh_batch(sets)
    first = batch["coords"][:, 0] == 0
    few = batch["coords"][first][:1]
    batch |= {"coords": few, "sdf": torch.full((1, 1), 0.9)}
    quantized().preview([batch], tmp_path, 7)
    assert (tmp_path / "0000007.png").stat().st_size > 0


def test_structure_figures_of_all_and_no_children(sets) -> None:
    task, batch = continuous(), fresh_batch(sets)
    shares = []
    structure = band_of(batch).structure
    for _ in range(3):
        shares.append(float(structure.halved.occupied.float().mean()))
        structure = structure.halved.coarse
    for head in task.model.subdivision:
        head[1].weight.data.zero_()
        head[1].bias.data.fill_(1.0)
    figures = task.evaluate([fresh_batch(sets)])
    for resolution, share in zip((1, 2, 4), shares):
        assert figures[f"recall_{resolution}"] == 1
        assert figures[f"precision_{resolution}"] == pytest.approx(share)
    for head in task.model.subdivision:
        head[1].bias.data.fill_(-1.0)
    assert task.evaluate([fresh_batch(sets)])["recall_1"] == 0


def test_an_interrupted_joint_training_ends_with_the_same_bits(sets, tmp_path) -> None:
    whole = run(quantized(), sets, tmp_path / "whole")
    task = quantized()
    with pytest.raises(SystemExit) as stopped:
        run(task, sets, tmp_path / "parts", max_minutes=1e-9)
    assert stopped.value.code == 75
    parts = run(quantized(), sets, tmp_path / "parts")
    assert parts.steps == whole.steps == 4
    assert not moved(whole.weights, parts.weights)


def test_weights_that_do_not_fit_are_refused_with_the_keys(sets, tmp_path) -> None:
    other = dataclasses.replace(NETWORK, channels=(8, 8, 16, 16))
    model = SparseVQVAE.from_options(other)
    path = tmp_path / "model.pt"
    write_model(tmp_path, model, other)
    with pytest.raises(InputError) as caught:
        load_weights(SparseVQVAE.from_options(NETWORK), path)
    text = str(caught.value)
    assert "model.pt: does not fit the model" in text
    assert "down.1.weight is (8, 8, 16), the model has (8, 8, 8)" in text
    deeper = dataclasses.replace(other, blocks=(2, 0, 0, 1))
    with pytest.raises(InputError, match=r"encoder\.0\.1\.weight is missing"):
        load_weights(SparseVQVAE.from_options(deeper), path)


def test_a_stored_network_is_the_same_network(sets, tmp_path) -> None:
    for task, codebook in ((continuous(), None), (quantized(), CODEBOOK)):
        write_model(tmp_path, task.model, NETWORK, codebook)
        again = load_network(tmp_path / "model.pt", quantised=codebook is not None)
        batch = fresh_batch(sets)
        with torch.no_grad():
            one, other = (m.eval()(band_of(batch))[0].field.feats for m in (task.model, again))
        assert torch.equal(one, other)
    assert load_model(tmp_path / "model.pt").table == LabelTable()
    with pytest.raises(InputError, match="does not exist"):
        load_network(tmp_path / "none.pt", quantised=False)


def test_a_model_without_a_quantiser_starts_no_joint_training(sets, tmp_path) -> None:
    task = continuous()
    write_model(tmp_path, task.model, NETWORK)
    with pytest.raises(InputError, match=r"of kind vqvae_continuous, not a sparse VQ-VAE"):
        load_quantized(tmp_path / "model.pt", NETWORK)
