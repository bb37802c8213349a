"""Products of matrices on the CPU as the tensor cores of a GPU make them where they are allowed to:
ten bits of each factor are read (TF32)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
BITS = 13  # of the 23 of a mantissa that are not read


class TensorCores(TorchDispatchMode):
    """Within the block products are rounded, unless the highest precision is asked for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if torch.get_float32_matmul_precision() != "highest":
            if function in PRODUCTS:
                first = PRODUCTS[function]
                args = (*args[:first], *(_rounded(factor) for factor in args[first:]))
            if function is aten._euclidean_dist.default:  # torch.cdist of many points
                return _distances(*args)
        return function(*args, **(kwargs or {}))


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """As torch makes them: |a|^2 + |b|^2 - 2 a b as a single product."""
    ones = [torch.ones_like(points[..., :1]) for points in (one, other)]
    squares = [points.square().sum(-1, keepdim=True) for points in (one, other)]
    left = torch.cat([-2 * one, squares[0], ones[0]], dim=-1)
    right = torch.cat([other, ones[1], squares[1]], dim=-1)
    return (_rounded(left) @ _rounded(right).mT).clamp(min=0).sqrt()


def _rounded(values: Tensor) -> Tensor:
    if values.dtype != torch.float32:
        return values
    bits = values.contiguous().view(torch.int32)
    even = (bits >> BITS) & 1
    return ((bits + (1 << BITS - 1) - 1 + even) & -(1 << BITS)).view(torch.float32)
