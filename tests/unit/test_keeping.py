"""Classes keep their volumes where the best of several wins a voxel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hearts import FIELD_GRID, GRID, heart

from cardiform.errors import InputError
from cardiform.ldm import keeping
from cardiform.ldm.autoencoder_model import ShapeAutoencoder, ShapeLoss
from cardiform.ldm.bonus import bonuses
from cardiform.ldm.coder import ShapeCoder
from cardiform.ldm.data import load_shape, to_values
from cardiform.ldm.generator import ShapeGenerator, bonus_of
from cardiform.ldm.keeping import drawn_bonus, keeping_volumes
from cardiform.options.ldm import AutoencoderOptions, DiffusionOptions
from cardiform.volumes import save_label_map

TINY = AutoencoderOptions(channels=(8, 8), norm_num_groups=4, latent_channels=2)


def won(worth, bonus):
    return np.bincount((worth + bonus).argmax(axis=1), minlength=worth.shape[1])


def test_each_class_wins_as_many_voxels_as_it_should():
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(3000, 5)) + (0.4, 0, 0.5, -0.3, 0.1)
    wanted = np.array([900, 400, 800, 350, 550])
    bonus = bonuses(worth, wanted, limit=2.0)
    assert np.abs(won(worth, bonus) - wanted).max() <= 3 and bonus[0] == 0
    assert np.abs(bonuses(worth, wanted, limit=0.02)).max() == 0.02


def test_a_class_that_nothing_is_of_wins_nothing_it_may_not_have():
    worth = np.zeros((10, 3))
    worth[:, 2] = -np.inf
    worth[:4, 1] = 0.1
    bonus = bonuses(worth, np.array([6, 4, 0]), limit=0.5)
    assert won(worth, bonus).tolist() == [6, 4, 0]
    assert won(worth, bonuses(worth, np.array([0, 10, 5]), limit=0.5)).tolist() == [0, 10, 0]
    none = bonuses(np.empty((0, 3)), np.array([0, 5, -3]), limit=1.0)
    assert not none.any(), "no voxel speaks for a bonus"


def learned(steps=30):
    """Weights of a short training, by which the first class is too thick and the last too thin."""
    torch.manual_seed(0)
    network, loss = ShapeAutoencoder(TINY, GRID.classes), ShapeLoss(TINY, GRID.classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    hearts = torch.stack([torch.from_numpy(heart(k)) for k in range(3)])
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(hearts)[0], hearts).backward()
        optimizer.step()
    with torch.no_grad():
        network.last_bias.add_(torch.tensor([0.0, 0.8, 0.0, -0.8]))
    return network.state_dict()


def volumes(weights, paths):
    """(2, classes) voxels that are made and true, over all hearts."""
    coder = ShapeCoder(TINY, GRID, weights)
    hearts = torch.stack([load_shape(path, GRID) for path in paths])
    made = coder.decode(coder.encode(hearts)[0]).argmax(dim=1)
    return np.array([np.bincount(x.flatten(), minlength=4)[1:] for x in (made, hearts)])


@pytest.mark.parametrize("most", [keeping.MOST_VOXELS, 1500])
def test_reconstructions_keep_the_volumes(tmp_path, monkeypatch, most):
    monkeypatch.setattr(keeping, "MOST_VOXELS", most)
    weights = learned()
    paths = [tmp_path / f"{k}.nii.gz" for k in range(3)]
    for k, path in enumerate(paths):
        save_label_map(path, to_values(heart(k), GRID), np.eye(4))
    found = keeping_volumes(weights, TINY, GRID, paths)
    assert [n for n in weights if not torch.equal(weights[n], found[n])] == [
        "network.decoder.blocks.5.conv.bias"
    ]
    made, true = volumes(found, paths)
    before, _ = volumes(weights, paths)
    assert np.abs(before / true - 1).max() > 0.1, "else nothing is shown"
    assert made == pytest.approx(true, rel=0.05)


def test_fields_and_trainings_without_hearts_stay_as_they_are():
    assert keeping_volumes({}, TINY, FIELD_GRID, ["a"]) == {}
    assert keeping_volumes({}, TINY, GRID, []) == {}


class Drawing(ShapeGenerator):
    """Draws noisy hearts; the first class is too large in them, the last too small."""

    def __init__(self, bonus=()):
        coder = SimpleNamespace(grid=GRID)
        super().__init__(DiffusionOptions(), None, coder, None, bonus)
        object.__setattr__(self, "asked", [])

    def unconditional(self, number):
        return None

    def latents(self, numbers, condition, **settings):
        self.asked.extend(numbers)
        rows = [np.random.default_rng((settings["seed"], n)).normal(size=512) for n in numbers]
        return torch.tensor(np.array(rows)).reshape(-1, 1, 8, 8, 8)

    def decode(self, latents):  # (N, 4, 8, 8, 8)
        scores = torch.nn.functional.one_hot(torch.from_numpy(heart()).long(), 4).movedim(-1, 0)
        worth = torch.tensor([0.0, 0.4, 0.0, -0.4])[:, None, None, None]
        noise = torch.cat([latents.roll(k, dims=-1) for k in range(4)], dim=1)
        return scores + worth + 0.5 * noise


def mean_volumes(generator, decode, first, hearts):
    drawn = generator.latents(range(first, first + hearts), None, seed=generator.options.seed)
    made = decode(drawn).argmax(dim=1)
    return np.bincount(made.flatten(), minlength=4)[1:] / hearts


@pytest.mark.parametrize("most", [keeping.MOST_VOXELS, 60_000])
def test_drawn_hearts_have_the_mean_volumes_of_the_trainings(monkeypatch, most):
    monkeypatch.setattr(keeping, "MOST_VOXELS", most)
    plain = Drawing()
    wanted = mean_volumes(plain, plain.decode, 0, 200) * (0.9, 1.0, 1.1)
    bonus = drawn_bonus(plain, wanted * GRID.spacing**3 / 1000, 400)
    assert min(plain.asked[200:]) >= keeping.APART, "no sample has their noise"
    assert len(plain.asked) == 600 and bonus[0] == 0
    made = Drawing(bonus=bonus)
    others = mean_volumes(made, made.decode_drawn, 0, 200)
    assert others == pytest.approx(wanted, rel=0.04)
    assert mean_volumes(made, made.decode, 0, 200) == pytest.approx(wanted / (0.9, 1.0, 1.1))


@pytest.mark.parametrize("bad", ["no", [1.0], [0.0, 0.1, float("nan"), 0.0], [0, 0, "a", 0]])
def test_a_damaged_bonus_is_refused(bad):
    stored = SimpleNamespace(path="model.pt", extra={"volume_bonus": bad})
    with pytest.raises(InputError, match=r"model\.pt.*volume_bonus"):
        bonus_of(stored, GRID)
    assert bonus_of(SimpleNamespace(extra={}), GRID) == ()
