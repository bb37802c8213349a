"""A trained autoencoder of latent diffusion: hearts to latents and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..artefact.model import check_weights, load_model
from ..options.ldm import AutoencoderOptions
from .autoencoder_model import AUTOENCODER, ShapeAutoencoder
from .diffusion_model import AUTOENCODER_PREFIX, DIFFUSION
from .hearts_on_grid import Grid


class ShapeCoder:
    """The frozen network with its grid."""

    def __init__(
        self,
        options: AutoencoderOptions,
        grid: Grid,
        weights: Mapping[str, Tensor],
        path: str | Path = "the weights",
    ):
        self.options, self.grid = options, grid
        self.model = ShapeAutoencoder(options, grid.classes)
        check_weights(weights, self.model.state_dict(), path)
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> ShapeCoder:
        """From the model.pt of train_autoencoder, or of train_diffusion, which holds it too."""
        stored = load_model(path, AUTOENCODER, DIFFUSION)
        prefix = AUTOENCODER_PREFIX if stored.kind == DIFFUSION.name else ""
        weights = {
            name.removeprefix(prefix): value
            for name, value in stored.weights.items()
            if name.startswith(prefix)
        }
        options = stored.section("autoencoder", AutoencoderOptions)
        grid = Grid.from_dict(stored.extra.get("grid", {}), path)
        return cls(options, grid, weights, path)

    def to(self, device: torch.device) -> ShapeCoder:
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(channels, s, s, s)"""
        edge = self.grid.size // self.model.factor
        return (self.model.latent_channels, edge, edge, edge)

    @torch.no_grad()
    def encode(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, S) channels or fields to mean and deviation of their latents, on the CPU."""
        mu, sigma = self.model.encode(targets.to(self.device))
        return mu.cpu(), sigma.cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, L, s, s, s) to logits (B, C, S, S, S) fp32, on the CPU; one heart at a time."""
        return torch.cat([self.model.decode(z[None].to(self.device)).cpu() for z in latents])
