"""Augmentation that the diffusion is told of: it does not leak into what is generated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hearts import GRID, heart
from tiny_latents import SHAPE, STATISTICS, TINY, Decoder, batch

from cardiform.cohort.manifest import MadeFile
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz, sha256_json
from cardiform.ldm import train
from cardiform.ldm.autoencoder_model import ShapeAutoencoder
from cardiform.ldm.coder import ShapeCoder
from cardiform.ldm.data import (
    LATENTS,
    LatentDataset,
    complete_only,
    load_latents,
    moved_by,
    packed,
    random_move,
    to_values,
    unpacked,
)
from cardiform.ldm.diffusion_model import Condition, LatentDenoiser, LatentStatistics, guided
from cardiform.ldm.diffusion_task import DiffusionTask
from cardiform.ldm.encode import encode_case, statistics_of
from cardiform.ldm.generator import ShapeGenerator
from cardiform.options.ldm import AutoencoderOptions, DiffusionOptions, LatentsOptions
from cardiform.volumes import save_label_map

LARGEST = (0.1,) * 3 + (0.04,) * 3 + (0.01, 0.01, 0.0)
MOVED = replace(STATISTICS, largest_move=LARGEST)
CPU = torch.device("cpu")


def coder(**keys):
    torch.manual_seed(0)
    options = AutoencoderOptions(**{"channels": (8, 8), "norm_num_groups": 4, **keys})
    return ShapeCoder(options, GRID, ShapeAutoencoder(options, 3).state_dict())


def encoded(folder, names, training, hearts=None, **keys):
    """Latents of hearts: their files by case."""
    options = LatentsOptions(**{"variants": 3, "batch_size": 4, **keys})
    files = {}
    for number, name in enumerate(names):
        path = folder / "voxels" / f"{name}.nii.gz"
        given = heart(number % 2) if hearts is None else hearts[number]
        save_label_map(path, to_values(given, GRID), np.eye(4))
        case = Case(case_id=name, patient_id=name, labels=str(path))
        encode_case(
            case,
            voxels={name: path},
            training=set(training),
            coder=coder(latent_channels=2),
            options=options,
            out=folder / "latents",
        )
        files[name] = folder / "latents" / f"{name}.npz"
    return files


def network(follows=True, **keys):
    torch.manual_seed(0)
    made = LatentDenoiser(DiffusionOptions(**{**TINY, **keys}), 2, 3, 2, follows)
    for parameter in made.parameters():  # the last layer begins at zero
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


# --- latents know how their variants were moved ------------------------------------------


def test_latents_hold_the_move_of_each_variant(tmp_path):
    files = encoded(tmp_path, ["a", "b"], ["a"])
    stored = load_npz(files["a"])
    assert int(stored["format_version"]) == LATENTS.version == 2
    moves = stored["moves"]
    assert moves.shape == (4, 9) and moves.dtype == np.float32
    assert (moves[0] == 0).all() and (np.abs(moves[1:]).min(axis=1) > 0).all()
    ranges = [np.deg2rad(5)] * 3 + [np.log(1.04)] * 3 + [0.01] * 3
    assert (np.abs(moves) <= np.float32(ranges)).all(), "the narrow ranges of the default"
    for move, target in zip(moves, stored["target"]):
        again = moved_by(torch.from_numpy(heart(0)), move.astype(np.float64)).numpy()
        assert (again == target).all(), "the move makes the variant"
    assert load_npz(files["b"])["moves"].shape == (1, 9)


def test_ranges_are_those_of_the_options(tmp_path):
    wide = {"augment_rotation_deg": 40.0, "augment_scale": 0.3, "augment_shift": 0.2}
    moves = load_npz(encoded(tmp_path, ["a"], ["a"], variants=30, **wide)["a"])["moves"]
    largest = np.abs(moves).max(axis=0)
    assert (largest > 0.7 * np.repeat([np.deg2rad(40), np.log(1.3), 0.2], 3)).all()
    still = {"augment_rotation_deg": 0.0, "augment_scale": 0.0, "augment_shift": 0.0}
    assert (random_move(LatentsOptions(**still), np.random.default_rng(0)) == 0).all()


def test_statistics_hold_the_largest_move_and_files_of_the_version_before_are_read(tmp_path):
    files = encoded(tmp_path, ["a", "b"], ["a", "b"])
    found = statistics_of(files, ["a", "b"], coder(latent_channels=2), "")
    moves = np.concatenate([load_npz(path)["moves"] for path in files.values()])
    assert np.allclose(found.largest_move, np.abs(moves).max(axis=0)) and found.moved
    assert LatentStatistics.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    for path in files.values():  # as they were written before
        content = {n: v for n, v in load_npz(path).items() if n != "moves"}
        save_npz(path, **{**content, "format_version": np.int64(1)})
    earlier = load_latents(files["a"])["moves"]
    assert (earlier[0] == 0).all() and earlier[1:].isnan().all(), "not known"
    before = statistics_of(files, ["a", "b"], coder(latent_channels=2), "")
    assert not before.moved and "largest_move" not in before.as_dict()
    assert before.mean == found.mean
    made = [MadeFile("a", files["a"], "")]
    with pytest.raises(InputError, match=r"statistics\.json.*--forcerun encode_latents"):
        train._refuse_unknown_moves(made, before, "statistics.json")
    train._refuse_unknown_moves(made, found, "statistics.json")
    without = encoded(tmp_path, ["c"], [])
    train._refuse_unknown_moves([MadeFile("c", without["c"], "")], before, "statistics.json")


# --- the network is told ------------------------------------------------------------------


def test_the_move_reaches_the_network_and_nothing_is_the_heart_as_it_is():
    made = network()
    noisy, times = torch.randn(2, *SHAPE), torch.full((2,), 500.0)
    nothing = Condition.nothing(2, 3, 8)
    moves = torch.zeros(2, 9)
    plain = made(noisy, times, nothing)
    assert torch.equal(plain, made(noisy, times, replace(nothing, moves=moves)))
    for number in range(9):
        other = moves.clone()
        other[0, number] = 1.0
        found = made(noisy, times, replace(nothing, moves=other))
        assert not torch.allclose(found[0], plain[0], atol=1e-4), number
        assert torch.allclose(found[1], plain[1], atol=1e-5), "each sample has its own"
    deaf = network(follows=False)
    assert torch.equal(
        deaf(noisy, times, nothing), deaf(noisy, times, replace(nothing, moves=moves + 1))
    )


@pytest.mark.parametrize("keys", [{}, {"known_share": 0.0}, {"volumes_share": 0.5}])
def test_the_training_tells_every_sample_and_validation_none(keys):
    torch.manual_seed(0)
    task = DiffusionTask(DiffusionOptions(**{**TINY, **keys}), MOVED, GRID, Decoder())
    assert task.network.follows_moves
    given = batch(6)
    given["moves"] = torch.tensor(LARGEST) * torch.linspace(-1, 1, 6)[:, None]
    told = task.training_condition(given).moves
    assert torch.allclose(told[:, :8], torch.linspace(-1, 1, 6)[:, None].expand(6, 8), atol=1e-5)
    assert (told[:, 8] == 0).all(), "what is never moved is no condition"
    seen = []
    forward = task.network.forward
    task.network.forward = lambda n, t, c: seen.append(c.moves) or forward(n, t, c)
    task.module.eval()
    task.evaluate([given])
    assert seen and all(moves is None for moves in seen)
    loss, _ = task.loss(given, "model", 0)
    assert seen[-1] is not None and torch.isfinite(loss)


def test_fields_are_told_too():
    from hearts import FIELD_GRID

    task = DiffusionTask(DiffusionOptions(**TINY), MOVED, FIELD_GRID, Decoder())
    given = {**batch(2), "moves": torch.tensor([LARGEST, LARGEST])}
    assert float(task.training_condition(given).moves[0, 0]) == pytest.approx(1.0)


def test_sampling_knows_no_move():
    made = network()
    generator = ShapeGenerator(DiffusionOptions(**TINY), MOVED, coder(latent_channels=2), made)
    seen = []
    forward = made.forward
    made.forward = lambda n, t, c: seen.append(c.moves) or forward(n, t, c)
    how = {"seed": 0, "sampler": "flow", "steps": 2}
    plain = generator.latents([0, 1, 2], generator.unconditional(3), batch_size=2, **how)
    assert seen and all(moves is None for moves in seen)
    moved = replace(generator.unconditional(3), moves=torch.ones(3, 9))
    other = generator.latents([0, 1, 2], moved, batch_size=2, **how)
    assert not torch.allclose(plain, other, atol=1e-3)
    assert guided(made, moved, 2.0)(plain, torch.full((3,), 10.0)).shape == plain.shape


def test_models_of_the_version_before_and_of_still_hearts_have_no_such_inputs():
    for statistics in (STATISTICS, replace(STATISTICS, largest_move=(0.0,) * 9)):
        task = DiffusionTask(DiffusionOptions(**TINY), statistics, GRID, Decoder())
        assert not task.network.follows_moves
        assert task.training_condition(batch(2)).moves is None
    torch.manual_seed(0)
    before = LatentDenoiser(DiffusionOptions(**TINY), 2, 3, 2).state_dict()
    after = network(follows=True).state_dict()
    width = before["unet.conv_in.conv.weight"].shape[1]
    assert after["unet.conv_in.conv.weight"].shape[1] == width + 9


def test_a_scale_by_hand():
    found = STATISTICS.used(DiffusionOptions(scale_factor=0.25))
    latents = torch.randn(2, *SHAPE)
    assert torch.allclose(found.normalised(latents), 0.25 * latents)
    assert torch.allclose(found.denormalised(found.normalised(latents)), latents, atol=1e-6)
    assert STATISTICS.used(DiffusionOptions()) == STATISTICS


# --- hearts that lack a class --------------------------------------------------------------


def test_a_class_that_one_heart_has_is_given_in_usual_deviations(tmp_path):
    """Its augmented copies are near to its mean, and no thousands of deviations away."""
    lacking = np.where(heart(1) == 3, 0, heart(1)).astype(np.uint8)
    files = encoded(tmp_path, ["a", "b"], ["a", "b"], hearts=[heart(0), lacking])
    found = statistics_of(files, ["a", "b"], coder(latent_channels=2), "")
    every = found.used(DiffusionOptions(complete_cases=False))
    for statistics in (found, every):
        scores = statistics.volume_scores(torch.from_numpy(load_npz(files["a"])["volumes"]))
        assert scores.abs().max() < 5 and scores[0, 2] == 0
    assert found.volume_std[2] == pytest.approx(0.2 * found.volume_mean[2])
    # trainings of before, that are told no volumes, stay finished
    pairs = zip(found.volume_mean, found.volume_std)
    told = tuple(1e-3 if std == pytest.approx(0.2 * mean) else std for mean, std in pairs)
    before, options = replace(found, volume_std=told), DiffusionOptions()
    assert before != found
    again = LatentStatistics.from_dict(json.loads(json.dumps(found.as_dict())))
    assert train.latents_key(again, options) == sha256_json(before.as_dict())
    options = DiffusionOptions(volumes_share=0.5)
    assert train.latents_key(again, options) == sha256_json(found.as_dict())


def test_hearts_that_lack_a_class_count_in_no_statistics(tmp_path):
    names = ["a", "b", "c", "d"]
    lacking = heart(1)
    lacking[lacking == 3] = 0
    lacking[1:5, 1:5, 1:5][lacking[1:5, 1:5, 1:5] == 1] = 2
    files = encoded(tmp_path, names, names[:3], hearts=[heart(0), heart(1), lacking, lacking])
    made = coder(latent_channels=2)
    found = statistics_of(files, names[:3], made, "")
    whole = statistics_of({n: files[n] for n in "ab"}, ["a", "b"], made, "")
    assert found.incomplete == ("c", "d")
    for name in ("mean", "std", "volume_mean", "volume_std", "centroids"):
        assert getattr(found, name) == getattr(whole, name), name
    every = found.used(DiffusionOptions(complete_cases=False))
    mu = np.concatenate([load_npz(files[n])["mu"] for n in "abc"]).astype(np.float64)
    assert np.allclose(every.mean, mu.mean((0, 2, 3, 4)), atol=1e-6)
    assert every.volume_mean != found.volume_mean and not every.of_all
    assert not found.used(DiffusionOptions()).of_all
    assert complete_only(names, found.incomplete) == ["a", "b"]
    assert complete_only(["c"], found.incomplete) == ["c"], "where each lacks one"
    alone = statistics_of({n: files[n] for n in "cd"}, ["c"], made, "")
    assert np.allclose(alone.mean, load_npz(files["c"])["mu"].mean((0, 2, 3, 4)), atol=1e-6)
    with pytest.raises(InputError, match="none of the training cases"):
        statistics_of(files, [], made, "")


def test_training_validation_and_mean_shape_leave_out_the_same_hearts(caplog):
    statistics = replace(STATISTICS, incomplete=("b", "c"))
    files = [MadeFile(name, Path(name), "") for name in "abc"]
    for part in ("train", "validation"):
        assert [f.case_id for f in train._complete(part, files, statistics)] == ["a"]
    assert train._complete("validation", files[1:], statistics) == files[1:]
    assert "every validation case lacks a class" in caplog.text
    for complete, left in ((True, ["a"]), (False, ["a", "b", "c"])):
        options = DiffusionOptions(**TINY, complete_cases=complete)
        generator = ShapeGenerator(options, statistics, coder(latent_channels=2), network())
        assert generator.learned_from(["a", "b", "c"]) == left


# --- memory ----------------------------------------------------------------------------------


def test_targets_are_kept_packed_or_not_at_all(tmp_path):
    files = [MadeFile("a", encoded(tmp_path, ["a"], ["a"])["a"], "")]
    raw = LatentDataset(files, varied=True, cache_rate=0.0, seed=2)
    kept = LatentDataset(files, varied=True, seed=2)
    lean = LatentDataset(files, varied=True, targets=False, seed=2)
    for draw in range(6):
        one, other, without = raw[0, draw], kept[0, draw], lean[0, draw]
        assert one.keys() == other.keys() == without.keys() | {"target"}
        for name in one.keys() - {"case_id"}:
            assert torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        assert torch.equal(one["mu"], without["mu"])
    assert "packed" not in lean.kept[0] and "target" not in lean.kept[0]
    held_out = LatentDataset(files, varied=False)
    assert len(held_out.kept[0]["mu"]) == 1, "variants that are never drawn"
    large = np.zeros((2, 64, 64, 64), np.uint8)
    large[:, 16:48, 16:48, 16:48] = 3
    assert len(packed(large)["packed"]) < large.size / 20
    fields = np.random.default_rng(0).random((3, 5, 5, 5)).astype(np.float16)
    for number, field in enumerate(fields):
        assert np.array_equal(unpacked(packed(fields), number), field)


@pytest.mark.parametrize("targets", [True, False])
def test_shared_latents_are_those_of_the_files(tmp_path, targets):
    files = [MadeFile("a", encoded(tmp_path, ["a"], ["a"])["a"], "sum")]
    raw = LatentDataset(files, varied=True, targets=targets, cache_rate=0.0, seed=2)
    place = {"targets": targets, "seed": 2, "shared": tmp_path / "shared"}
    for _ in range(2):  # made, and found
        shared = LatentDataset(files, varied=True, **place)
        for draw in range(6):
            one, other = raw[0, draw], shared[0, draw]
            assert one.keys() == other.keys()
            for name in one.keys() - {"case_id"}:
                assert torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        files[0].path.write_bytes(b"")  # read once alone
        raw.files[0] = MadeFile("a", encoded(tmp_path / "again", ["a"], ["a"])["a"], "sum")


def test_a_training_without_completion_needs_no_targets():
    task = DiffusionTask(DiffusionOptions(**TINY, known_share=0.0), STATISTICS, GRID, Decoder())
    lean = {n: v for n, v in batch(3).items() if n != "target"}
    loss, _ = task.loss(lean, "model", 0)
    assert torch.isfinite(loss)
    task.module.eval()
    assert task.evaluate([lean])["loss"] > 0
