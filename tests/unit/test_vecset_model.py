"""The VecSet network: sizes, contracts of encode/expand/query, bottlenecks."""

import pytest
import torch
from tensor_cores import TensorCores

from cardiform.errors import InputError
from cardiform.options.vecset import VecsetOptions
from cardiform.vecset.attention import AttentionBlock
from cardiform.vecset.bottleneck import BOTTLENECKS
from cardiform.vecset.model import PRESETS, Shape, VecSet
from cardiform.vecset.neighbours import nearest

GLOBAL = Shape(dim=16, depth=1, heads=2, latents=8, latent_dim=4, octaves=2)
LOCAL = Shape(
    dim=16,
    depth=1,
    heads=2,
    latents=8,
    latent_dim=4,
    octaves=2,
    encode_neighbours=4,
    decode_neighbours=3,
)
SHAPES = pytest.mark.parametrize("shape", [GLOBAL, LOCAL], ids=["global", "anchored"])


def network(shape, classes=3, **kwargs) -> VecSet:
    """A network whose head is not zero, so that outputs depend on inputs."""
    torch.manual_seed(0)
    model = VecSet(shape, classes, **kwargs)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def inputs(batch=2, count=24, classes=3, latents=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(batch, count, 3, generator=generator) * 2 - 1
    kinds = torch.randint(classes, (batch, count), generator=generator)
    points = torch.cat([xyz, torch.nn.functional.one_hot(kinds, classes).float()], dim=-1)
    fps = torch.stack([torch.randperm(count, generator=generator)[:latents] for _ in range(batch)])
    queries = torch.rand(batch, 20, 3, generator=generator) * 2 - 1
    return points, fps, queries


def count(preset: str, queries: str) -> int:
    with torch.device("meta"):
        model = VecSet(PRESETS[preset], 10, queries=queries)
    return sum(p.numel() for p in model.parameters())


def test_xl_is_the_vecsetx_layout_with_its_additions():
    # VecSetX learnable_vec1024x16_dim1024_depth24_nb has 425,124,913 parameters. Added:
    # ten input channels, an own query embedding (51 -> 1024 and bias), nine more outputs.
    upstream = 425_124_913
    inputs, embedding, heads = 10 * 1024, 51 * 1024 + 1024, 9 * (1024 + 1)
    assert count("xl", "learned") == upstream + inputs + embedding + heads == 425_197_626
    assert count("xl", "fps") == 425_197_626 - 1024 * 1024  # no learned queries


@pytest.mark.parametrize(
    ("preset", "queries", "expected"),
    [
        ("small", "learned", 9_904_186),
        ("base", "learned", 56_012_858),
        ("base", "fps", 55_750_714),
        ("demo", "fps", 261_290),
        ("local", "fps", 8_221_034),
        ("local_large", "fps", 57_907_818),
        ("vecsetx", "learned", 425_197_626 + 16 * 2 * 1024 + 16 + 2 * 16),
    ],
)
def test_parameter_counts(preset, queries, expected):
    assert count(preset, queries) == expected


def test_from_options_builds_the_preset_that_predicts_outside():
    options = VecsetOptions(preset="demo", truncation=0.07)
    model = VecSet.from_options(options, 10)
    assert model.shape == PRESETS["demo"]
    points, _, queries = inputs(batch=1, count=600, classes=10)
    fps = torch.arange(model.shape.latents)[None]
    distances = model.query(model.expand(model.encode(points, fps)), queries)
    torch.testing.assert_close(distances, torch.full((1, 20, 10), 0.07))


@SHAPES
@pytest.mark.parametrize("bottleneck", list(BOTTLENECKS))
def test_shapes_and_three_bottlenecks(shape, bottleneck):
    model = network(shape, bottleneck=bottleneck)
    points, fps, queries = inputs()
    latents = model.encode(points, fps)
    width = 16 if bottleneck == "identity" else 4
    assert latents.shape == (2, 8, width + 3 * shape.anchored)
    assert model.query(model.expand(latents), queries).shape == (2, 20, 3)


@SHAPES
def test_forward_is_encode_expand_query(shape):
    model = network(shape)
    points, fps, queries = inputs()
    distances, tokens, _ = model(points, fps, queries)
    separate = model.expand(model.encode(points, fps))
    torch.testing.assert_close(tokens, separate)
    torch.testing.assert_close(distances, model.query(separate, queries))


@SHAPES
def test_a_sample_does_not_depend_on_its_companions(shape):
    model = network(shape)
    points, fps, queries = inputs()
    together = model.query(model.expand(model.encode(points, fps)), queries)
    for i in range(2):
        one = slice(i, i + 1)
        alone = model.query(model.expand(model.encode(points[one], fps[one])), queries[one])
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)


@SHAPES
def test_chunked_queries_give_the_same(shape):
    model = network(shape)
    points, fps, queries = inputs()
    tokens = model.expand(model.encode(points, fps))
    chunks = [model.query(tokens, part) for part in queries.split(7, dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), model.query(tokens, queries))


def test_the_order_of_input_points_does_not_matter():
    model = network(LOCAL)
    points, fps, queries = inputs(batch=1)
    order = torch.randperm(points.shape[1])
    before = model.query(model.expand(model.encode(points, fps)), queries)
    moved = model.encode(points[:, order], order.argsort()[fps])
    torch.testing.assert_close(model.query(model.expand(moved), queries), before)


def test_anchored_latents_carry_their_place():
    model = network(LOCAL)
    points, fps, _ = inputs()
    latents = model.encode(points, fps)
    torch.testing.assert_close(latents[1, :, :3], points[1, fps[1], :3])


def test_neighbours_are_the_nearest_where_a_gpu_rounds_products():
    """As reconstructions have them, where nothing is rounded."""
    way = torch.randn(1, 8000, 3, generator=torch.Generator().manual_seed(0))
    points = 0.3 + 0.4 * way / way.norm(dim=-1, keepdim=True)
    given = points[:, :400], points, 9
    wanted = torch.cdist(*(p.double() for p in given[:2])).topk(9, largest=False).indices
    torch.set_float32_matmul_precision("high")
    try:
        with TensorCores():
            rounded = torch.cdist(*given[:2]).topk(9, largest=False).indices
            found = nearest(*given)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (rounded[..., 0] != wanted[..., 0]).float().mean() > 0.1, "the products are rounded"
    assert torch.equal(found[..., 0], wanted[..., 0])
    assert (found != wanted).float().mean() < 0.01  # of two that are as near


def test_anchored_distances_are_continuous_where_neighbours_change():
    model = network(LOCAL)
    points, fps, _ = inputs(batch=1)
    tokens = model.expand(model.encode(points, fps))
    line = torch.linspace(-0.5, 0.5, 20_001)[None, :, None] * torch.tensor([1.0, 0.7, 0.3])
    steps = model.query(tokens, line).diff(dim=1).abs()
    assert steps.max() < 0.02 * (model.query(tokens, line).max() - model.query(tokens, line).min())


def test_normalized_codes_have_zero_mean_and_unit_variance():
    points, fps, _ = inputs()
    codes = network(GLOBAL).encode(points, fps)
    torch.testing.assert_close(codes.mean(-1), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.var(-1, correction=0), torch.ones(2, 8), atol=1e-2, rtol=0)


def test_kl_samples_in_training_only_and_is_penalised():
    model = network(GLOBAL, bottleneck="kl")
    points, fps, queries = inputs()
    torch.testing.assert_close(model(points, fps, queries)[0], model(points, fps, queries)[0])
    model.train()
    first, _, penalty = model(points, fps, queries)
    assert penalty > 0
    assert not torch.allclose(first, model(points, fps, queries)[0])
    # encode stays the posterior mean even then
    torch.testing.assert_close(model.encode(points, fps), model.encode(points, fps))


def test_latents_start_at_points_or_are_learned():
    assert network(GLOBAL).starts == network(LOCAL).starts == 8
    model = network(GLOBAL, queries="learned")
    points, fps, queries = inputs()
    assert model.starts == 0
    none = fps[:, :0]
    torch.testing.assert_close(model(points, none, queries), model(points, fps, queries))


def test_learned_queries_need_no_fps_and_fps_queries_do():
    points, _fps, _ = inputs()
    assert network(GLOBAL, queries="learned").encode(points).shape == (2, 8, 4)
    with pytest.raises(ValueError, match="fps"):
        network(GLOBAL).encode(points)


def test_fps_chooses_where_latents_start():
    model = network(GLOBAL)
    points, fps, _ = inputs()
    assert not torch.allclose(model.encode(points, fps), model.encode(points, fps.roll(1, 0)))


def test_the_anchored_preset_refuses_learned_queries():
    with pytest.raises(InputError, match="fps"):
        VecSet.from_options(VecsetOptions(preset="demo", queries="learned"), 10)


@SHAPES
def test_checkpointing_runs_blocks_twice_and_changes_no_gradient(shape, monkeypatch):
    gradients, calls = [], []
    forward = AttentionBlock.forward
    monkeypatch.setattr(
        AttentionBlock, "forward", lambda self, x: calls.append(self) or forward(self, x)
    )
    for checkpointing in (False, True):
        model = network(shape, checkpointing=checkpointing).train()
        model(*inputs())[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        assert len(calls) == (2 if checkpointing else 1)
        calls.clear()
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


@SHAPES
def test_under_autocast_the_blocks_add_up_in_fp32(shape):
    model, seen = network(shape), []
    for module in (model.encoder_norm, model.trunk[0].attention_norm, model.head_norm):
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(*inputs())
    assert seen == [torch.float32] * 3


def test_channels_of_a_latent_can_be_asked_for():
    model = VecSet.from_options(VecsetOptions(preset="demo", latent_dim=5), 10)
    points, _, _ = inputs(batch=1, count=600, classes=10)
    fps = torch.arange(model.shape.latents)[None]
    assert model.encode(points, fps).shape[-1] == 5 + 3
