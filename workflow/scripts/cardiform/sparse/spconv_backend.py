"""The submanifold convolution through spconv on CUDA (github.com/traveller59/spconv)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import InputError
from .tensor import Structure

CPU_REFUSED = (
    "the spconv backend computes wrong results on the CPU (with several threads) and has no "
    "gradient there; use the torch backend"
)


def submanifold_conv(feats: Tensor, weight: Tensor, structure: Structure) -> Tensor:
    """Like :func:`cardiform.sparse.ops.submanifold_conv`, with the same weights.

    Raises
    ------
    InputError
        The features are not on a CUDA device, or spconv is not installed.
    """
    if feats.device.type != "cuda":
        raise InputError(CPU_REFUSED)
    try:
        import spconv.pytorch as spconv
    except ImportError:
        raise InputError("spconv is not installed; run: pip install spconv-cu126") from None
    return convolve(spconv, feats, weight, structure)


def convolve(spconv, feats: Tensor, weight: Tensor, structure: Structure) -> Tensor:
    """The convolution by the module ``spconv.pytorch``, or one that acts like it."""
    volume = [structure.resolution] * 3
    tensor = spconv.SparseConvTensor(feats, structure.coords, volume, structure.samples)
    # spconv finds its index pairs here again, so they too are made once per structure
    tensor.indice_dict = structure.spconv_pairs
    layer = _layer(spconv, *weight.shape[1:])
    # (27, in, out) -> spconv's (out, 3, 3, 3, in)
    kernel = weight.view(3, 3, 3, *weight.shape[1:]).permute(4, 0, 1, 2, 3).contiguous()
    return torch.func.functional_call(layer, {"weight": kernel}, (tensor,)).features


@functools.cache
def _layer(spconv, channels_in: int, channels_out: int) -> torch.nn.Module:
    return spconv.SubMConv3d(channels_in, channels_out, 3, bias=False, indice_key="pairs")
