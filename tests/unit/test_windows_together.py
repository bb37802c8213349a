"""Several CT windows in one sparse VQ-VAE: the network, its samples, figures, resumed runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bands import write_windows

from cardiform.apply.models import find_models
from cardiform.artefact.model import save_model
from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.options.vqvae import (
    VqvaeCodebookOptions,
    VqvaeJointOptions,
    VqvaeOptions,
    VqvaePretrainOptions,
)
from cardiform.training.engine import train
from cardiform.vqvae.codebook import cached_latents, training_usage
from cardiform.vqvae.data import VoxelDataset, collate, find_instances
from cardiform.vqvae.model import QUANTISED, SparseVQVAE
from cardiform.vqvae.task import VqvaeTask, band_of
from cardiform.vqvae.trained import load_for_label_maps, load_network
from cardiform.vqvae.windows import SampleWindows, WindowSet

CPU = torch.device("cpu")
WINDOWS = WindowSet.parse(["bone=300/1500", "soft=50/400"])
NETWORK = VqvaeOptions(channels=(8, 8, 8, 16), blocks=(1, 0, 0, 1), latent_dim=6, max_voxels=20_000)
QUICK = {
    "steps": 4, "batch_size": 4, "warmup_steps": 1, "validate_every": 2, "checkpoint_every": 2,
    "preview_every": 0, "log_every": 1, "workers": 0, "device": "cpu", "lr": 0.01,
}  # fmt: skip
CODEBOOK = VqvaeCodebookOptions(codebook_size=16, **QUICK)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two windows of three scans to train on, and of one to validate."""
    folder = tmp_path_factory.mktemp("windows")
    sizes = {"bone": 0.5, "soft": 0.3}
    radii = {w: {f"c{i}": r + 0.03 * i for i in range(4)} for w, r in sizes.items()}
    manifests = write_windows(folder, radii)
    parts = ["c0", "c1", "c2"], ["c3"]
    found = [find_instances(manifests, names) for names in parts]
    return [VoxelDataset(f, 20_000, augment=f is found[0], windows=WINDOWS) for f in found]


def network(windows=WINDOWS, codebook=CODEBOOK) -> SparseVQVAE:
    torch.manual_seed(0)
    return SparseVQVAE.from_options(NETWORK, codebook, windows)


def joint() -> VqvaeTask:
    return VqvaeTask.joint(network(), NETWORK, VqvaeJointOptions(**QUICK), CODEBOOK)


def moved(model: SparseVQVAE) -> SparseVQVAE:
    """The same with embeddings that are not zero."""
    for embedding in (model.encoder_window.embedding, model.decoder_window.embedding):
        torch.nn.init.normal_(embedding, generator=torch.Generator().manual_seed(1))
    return model


def batch_of(dataset) -> dict:
    return collate([dataset[i, i] for i in range(len(dataset))])


def test_it_starts_as_the_network_without_windows(sets) -> None:
    batch = batch_of(sets[1])
    samples = SampleWindows.of_batch(batch)
    plain = network(WindowSet())(band_of(batch))
    told = network()(band_of(batch), samples)
    assert torch.equal(plain[0].field.feats, told[0].field.feats)
    assert torch.equal(plain[1].feats, told[1].feats)
    assert torch.equal(plain[2].indices, told[2].indices)
    both = network(WindowSet()).state_dict(), network().state_dict()
    assert all(torch.equal(both[1][name], w) for name, w in both[0].items())
    assert both[1].keys() - both[0].keys() == {
        f"{side}_window.embedding" for side in ("encoder", "decoder")
    }


def test_each_sample_is_given_its_own_window(sets) -> None:
    """Alone or in a batch; another window gives other latents and another field."""
    model = moved(network()).eval()
    batch = batch_of(sets[1])
    assert batch["window"].tolist() == [0, 1] and batch["case_id"] == ["c3/bone", "c3/soft"]
    samples = SampleWindows.of_batch(batch)
    with torch.no_grad():
        latents = model.encode(band_of(batch), samples)
        field = model.decode(latents, batch["structure"], samples).field
        for row in range(2):
            own = collate([sets[1][row, 0]])
            given = SampleWindows.of_batch(own)
            alone = model.encode(band_of(own), given)
            rows = latents.structure.coords[:, 0] == row
            torch.testing.assert_close(latents.feats[rows], alone.feats)
            found = model.decode(alone, own["structure"], given).field.feats
            torch.testing.assert_close(field.feats[batch["coords"][:, 0] == row], found)
            other = SampleWindows(1 - given.window)
            assert not torch.allclose(model.encode(band_of(own), other).feats, alone.feats)
            changed = model.decode(alone, own["structure"], other).field.feats
            assert not torch.allclose(changed, found)


def test_a_step_of_every_training_moves_the_embeddings_of_both_sides(sets) -> None:
    for codebook in (None, CODEBOOK):
        model = network(codebook=codebook)
        task = VqvaeTask(model, NETWORK, VqvaePretrainOptions(**QUICK), codebook)
        task.loss(batch_of(sets[1]), "model", 0)[0].backward()
        for side in (model.encoder_window, model.decoder_window):
            assert (side.embedding.grad.abs().sum(dim=1) > 0).all()


def test_figures_of_a_window_are_those_of_its_samples_alone(sets) -> None:
    task = VqvaeTask.joint(moved(network()), NETWORK, VqvaeJointOptions(**QUICK), CODEBOOK)
    task.model.eval()
    together = task.evaluate([batch_of(sets[1])])
    for row, window in enumerate(WINDOWS.names):
        alone = task.evaluate([collate([sets[1][row, 0]])])
        for figure in ("l1_voxels", "iou", "usage", "perplexity"):
            assert together[f"{figure}_{window}"] == pytest.approx(alone[figure], rel=1e-5)
            assert alone[f"{figure}_{window}"] == pytest.approx(alone[figure], rel=1e-5)
        assert not any(name.endswith(f"_{WINDOWS.names[1 - row]}") for name in alone)


def test_use_of_the_codes_by_window_over_the_training_split(sets, tmp_path) -> None:
    model = moved(network())
    latents = cached_latents(model, sets[0], CODEBOOK, CPU)
    found = training_usage(model, latents, tmp_path)
    for number, window in enumerate(WINDOWS.names):
        own = latents.values[latents.window == number]
        codes = model.quantizer.encode_indices(own)
        assert found[f"usage_{window}"] == len(codes.unique()) / 16
        share = codes.bincount().double() / len(codes)
        perplexity = torch.special.entr(share).sum().exp()
        assert found[f"perplexity_{window}"] == pytest.approx(float(perplexity))
    assert found["latents"] == len(latents.values)


def test_an_interrupted_training_ends_with_the_same_bits(sets, tmp_path) -> None:
    def run(out, **changes):
        task = joint()
        options = dataclasses.replace(task.stage, **changes)
        return train(task, *sets, options=options, out=out, identity={}, collate=collate)

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", until=2)
    parts = run(tmp_path / "parts", until=0)
    assert all(torch.equal(whole.weights[n], w) for n, w in parts.weights.items())
    assert whole.weights["encoder_window.embedding"].any()
    assert whole.last == parts.last


def test_a_model_of_windows_makes_nothing_of_label_maps(tmp_path) -> None:
    path = tmp_path / "vqvae_windows" / "together" / "stage2" / "model.pt"
    path.parent.mkdir(parents=True)
    save_model(
        path,
        QUANTISED,
        moved(network()).state_dict(),
        options={"vqvae": NETWORK, "vqvae_codebook": CODEBOOK},
        labels=LabelTable(),
        figures={},
        training_cases=["a"],
        source_sha256="",
        extra=WINDOWS.stored(),
    )
    assert load_network(path, quantised=True).windows == WINDOWS
    with pytest.raises(InputError, match=r"CT windows \(bone=300/1500, soft=50/400\), not on"):
        load_for_label_maps(path, LabelTable())
    with pytest.raises(InputError, match="has models of CT windows alone"):
        find_models(tmp_path)


def test_samples_of_no_window_are_refused(sets, tmp_path) -> None:
    manifests = write_windows(tmp_path, {"lung": {"c0": 0.4}})
    with pytest.raises(InputError, match=r"lung.npz: is of none of the windows .*\(bone, soft\)"):
        VoxelDataset(find_instances(manifests, ["c0"]), 20_000, augment=False, windows=WINDOWS)
