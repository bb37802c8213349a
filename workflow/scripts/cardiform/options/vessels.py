"""Options of vessels in generated hearts: their training, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option, redefault
from .training import TrainingOptions


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
    attention_levels: tuple[bool, ...] = option(
        (False, False, True), "attention at each of them (the innermost block always has it)"
    )
    num_head_channels: int = option(32, "width of an attention head", minimum=1)
    num_res_blocks: int = option(2, "residual blocks at each resolution", minimum=1)
    norm_num_groups: int = option(16, "groups of the norms; divides every width", minimum=1)
    time_sampling: str = option(
        "logit-normal", "training times", choices=("logit-normal", "uniform")
    )
    blur_vox: float = option(
        0.8,
        "largest blur of a training heart, voxels: generated hearts are smoother than real ones",
        minimum=0.0,
        maximum=3.0,
    )
    cache_rate: float = option(
        1.0,
        "share of the cases that is kept in memory",
        minimum=0,
        maximum=1,
        resumable=True,
        memory="lower",
    )
    augment_rotation_deg: float = option(
        10.0, "largest random rotation of heart and tree, degrees", minimum=0.0, maximum=180.0
    )
    augment_scale: float = option(
        0.08, "largest relative scaling, each axis", minimum=0.0, maximum=0.5
    )
    augment_shift: float = option(
        0.02, "largest shift, parts of the grid's edge", minimum=0.0, maximum=0.5
    )


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
