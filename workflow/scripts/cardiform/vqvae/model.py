"""SparseVQVAE: a narrow band of signed distances to one code per block of 8^3 voxels, and back.

Follows the sparse VAEs of Direct3D-S2 (Wu et al. 2025: factor 8, a LayerNorm without affine
before the bottleneck, tanh) and TRELLIS.2 (Xiang et al. 2025: ConvNeXt blocks, the decoder
predicts which children of a voxel exist), without their attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..artefact.model import Kind
from ..errors import InputError
from ..options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from ..sparse.layers import Block, Resample
from ..sparse.ops import strided_conv, transposed_conv
from ..sparse.tensor import SparseTensor, Structure
from .quantizer import CodebookQuantizer, FiniteScalarQuantizer, Quantized, Quantizer
from .windows import NO_WINDOWS, SampleWindows, WindowCondition, WindowSet

CONTINUOUS = Kind("vqvae_continuous", "a continuous autoencoder of sparse voxels", "pretrain_vqvae")
QUANTISED = Kind("vqvae", "a sparse VQ-VAE with a codebook", "train_codebook or train_vqvae")
LEVELS = 3  # halvings between voxels and latents


@dataclass(frozen=True)
class Decoded:
    """What the decoder says.

    field : (N, 1) distances within (-1, 1), in half-bands.
    logits : per halving, coarse to fine, (M, 8) whether each child of a voxel is there.
    """

    field: SparseTensor
    logits: list[Tensor]


class SparseVQVAE(nn.Module):
    """Encoder, quantiser and decoder.

    channels : width at full, half, quarter and eighth resolution.
    blocks : residual blocks at each of them, on both sides.
    windows : the CT windows that it is trained on together. Both sides are given the window of a
        sample where they meet: before the latents are normalised, and before they are decoded.
    """

    def __init__(
        self,
        quantizer: Quantizer | None = None,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 2, 4),
        latent_dim: int = 32,
        checkpointing: bool = False,
        backend: str = "torch",
        windows: WindowSet = NO_WINDOWS,
    ):
        super().__init__()
        if len(channels) != LEVELS + 1 or len(blocks) != LEVELS + 1:
            raise InputError(f"--channels and --blocks need {LEVELS + 1} numbers each")
        self.checkpointing, self.windows = checkpointing, windows

        def stage(level: int) -> nn.ModuleList:
            return nn.ModuleList(Block(channels[level], backend) for _ in range(blocks[level]))

        self.stem = nn.Linear(1, channels[0])
        self.encoder = nn.ModuleList(stage(level) for level in range(LEVELS + 1))
        self.down = nn.ModuleList(
            Resample(strided_conv, channels[level], channels[level + 1]) for level in range(LEVELS)
        )
        self.narrow = nn.Sequential(
            nn.Linear(channels[-1], latent_dim), nn.LayerNorm(latent_dim, elementwise_affine=False)
        )
        self.quantizer = quantizer
        self.widen = nn.Linear(latent_dim, channels[-1])
        self.decoder = nn.ModuleList(stage(level) for level in range(LEVELS + 1))
        self.subdivision = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels[level + 1]), nn.Linear(channels[level + 1], 8))
            for level in range(LEVELS)
        )
        self.up = nn.ModuleList(
            Resample(transposed_conv, channels[level + 1], channels[level])
            for level in range(LEVELS)
        )
        self.head = nn.Sequential(nn.LayerNorm(channels[0]), nn.Linear(channels[0], 1), nn.Tanh())
        if windows:
            self.encoder_window = WindowCondition(windows, channels[-1])
            self.decoder_window = WindowCondition(windows, channels[-1])

    @classmethod
    def from_options(
        cls,
        options: VqvaeOptions,
        codebook: VqvaeCodebookOptions | None = None,
        windows: WindowSet = NO_WINDOWS,
    ) -> SparseVQVAE:
        """The network that the options describe, with random weights.

        codebook : None: a continuous autoencoder, without a quantiser.
        windows : the CT windows that it is trained on together; none: it is given no window.
        """
        return cls(
            None if codebook is None else build_quantizer(codebook, options.latent_dim),
            options.channels,
            options.blocks,
            options.latent_dim,
            options.checkpointing,
            options.backend,
            windows,
        )

    def autoencoder_parameters(self) -> list[nn.Parameter]:
        """Those of encoder and decoder, the quantiser's left out."""
        return [p for n, p in self.named_parameters() if not n.startswith("quantizer.")]

    def finer_parameters(self, level: int) -> list[nn.Parameter]:
        """Those of encoder and decoder that are finer than ``level``: 0 is full resolution, where
        nothing is, and 3 that of the latents."""
        parts: list[nn.Module] = [self.stem, self.head] if level else []
        for finer in range(level):
            parts += [stack[finer] for stack in (self.encoder, self.down, self.up, self.decoder)]
            parts += [self.subdivision[finer - 1]] if finer else []
        return [p for part in parts for p in part.parameters()]

    def encode(self, band: SparseTensor, samples: SampleWindows | None = None) -> SparseTensor:
        """(N, 1) distances in half-bands to (M, D) latents of an eighth of the resolution.

        samples : the windows of the samples, where the network is trained on several.
        """
        x = band.replace(self.stem(band.feats))
        for level in range(LEVELS):
            x = self._run(self.encoder[level], x)
            halving = x.structure.halved
            x = SparseTensor(self.down[level](x.feats, halving), halving.coarse)
        x = self._run(self.encoder[LEVELS], x)
        if self.windows:
            x = self.encoder_window(x, samples)
        return x.replace(self.narrow(x.feats))

    def decode(
        self,
        latents: SparseTensor,
        truth: Structure | None = None,
        samples: SampleWindows | None = None,
    ) -> Decoded:
        """Distances from latents or codes.

        truth : the structure of full resolution that the latents were made from: its voxels
            are decoded. None: the voxels that the network itself predicts.
        samples : as of :meth:`encode`.
        """
        x = latents.replace(self.widen(latents.feats))
        if self.windows:
            x = self.decoder_window(x, samples)
        fine = [] if truth is None else _finer_levels(truth)
        logits = []
        for level in reversed(range(LEVELS)):
            x = self._run(self.decoder[level + 1], x)
            logits.append(self.subdivision[level](x.feats))
            below = x.structure.subdivided(logits[-1] > 0) if truth is None else fine[level]
            x = SparseTensor(self.up[level](x.feats, below.halved), below)
        x = self._run(self.decoder[0], x)
        return Decoded(x.replace(self.head(x.feats)), logits)

    def forward(
        self, band: SparseTensor, samples: SampleWindows | None = None
    ) -> tuple[Decoded, SparseTensor, Quantized | None]:
        """Encode and decode on the true structure; the latents; their codes (None: continuous)."""
        latents = self.encode(band, samples)
        codes = None if self.quantizer is None else self.quantizer(latents.feats)
        passed = latents if codes is None else latents.replace(codes.values)
        return self.decode(passed, band.structure, samples), latents, codes

    def encode_indices(
        self, band: SparseTensor, samples: SampleWindows | None = None
    ) -> tuple[Structure, Tensor]:
        """The structure of the codes and the (M,) int64 code of each of its voxels."""
        assert self.quantizer is not None, "a continuous autoencoder has no codes"
        latents = self.encode(band, samples)
        return latents.structure, self.quantizer.encode_indices(latents.feats)

    def decode_indices(
        self, structure: Structure, indices: Tensor, samples: SampleWindows | None = None
    ) -> Decoded:
        """Free-running decoding of codes: the inverse of :meth:`encode_indices`."""
        assert self.quantizer is not None, "a continuous autoencoder has no codes"
        codes = SparseTensor(self.quantizer.decode_indices(indices), structure)
        return self.decode(codes, samples=samples)

    def _run(self, blocks: nn.Module, x: SparseTensor) -> SparseTensor:
        for block in blocks.children():
            if self.checkpointing and self.training:
                feats = checkpoint(block, x.feats, x.structure, use_reentrant=False)
            else:
                feats = block(x.feats, x.structure)
            x = x.replace(feats)
        return x


def build_quantizer(options: VqvaeCodebookOptions, dim: int) -> Quantizer:
    """The quantiser that the options describe, with random codes."""
    if options.quantizer == "fsq":
        return FiniteScalarQuantizer(options.fsq_levels, dim)
    learned_by = "gradient" if options.method == "gradient" else "ema"
    return CodebookQuantizer(options.codebook_size, dim, learned_by, options.codebook_decay)


def _finer_levels(truth: Structure) -> list[Structure]:
    """The structures at full, half and quarter resolution."""
    levels = [truth]
    for _ in range(LEVELS - 1):
        levels.append(levels[-1].halved.coarse)
    return levels
