"""Every option of every stage: key, default, unit, range and effect (standard library only).

One frozen dataclass per config section. The command-line flags, the JSON schema, the
tables of config/README.md and the config check all derive from these classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

# Names become folders and shell words.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
CLASS_PATTERN = "[A-Za-z][A-Za-z0-9_]{0,99}"


def option(
    default,
    help: str,
    *,
    choices=None,
    minimum=None,
    maximum=None,
    multiple=None,
    pattern=None,
    resumable=False,
    alias=None,
    memory=None,
):
    """A field with its documentation.

    multiple : the value is a multiple of this.
    pattern : regular expression that the whole text matches.
    resumable : the key does not change what is computed, so a training goes on when it
        changes (see ``cardiform.training.checkpoint``).
    alias : another name of the key that earlier configs use.
    memory : what to do with it where memory runs out: raise, lower or set.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "multiple": multiple,
        "pattern": pattern,
        "resumable": resumable,
        "alias": alias,
        "memory": memory,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The built-in cohort of procedural hearts, used where cohort.table is empty."""

    cases: int = option(16, "hearts to draw", minimum=3)
    spacing_mm: float = option(1.5, "median voxel edge, mm", minimum=0.2, maximum=5.0)
    coronary_noise: float = option(
        1.0, "strength of the noise in the coronary labels; 0: they are true", minimum=0.0
    )
    seed: int = option(0, "seed of every random draw", minimum=0)


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """The case table and what to do with bad cases."""

    name: str = option(
        "demo", "name of the cohort: results go to results/<name>/", pattern=NAME_PATTERN
    )
    table: str = option("", "case table, TSV or CSV; empty: the built-in demo cohort")
    labels: str = option("", "label table, TSV; empty: STACOM-2025")
    on_bad_case: str = option(
        "stop", "stop at bad cases, or skip them and say so", choices=("stop", "skip")
    )
    max_bad_cases: int = option(10, "with skip: more bad cases than this stop the run", minimum=0)
    use_refined: bool = option(
        False, "train on the fused label maps, with refined coronaries, instead of the given ones"
    )
    chunks: int = option(
        64, "per-case jobs: a larger cohort is dealt into this many chunks", minimum=1, maximum=1000
    )


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Train, validation and test split by patient."""

    validation: float = option(0.1, "share of the patients", minimum=0.0, maximum=0.9)
    test: float = option(0.1, "share of the patients", minimum=0.0, maximum=0.9)
    folds: int = option(0, "k of a k-fold; 0: one split by the shares", minimum=0)
    fold: int = option(0, "with folds: the fold that is tested, counted from 0", minimum=0)
    seed: int = option(0, "seed of the patient hash", minimum=0)


@dataclass(frozen=True, kw_only=True)
class MeshesOptions:
    """Label map to surfaces."""

    smoothing_vox: float = option(
        1.0, "Gaussian sigma of the distance smoothing, voxels", minimum=0.0, maximum=2.0
    )


@dataclass(frozen=True, kw_only=True)
class PointsOptions:
    """Surface, near and volume points with signed distances to all classes."""

    surface_points: int = option(200_000, "points on the surfaces of a case", minimum=100)
    min_class_points: int = option(
        4_000, "least surface points of a class that is there", minimum=1
    )
    near_points: int = option(500_000, "points near the surfaces", minimum=100)
    near_sigma: tuple[float, ...] = option(
        (0.005, 0.015),
        "standard deviations of the near offsets, unit frame; equal shares",
        minimum=1e-4,
        maximum=0.3,
    )
    volume_points: int = option(500_000, "points uniform in the cube [-1, 1]^3", minimum=100)
    seed: int = option(0, "seed of the draws", minimum=0)


@dataclass(frozen=True, kw_only=True)
class VoxelsOptions:
    """Label maps to sparse voxels: signed distances in a narrow band about each surface."""

    resolution: int = option(
        512, "voxels along each axis of the unit cube", minimum=8, maximum=4096, multiple=8
    )
    band_voxels: float = option(3.0, "half-band, voxels", minimum=1.0, maximum=16.0)


@dataclass(frozen=True, kw_only=True)
class WindowsOptions:
    """CT windows to sparse voxels: the region of each, in a narrow band about its surface."""

    windows: tuple[str, ...] = option(
        ("lung=-600/1500", "bone=300/1500", "soft_tissue=50/400", "brain=35/80"),
        "name=level/width of each window, HU",
    )
    volumes: str = option(
        "",
        "folder of dense volumes {case}/windows/{name}_w{width}_l{level}.npy to use instead of "
        "the CTs; empty: none",
    )
    resolution: int = option(
        512, "voxels along each axis of the unit cube", minimum=8, maximum=4096, multiple=8
    )
    band_voxels: float = option(3.0, "half-band, voxels", minimum=1.0, maximum=16.0)
    smoothing_vox: float = option(
        1.0, "Gaussian sigma of the distance smoothing, voxels of the CT", minimum=0.0, maximum=2.0
    )
    min_points: int = option(100, "bands with fewer voxels are not trained on", minimum=0)
    max_points: int = option(0, "nor those with more (0: no limit)", minimum=0)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options that every training shares (see docs/training.md)."""

    steps: int = option(100_000, "optimiser steps", minimum=1)
    batch_size: int = option(
        64, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    accumulate: int = option(1, "micro-batches per step on each GPU", minimum=1, memory="raise")
    lr: float = option(1e-4, "peak learning rate", minimum=0.0)
    lr_reference_batch: int = option(
        0, "scale lr by batch_size / this (0: lr is taken as it is)", minimum=0
    )
    final_lr: float = option(1e-6, "learning rate at the last step", minimum=0.0)
    warmup_steps: int = option(1_000, "steps of linear warm-up", minimum=0)
    weight_decay: float = option(0.01, "AdamW decay, on matrices only", minimum=0.0)
    clip_norm: float = option(1.0, "gradient norm limit (0: none)", minimum=0.0)
    ema_decay: float = option(0.999, "decay of the weight average (0: none)", minimum=0, maximum=1)
    precision: str = option(
        "bf16", "autocast type on CUDA; the CPU computes in fp32", choices=("fp32", "bf16", "fp16")
    )
    seed: int = option(0, "seed of weights, order and draws", minimum=0)
    validate_every: int = option(1_000, "steps between validations (0: only at the end)", minimum=0)
    preview_every: int = option(5_000, "steps between preview pictures (0: none)", minimum=0)
    fast_dev_run: int = option(
        0, "run this many steps and validation batches only (0: all)", minimum=0
    )
    checkpoint_every: int = option(500, "steps between checkpoints", minimum=1, resumable=True)
    log_every: int = option(50, "steps between log lines", minimum=1, resumable=True)
    max_minutes: float = option(
        0.0,
        "save and exit 75 this long after the start (0: no limit but that of a SLURM job)",
        minimum=0.0,
        resumable=True,
    )
    workers: int = option(
        4, "loader processes per GPU", minimum=0, resumable=True, alias="num_workers"
    )
    resume_from: str = option(
        "",
        "last.pt of the same training in another folder, to go on from where this one has none",
        resumable=True,
    )
    device: str = option(
        "auto", "auto: CUDA where there is one", resumable=True, choices=("auto", "cpu", "cuda")
    )


@dataclass(frozen=True, kw_only=True)
class VecsetOptions(TrainingOptions):
    """The VecSet autoencoder (see docs/vecset.md)."""

    preset: str = option("base", "network size", choices=("demo", "small", "base", "xl"))
    queries: str = option(
        "fps", "encoder queries: farthest-point subset or learned", choices=("fps", "learned")
    )
    bottleneck: str = option(
        "normalized", "latent bottleneck", choices=("normalized", "kl", "identity")
    )
    input_points: int = option(8_192, "surface points that are encoded", minimum=16, memory="lower")
    balanced: float = option(
        0.5,
        "share of the points that is drawn evenly over the classes (input: more of thin ones; "
        "volume: and of the outside)",
        minimum=0.0,
        maximum=1.0,
    )
    cached_points: int = option(
        200_000,
        "near and volume points of a case that are kept in memory (0: all)",
        minimum=0,
        memory="lower",
    )
    volume_queries: int = option(
        1_024, "volume points per sample and step", minimum=2, memory="lower"
    )
    near_queries: int = option(1_024, "near points per sample and step", minimum=2, memory="lower")
    surface_queries: int = option(
        1_024, "surface points per sample and step", minimum=1, memory="lower"
    )
    eikonal_queries: int = option(512, "points with an eikonal term", minimum=1, memory="lower")
    truncation: float = option(0.1, "distances are clipped at this, unit frame", minimum=0.001)
    weight_volume: float = option(1.0, "weight of the volume L1", minimum=0.0)
    weight_near: float = option(10.0, "weight of the near L1", minimum=0.0)
    weight_surface: float = option(1.0, "weight of |f| on the own surface", minimum=0.0)
    weight_eikonal: float = option(0.001, "weight of (|grad f| - 1)^2 (0: off)", minimum=0.0)
    weight_kl: float = option(0.001, "weight of the KL term of the kl bottleneck", minimum=0.0)
    eikonal: str = option(
        "autograd", "exact gradient, or tetrahedral differences", choices=("autograd", "tetra")
    )
    eikonal_start: int = option(1_000, "first step with the eikonal term", minimum=0)
    augment_rotation_deg: float = option(
        20.0, "largest random rotation, degrees", minimum=0.0, maximum=180.0
    )
    augment_scale: float = option(
        0.1, "largest relative scaling, the same on all axes", minimum=0, maximum=0.5
    )
    augment_shift: float = option(0.05, "largest shift, unit frame", minimum=0.0, maximum=0.5)


@dataclass(frozen=True, kw_only=True)
class VecsetReconstructOptions:
    """Reconstruction of the validation and test cases."""

    spacing_mm: float = option(
        0.0,
        "edge of the grid that the meshes are cut from, mm (0: the label map's own grid)",
        minimum=0.0,
    )
    input_points: int = option(0, "encoded surface points (0: as in training)", minimum=0)
    query_batch: int = option(
        4096,
        "query points per network call; more suits GPUs, less suits CPUs",
        minimum=1,
        memory="lower",
    )
    seed: int = option(0, "seed of the encoded points", minimum=0)
    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


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
        "torch", "what computes 3^3 convolutions; spconv: CUDA only", choices=("torch", "spconv")
    )
    max_voxels: int = option(
        1_500_000,
        "most voxels of a micro-batch on a GPU; whole samples only",
        minimum=1,
        memory="lower",
    )
    augment: bool = option(True, "random mirrors, axis swaps and shifts of the training samples")
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
        0.5, "the stage fails where less of the codes is used", minimum=0.0, maximum=1.0
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
    # the codes follow the weights of the moment: an average of weights would not fit to them
    ema_decay: float = option(0.0, "decay of the weight average (0: none)", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class VqvaeReconstructOptions:
    """Free-running reconstruction of the validation and test cases."""

    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class CoronaryRepairOptions:
    """Repair of a thin structure without learning, on the grid that its refinement works on."""

    structure: str = option(
        "coronary", "class of the label table that is refined", pattern=CLASS_PATTERN
    )
    spacing_mm: float = option(
        0.5, "edge of the isotropic grid that is worked on, mm", minimum=0.1, maximum=5.0
    )
    dust_mm3: float = option(4.0, "components below this go at once, mm^3", minimum=0.0)
    close_mm: float = option(1.0, "radius of the closing, mm (0: none)", minimum=0.0, maximum=5.0)
    smooth_mm: float = option(
        0.35, "Gaussian sigma on the mask, mm (0: none)", minimum=0.0, maximum=3.0
    )
    gap_mm: float = option(6.0, "widest gap between walls that is bridged, mm", minimum=0.0)
    angle_deg: float = option(70.0, "sharpest turn into a bridge, degrees", minimum=0, maximum=180)
    radius_ratio: float = option(3.0, "most that the radii of both sides differ", minimum=1.0)
    fragment_mm3: float = option(
        20.0, "loose pieces below this go after the bridging, mm^3", minimum=0.0
    )
    evidence: tuple[str, ...] = option(
        ("myocardium", "aorta"), "classes that a loose piece has to be near to, where there are any"
    )
    evidence_mm: float = option(8.0, "how near, mm", minimum=0.0)
    certain_mm3: float = option(150.0, "pieces of this size stay anywhere, mm^3", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class CoronaryOptions(TrainingOptions):
    """Refinement by an encoder and a pointwise head (preset cardiform; see docs/coronary.md)."""

    steps: int = option(20_000, "optimiser steps", minimum=1)
    batch_size: int = option(
        32, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    lr: float = option(2e-3, "peak learning rate", minimum=0.0)
    channels: tuple[int, ...] = option(
        (32, 64, 96), "width at full, half, ... resolution", minimum=8
    )
    blocks: tuple[int, ...] = option((1, 1, 2), "residual blocks at each of them", minimum=0)
    truncation_mm: float = option(2.0, "distances are clipped at this, mm", minimum=0.1)
    reach_mm: float = option(
        2.4, "cells this far from the label and its repair take part, mm", minimum=0.5
    )
    scales_mm: tuple[float, ...] = option(
        (0.6, 1.2), "Gaussian sigmas of the smoothed inputs, mm", minimum=0.1
    )
    patch: int = option(
        40, "voxels along the edge of a training patch", minimum=16, multiple=8, memory="lower"
    )
    points: int = option(4_096, "query points per patch", minimum=16, memory="lower")
    near: float = option(
        0.5, "share of them near the wall; the others anywhere", minimum=0, maximum=1
    )
    kinds: tuple[str, ...] = option(
        ("jagged", "breaks", "blobs", "speckle"), "how patches are corrupted again"
    )
    strength: float = option(
        2.0, "most of each kind; 1 is a typical label (jagged: three quarters of it)", minimum=0.0
    )


@dataclass(frozen=True, kw_only=True)
class NearOptions(TrainingOptions):
    """Shape-only NeAR as documented, its sampler and norms mended (preset near)."""

    steps: int = option(75_000, "optimiser steps: 300 epochs of 998 cases", minimum=1)
    batch_size: int = option(
        4, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    accumulate: int = option(4, "micro-batches per step on each GPU", minimum=1, memory="raise")
    lr: float = option(5e-4, "peak learning rate", minimum=0.0)
    final_lr: float = option(0.0, "learning rate at the last step", minimum=0.0)
    warmup_steps: int = option(750, "steps of linear warm-up", minimum=0)
    weight_decay: float = option(0.0, "AdamW decay, on matrices only", minimum=0.0)
    clip_norm: float = option(0.0, "gradient norm limit (0: none)", minimum=0.0)
    ema_decay: float = option(0.0, "decay of the weight average (0: none)", minimum=0, maximum=1)
    precision: str = option(
        "fp16", "autocast type on CUDA; the CPU computes in fp32", choices=("fp32", "bf16", "fp16")
    )
    validate_every: int = option(2_500, "steps between validations (0: only at the end)", minimum=0)
    latent_dim: int = option(256, "length of a case's vector", minimum=8)
    points: int = option(2_097_152, "query points per sample: 128^3", minimum=64, memory="lower")
    band: tuple[float, ...] = option(
        (0.5, 0.3, 0.1), "share of band points in each part of the training", minimum=0, maximum=1
    )
    band_voxels: int = option(2, "the band: dilation by this minus erosion by this", minimum=1)
    weight_dice: float = option(0.7, "weight of the soft Dice loss", minimum=0.0)
    weight_focal: float = option(0.3, "weight of the focal loss", minimum=0.0)
    focal_gamma: float = option(4.0, "exponent of the focal loss", minimum=0.0)
    weight_latent: float = option(1e-4, "weight of the mean squared latent", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class CoronaryRefineOptions:
    """Refined masks of every case."""

    preset: str = option(
        "cardiform",
        "what refines: the trained encoder and head, documented NeAR, or the repair alone",
        choices=("cardiform", "near", "repair"),
    )
    resolution: int = option(
        256,
        "voxels along the longest edge of the fine mask (0: none is written)",
        minimum=0,
        memory="lower",
    )
    probabilities: bool = option(False, "write probabilities on the label map's grid too")
    latent_steps: int = option(
        0, "gradient steps of the latent towards the repaired label", minimum=0
    )
    latent_lr: float = option(5e-3, "their learning rate", minimum=0.0)
    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """Label fusion by priority, and the rules of anatomical consistency."""

    rules: tuple[str, ...] = option(
        (
            "appendage_touches_atrium",
            "veins_touch_atrium",
            "coronary_on_heart",
            "myocardium_holes",
            "largest_components",
            "enclosed_voxels",
        ),
        "rules in the order in which they act",
    )
    touch_mm: float = option(
        0.5, "what is no farther apart than this touches, mm (and a voxel's diagonal)", minimum=0.0
    )
    coronary_mm: float = option(
        5.0, "coronaries lie within this of myocardium or aorta, mm", minimum=0.0
    )
    coronary_min_mm3: float = option(50.0, "smaller coronary components go, mm^3", minimum=0.0)
    hole_mm3: float = option(
        1_000.0, "larger cavities of the myocardium are not filled, mm^3", minimum=0.0
    )
    largest: tuple[str, ...] = option(
        (
            "myocardium",
            "left_atrium",
            "left_ventricle",
            "right_atrium",
            "right_ventricle",
            "aorta",
            "pulmonary_artery",
        ),
        "classes that keep as many components as the label table expects",
    )


@dataclass(frozen=True, kw_only=True)
class LdmOptions:
    """Latent diffusion: the grid of the hearts, and where they come from (see docs/ldm.md)."""

    sources: tuple[str, ...] = option(
        ("labels",), "what target ldm is made from: labels, pointclouds, or both"
    )
    voxel_size: int = option(64, "voxels along each edge of the grid", minimum=8, maximum=512)
    extent_mm: float = option(
        0.0, "edge of the grid, mm (0: as large as the largest heart needs)", minimum=0.0
    )
    drop_classes: tuple[str, ...] = option(
        (), "classes that are left out: a coronary is one voxel wide at 64^3"
    )


@dataclass(frozen=True, kw_only=True)
class PointcloudsOptions:
    """HDF5 point clouds to voxels."""

    file: str = option("", "HDF5 file with all samples; empty: a file per case, column pointcloud")
    key: str = option("points", "dataset (or group of datasets) of the coordinates")
    labels_key: str = option("labels", "the same of the points' classes; unused where not there")
    axes: str = option(
        "xyz", "order of the stored coordinates", choices=("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
    )
    unit_mm: float = option(1.0, "mm per stored unit", minimum=1e-9)
    center: bool = option(True, "put the middle of every cloud into the middle of the grid")
    method: str = option(
        "gaussian", "value of a voxel", choices=("gaussian", "occupancy", "density")
    )
    sigma_vox: float = option(1.0, "of the gaussian, voxels", minimum=0.1, maximum=8.0)
    threshold: float = option(
        0.3, "labelled clouds: voxels above this get a class", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(TrainingOptions):
    """The autoencoder whose latents are diffused."""

    steps: int = option(50_000, "optimiser steps", minimum=1)
    batch_size: int = option(
        8, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    validate_every: int = option(500, "steps between validations (0: only at the end)", minimum=0)
    channels: tuple[int, ...] = option(
        (32, 64, 64), "width at full, half, ... resolution", minimum=4, alias="num_channels"
    )
    latent_channels: int = option(4, "channels of a latent", minimum=1)
    num_res_blocks: int = option(1, "residual blocks at each resolution", minimum=1)
    norm_num_groups: int = option(16, "groups of the norms; divides every width", minimum=1)
    attention: bool = option(False, "attention at the lowest resolution")
    checkpointing: bool = option(
        False, "recompute in the backward pass: less memory, more time", memory="set"
    )
    weight_ce: float = option(1.0, "weight of the cross-entropy", minimum=0.0)
    weight_dice: float = option(1.0, "weight of the soft Dice loss", minimum=0.0)
    kl_weight: float = option(1e-3, "weight of the KL term, a mean over the latents", minimum=0.0)
    adversarial_weight: float = option(
        0.0,
        "weight of the patch discriminator's verdict (0: none)",
        minimum=0.0,
        alias="adv_weight",
    )
    autoencoder_warm_up_n_epochs: int = option(
        5, "passes over the training cases before that verdict counts", minimum=0
    )
    discriminator_channels: int = option(32, "its width", minimum=4)
    discriminator_layers: int = option(3, "its depth", minimum=1, alias="num_layers_d")
    perceptual_weight: float = option(
        0.0, "weight of the distance of deep features; needs perceptual_file", minimum=0.0
    )
    perceptual_network: str = option(
        "resnet10",
        "3-D network of the features (MedicalNet layout)",
        choices=("resnet10", "resnet18", "resnet34", "resnet50"),
    )
    perceptual_file: str = option("", "its weights, a file; nothing is ever downloaded")
    cache_rate: float = option(
        1.0,
        "share of the cases that is kept in memory",
        minimum=0,
        maximum=1,
        resumable=True,
        memory="lower",
    )
    augment_rotation_deg: float = option(
        10.0, "largest random rotation, degrees", minimum=0.0, maximum=180.0
    )
    augment_scale: float = option(
        0.08, "largest relative scaling, each axis", minimum=0, maximum=0.5
    )
    augment_shift: float = option(
        0.04, "largest shift, parts of the grid's edge", minimum=0.0, maximum=0.5
    )


@dataclass(frozen=True, kw_only=True)
class LatentsOptions:
    """Latents of every case, encoded once."""

    variants: int = option(
        8, "augmented copies of each training case, with the autoencoder's ranges", minimum=0
    )
    batch_size: int = option(8, "cases that are encoded at a time", minimum=1, memory="lower")
    seed: int = option(0, "seed of the augmentation", minimum=0)
    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions(TrainingOptions):
    """Diffusion of the latents."""

    steps: int = option(100_000, "optimiser steps", minimum=1)
    batch_size: int = option(
        32, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    ema_decay: float = option(0.9995, "decay of the weight average (0: none)", minimum=0, maximum=1)
    preview_every: int = option(
        5_000,
        "steps between sets of sample pictures (0: none)",
        minimum=0,
        alias="generate_samples_interval",
    )
    num_samples_to_generate: int = option(4, "samples in each of them", minimum=1)
    channels: tuple[int, ...] = option(
        (64, 128, 256), "width at full, half, ... resolution", minimum=4, alias="num_channels"
    )
    attention_levels: tuple[bool, ...] = option(
        (False, True, True), "attention at each of them (the innermost block always has it)"
    )
    num_head_channels: int = option(32, "width of an attention head", minimum=1)
    num_res_blocks: int = option(2, "residual blocks at each resolution", minimum=1)
    norm_num_groups: int = option(32, "groups of the norms; divides every width", minimum=1)
    objective: str = option(
        "flow", "rectified flow, or denoising diffusion", choices=("flow", "ddpm")
    )
    prediction: str = option(
        "v_prediction", "what ddpm predicts", choices=("epsilon", "v_prediction")
    )
    time_sampling: str = option(
        "logit-normal", "training times of flow", choices=("logit-normal", "uniform")
    )
    num_train_timesteps: int = option(1_000, "times of the noise schedule", minimum=2)
    beta_start: float = option(0.0015, "ddpm: first noise of the schedule", minimum=0.0)
    beta_end: float = option(0.0195, "ddpm: last noise of the schedule", maximum=1.0)
    snr_gamma: float = option(5.0, "ddpm: min-SNR weights (0: none)", minimum=0.0)
    known_share: float = option(
        0.5,
        "share of the samples that see some classes and make the others (0: no completion)",
        minimum=0.0,
        maximum=1.0,
    )
    volumes_share: float = option(
        0.0,
        "share of the samples that see the volumes of classes (0: no conditioning on volumes)",
        minimum=0.0,
        maximum=1.0,
    )
    complete_cases: bool = option(
        True, "train on cases alone that have every class: the others lack what is not annotated"
    )
    cache_rate: float = option(
        1.0,
        "share of the cases that is kept in memory",
        minimum=0,
        maximum=1,
        resumable=True,
        memory="lower",
    )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Samples of the diffusion."""

    num_samples: int = option(16, "hearts to make", minimum=1)
    num_inference_steps: int = option(30, "network calls per heart", minimum=1)
    sampler: str = option(
        "auto",
        "auto: flow for flow, ddim for ddpm",
        choices=("auto", "flow", "ddim", "ddpm"),
    )
    volumes: tuple[str, ...] = option(
        (), "wanted volumes, class=ml; a model with volumes_share > 0 follows them"
    )
    guidance: float = option(
        1.0, "strength of the conditioning on volumes; above 1 costs twice the time", minimum=0.0
    )
    batch_size: int = option(8, "hearts at a time; changes no heart", minimum=1, memory="lower")
    save_format: str = option("both", "files of a sample", choices=("nifti", "pointcloud", "both"))
    num_points: int = option(10_000, "points of a sample's cloud", minimum=10)
    threshold: float = option(
        0.5, "fields without classes: what is inside", minimum=0.0, maximum=1.0
    )
    seed: int = option(0, "seed of the noise", minimum=0)
    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Figures of generated hearts beside references."""

    points: int = option(1_024, "surface points per class and heart", minimum=16, memory="lower")
    warp_mm: float = option(
        8.0,
        "largest elastic displacement of the trivial generator, a warped training case",
        minimum=0.0,
    )
    seed: int = option(0, "seed of points and warps", minimum=0)


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Missing classes from known ones."""

    num_inference_steps: int = option(20, "network calls per draw", minimum=1)
    draws: int = option(4, "draws whose mean is taken", minimum=1, memory="lower")
    seed: int = option(0, "seed of the noise", minimum=0)
    device: str = option("auto", "auto: CUDA where there is one", choices=("auto", "cpu", "cuda"))


# Config section -> options, in the order of config/config.yaml.
SECTIONS: dict[str, type] = {
    "cohort": CohortOptions,
    "demo": DemoOptions,
    "split": SplitOptions,
    "meshes": MeshesOptions,
    "points": PointsOptions,
    "voxels": VoxelsOptions,
    "windows": WindowsOptions,
    "vqvae": VqvaeOptions,
    "vqvae_pretrain": VqvaePretrainOptions,
    "vqvae_codebook": VqvaeCodebookOptions,
    "vqvae_joint": VqvaeJointOptions,
    "vqvae_reconstruct": VqvaeReconstructOptions,
    "coronary_repair": CoronaryRepairOptions,
    "coronary": CoronaryOptions,
    "coronary_near": NearOptions,
    "coronary_refine": CoronaryRefineOptions,
    "fusion": FusionOptions,
    "vecset": VecsetOptions,
    "vecset_reconstruct": VecsetReconstructOptions,
    "ldm": LdmOptions,
    "pointclouds": PointcloudsOptions,
    "autoencoder": AutoencoderOptions,
    "latents": LatentsOptions,
    "diffusion": DiffusionOptions,
    "sampling": SamplingOptions,
    "generation": GenerationOptions,
    "completion": CompletionOptions,
}


def memory_advice(*options: type) -> str:
    """The config keys of these sections that make a job need less memory, as a remedy."""
    sections = {cls: f"{name}." for name, cls in SECTIONS.items()}
    words = []
    for action, ending in (("raise", ""), ("lower", ""), ("set", " to true")):
        keys = [
            f"{sections.get(cls, '')}{field.name}"
            for cls in options
            for field in dataclasses.fields(cls)
            if field.metadata["memory"] == action
        ]
        if keys:
            words.append(f"{action} {', '.join(keys)}{ending}")
    return ", or ".join([*words, "give the job more memory (mem_mb)"])
