"""The autoencoder of latent diffusion, its losses and its two updates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hearts import FIELD_GRID, GRID, batch
from monai.networks import nets
from scipy.spatial.transform import Rotation

from cardiform.errors import InputError
from cardiform.ldm.autoencoder_model import (
    DeepFeatures,
    ShapeAutoencoder,
    ShapeLoss,
    channels_of,
    inside_of,
    kl_mean,
)
from cardiform.ldm.autoencoder_task import AutoencoderTask
from cardiform.options.ldm import AutoencoderOptions

TINY = {"channels": (8, 8), "norm_num_groups": 4, "batch_size": 2, "latent_channels": 2}
ADVERSARIAL = {
    "adversarial_weight": 0.5,
    "discriminator_channels": 4,
    "discriminator_layers": 1,
    "autoencoder_warm_up_n_epochs": 2,
}


def options(**keys):
    return AutoencoderOptions(**{**TINY, **keys})


def task(grid=GRID, cases=4, **keys):
    torch.manual_seed(0)
    return AutoencoderTask(options(**keys), grid, cases)


def test_shapes_and_draws():
    model = ShapeAutoencoder(options(), 3)
    target = batch()["target"]
    assert (model.expand(target).sum(1) == 1).all()
    assert (model.expand(target)[:, 2] == (target == 2)).all()
    model.eval()
    logits, mu, sigma = model(target)
    assert logits.shape == (2, 4, 8, 8, 8) and mu.shape == sigma.shape == (2, 2, 4, 4, 4)
    assert torch.equal(logits, model(target)[0]), "no draw outside of the training"
    assert (sigma > 0).all()
    model.train()
    assert not torch.equal(model(target)[0], model(target)[0])


def test_kl_is_a_mean_and_stays_finite_in_half_precision():
    zeros, ones = torch.zeros(2, 3, 16, 16, 16), torch.ones(2, 3, 16, 16, 16)
    assert float(kl_mean(zeros, ones)) == 0
    assert float(kl_mean(ones, ones)) == pytest.approx(0.5)
    assert float(kl_mean(ones[:, :, :4], ones[:, :, :4])) == pytest.approx(0.5)
    large = kl_mean(zeros.half(), 300 * ones.half())
    assert large.dtype == torch.float32 and torch.isfinite(large) and large > 4e4


def test_loss_falls_to_zero_with_the_right_logits():
    target = batch()["target"]
    right = 30.0 * torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1)
    loss = ShapeLoss(options(), 3)
    assert float(loss(right, target)) < 1e-3
    assert float(loss(-right, target)) > 1.5
    alone = ShapeLoss(options(weight_ce=0.0), 3)(torch.zeros_like(right), target)
    assert 0.5 < float(alone) <= 1.0, "Dice alone"
    field = (target > 0).float()
    of_field = ShapeLoss(options(), 0)
    assert float(of_field(30.0 * (2 * field[:, None] - 1), field)) < 1e-3
    assert float(of_field(-30.0 * (2 * field[:, None] - 1), field)) > 1.5


def test_channels_of_logits():
    target = batch()["target"]
    right = torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1).float()
    assert torch.equal(channels_of(right), target)
    assert torch.equal(inside_of(right)[:, 2], target == 3)
    one = torch.tensor([-1.0, 2.0]).view(1, 1, 2, 1, 1)
    assert channels_of(one).flatten().tolist() == [0, 1]


def test_two_updates_train_their_own_weights():
    made = task(**ADVERSARIAL)
    assert made.updates == ("generator", "discriminator")
    sets = [{id(p) for p in made.parameters(u)} for u in made.updates]
    assert sets[0] and sets[1] and not sets[0] & sets[1]
    assert task().updates == ("generator",)
    loss, figures = made.loss(batch(), "discriminator", 0)
    loss.backward()
    assert set(figures) == {"fake", "real"}
    assert all(p.grad is None for p in made.parameters("generator"))
    assert any(p.grad.abs().sum() > 0 for p in made.parameters("discriminator"))


def test_the_verdict_counts_after_the_warm_up():
    made = task(**ADVERSARIAL)  # two epochs of four cases, two a step: four steps
    torch.manual_seed(1)
    before, figures = made.loss(batch(), "generator", 3)
    assert "adversarial" not in figures
    torch.manual_seed(1)
    after, figures = made.loss(batch(), "generator", 4)
    assert float(after) == pytest.approx(float(before) + 0.5 * float(figures["adversarial"]))


def test_figures_of_a_validation():
    made = task()
    made.module.eval()
    found = made.evaluate([batch(3), batch(3)])
    assert {"loss", "kl", "dice", "latent_std"} < set(found)
    assert {f"dice_{n}" for n in GRID.table.names} < set(found)
    assert 0 <= found["dice"] <= 1
    with torch.no_grad():
        whole = made.evaluate([batch(3)])
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_a_perfect_reconstruction_has_dice_one(monkeypatch):
    made = task()

    def perfect(target):
        return 20 * made.model.expand(target), torch.zeros(1, 2, 4, 4, 4), torch.ones(1)

    monkeypatch.setattr(made.model, "forward", perfect)
    found = made.evaluate([batch()])
    assert found["dice"] == 1.0 and all(found[f"dice_{n}"] == 1 for n in GRID.table.names)
    field = task(FIELD_GRID)
    monkeypatch.setattr(
        field.model,
        "forward",
        lambda t: (20 * (t[:, None] - 0.5), torch.zeros(1, 2, 4, 4, 4), torch.ones(1)),
    )
    fields = {"target": (batch()["target"] > 0).float()}
    assert field.evaluate([fields])["dice_inside"] == 1.0


def test_a_few_steps_lower_the_loss():
    made = task(lr=1e-2)
    optimiser = torch.optim.Adam(made.parameters("generator"), 1e-2)
    torch.manual_seed(0)
    losses = []
    for step in range(25):
        loss, _ = made.loss(batch(), "generator", step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]


def test_perceptual_features_come_from_a_file_and_stay_frozen(tmp_path):
    torch.manual_seed(3)
    network = nets.resnet10(
        spatial_dims=3,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
    )
    path = tmp_path / "weights.pth"
    weights = {f"module.{n}": v for n, v in network.state_dict().items()}
    torch.save({"state_dict": weights}, path)
    features = DeepFeatures("resnet10", path)
    assert not any(p.requires_grad for p in features.parameters())
    features.train()
    assert not features.training
    x = torch.rand(1, 1, 16, 16, 16)
    assert float(features(x, x)) == 0 and float(features(x, x.flip(2))) > 0
    with pytest.raises(InputError, match="does not hold the weights of resnet18"):
        DeepFeatures("resnet18", path)
    made = task(perceptual_weight=0.3, perceptual_file=str(path))
    _, figures = made.loss(batch(), "generator", 0)
    assert float(figures["perceptual"]) > 0


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Deep features of random weights."""
    torch.manual_seed(3)
    shape = {"feed_forward": False, "shortcut_type": "B", "bias_downsample": False}
    network = nets.resnet10(spatial_dims=3, n_input_channels=1, **shape)
    path = tmp_path_factory.mktemp("features") / "weights.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    return DeepFeatures("resnet10", path)


def block(size=(12, 10, 8), at=(4, 10, 12)):
    volume = torch.zeros(1, 1, 32, 32, 32)
    corner = [slice(a, a + s) for a, s in zip(at, size)]
    volume[(0, 0, *corner)] = 1
    return volume


def test_perceptual_loss_knows_places(features):
    given = block()
    theta = torch.tensor(Rotation.from_euler("z", 5, degrees=True).as_matrix()).float()
    places = F.affine_grid(
        torch.cat([theta, torch.zeros(3, 1)], 1)[None], [1, 1, 32, 32, 32], align_corners=False
    )
    turned = F.grid_sample(given, places, align_corners=False)
    cost = {
        "itself": given,
        "turned a little": turned,
        "moved": block(at=(16, 10, 12)),  # by 12 of 32 voxels
        "mirrored": given.flip(2),
        "another shape": block(size=(6, 14, 12)),
    }
    cost = {name: float(features(made, given)) for name, made in cost.items()}
    assert cost["itself"] == 0 and cost["turned a little"] < 0.5 * cost["moved"]
    assert cost["moved"] > 0.1, "2.8e-5 where features were pooled"
    assert cost["mirrored"] > 0.1 and cost["another shape"] > cost["turned a little"]
    nearer = float(features(block(at=(7, 10, 12)), given))
    assert nearer < cost["moved"]


def test_perceptual_loss_sees_volumes_of_unit_deviation(features):
    given, made = block(), block(at=(6, 10, 12))
    plain = float(features(made, given))
    assert float(features(0.2 * made, given)) == pytest.approx(plain, rel=1e-3)
    assert float(features(0.5 + 0.2 * made, given)) == pytest.approx(plain, rel=1e-3)
    both = features(torch.cat([made, given]), torch.cat([given, given]))
    assert float(both) == pytest.approx(plain / 2, rel=1e-3), "each volume for itself"
    empty = torch.zeros_like(made, requires_grad=True)
    features(empty, given).backward()
    assert torch.isfinite(empty.grad).all(), "nothing made yet"
