"""Refinement of thin structures: a latent per case and a field F(z, p) that is read off it.

:class:`CellField` (preset ``cardiform``) has an encoder: features on the cells of a sparse grid
about the label, finer than a vessel's radius. :class:`NearDecoder` (preset ``near``) is the
shape-only NeAR auto-decoder (Yang et al., Neural Annotation Refinement, MICCAI 2022) in the
dimensions of its cardiac variant: one vector per case, feature grids up to 32^3.

In both the value at a point depends on the latent and on that point alone: norms act on the
channels of a point or on the grids, never across query points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artefact.model import Kind
from ..options.coronary import CoronaryOptions
from ..sparse.layers import Block, Resample
from ..sparse.ops import strided_conv, transposed_conv
from ..sparse.tensor import SparseTensor, Structure
from .data import Cells

DENOISER = Kind("coronary_denoiser", "a refinement of preset cardiform", "train_coronary")
NEAR = Kind("coronary_near", "a refinement of preset near", "train_coronary")
HEAD_WIDTH = 64
CORNERS = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])


class CellField(nn.Module):
    """A sparse U-Net over the cells near a label, and a pointwise head on its features.

    inputs : channels of a cell (truncated distances of the label, and of its repair).
    channels, blocks : width and residual blocks at full, half, ... resolution.
    """

    def __init__(self, inputs: int, channels: Sequence[int], blocks: Sequence[int]):
        super().__init__()
        levels = len(channels) - 1

        def stage(level: int) -> nn.ModuleList:
            return nn.ModuleList(Block(channels[level], "torch") for _ in range(blocks[level]))

        self.stem = nn.Linear(inputs, channels[0])
        self.encoder = nn.ModuleList(stage(level) for level in range(levels + 1))
        self.down = nn.ModuleList(
            Resample(strided_conv, channels[k], channels[k + 1]) for k in range(levels)
        )
        self.up = nn.ModuleList(
            Resample(transposed_conv, channels[k + 1], channels[k]) for k in range(levels)
        )
        self.decoder = nn.ModuleList(stage(level) for level in range(levels))
        self.head = nn.Sequential(
            nn.Linear(channels[0] + inputs, HEAD_WIDTH),
            nn.SiLU(),
            nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
            nn.SiLU(),
            nn.Linear(HEAD_WIDTH, 1),
        )
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def encode(self, cells: SparseTensor) -> SparseTensor:
        """(N, inputs) truncated distances to (N, C + inputs) features of the cells: the latent.

        Distances are stored less one: a cell that is not there then counts as outside.
        """
        x = cells.replace(self.stem(cells.feats))
        skips = []
        for blocks, down in zip(self.encoder, self.down):
            x = _run(blocks, x)
            skips.append(x)
            halving = x.structure.halved
            x = SparseTensor(down(x.feats, halving), halving.coarse)
        x = _run(self.encoder[-1], x)
        for blocks, up, skip in zip(self.decoder[::-1], self.up[::-1], skips[::-1]):
            fine = skip.structure
            x = SparseTensor(skip.feats + up(x.feats, fine.halved), fine)
            x = _run(blocks, x)
        return x.replace(torch.cat([x.feats, cells.feats - 1], dim=1))

    def field(self, latent: SparseTensor, points: Tensor) -> Tensor:
        """(P,) truncated distances at (P, 4) points: sample, and x, y, z in voxels.

        The last input of the cells, interpolated, and what the head adds to it.
        """
        features = interpolated(latent, points)
        return features[:, -1] + 1 + self.head(features)[:, 0]


class NearDecoder(nn.Module):
    """A vector per case to feature grids of 4^3, 8^3, 16^3 and 32^3, and an MLP on points.

    As documented for the cardiac variant: latent 256; 64, 48, 32 and 16 channels; points with
    163 features through 256-256-128-64 units. Mended: no norm over query points in the MLP,
    and the first two steps up are transposed convolutions instead of a reshape.
    """

    GRIDS = (64, 48, 32, 16)

    def __init__(self, latent_dim: int, prior: float):
        super().__init__()
        self.first = nn.Sequential(
            nn.ConvTranspose3d(latent_dim, 128, 2), *_grid_norm(128),
            nn.ConvTranspose3d(128, 64, 2, stride=2), *_grid_norm(64),
            nn.Conv3d(64, 64, 3, padding=1), *_grid_norm(64),
        )  # fmt: skip
        self.further = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(coarse, fine, 3, padding=1), *_grid_norm(fine),
                nn.Conv3d(fine, fine, 3, padding=1), *_grid_norm(fine),
            )
            for coarse, fine in zip(self.GRIDS, self.GRIDS[1:])
        )  # fmt: skip
        inputs = 3 + sum(self.GRIDS)
        self.early = nn.Sequential(*_layer(inputs, 256), *_layer(256, 256))
        self.late = nn.Sequential(*_layer(256 + inputs, 128), *_layer(128, 64), nn.Linear(64, 1))
        # a rare class: begin with its odds
        nn.init.constant_(self.late[-1].bias, prior)

    def grids(self, latent: Tensor) -> list[Tensor]:
        """(B, D) vectors to four feature grids (B, C, n, n, n)."""
        x = self.first(latent[:, :, None, None, None])
        result = [x]
        for stage in self.further:
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
            x = stage(x)
            result.append(x)
        return result

    def field(self, grids: list[Tensor], points: Tensor) -> Tensor:
        """(B, P) logits at (B, P, 3) points within [-1, 1], order x, y, z of the grids' axes."""
        # grid_sample takes the last axis first
        places = points.flip(-1)[:, :, None, None]
        seen = [F.grid_sample(g, places, align_corners=True)[..., 0, 0].mT for g in grids]
        x = torch.cat([points, *seen], dim=-1)
        return self.late(torch.cat([self.early(x), x], dim=-1))[..., 0]


def interpolated(cells: SparseTensor, points: Tensor) -> Tensor:
    """(P, C) features at (P, 4) points (sample, x, y, z in voxels), trilinear between cells.

    What is not active counts as 0.
    """
    structure, feats = cells.structure, F.pad(cells.feats, (0, 0, 0, 1))
    low = points[:, 1:].floor()
    part = points[:, 1:] - low
    edge = structure.resolution + 2
    keys = structure.keys
    result = 0
    for corner in CORNERS.to(points.device):
        x, y, z = (low + corner).long().unbind(1)
        wanted = ((points[:, 0].long() * edge + x + 1) * edge + y + 1) * edge + z + 1
        row = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        row = torch.where(keys[row] == wanted, row, len(keys))
        weight = torch.where(corner.bool(), part, 1 - part).prod(dim=1, keepdim=True)
        result = result + weight * feats[row]
    return result


def _run(blocks: nn.ModuleList, x: SparseTensor) -> SparseTensor:
    for block in blocks:
        x = x.replace(block(x.feats, x.structure))
    return x


def _grid_norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(8, channels), nn.LeakyReLU(0.01)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inputs, outputs), nn.LeakyReLU(0.01)


RARE = -4.6  # the logit of one voxel in a hundred
START_NORM = 1e-2  # latents start near each other, near the mean case


class NearAutoDecoder(nn.Module):
    """A vector per training case, and the decoder of all."""

    def __init__(self, latent_dim: int, cases: int):
        super().__init__()
        self.latents = nn.Embedding(cases, latent_dim)
        nn.init.normal_(self.latents.weight, std=START_NORM)
        self.decoder = NearDecoder(latent_dim, RARE)


def build_cell_field(options: CoronaryOptions) -> CellField:
    """The network that the options describe, with random weights."""
    return CellField(Cells.channels(options), options.channels, options.blocks)


def structure_of(batch: Mapping) -> Structure:
    """The cells of a batch; the grid is as large as halving needs."""
    if "structure" not in batch:
        batch["structure"] = Structure(
            batch["coords"], even_resolution(batch["coords"]), batch["samples"]
        )
    return batch["structure"]


def even_resolution(coords: Tensor) -> int:
    """A resolution that holds the voxels and can be halved often enough."""
    most = int(coords[:, 1:].max()) + 1 if len(coords) else 1
    return 2 ** max(most - 1, 15).bit_length()
