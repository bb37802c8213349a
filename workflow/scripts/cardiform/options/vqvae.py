"""Options of the sparse VQ-VAE, its three stages and its reconstructions."""

from __future__ import annotations

from dataclasses import dataclass

from .field import device_option, option, redefault
from .training import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class VqvaeOptions:
    """The sparse VQ-VAE: its network and batches, the same in all stages (see docs/vqvae.md)."""

    pretrained: str = option(
        "", "weights of a continuous autoencoder to use instead of stage 0; empty: train it"
    )
    channels: tuple[int, ...] = option(
        (32, 64, 128, 256), "width at full, half, quarter and eighth resolution", minimum=8
    )
    blocks: tuple[int, ...] = option(
        (1, 1, 2, 4), "residual blocks at each of them, on both sides", minimum=0
    )
    latent_dim: int = option(32, "channels of a latent", minimum=1)
    checkpointing: bool = option(
        False, "recompute blocks in the backward pass: less memory, a third more time", memory="set"
    )
    backend: str = option(
        "torch", "library for 3^3 convolutions; spconv: CUDA only", choices=("torch", "spconv")
    )
    max_voxels: int = option(
        1_500_000,
        "most voxels of a micro-batch on a GPU; whole samples only",
        minimum=1,
        memory="lower",
    )
    augment: bool = option(True, "random mirrors, axis swaps and shifts of the training samples")
    deformations: tuple[str, ...] = option(
        (),
        "also deform the training samples: by any rotation, by up to a tenth of their size, "
        "by smooth waves; empty: not",
        choices=("rotation", "scaling", "elastic"),
        young=True,
    )
    weight_structure: float = option(0.1, "weight of the structure's cross-entropy", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class VqvaeStageOptions(TrainingOptions):
    """Options of each of the three trainings."""

    # samples are one class of one heart: the voxels bound a micro-batch, not their number
    batch_size: int = option(
        64, "most samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    weight_l1: float = option(1.0, "weight of |error|, in half-bands", minimum=0.0)
    weight_l2: float = option(0.0, "weight of the squared error", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class VqvaePretrainOptions(VqvaeStageOptions):
    """Stage 0: the continuous autoencoder."""

    coarser: tuple[int, ...] = option(
        (),
        "resolutions to train at before its own, ascending, each from the weights of the one "
        "before; empty: none",
        minimum=16,
        maximum=4096,
        multiple=8,
        young=True,
    )
    coarser_steps: int = option(
        0, "optimiser steps at each of them (0: as many as at its own)", minimum=0, young=True
    )
    coarser_voxels: int = option(
        0,
        "most voxels of a micro-batch at them (0: vqvae.max_voxels); so few that it has as many "
        "structures as at its own makes their steps cheap",
        minimum=0,
        young=True,
    )


@dataclass(frozen=True, kw_only=True)
class VqvaeCodebookOptions(VqvaeStageOptions):
    """Stage 1: the quantiser alone; encoder and decoder are frozen."""

    quantizer: str = option(
        "codebook", "learned codes, or finite scalar levels", choices=("codebook", "fsq")
    )
    codebook_size: int = option(8_192, "codes", minimum=2)
    fsq_levels: tuple[int, ...] = option(
        (8, 8, 5, 5, 5), "levels per dimension, with fsq; their product is its size", minimum=2
    )
    method: str = option(
        "kmeans_ema",
        "how the codes are found: k-means on cached latents, then moving means; k-means alone; "
        "or by gradient from random codes (fsq: always by gradient)",
        choices=("kmeans_ema", "kmeans", "gradient"),
    )
    kmeans_iterations: int = option(15, "most iterations of k-means", minimum=1)
    kmeans_latents: int = option(
        1_000_000, "most latents that k-means sees", minimum=1, memory="lower"
    )
    ema_epochs: int = option(4, "passes of the moving means over the cached latents", minimum=0)
    ema_batch: int = option(
        16_384, "latents per step of the moving means", minimum=1, memory="lower"
    )
    codebook_decay: float = option(0.99, "decay of the moving means", minimum=0.0, maximum=1.0)
    revive_below: float = option(
        0.05, "a code is dead below this part of the mean use", minimum=0.0, maximum=1.0
    )
    min_usage: float = option(
        0.5, "the stage fails if a smaller share of the codes is used", minimum=0.0, maximum=1.0
    )
    steps: int = option(20_000, "optimiser steps of the gradient method", minimum=1)
    lr: float = option(1e-3, "peak learning rate of the gradient method", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class VqvaeJointOptions(VqvaeStageOptions):
    """Stage 2: encoder, decoder and codebook together."""

    weight_l2: float = option(1.0, "weight of the squared error", minimum=0.0)
    lambda_vq: float = option(1.0, "weight of the distance that moves the codes", minimum=0.0)
    lambda_commitment: float = option(
        0.25, "weight of the distance that moves the latents", minimum=0.0
    )
    unfreeze_steps: int = option(
        0,
        "steps until the next finer level is trained too, from the latents outwards (0: all levels "
        "from the start)",
        minimum=0,
        young=True,
    )
    # the codes follow the weights of the moment: an average of weights would not fit to them
    ema_decay: float = redefault(TrainingOptions, "ema_decay", 0.0)


@dataclass(frozen=True, kw_only=True)
class VqvaeReconstructOptions:
    """Free-running reconstruction of the validation and test cases."""

    device: str = device_option()
