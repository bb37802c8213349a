"""Several CT windows in one sparse VQ-VAE: the network, its samples, figures, resumed runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bands import write_windows

from cardiform.apply.models import find_models
from cardiform.artefact.model import save_model
from cardiform.errors import InputError
from cardiform.geometry.narrowband import NarrowBand
from cardiform.labels import LabelTable
from cardiform.options.vqvae import (
    VqvaeCodebookOptions,
    VqvaeJointOptions,
    VqvaeOptions,
    VqvaePretrainOptions,
)
from cardiform.sparse.tensor import Structure
from cardiform.training.engine import train
from cardiform.vqvae.codebook import cached_latents, training_usage
from cardiform.vqvae.data import VoxelDataset, collate, find_instances
from cardiform.vqvae.model import QUANTISED, SparseVQVAE
from cardiform.vqvae.reconstruct import BandNetwork
from cardiform.vqvae.task import VqvaeTask, band_of
from cardiform.vqvae.trained import load_for_label_maps, load_network
from cardiform.vqvae.windows import SampleWindows, SumOfOthers, WindowSet

CPU = torch.device("cpu")
WINDOWS = WindowSet.parse(["bone=300/1500", "soft=50/400"])
LINKED = dataclasses.replace(WINDOWS, linked=True)
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
    given = network()(band_of(batch), samples)
    assert torch.equal(plain[0].field.feats, given[0].field.feats)
    assert torch.equal(plain[1].feats, given[1].feats)
    assert torch.equal(plain[2].indices, given[2].indices)
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
            other = SampleWindows(1 - given.window, given.scan)
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


@pytest.mark.parametrize("linked", [False, True])
def test_an_interrupted_training_ends_with_the_same_bits(sets, scans, tmp_path, linked) -> None:
    def run(out, **changes):
        model = network(LINKED if linked else WINDOWS)
        task = VqvaeTask.joint(model, NETWORK, VqvaeJointOptions(**QUICK), CODEBOOK)
        options = dataclasses.replace(task.stage, **changes)
        given = scans if linked else sets
        return train(task, *given, options=options, out=out, identity={}, collate=collate)

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", until=2)
    parts = run(tmp_path / "parts", until=0)
    assert all(torch.equal(whole.weights[n], w) for n, w in parts.weights.items())
    learned = ("embedding", "others") if linked else ("embedding",)
    assert all(
        whole.weights[f"{s}_window.{n}"].any() for s in ("encoder", "decoder") for n in learned
    )
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


@pytest.fixture(scope="module")
def scans(sets):
    """The same, all windows of a scan as one sample."""
    return [
        VoxelDataset(s.instances, 40_000, augment=s.augment, seed=3, windows=LINKED) for s in sets
    ]


def linked_network() -> SparseVQVAE:
    """With conditions that are not zero."""
    model = moved(network(LINKED))
    for side in (model.encoder_window, model.decoder_window):
        torch.nn.init.normal_(side.others, 0, 0.3, generator=torch.Generator().manual_seed(2))
    return model.eval()


def test_linked_windows_are_a_sample_together(scans, sets) -> None:
    train_set, _ = scans
    assert len(train_set) == 3 and train_set.costs.sum() == sets[0].costs.sum()
    batch = collate([train_set[0, 5], train_set[2, 6]])
    assert batch["case_id"] == ["c0/bone", "c0/soft", "c2/bone", "c2/soft"]
    assert batch["scan"].tolist() == [0, 0, 1, 1] and batch["window"].tolist() == [0, 1, 0, 1]
    keys = band_of(batch).structure.keys
    assert (keys.diff() > 0).all(), "sorted within each window"
    assert torch.equal(batch["coords"], collate([train_set[0, 5], train_set[2, 6]])["coords"])
    middles = [batch["coords"][batch["coords"][:, 0] == s][:, 1:].float() for s in range(4)]
    middles = [(m.amin(0) + m.amax(0)) / 2 for m in middles]
    torch.testing.assert_close(middles[0], middles[1], msg="moved alike")
    assert not torch.equal(middles[0], middles[2])
    with pytest.raises(InputError, match=r"c2: has .* voxels, more than vqvae.max_voxels"):
        VoxelDataset(
            scans[0].instances, int(train_set.costs.max()) - 1, augment=False, windows=LINKED
        )


def test_a_latent_is_given_the_others_at_its_place(scans) -> None:
    batch = collate([scans[0][0, 0], scans[0][1, 1]])
    structure = band_of(batch).structure.halved.coarse.halved.coarse.halved.coarse
    samples = SampleWindows.of_batch(batch)
    rows = samples.rows_of_others(structure, 2)
    places = [tuple(c) for c in structure.coords.tolist()]
    partner = {0: 1, 1: 0, 2: 3, 3: 2}
    for row, (sample, *place) in enumerate(places):
        other = (partner[sample], *place)
        wanted = [len(places)] * 2
        if other in places:
            wanted[int(samples.window[partner[sample]])] = places.index(other)
        assert rows[row].tolist() == wanted
    assert (rows < len(places)).any() and (rows == len(places)).all(dim=1).any()
    feats = torch.randn(len(places), 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SumOfOthers.apply(x, rows), feats)


def test_linked_windows_start_as_those_that_are_not_and_depend_on_each_other(scans) -> None:
    batch = collate([scans[1][0, 0]])
    samples = SampleWindows.of_batch(batch)
    plain, linked = (network(w)(band_of(batch), samples)[0].field.feats for w in (WINDOWS, LINKED))
    assert torch.equal(plain, linked)
    model = linked_network()
    own = batch["coords"][:, 0] == 0
    alone = dataclasses.replace(samples, scan=torch.tensor([0, 1]))
    with torch.no_grad():
        together, apart = (model(band_of(batch), s)[0].field.feats[own] for s in (samples, alone))
    assert not torch.allclose(together, apart)


def test_linked_windows_are_reconstructed_from_the_codes_of_all(scans) -> None:
    """The decoder needs no more than the codes of every window."""
    network_of = BandNetwork(linked_network(), CPU)
    bands = {i.name: NarrowBand.load(i.path) for i in scans[1].instances}
    made = network_of.reconstruct(bands)
    alone = network_of.reconstruct({"soft": bands["soft"]})["soft"]
    codes = [made[name].codes for name in bands]
    assert not np.array_equal(codes[1]["indices"], alone.codes["indices"])
    coarse = Structure.of_samples(
        [torch.from_numpy(c["coords"].astype(np.int32)) for c in codes], 4
    )
    indices = torch.from_numpy(np.concatenate([c["indices"] for c in codes])).long()
    samples = SampleWindows.of_names(LINKED, list(bands), CPU)
    with torch.no_grad():
        field = network_of.model.decode_indices(coarse, indices, samples).field
    for sample, name in enumerate(bands):
        rows = field.structure.coords[:, 0] == sample
        np.testing.assert_array_equal(made[name].coords, field.structure.coords[rows, 1:])
        np.testing.assert_allclose(made[name].sdf, field.feats[rows, 0], atol=1e-5)
