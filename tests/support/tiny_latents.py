"""Latents of the tiny hearts, in place of encoded ones, and the smallest diffusion."""

from __future__ import annotations

import torch
from hearts import heart

from cardiform.ldm.diffusion_model import LatentStatistics

SHAPE = (2, 4, 4, 4)
STATISTICS = LatentStatistics(
    shape=SHAPE,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
    volume_mean=(48.0, 8.0, 8.0),
    volume_std=(5.0, 1.0, 1.0),
    centroids={},
    incomplete=(),
    autoencoder_sha256="",
)
TINY = {
    "channels": (8, 16),
    "attention_levels": (False, True),
    "num_head_channels": 8,
    "norm_num_groups": 4,
    "num_res_blocks": 1,
}


class Decoder:
    """In place of the autoencoder."""

    def decode(self, latents):
        return torch.zeros(len(latents), 4, 8, 8, 8)


def batch(number=4, lacking=()):
    generator = torch.Generator().manual_seed(1)
    volumes = torch.tensor([[48.0, 8.0, 8.0]]).repeat(number, 1)
    volumes[:, list(lacking)] = 0
    return {
        "mu": torch.randn(number, *SHAPE, generator=generator),
        "sigma": 0.1 * torch.ones(number, *SHAPE),
        "target": torch.from_numpy(heart())[None].repeat(number, 1, 1, 1),
        "volumes": volumes,
        "case_id": [f"case{k}" for k in range(number)],
    }
