"""Transformer parts of the VecSet networks: point features, attention, feed-forward.

Layout of 3DShape2VecSet (Zhang et al., SIGGRAPH 2023) and VecSetX, written from scratch. All
attention goes through ``scaled_dot_product_attention``: the caller picks the kernel, and
whoever differentiates twice must pick the math kernel, the only one that can.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointEmbedding(nn.Module):
    """Positions and further channels to features.

    Per axis the sine and cosine of ``2^o pi x`` for each octave ``o``, then x itself, then
    the channels as they are, all through one linear layer.

    octaves : number of frequencies; the shortest wavelength is ``2^(1 - (octaves - 1))``.
    channels : number of channels after xyz (0 for queries).
    """

    frequencies: Tensor

    def __init__(self, dim: int, octaves: int, channels: int = 0):
        super().__init__()
        frequencies = torch.pi * 2.0 ** torch.arange(octaves)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.linear = nn.Linear(3 * (2 * octaves + 1) + channels, dim)

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3 + channels) to (B, N, dim)."""
        angles = points[..., :3, None] * self.frequencies  # (B, N, 3, O)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return self.linear(torch.cat([waves, points], dim=-1))


class Attention(nn.Module):
    """Multi-head attention from ``x`` to ``context`` (to itself where none is given)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, Q, dim) and (B, M, dim) to (B, Q, dim)."""
        key, value = self.to_kv(x if context is None else context).chunk(2, dim=-1)
        query, key, value = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), key, value)
        )  # (B, H, tokens, dim / H)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Gated GELU (Shazeer 2020): dim to 2 x 4 dim, gated to 4 dim, back to dim."""

    def __init__(self, dim: int):
        super().__init__()
        self.widen = nn.Linear(dim, 8 * dim)
        self.narrow = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.widen(x).chunk(2, dim=-1)
        return self.narrow(value * F.gelu(gate))


class CrossAttention(nn.Module):
    """Attention with a norm on the asking side only."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.attention(self.norm(x), context)


class AttentionBlock(nn.Module):
    """Self-attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.forward_norm(x))
