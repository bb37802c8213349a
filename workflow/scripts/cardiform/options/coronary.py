"""Options of repair, refinement and its two trainings."""

from __future__ import annotations

from dataclasses import dataclass

from .field import CLASS_PATTERN, device_option, option, redefault
from .training import TrainingOptions

# Of noise, in the order in which they act.
KINDS = (
    "jagged", "dilation", "missing_ends", "breaks", "blobs", "speckle", "slabs", "coarse"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CoronaryRepairOptions:
    """Repair of a thin structure without learning, on the grid that its refinement works on."""

    structure: str = option(
        "coronary", "class of the label table that is refined", pattern=CLASS_PATTERN, classes=True
    )
    spacing_mm: float = option(
        0.5, "edge of the isotropic grid that is worked on, mm", minimum=0.1, maximum=5.0
    )
    dust_mm3: float = option(4.0, "smaller components are removed first, mm^3", minimum=0.0)
    close_mm: float = option(1.0, "radius of the closing, mm (0: none)", minimum=0.0, maximum=5.0)
    smooth_mm: float = option(
        0.35, "Gaussian sigma on the mask, mm (0: none)", minimum=0.0, maximum=3.0
    )
    gap_mm: float = option(
        9.0,
        "widest gap between walls that is bridged where both ends face each other, mm; with a turn "
        "of some degrees, that times their cosine",
        minimum=0.0,
    )
    angle_deg: float = option(
        70.0, "sharpest turn into a bridge, degrees; above 90: 90", minimum=0, maximum=180
    )
    radius_ratio: float = option(3.0, "most that the radii of both sides differ", minimum=1.0)
    fragment_mm3: float = option(
        20.0, "smaller loose pieces are removed after the bridging, mm^3", minimum=0.0
    )
    evidence: tuple[str, ...] = option(
        (),
        "classes near which a loose piece must be, if the case has any of them; empty: all others",
        classes=True,
    )
    evidence_mm: float = option(8.0, "how near, mm", minimum=0.0)
    certain_mm3: float = option(150.0, "pieces of this size stay anywhere, mm^3", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class CoronaryOptions(TrainingOptions):
    """Refinement by an encoder and a pointwise head (preset cardiform; see docs/coronary.md)."""

    steps: int = redefault(TrainingOptions, "steps", 20_000)
    batch_size: int = redefault(TrainingOptions, "batch_size", 32)
    lr: float = redefault(TrainingOptions, "lr", 2e-3)
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
        ("jagged", "breaks", "blobs", "speckle"),
        "how patches are corrupted again",
        choices=KINDS,
        filled=True,
    )
    strength: float = option(
        2.0, "most of each kind; 1 is a typical label (jagged: three quarters of it)", minimum=0.0
    )


@dataclass(frozen=True, kw_only=True)
class NearOptions(TrainingOptions):
    """Shape-only NeAR as documented, its sampler and norms repaired (preset near)."""

    steps: int = option(75_000, "optimiser steps: 300 epochs of 998 cases", minimum=1)
    batch_size: int = redefault(TrainingOptions, "batch_size", 4)
    accumulate: int = redefault(TrainingOptions, "accumulate", 4)
    lr: float = redefault(TrainingOptions, "lr", 5e-4)
    final_lr: float = redefault(TrainingOptions, "final_lr", 0.0)
    warmup_steps: int = redefault(TrainingOptions, "warmup_steps", 750)
    weight_decay: float = redefault(TrainingOptions, "weight_decay", 0.0)
    clip_norm: float = redefault(TrainingOptions, "clip_norm", 0.0)
    ema_decay: float = redefault(TrainingOptions, "ema_decay", 0.0)
    precision: str = redefault(TrainingOptions, "precision", "fp16")
    validate_every: int = redefault(TrainingOptions, "validate_every", 2_500)
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
        0,
        "gradient steps of the latent towards the label; preset near needs some (100, say)",
        minimum=0,
    )
    latent_lr: float = option(5e-3, "their learning rate", minimum=0.0)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class CoronaryTraceOptions:
    """Centrelines with radii of a thin structure, cut into named branches."""

    structure: str = option(
        "coronary", "class of the label table that is traced", pattern=CLASS_PATTERN, classes=True
    )
    spacing_mm: float = option(
        0.5, "edge of the isotropic grid that is worked on, mm", minimum=0.1, maximum=5.0
    )
    branch_mm: float = option(
        5.0,
        "shortest branch, measured from its parent's wall, mm (and three voxels at least); "
        "shorter parts are specks",
        minimum=0.5,
    )
    smooth_mm: float = option(
        1.5, "Gaussian sigma along the course, of places and radii, mm (0: none)", minimum=0.0
    )
    origins: tuple[str, ...] = option(
        ("aorta", "pulmonary_artery"),
        "classes that a tree may spring from, the first before the others",
        classes=True,
    )
    ostium_mm: float = option(
        3.0, "a tree springs from a class if no more lies between both walls, mm", minimum=0.0
    )
    names: bool = option(
        True, "name the branches as coronary arteries; false for another structure"
    )


def refinement_faults(
    options: CoronaryRefineOptions, key: str = "coronary_refine.latent_steps"
) -> list[str]:
    """Why a refinement with these options would be of no use: a line each.

    key : of the latent steps, as the user writes it.
    """
    if options.preset == "near" and not options.latent_steps:
        return [
            f"{key} is 0: preset near would give every new case the same mask, that of the mean "
            "vector; set it to 100, or take preset cardiform"
        ]
    return []
