"""Attention among nearest neighbours with relative positions (plain, twice differentiable)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.precision import in_full_precision

# Offsets between neighbours are small in the unit frame; this brings them to order one.
OFFSET_SCALE = 10.0


class NeighbourAttention(nn.Module):
    """Gather features of the k nearest context points, weighted by what they are and where.

    Per neighbour one hidden layer sees its features and the offset to it; the softmax over
    the neighbours is multiplied by a window that falls to zero at the (k+1)-th neighbour,
    so that the result is continuous where neighbours change. The idea of local latents with
    positions follows 3DILG (Zhang et al., NeurIPS 2022) and POCO (Boulch and Marlet 2022).
    """

    def __init__(self, context_dim: int, dim: int, heads: int, neighbours: int):
        super().__init__()
        self.heads, self.neighbours = heads, neighbours
        self.context = nn.Linear(context_dim, dim)
        self.offset = nn.Linear(4, dim, bias=False)
        self.score = nn.Linear(dim, heads, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, positions: Tensor, anchors: Tensor, context: Tensor) -> Tensor:
        """(B, Q, 3), (B, M, 3) and (B, M, context_dim) to (B, Q, dim)."""
        index = nearest(positions, anchors, self.neighbours + 1)  # (B, Q, k + 1)
        offsets = (positions[:, :, None] - gather(anchors, index)) * OFFSET_SCALE
        squared = offsets.square().sum(-1, keepdim=True) + 1e-8  # (B, Q, k + 1, 1)
        window = (1 - squared[:, :, :-1] / squared[:, :, -1:]).clamp(min=0).square()
        where = self.offset(torch.cat([offsets, squared.sqrt()], dim=-1)[:, :, :-1])
        hidden = F.gelu(gather(self.context(context), index[:, :, :-1]) + where)
        weights = self.score(hidden).softmax(dim=2) * window  # (B, Q, k, H)
        weights = weights / (weights.sum(dim=2, keepdim=True) + 1e-6)
        hidden = hidden.unflatten(-1, (self.heads, -1))  # (B, Q, k, H, dim / H)
        pooled = (weights[..., None] * hidden).sum(dim=2)
        return self.out(pooled.flatten(-2))


@torch.no_grad()
def nearest(positions: Tensor, anchors: Tensor, k: int) -> Tensor:
    """Indices (B, Q, k) of the nearest anchors, nearest first."""
    k = min(k, anchors.shape[1])
    with in_full_precision():  # the distances of many points come from products
        distances = torch.cdist(positions.float(), anchors.float())
    return distances.topk(k, largest=False).indices


def gather(features: Tensor, index: Tensor) -> Tensor:
    """(B, M, F) at (B, Q, k) to (B, Q, k, F)."""
    batch, anchors, width = features.shape
    first = torch.arange(batch, device=features.device)[:, None, None] * anchors
    rows = features.reshape(-1, width).index_select(0, (index + first).flatten())
    return rows.view(*index.shape, width)
