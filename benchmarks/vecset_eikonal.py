"""Memory and time of a VecSet training step with the eikonal term.

    python benchmarks/vecset_eikonal.py --steps 5

Variants, each in a process of its own with one thread, on the same data and a reduced shape
(512 wide, 6 blocks, 512 latents, 4,096 input points, 6,144 queries, batch 2, fp32):

none     no eikonal term
earlier  attention written out everywhere; the gradient of all queries is taken in the one graph
         that the data terms use, and differentiated again
ours     fused kernels; the decoder alone, on 512 points, is differentiated twice
more     the same with all 2,048 volume and near points
tetra    fused kernels; four evaluations around each of the 512 points

Prints peak resident memory above weights and optimizer state, median CPU seconds of a step,
and their ratios to the earlier way. The last line is the largest relative difference between
parameter gradients of the eikonal term by the earlier way and by ours on the same points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from measuring import peak_mib, resident_mib, run_child

VARIANTS = ("none", "earlier", "ours", "more", "tetra")
CLASSES, LATENTS = 10, 512
POINTS, VOLUME, NEAR, SURFACE, EIKONAL = 4096, 1024, 1024, 4096, 512
LEARNING_RATE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5, help="measured steps per variant")
    parser.add_argument("--batch", type=int, default=2, help="samples per step")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        figures = compare(args.batch) if args.child == "gradients" else measure(args)
        print(json.dumps(figures))
        return
    sizes = ("--steps", args.steps, "--batch", args.batch)
    found = {variant: run_child(__file__, variant, *sizes) for variant in VARIANTS}
    peer = found["earlier"]
    print("| variant | peak MiB | ratio | CPU s per step | ratio |\n|---|---:|---:|---:|---:|")
    for variant, (peak, seconds) in found.items():
        ratios = peak / peer[0], seconds / peer[1]
        print(f"| {variant} | {peak:,.0f} | {ratios[0]:.2f} | {seconds:.2f} | {ratios[1]:.2f} |")
    difference = run_child(__file__, "gradients", *sizes)
    print(f"largest relative difference of gradients: {difference:.1e}")


def measure(args: argparse.Namespace) -> tuple[float, float]:
    """Peak MiB above weights and Adam state; median CPU seconds of a step."""
    import torch

    task = make_task(args.child)
    if args.child == "earlier":
        write_attention_out()
    optimizer = torch.optim.Adam(task.module.parameters(), lr=LEARNING_RATE)
    for p in task.module.parameters():  # a first step makes the optimizer's state
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    before = resident_mib()
    seconds = []
    for step in range(args.steps + 1):
        batch = make_batch(args.batch, seed=step)
        start = time.process_time()
        if args.child == "earlier":
            loss = earlier_loss(task, batch)
        else:
            loss = task.loss(batch, "model", step)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
    return peak_mib() - before, statistics.median(seconds[1:])  # the first step warms up


def compare(batch_size: int) -> float:
    """Largest relative difference, over the parameters, of the eikonal term's gradient."""
    import torch

    from cardiform.vecset.task import exact_gradient

    task, batch = make_task("ours"), make_batch(batch_size, seed=0)
    torch.nn.init.normal_(task.model.head.weight, std=0.1)  # a field with a slope
    points, channels = batch["near"][:, :EIKONAL], batch["near_channel"][:, :EIKONAL]

    def gradients(slope) -> list[torch.Tensor]:
        task.module.zero_grad()
        tokens = task.model.expand(task.model.encode(batch["points"], batch["fps"]))
        found = slope(task.model, tokens, points, channels)
        (found.norm(dim=-1) - 1).square().mean().backward()
        return [p.grad.clone() for p in task.module.parameters() if p.grad is not None]

    ours = gradients(exact_gradient)
    write_attention_out()
    theirs = gradients(plain_gradient)
    # A gradient that is zero but for rounding is measured against all of them.
    floor = 1e-6 * max(float(t.norm()) for t in theirs)
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).norm()) / max(float(b.norm()), floor) for a, b in pairs)


def make_task(variant: str):
    """The training task at the reduced shape."""
    import torch

    from cardiform.labels import STACOM_2025, LabelTable
    from cardiform.options.vecset import VecsetOptions
    from cardiform.vecset.model import PRESETS, Shape
    from cardiform.vecset.task import VecsetTask

    PRESETS["base"] = Shape(dim=512, depth=6, heads=8, latents=LATENTS, latent_dim=16)
    options = VecsetOptions(
        preset="base",
        eikonal="tetra" if variant == "tetra" else "autograd",
        eikonal_queries=VOLUME + NEAR if variant == "more" else EIKONAL,
        eikonal_start=0,
        weight_eikonal=0.0 if variant == "none" else 0.001,
    )
    torch.manual_seed(0)
    return VecsetTask(options, LabelTable(STACOM_2025))


def make_batch(size: int, seed: int) -> dict:
    """Concentric spheres, a class each; the values do not matter to time or memory."""
    import torch
    import torch.nn.functional as F

    g = torch.Generator().manual_seed(seed)
    radii = torch.linspace(0.2, 0.9, CLASSES)
    kinds = torch.randint(CLASSES, (size, POINTS), generator=g)
    surface = F.normalize(torch.randn(size, POINTS, 3, generator=g), dim=-1)
    surface = surface * radii[kinds][..., None]
    near = surface[:, :NEAR] + 0.03 * torch.randn(size, NEAR, 3, generator=g)
    volume = torch.rand(size, VOLUME, 3, generator=g) * 2 - 1
    return {
        "points": torch.cat([surface, F.one_hot(kinds, CLASSES).float()], dim=-1),
        "fps": torch.arange(LATENTS).expand(size, -1),
        "volume": volume,
        "volume_sdf": volume.norm(dim=-1, keepdim=True) - radii,
        "near": near,
        "near_sdf": near.norm(dim=-1, keepdim=True) - radii,
        "near_channel": kinds[:, :NEAR],
        "surface": surface[:, :SURFACE],
        "surface_channel": kinds[:, :SURFACE],
        "annotated": torch.ones(size, CLASSES, dtype=torch.bool),
    }


def earlier_loss(task, batch: dict):
    """The data terms and the eikonal term of all queries from one twice differentiable graph."""
    import torch

    queries = torch.cat([batch["volume"], batch["near"], batch["surface"]], dim=1)
    queries.requires_grad_()
    predicted, _, _ = task.module(batch["points"], batch["fps"], queries)
    limit = task.options.truncation
    volume, near, surface = predicted.split([VOLUME, NEAR, SURFACE], dim=1)
    nearest = batch["volume_sdf"].abs().argmin(dim=-1)
    own = torch.cat([nearest, batch["near_channel"], batch["surface_channel"]], dim=1)
    chosen = predicted.gather(2, own[..., None]).squeeze(-1)
    slope = torch.autograd.grad(chosen.sum(), queries, create_graph=True)[0].norm(dim=-1)
    return (
        (volume - batch["volume_sdf"].clamp(-limit, limit)).abs().mean()
        + 10 * (near - batch["near_sdf"].clamp(-limit, limit)).abs().mean()
        + chosen[:, -surface.shape[1] :].abs().mean()
        + 0.001 * (slope - 1).square().mean()
    )


def plain_gradient(model, tokens, points, channels):
    """Gradient of the chosen distances with whatever kernels are in place."""
    import torch

    points = points.detach().requires_grad_()
    chosen = model.query(tokens, points).gather(2, channels[..., None]).sum()
    return torch.autograd.grad(chosen, points, create_graph=True)[0]


def write_attention_out() -> None:
    """Put attention of separate operations in the place of the fused kernels."""
    import torch.nn.functional as F

    def attention(query, key, value):
        weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)
        return weights @ value

    F.scaled_dot_product_attention = attention


if __name__ == "__main__":
    main()
