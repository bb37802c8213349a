"""Residual blocks and changes of resolution on sparse voxels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ops import strided_conv, submanifold_conv
from .tensor import Structure

WIDENING = 2  # of the pointwise layers of a block


class Block(nn.Module):
    """x + pointwise(norm(conv(x))), the identity at first (ConvNeXt, Liu et al. 2022)."""

    def __init__(self, channels: int, backend: str):
        super().__init__()
        self.backend = backend
        self.weight = _weight(27, channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(channels, WIDENING * channels)
        self.outer = nn.Linear(WIDENING * channels, channels)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, feats: Tensor, structure: Structure) -> Tensor:
        seen = submanifold_conv(feats, self.weight, structure, self.backend)
        return feats + self.outer(nn.functional.silu(self.inner(self.norm(seen))))


class Resample(nn.Module):
    """A strided or transposed convolution of kernel 2 with norm before and bias."""

    def __init__(self, convolution, channels_in: int, channels_out: int):
        super().__init__()
        self.convolution = convolution
        self.norm = nn.LayerNorm(channels_in)
        fan_in = 8 if convolution is strided_conv else 1  # a child has one parent
        self.weight = _weight(8, channels_in, channels_out, fan_in)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, feats: Tensor, halving) -> Tensor:
        return self.convolution(self.norm(feats), self.weight, halving) + self.bias


def _weight(offsets: int, cin: int, cout: int, fan_in: int | None = None) -> nn.Parameter:
    scale = ((fan_in or offsets) * cin) ** -0.5
    return nn.Parameter(torch.randn(offsets, cin, cout) * scale)
