"""The VecSet training: loss terms, masks, eikonal gradients, figures."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from cardiform.labels import STACOM_2025, LabelTable
from cardiform.options.vecset import VecsetOptions
from cardiform.vecset import task as task_module
from cardiform.vecset.model import PRESETS, Shape
from cardiform.vecset.task import (
    VecsetTask,
    bounded_square,
    exact_gradient,
    tetrahedral_gradient,
    truncated_error,
)

LABELS = LabelTable(STACOM_2025[:2])
RADII = torch.tensor([0.4, 0.7])
SHAPE = Shape(dim=16, depth=1, heads=2, latents=12, latent_dim=8, octaves=3)
LOCAL = dataclasses.replace(SHAPE, encode_neighbours=6, decode_neighbours=4)
OPTIONS = VecsetOptions(preset="demo", eikonal_queries=16, eikonal_start=0, weight_eikonal=0.1)


def batch(size=2, seed=0, points=64, queries=48):
    """Two concentric spheres, a class each."""
    g = torch.Generator().manual_seed(seed)
    kinds = torch.randint(2, (size, points), generator=g)
    way = functional.normalize(torch.randn(size, points, 3, generator=g), dim=-1)
    surface = way * RADII[kinds][..., None]
    near = surface[:, :queries] + 0.03 * torch.randn(size, queries, 3, generator=g)
    volume = torch.rand(size, queries, 3, generator=g) * 2 - 1
    return {
        "points": torch.cat([surface, functional.one_hot(kinds, 2).float()], dim=-1),
        "fps": torch.arange(12).expand(size, -1),
        "volume": volume,
        "volume_sdf": volume.norm(dim=-1, keepdim=True) - RADII,
        "near": near,
        "near_sdf": near.norm(dim=-1, keepdim=True) - RADII,
        "surface": surface,
        "surface_channel": kinds,
        "annotated": torch.ones(size, 2, dtype=torch.bool),
        "case_id": [f"case{i}" for i in range(size)],
    }


@pytest.fixture(params=[SHAPE, LOCAL], ids=["global", "anchored"])
def make_task(request, monkeypatch):
    def make(**changes) -> VecsetTask:
        monkeypatch.setitem(PRESETS, "demo", request.param)
        torch.manual_seed(0)
        task = VecsetTask(dataclasses.replace(OPTIONS, **changes), LABELS)
        torch.nn.init.normal_(task.model.head.weight, std=0.3)
        return task

    return make


def test_the_loss_is_the_weighted_sum_of_its_terms(make_task):
    task = make_task(bottleneck="kl", weight_volume=2.0, weight_kl=0.5)
    total, figures = task.loss(batch(), "model", 0)
    weights = {"volume": 2.0, "near": 10.0, "surface": 1.0, "kl": 0.5, "eikonal": 0.1}
    assert set(figures) == {"loss", *weights}
    assert float(total.detach()) == pytest.approx(
        sum(w * float(figures[n]) for n, w in weights.items())
    )
    assert not any(value.requires_grad for value in figures.values())


def test_the_terms_are_what_they_are_called(make_task):
    task = make_task()
    data = batch()
    data["volume_sdf"][0, 0, 0] = 5.0  # clipped like every distance
    limit = task.options.truncation

    def off(predicted, target):  # beyond the limit on the right side is right
        same = predicted.sign() == target.sign()
        return (predicted.clamp(-limit, limit) - target.clamp(-limit, limit)).abs() * (
            same & (target.abs() >= limit)
        ) + (predicted - target.clamp(-limit, limit)).abs() * ~(same & (target.abs() >= limit))

    model = task.model.eval()
    tokens = model.expand(model.encode(data["points"], data["fps"]))
    _, figures = task.loss(data, "model", 0)
    for name in ("volume", "near"):
        error = off(model.query(tokens, data[name]).detach(), data[name + "_sdf"])
        assert float(figures[name]) == pytest.approx(float(error.mean()), rel=1e-4)
    on = model.query(tokens, data["surface"]).detach().gather(2, data["surface_channel"][..., None])
    assert float(figures["surface"]) == pytest.approx(float(on.abs().mean()), rel=1e-4)


def test_beyond_the_truncation_only_the_wrong_side_is_an_error():
    predicted = torch.tensor([0.3, 0.05, -0.2, -0.3, 0.1, 0.02])
    target = torch.tensor([0.1, 0.1, 0.1, -0.1, -0.1, 0.05])
    wanted = torch.tensor([0.0, 0.05, 0.3, 0.0, 0.2, 0.03])
    torch.testing.assert_close(truncated_error(predicted, target, 0.1), wanted)


@pytest.mark.parametrize("eikonal", ["autograd", "tetra"])
def test_unknown_classes_do_not_count(make_task, eikonal):
    task = make_task(eikonal=eikonal)
    values = []
    for fill in (float("nan"), 0.01, -0.07):
        data = batch()
        data["annotated"][0, 1] = False
        for name in ("volume_sdf", "near_sdf"):
            data[name][0, :, 1] = fill
        torch.manual_seed(1)
        task.module.zero_grad()
        total, _ = task.loss(data, "model", 0)
        total.backward()
        values.append(total.detach())
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.module.parameters())
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    data["annotated"][0, 1] = True
    torch.manual_seed(1)
    assert not torch.equal(task.loss(data, "model", 0)[0], values[0])


def test_not_a_number_alone_marks_a_class_unknown(make_task):
    data = batch()
    data["near_sdf"][:, :, 0] = float("nan")
    assert make_task().loss(data, "model", 0)[0].isfinite()


def test_eikonal_waits_and_can_be_off(make_task):
    data = batch()
    assert "eikonal" not in make_task(eikonal_start=5).loss(data, "model", 4)[1]
    assert "eikonal" in make_task(eikonal_start=5).loss(data, "model", 5)[1]
    assert "eikonal" not in make_task(weight_eikonal=0.0).loss(data, "model", 5)[1]


def test_eikonal_points_lie_where_the_target_has_a_slope(make_task):
    task = make_task(eikonal_queries=1000)
    data = batch()
    points, channels, counts = task.eikonal_points(data)
    assert points.shape[1] == 96  # all there are
    distances = points.norm(dim=-1, keepdim=True) - RADII
    own = distances.gather(2, channels[..., None])[..., 0]
    assert (own[counts].abs() < task.options.truncation).all()
    assert (distances[~counts].abs() >= task.options.truncation).all()
    assert 0 < counts.float().mean() < 1
    assert channels[counts].unique().tolist() == [0, 1]


def test_exact_gradient_is_the_slope_of_the_field(make_task):
    model = make_task().model
    data = batch()
    tokens = model.expand(model.encode(data["points"], data["fps"])).detach()
    points, channels = data["near"][:, :5], data["surface_channel"][:, :5]
    found = exact_gradient(model, tokens, points, channels).detach()
    model.double()  # differences of the field want more digits
    for axis in range(3):
        move = 1e-6 * torch.eye(3, dtype=torch.float64)[axis]
        ahead, behind = (model.query(tokens.double(), points.double() + m) for m in (move, -move))
        slope = (ahead - behind).gather(2, channels[..., None])[..., 0] / 2e-6
        torch.testing.assert_close(found[..., axis].double(), slope, rtol=1e-3, atol=1e-3)


def test_one_steep_point_does_not_make_the_whole_step(make_task, monkeypatch):
    """A slope of 1,000 at one point of many has happened: squared it was the whole gradient."""
    task, data = make_task(), batch()
    _, sound = task.loss(data, "model", 0)
    whole = exact_gradient

    def spiked(*args):
        found = whole(*args)
        steep = torch.ones_like(found[..., :1])
        steep[0, 0] = 1000 / found[0, 0].detach().norm()
        return found * steep

    monkeypatch.setattr(task_module, "exact_gradient", spiked)
    points = task.options.eikonal_queries * len(data["points"])
    _, found = task.loss(data, "model", 0)
    assert float(found["eikonal"] - sound["eikonal"]) < 2 * 1000 / (points / 2)
    x = torch.tensor([0.0, 0.5, -1.0, 3.0, -1000.0])
    torch.testing.assert_close(bounded_square(x), torch.tensor([0.0, 0.25, 1.0, 5.0, 1999.0]))


def test_tetrahedral_differences_come_close(make_task):
    model = make_task().model
    data = batch()
    tokens = model.expand(model.encode(data["points"], data["fps"]))
    args = tokens, data["near"][:, :10], data["surface_channel"][:, :10]
    exact, near = exact_gradient(model, *args), tetrahedral_gradient(model, *args)
    error = (exact - near).norm(dim=-1) / exact.norm(dim=-1)
    assert error.median() < 0.02


def test_parameter_gradients_equal_double_backward_through_everything(make_task, monkeypatch):
    """Fused kernels for the first order, math for the second: the same numbers."""
    task = make_task(weight_eikonal=1.0)
    data = batch()
    ours = _gradients(task, data)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", _manual_attention)
    monkeypatch.setattr("cardiform.vecset.task.exact_gradient", _plain_gradient)
    theirs = _gradients(task, data)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = theirs[name].norm()
        assert (gradient - theirs[name]).norm() <= 1e-5 * scale + 1e-7, name
    # the eikonal term reaches the encoder through the tokens
    task.options = dataclasses.replace(task.options, weight_eikonal=0.0)
    without = _gradients(task, data)
    name = "encoder_forward.narrow.weight"
    assert (ours[name] - without[name]).norm() > 1e-3 * ours[name].norm()


def test_under_autocast_the_eikonal_term_and_its_gradients_stay_in_fp32(make_task):
    """The second derivative of a bf16 network would be noise."""
    task, data = make_task(), batch()
    torch.manual_seed(0)
    figures = task.loss(data, "model", 0)[1]
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, figures_half = task.loss(data, "model", 0)
    half.backward()
    assert half.dtype == torch.float32 and figures["eikonal"] > 0
    for name, value in figures.items():
        torch.testing.assert_close(figures_half[name], value, rtol=0.05, atol=0.01)
    gradients = [p.grad for p in task.model.parameters() if p.grad is not None]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    points, channels, _ = task.eikonal_points(data)
    tokens = task.module(data["points"], data["fps"], points)[1].detach()
    exact = exact_gradient(task.model, tokens, points, channels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact_gradient(task.model, tokens, points, channels), exact)


def test_evaluate_averages_over_cases_and_counts_dice(make_task):
    task = make_task(eikonal_start=0)
    whole = task.evaluate([batch(size=4)])
    parts = task.evaluate([{k: v[i : i + 1] for k, v in batch(size=4).items()} for i in range(4)])
    assert whole == pytest.approx(parts, rel=1e-4)
    assert set(whole) == {
        *("loss", "constant_loss", "volume", "near", "surface"),
        *("dice", "dice_myocardium", "dice_left_atrium"),
    }
    assert whole["loss"] == pytest.approx(
        whole["volume"] + 10 * whole["near"] + whole["surface"], rel=1e-5
    )


def test_the_untrained_network_scores_the_constant_loss_and_no_dice(make_task):
    task = make_task()
    torch.nn.init.zeros_(task.model.head.weight)
    figures = task.evaluate([batch()])
    assert figures["loss"] == pytest.approx(figures["constant_loss"])
    assert figures["dice"] == 0.0


def test_training_learns_two_spheres(make_task):
    task = make_task(weight_eikonal=0.001)
    torch.nn.init.zeros_(task.model.head.weight)
    optimizer = torch.optim.Adam(task.parameters("model"), lr=4e-3)
    before = task.evaluate([batch(seed=99)])
    for step in range(300):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 300)
        total, _ = task.loss(batch(seed=step), "model", step)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    after = task.evaluate([batch(seed=99)])
    assert after["loss"] < 0.2 * after["constant_loss"] <= 1.001 * before["loss"]
    assert after["dice"] > 0.8 > before["dice"]


def _gradients(task, data):
    torch.manual_seed(3)
    task.module.zero_grad()
    task.loss(data, "model", 0)[0].backward()
    return {n: p.grad.clone() for n, p in task.module.named_parameters() if p.grad is not None}


def _plain_gradient(model, tokens, points, channels):
    points = points.detach().requires_grad_()
    chosen = model.query(tokens, points).gather(2, channels[..., None]).sum()
    return torch.autograd.grad(chosen, points, create_graph=True)[0]


def _manual_attention(query, key, value):
    weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return weights @ value


def test_the_preview_shows_what_the_field_says(make_task, tmp_path):
    from matplotlib import image

    task = make_task()
    blank = task.model.head.bias.detach().clone()
    pictures = []
    for bias in (blank + 5, blank - 5):  # nothing inside, then everything
        task.model.head.bias.data.copy_(bias)
        task.preview(iter([batch()]), tmp_path, 30)
        pictures.append(image.imread(tmp_path / "0000030.png")[..., :3])
    assert (pictures[0] > 0.99).all(axis=-1).mean() > (pictures[1] > 0.99).all(axis=-1).mean() + 0.3
