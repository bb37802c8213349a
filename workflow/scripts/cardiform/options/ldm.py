"""Options of latent diffusion: grid, autoencoder, latents, diffusion, samples, completion."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option, redefault
from .training import TrainingOptions


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
        (), "classes that are left out: a coronary is one voxel wide at 64^3", classes=True
    )


@dataclass(frozen=True, kw_only=True)
class PointcloudsOptions:
    """HDF5 point clouds to voxels."""

    file: str = option(
        "",
        "HDF5 file with all samples, or a folder of ready voxels; empty: a file per case, column "
        "pointcloud",
    )
    key: str = option("points", "dataset (or group of datasets) of the coordinates")
    labels_key: str = option(
        "labels", "the same for the points' classes; ignored if it does not exist"
    )
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

    steps: int = redefault(TrainingOptions, "steps", 50_000)
    batch_size: int = redefault(TrainingOptions, "batch_size", 8)
    validate_every: int = redefault(TrainingOptions, "validate_every", 500)
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
        "weight of the patch discriminator's loss (0: none)",
        minimum=0.0,
        alias="adv_weight",
    )
    autoencoder_warm_up_n_epochs: int = option(
        5, "passes over the training cases before that loss counts", minimum=0
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

    variants: int = option(8, "augmented copies of each training case", minimum=0)
    batch_size: int = option(8, "cases that are encoded at a time", minimum=1, memory="lower")
    augment_rotation_deg: float = option(
        5.0, "their largest rotation, degrees", minimum=0.0, maximum=180.0, young=True
    )
    augment_scale: float = option(
        0.04, "their largest relative scaling, each axis", minimum=0.0, maximum=0.5, young=True
    )
    augment_shift: float = option(
        0.01, "their largest shift, parts of the grid's edge", minimum=0.0, maximum=0.5, young=True
    )
    seed: int = option(0, "seed of the augmentation", minimum=0, maximum=SEED_MAX)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions(TrainingOptions):
    """Diffusion of the latents."""

    batch_size: int = redefault(TrainingOptions, "batch_size", 32)
    ema_decay: float = redefault(TrainingOptions, "ema_decay", 0.9995)
    preview_every: int = option(5_000, "steps between sets of sample pictures (0: none)", minimum=0)
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
    fold: int = option(
        1,
        "latents along each edge that the network takes together, as channels",
        minimum=1,
        young=True,
    )
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
    beta_end: float = option(0.0195, "ddpm: last noise of the schedule", minimum=0.0, maximum=1.0)
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
    scale_factor: float = option(
        0.0,
        "factor for the latents (0: each channel gets mean 0 and deviation 1)",
        minimum=0.0,
        young=True,
    )
    volume_hearts: int = option(
        256,
        "hearts drawn after the training to correct class volumes: drawn hearts then have the mean "
        "volumes of the training hearts (0: no correction)",
        minimum=0,
        resumable=True,
        young=True,
    )
    complete_cases: bool = option(
        True, "train only on cases that have every class: the others lack what is not annotated"
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
        (),
        "volumes to ask for, class=ml; needs a model trained with volumes_share > 0",
        classes=True,
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
    speck_share: float = option(
        0.05,
        "parts beyond the number that the label table expects belong to what surrounds them where "
        "they hold less than this share of their class (0: they stay)",
        minimum=0.0,
        maximum=1.0,
        young=True,
    )
    redraw: int = option(
        0,
        "further draws of a heart whose parts or contacts are not those of the training hearts",
        minimum=0,
        young=True,
    )
    seed: int = option(0, "seed of the noise", minimum=0, maximum=SEED_MAX)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Figures of generated hearts beside references."""

    points: int = option(1_024, "surface points per class and heart", minimum=16, memory="lower")
    warp_mm: float = option(
        8.0,
        "largest elastic displacement of the trivial generator, a warped training case",
        minimum=0.0,
    )
    seed: int = option(0, "seed of points and warps", minimum=0, maximum=SEED_MAX)


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Missing classes from known ones."""

    num_inference_steps: int = option(20, "network calls per draw", minimum=1)
    draws: int = option(4, "draws whose mean is taken", minimum=1, memory="lower")
    seed: int = option(0, "seed of the noise", minimum=0, maximum=SEED_MAX)
    device: str = device_option()
