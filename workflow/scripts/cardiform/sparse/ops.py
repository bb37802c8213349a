"""Convolutions between active voxels as chunked gathered matrix products.

Weights are always (offsets, in, out), whatever computes. Every gradient is again a gather or
a sum in a fixed order, so the same inputs give the same bits on one machine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .tensor import Halving, Structure

# What is gathered at a time: on the CPU it stays in the caches, on a GPU it bounds the memory.
BUFFER_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


def submanifold_conv(
    feats: Tensor, weight: Tensor, structure: Structure, backend: str = "torch"
) -> Tensor:
    """3^3 convolution on the active voxels alone (Graham et al. 2018).

    Parameters
    ----------
    feats : (N, Cin).    weight : (27, Cin, Cout), offset order of ``Structure.neighbours``.
    backend : ``torch`` or ``spconv`` (CUDA only; see :mod:`cardiform.sparse.spconv_backend`).

    Returns
    -------
    (N, Cout); a dense convolution with zeros elsewhere gives the same values there.
    """
    feats, weight = _autocast(feats, weight)
    if backend == "spconv":
        from .spconv_backend import submanifold_conv as spconv

        return spconv(feats, weight, structure)
    return _Gathered.apply(feats, weight, structure.neighbours)


def strided_conv(feats: Tensor, weight: Tensor, halving: Halving) -> Tensor:
    """Convolution of kernel 2 and stride 2: (N, Cin), (8, Cin, Cout) -> (M, Cout)."""
    return _Down.apply(*_autocast(feats, weight), halving)


def transposed_conv(feats: Tensor, weight: Tensor, halving: Halving) -> Tensor:
    """Its counterpart on the children that are there: (M, Cin), (8, Cin, Cout) -> (N, Cout)."""
    return _Up.apply(*_autocast(feats, weight), halving)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, feats: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(feats, weight, index)
        return _gather_product(feats, weight, index)

    @staticmethod
    def backward(ctx, grad: Tensor):
        feats, weight, index = ctx.saved_tensors
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            # j is neighbour k of i where i is neighbour 26 - k of j: again a gather
            grad_feats = _gather_product(grad, weight.flip(0).transpose(1, 2), index)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(feats, grad, index, weight)
        return grad_feats, grad_weight, None


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx, feats: Tensor, weight: Tensor, halving: Halving) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.halving = halving
        return _gather_product(feats, weight, halving.children)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (feats, weight), halving = ctx.saved_tensors, ctx.halving
        grad_feats = _octant_product(grad, weight.transpose(1, 2), halving)
        return grad_feats, _weight_gradient(feats, grad, halving.children, weight), None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx, feats: Tensor, weight: Tensor, halving: Halving) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.halving = halving
        return _octant_product(feats, weight, halving)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (feats, weight), halving = ctx.saved_tensors, ctx.halving
        grad_feats = _gather_product(grad, weight.transpose(1, 2), halving.children)
        # the roles of both sides are exchanged, so is the result
        swapped = _weight_gradient(grad, feats, halving.children, weight.transpose(1, 2))
        return grad_feats, swapped.transpose(1, 2), None


def _gather_product(feats: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Row i: the sum over k of feats[index[i, k]] @ weight[k]."""
    padded, flat = _padded(feats), weight.reshape(-1, weight.shape[2])
    result = feats.new_empty(len(index), weight.shape[2])
    for rows in _chunks(index, feats):
        torch.mm(_gathered(padded, index[rows]), flat, out=result[rows])
    return result


def _weight_gradient(feats: Tensor, grad: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(K, Cin, Cout): the sum over rows i of feats[index[i, k]] x grad[i], added up in fp32."""
    padded = _padded(feats)
    accuracy = torch.promote_types(weight.dtype, torch.float32)
    total = feats.new_zeros(index.shape[1] * feats.shape[1], grad.shape[1], dtype=accuracy)
    for rows in _chunks(index, feats):
        gathered, part = _gathered(padded, index[rows]), grad[rows]
        if gathered.dtype == accuracy:
            total.addmm_(gathered.T, part)
        else:
            total += gathered.T @ part
    return total.view(weight.shape).to(weight.dtype)


def _octant_product(feats: Tensor, weight: Tensor, halving: Halving) -> Tensor:
    """Row n: feats[parent[n]] @ weight[octant[n]]."""
    result = feats.new_empty(len(halving.parent), weight.shape[2])
    for octant, rows in enumerate(halving.by_octant):
        result[rows] = feats[halving.parent[rows]] @ weight[octant]
    return result


def _chunks(index: Tensor, feats: Tensor):
    """Slices of rows whose gathered features fit the buffer."""
    row = index.shape[1] * feats.shape[1] * feats.element_size()
    size = max(BUFFER_BYTES.get(index.device.type, BUFFER_BYTES["cuda"]) // row, 1)
    for start in range(0, len(index), size):
        yield slice(start, start + size)


def _gathered(padded: Tensor, index: Tensor) -> Tensor:
    """(rows, K * C): the feature rows that ``index`` names, side by side."""
    return padded.index_select(0, index.reshape(-1)).view(len(index), -1)


def _padded(feats: Tensor) -> Tensor:
    """With a last row of zeros, for what is not active."""
    return F.pad(feats, (0, 0, 0, 1))


def _autocast(feats: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the type that autocast asks for, as built-in matrix products would be."""
    kind = feats.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        return feats.to(dtype), weight.to(dtype)
    return feats, weight
