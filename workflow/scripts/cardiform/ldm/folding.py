"""Neighbouring latents as channels of a coarser grid, and back."""

from __future__ import annotations

from torch import Tensor


def folded(latents: Tensor, edge: int) -> Tensor:
    """(B, L, s, s, s) to (B, L edge^3, s / edge, s / edge, s / edge)."""
    if edge == 1:
        return latents
    batch, channels, size = latents.shape[:3]
    parts = latents.view(batch, channels, *(size // edge, edge) * 3)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, -1, *(size // edge,) * 3)


def unfolded(latents: Tensor, edge: int) -> Tensor:
    """The inverse of :func:`folded`."""
    if edge == 1:
        return latents
    batch, size = latents.shape[0], latents.shape[-1]
    parts = latents.view(batch, -1, *(edge,) * 3, *(size,) * 3)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, *(size * edge,) * 3)
