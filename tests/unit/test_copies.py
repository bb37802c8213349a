"""Copies of training hearts are found however they lie; hearts that no model saw are none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.ldm.copies import (
    Latents,
    Moments,
    aligned_distances,
    bound,
    brought,
    fits,
    lines_of_copies,
    load_latents_of,
    memorisation,
    space_of,
)
from cardiform.ldm.data import moved
from cardiform.ldm.diffusion_model import LatentStatistics
from cardiform.ldm.set_figures import HeartSet
from cardiform.options.ldm import AutoencoderOptions

SIZE, CLASSES = 24, 4
AT = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 3, indexing="ij"), axis=-1)
CENTRES = np.array([[5, 0, 0], [-5, 2, 0], [0, -5, 3], [0, 4, -5]], float)


def hearts(number, seed):
    """Four bodies each, of random places, sizes and shapes."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(number):
        data = np.zeros((SIZE,) * 3, np.uint8)
        for k, centre in enumerate(CENTRES, start=1):
            place = centre + rng.normal(0, 0.4, 3)
            radii = rng.uniform(3.2, 4.6, 3)
            data[(((AT - place) / radii) ** 2).sum(-1) < 1] = k
        result.append(data)
    return result


def blurred(heart):
    shares = [gaussian_filter((heart == k).astype(np.float32), 0.6) for k in range(CLASSES + 1)]
    return np.argmax(shares, axis=0).astype(np.uint8)


def augmented(heart, seed):
    return moved(torch.from_numpy(heart), AutoencoderOptions(), np.random.default_rng(seed)).numpy()


def real(found):
    return HeartSet.real(found, CLASSES)


TRAIN, TEST = hearts(12, 0), hearts(10, 1)


def figures(made, latents=None, train=TRAIN, test=TEST):
    sets = {"generated": real(made), "test": real(test)}
    sets["autoencoder"] = HeartSet([blurred(h) for h in test], real(test).known)
    return memorisation(sets, real(train), latents)


HANDED_OUT = {
    "as they are": lambda h, i: h,
    "reconstructed": lambda h, i: blurred(h),
    "augmented": lambda h, i: augmented(h, (5, i)),
    "augmented and reconstructed": lambda h, i: blurred(augmented(h, (6, i))),
    "moved": lambda h, i: np.roll(h, 2, axis=i % 3),
}


@pytest.mark.parametrize("how", HANDED_OUT)
def test_a_generator_that_hands_out_training_hearts_is_found(how):
    made = [HANDED_OUT[how](TRAIN[i], i) for i in range(10)]
    found = figures(made)
    assert found["copies"] >= 0.9
    assert [near["number"] for near in found["nearest"]] == list(range(10))
    least = min(near["distance"] for near in found["nearest"])
    assert least == found["generated"]["aligned"]["least"]
    if how.startswith("augmented"):
        assert found["generated"]["mean"] > found["test"]["mean"], "as they lie they look new"


@pytest.mark.parametrize("seed", [2, 3])
def test_hearts_that_no_model_saw_are_no_copies(seed):
    unseen = hearts(10, seed)
    for made in (unseen, [blurred(h) for h in unseen]):
        assert figures(made)["copies"] <= 0.1
    row = figures(unseen)
    assert row["test"]["copies"] <= 0.1 and row["autoencoder"]["copies"] <= 0.1
    assert "copies: generated" in lines_of_copies(row)[-1]


def test_two_training_hearts_that_are_alike_hide_no_copies():
    """The next nearest one is as near then: the distance alone tells."""
    train = [h for pair in zip(TRAIN, TRAIN) for h in pair]
    assert (
        figures([blurred(augmented(h, i)) for i, h in enumerate(TRAIN)], train=train)["copies"]
        > 0.8
    )


def test_a_fit_undoes_an_augmentation():
    for seed in range(4):
        made = augmented(TRAIN[seed], seed)
        affine, residual = fits(Moments.of(real([made]), 1), 0, Moments.of(real(TRAIN), 1))
        assert residual.argmin() == seed
        back = brought(TRAIN[seed], affine[seed])
        assert (back != made).mean() < 0.25 * (TRAIN[seed] != made).mean()


def test_what_is_not_annotated_decides_no_fit():
    lacking = [np.where(h == 2, 0, h) for h in TRAIN]
    made = [augmented(h, (9, i)) for i, h in enumerate(TRAIN)]
    found, rows = aligned_distances(HeartSet.generated(made, CLASSES), real(lacking))
    assert found[:, 0].max() < 0.12, "over the classes that both have"
    assert rows.tolist() == list(range(len(TRAIN))), "the heart that each was made from"
    nothing, _ = aligned_distances(real([np.zeros_like(made[0])]), real(TRAIN))
    assert (nothing == 1).all()


def test_the_bound_is_the_first_percentile():
    values = np.exp(np.random.default_rng(0).normal(-1, 0.2, 20000))
    assert (values < bound(values)).mean() == pytest.approx(0.01, abs=0.002)


# --- latents ---------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """Latents files of training hearts of three variants each, and of test hearts."""
    rng = np.random.default_rng(0)
    shape = (2, 3, 3, 3)
    files = {"train": [], "test": []}
    for part, number, variants in (("train", 6, 3), ("test", 5, 1)):
        for i in range(number):
            path = tmp_path / f"{part}{i}.npz"
            mu = rng.normal(size=(variants, *shape)).astype(np.float32) * 2 + 1
            save_npz(
                path,
                mu=mu,
                sigma=np.zeros_like(mu, np.float16),
                target=np.zeros((variants, 4, 4, 4), np.uint8),
                volumes=np.ones((variants, CLASSES), np.float32),
                format_version=np.int64(1),
            )
            files[part].append(path)
    known = LatentStatistics(shape, (1.0, 1.0), (2.0, 2.0), (), (), {}, (), "")
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(known.as_dict()))
    return files, known, path


def test_any_variant_is_found_among_the_latents(stored, tmp_path):
    files, known, statistics = stored
    made = []
    for i, path in enumerate(files["train"][:4]):
        with np.load(path) as arrays:
            found = known.normalised(torch.from_numpy(arrays["mu"]))[i % 3].numpy()
        made.append(tmp_path / f"sample_{i:04d}.npz")
        save_npz(made[-1], latents=found + 0.1, key=np.array("x"))
    latents = load_latents_of(made, files["test"], files["train"], statistics)
    assert isinstance(latents, Latents)
    nearest = latents.nearest()
    np.testing.assert_allclose(nearest["generated"], 0.1, atol=1e-3)
    assert nearest["test"].min() > 0.5
    row = figures(hearts(4, 7), latents, test=TEST[:5])
    assert row["copies"] == 1.0 and row["generated"]["latent"]["mean"] == pytest.approx(
        0.1, abs=1e-3
    )
    assert any(line.startswith("latents") for line in lines_of_copies(row))


def test_samples_of_another_scale_are_compared_in_one(stored, tmp_path):
    """A training whose scale is given by hand, or that has hearts which lack a class."""
    files, known, statistics = stored
    own = replace(known, mean=(0.0, 0.5), std=(4.0, 5.0))
    made, listed = [], tmp_path / "metrics.json"
    for i, path in enumerate(files["train"][:4]):
        made.append(tmp_path / f"sample_{i:04d}.npz")
        mu = torch.from_numpy(load_npz(path)["mu"][1])
        save_npz(made[-1], latents=own.normalised(mu).numpy(), key=np.array("x"))
    listed.write_text(json.dumps({"latent_space": space_of(own)}))
    latents = load_latents_of(made, files["test"], files["train"], statistics, listed)
    assert latents.nearest()["generated"].max() < 1e-3, "training hearts, and nothing else"
    listed.write_text(json.dumps({}))  # of an earlier version
    assert load_latents_of(made, files["test"], files["train"], statistics, listed) is not None
    other = space_of(own) | {"autoencoder_sha256": "another"}
    listed.write_text(json.dumps({"latent_space": other}))
    assert load_latents_of(made, files["test"], files["train"], statistics, listed) is None
    for damaged in (3, {"mean": [1.0]}, space_of(own) | {"std": ["a", "b"]}):
        listed.write_text(json.dumps({"latent_space": damaged}))
        with pytest.raises(InputError, match="damaged latent_space"):
            load_latents_of(made, files["test"], files["train"], statistics, listed)


def test_samples_without_latents_or_of_another_model_have_no_such_figure(stored, tmp_path):
    files, _, statistics = stored
    assert load_latents_of([tmp_path / "no.npz"], files["test"], files["train"], statistics) is None
    save_npz(tmp_path / "a.npz", latents=np.zeros((4, 2, 2, 2), np.float32), key=np.array("x"))
    other = [tmp_path / "a.npz"]
    assert load_latents_of(other, files["test"], files["train"], statistics) is None
