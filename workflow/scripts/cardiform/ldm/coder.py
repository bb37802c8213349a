"""A trained autoencoder of latent diffusion: hearts to latents and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, problem
from ..options.ldm import AutoencoderOptions
from ..training.checkpoint import load_model, restored
from .autoencoder_model import ShapeAutoencoder
from .hearts_on_grid import Grid


class ShapeCoder:
    """The frozen network with its grid."""

    def __init__(self, options: AutoencoderOptions, grid: Grid, weights: Mapping[str, Tensor]):
        self.options, self.grid = options, grid
        self.model = ShapeAutoencoder(options, grid.classes)
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> ShapeCoder:
        """From the model.pt of train_autoencoder, or of train_diffusion, which holds it too."""
        content = load_model(path)
        stored = content["options"]
        if "autoencoder" not in stored or "grid" not in stored:
            remedy = "name the model.pt of train_autoencoder"
            raise InputError(problem(path, "is no model of latent diffusion", remedy))
        prefix = stored.get("autoencoder_weights", "")
        weights = {
            name.removeprefix(prefix): value
            for name, value in content["weights"].items()
            if name.startswith(prefix)
        }
        options = restored(AutoencoderOptions, stored["autoencoder"])
        return cls(options, Grid.from_dict(stored["grid"], path), weights)

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
