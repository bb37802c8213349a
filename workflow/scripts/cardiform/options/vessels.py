"""Options of vessels in generated hearts: their training, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option, redefault
from .ldm import AutoencoderOptions, DiffusionOptions
from .training import TrainingOptions

ORIGIN = "aorta"  # the class that vessels spring from


@dataclass(frozen=True, kw_only=True)
class VesselOptions(TrainingOptions):
    """Diffusion of vessel trees, given the heart (see docs/ldm.md)."""

    steps: int = redefault(TrainingOptions, "steps", 20_000)
    batch_size: int = redefault(TrainingOptions, "batch_size", 16)
    lr: float = redefault(TrainingOptions, "lr", 1e-3)
    ema_decay: float = redefault(TrainingOptions, "ema_decay", 0.9995)
    preview_every: int = redefault(TrainingOptions, "preview_every", 0)
    channels: tuple[int, ...] = option(
        (32, 64, 128), "width at full, half, ... resolution of the hearts' grid", minimum=4
    )
    attention_levels: tuple[bool, ...] = redefault(
        DiffusionOptions, "attention_levels", (False, False, True)
    )
    num_head_channels: int = redefault(DiffusionOptions, "num_head_channels", 32)
    num_res_blocks: int = redefault(DiffusionOptions, "num_res_blocks", 2)
    norm_num_groups: int = redefault(DiffusionOptions, "norm_num_groups", 16)
    time_sampling: str = redefault(DiffusionOptions, "time_sampling", "logit-normal")
    blur_vox: float = option(
        0.8,
        "largest blur of a training heart, voxels: generated hearts are smoother than real ones",
        minimum=0.0,
        maximum=3.0,
    )
    cache_rate: float = redefault(DiffusionOptions, "cache_rate", 1.0)
    augment_rotation_deg: float = redefault(AutoencoderOptions, "augment_rotation_deg", 10.0)
    augment_scale: float = redefault(AutoencoderOptions, "augment_scale", 0.08)
    augment_shift: float = redefault(AutoencoderOptions, "augment_shift", 0.02)


@dataclass(frozen=True, kw_only=True)
class VesselDrawingOptions:
    """Vessel trees of generated hearts, and label maps with all classes."""

    num_inference_steps: int = option(30, "network calls per heart", minimum=1)
    spacing_mm: float = option(
        1.0, "voxel edge of the label maps, mm", minimum=0.2, maximum=10.0, memory="raise"
    )
    gap_mm: float = option(15.0, "widest gap in a vessel that is bridged, mm", minimum=0.0)
    branch_mm: float = option(5.0, "shortest branch, mm", minimum=0.0)
    smooth_mm: float = option(2.0, "Gaussian sigma along the branches, mm (0: none)", minimum=0.0)
    seed: int = option(0, "seed of the noise", minimum=0, maximum=SEED_MAX)
    device: str = device_option()
