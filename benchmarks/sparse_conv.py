"""Forward and backward pass of a submanifold convolution against its peers.

    pip install -r requirements/bench.txt && python benchmarks/sparse_conv.py --repeats 5

3^3, 32 to 64 channels, fp32, on the band of +-0.97 voxels about a curved shell, in 128^3 and
256^3 voxels. Variants, each in a process of its own with one thread:

ours      gathered products in chunks, gradients gathered too
autograd  the same as one gather and one product, differentiated by PyTorch
loop      27 gathers, products and scattered sums, differentiated by PyTorch
dense     Conv3d on the bounding box of the active voxels
ocnn      OctreeConv (both of its methods), where it is installed

Prints CPU seconds and peak memory above inputs and weights, their ratios to ours, and the largest
difference between the results of ours and of dense. Index maps are made beforehand (as they are
shared by all layers); their seconds stand in the last line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import types

from measuring import peak_mib, resident_mib, run_child, timed

VARIANTS = ("ours", "autograd", "loop", "dense", "ocnn explicit_gemm", "ocnn block_gemm")
CHANNELS = (32, 64)
HALF_BAND = 0.97  # voxels
# Lobes of the shell in the unit cube: a middle and the radii along the axes.
LOBES = (((-0.15, 0.0, -0.1), (0.6, 0.5, 0.75)), ((0.3, 0.1, 0.25), (0.5, 0.55, 0.45)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="measured passes per variant")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--resolution", type=int, default=128, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.resolution, args.repeats)))
        return
    for resolution in args.resolutions:
        sizes = ("--resolution", resolution, "--repeats", args.repeats)
        found = {variant: run_child(__file__, variant, *sizes) for variant in VARIANTS}
        ours = found["ours"]
        print(f"\n{ours['voxels']:,} voxels of {resolution}^3, {ours['filled']:.1%} of their box\n")
        print("| variant | CPU s | of ours | peak MiB | of ours |\n|---|---:|---:|---:|---:|")
        for variant, figures in found.items():
            if figures is None:
                print(f"| {variant} | not installed | | | |")
                continue
            seconds, peak = figures["seconds"], figures["peak"]
            ratios = seconds / ours["seconds"], peak / ours["peak"]
            print(
                f"| {variant} | {seconds:.2f} | {ratios[0]:.1f} | {peak:,.0f} | {ratios[1]:.1f} |"
            )
        difference = run_child(__file__, "difference", *sizes)
        print(
            f"\nours and dense differ by {difference:.1e}; the index map takes {ours['map']:.2f} s"
        )


def measure(variant: str, resolution: int, repeats: int):
    """Figures of one variant; None where its library is not installed."""
    import torch

    from cardiform.sparse.tensor import Structure

    torch.set_num_threads(1)
    torch.manual_seed(0)
    coords = shell(resolution)
    structure = Structure.of_samples([coords], resolution)
    map_seconds, _ = timed(lambda: structure.neighbours)
    feats = torch.randn(len(coords), CHANNELS[0]).requires_grad_()
    weight = (torch.randn(27, *CHANNELS) / 30).requires_grad_()
    if variant == "difference":
        ours, dense = build("ours", structure, weight), build("dense", structure, weight)
        return (ours(feats) - dense(feats)).abs().max().item()
    convolve = build(variant, structure, weight)
    if convolve is None:
        return None
    before = resident_mib()
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        seconds.append(timed(lambda: convolve(feats).sum().backward())[0])
        feats.grad = weight.grad = None
    box = coords.max(dim=0).values - coords.min(dim=0).values + 1
    return {
        "voxels": len(coords),
        "filled": len(coords) / int(box.prod()),
        "seconds": statistics.median(seconds[1:]),
        "peak": peak_mib() - before,
        "map": map_seconds,
    }


def shell(resolution: int):
    """(V, 3) voxels about the surface of a union of ellipsoids."""
    import torch

    ticks = (torch.arange(resolution) + 0.5) * 2 / resolution - 1
    distance = None
    for middle, radii in LOBES:
        parts = [((ticks - m) / r).square() for m, r in zip(middle, radii)]
        norm = (parts[0][:, None, None] + parts[1][:, None] + parts[2]).sqrt()
        lobe = (norm - 1) * min(radii)
        distance = lobe if distance is None else torch.minimum(distance, lobe)
    return (distance.abs() < HALF_BAND * 2 / resolution).nonzero()


def build(variant: str, structure, weight):
    """features -> features of one variant."""
    import torch

    from cardiform.sparse import ops

    if variant == "ours":
        return lambda feats: ops.submanifold_conv(feats, weight, structure)
    index = structure.neighbours.long()
    if variant == "autograd":
        flat = weight.view(-1, CHANNELS[1])
        return lambda feats: torch.nn.functional.pad(feats, (0, 0, 0, 1))[index].flatten(1) @ flat
    if variant == "loop":
        return lambda feats: scattered(feats, weight, index)
    if variant == "dense":
        low = structure.coords[:, 1:].min(dim=0).values
        places = (structure.coords[:, 1:] - low).long()
        shape = (places.max(dim=0).values + 1).tolist()
        kernel = weight.view(3, 3, 3, *CHANNELS).permute(4, 3, 0, 1, 2)

        def dense(feats):
            grid = feats.new_zeros(*shape, CHANNELS[0]).index_put(tuple(places.T), feats)
            result = torch.nn.functional.conv3d(grid.permute(3, 0, 1, 2)[None], kernel, padding=1)
            return result[0].permute(1, 2, 3, 0)[tuple(places.T)]

        return dense
    return octree(structure, variant.split()[1])


def scattered(feats, weight, index):
    """The sum over offsets of products that are scattered to where they belong."""
    result = feats.new_zeros(len(index), weight.shape[2])
    for offset in range(27):
        rows = (index[:, offset] < len(index)).nonzero().squeeze(1)
        result = result.index_add(0, rows, feats[index[rows, offset]] @ weight[offset])
    return result


def octree(structure, method: str):
    """OctreeConv of ocnn on the same voxels (its rows are in another order)."""
    if importlib.util.find_spec("ocnn") is None:
        return None
    if importlib.util.find_spec("torchvision") is None:  # for its image models alone
        for name in ("torchvision", "torchvision.models"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision.models"].resnet18 = None
    import ocnn

    depth = structure.resolution.bit_length() - 1
    places = (structure.coords[:, 1:] + 0.5) * 2 / structure.resolution - 1
    tree = ocnn.octree.Octree(depth, full_depth=2)
    tree.build_octree(ocnn.octree.Points(places, normals=places))
    tree.construct_all_neigh()
    assert int(tree.nnum_nempty[depth]) == len(structure)
    layer = ocnn.nn.OctreeConv(*CHANNELS, [3], nempty=True, method=method)
    return lambda feats: layer(feats, tree, depth)


if __name__ == "__main__":
    main()
