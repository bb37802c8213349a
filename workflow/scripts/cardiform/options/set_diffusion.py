"""Options of set-latent diffusion: latents of a VecSet, their diffusion, and samples."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option, redefault
from .ldm import DiffusionOptions, SamplingOptions
from .training import TrainingOptions
from .vecset import VecsetReconstructOptions
from .vessels import VesselDrawingOptions

MOST_MODES = 512


@dataclass(frozen=True, kw_only=True)
class SetLatentsOptions:
    """A VecSet's latents of every case, in slots that hearts share (see docs/set_diffusion.md)."""

    voxel_size: int = option(
        96,
        "voxels along each edge of the grid that hearts are judged on",
        minimum=8,
        maximum=512,
        memory="lower",
    )
    columns: tuple[str, ...] = option(
        (), "free numeric columns of the case table that samples can be asked for: x_age, say"
    )
    input_points: int = redefault(VecsetReconstructOptions, "input_points", 0)
    query_batch: int = redefault(VecsetReconstructOptions, "query_batch", 4096)
    seed: int = option(0, "seed of the encoded points", minimum=0, maximum=SEED_MAX)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class SetDiffusionOptions(TrainingOptions):
    """Diffusion of a VecSet's latents: places and codes together."""

    steps: int = redefault(TrainingOptions, "steps", 20_000)
    batch_size: int = redefault(TrainingOptions, "batch_size", 16)
    lr: float = redefault(TrainingOptions, "lr", 3e-4)
    preview_every: int = redefault(TrainingOptions, "preview_every", 0)
    dim: int = option(256, "width of the set transformer", minimum=8)
    depth: int = option(8, "its blocks", minimum=1)
    heads: int = option(4, "its attention heads; a divisor of dim", minimum=1)
    noise: str = option(
        "fitted",
        "what hearts begin as: a normal distribution fitted to the training hearts, or white noise",
        choices=("fitted", "white"),
    )
    modes: int = option(
        0,
        f"modes of the fitted distribution at most (0: as many as hearts have, up to {MOST_MODES})",
        minimum=0,
        maximum=MOST_MODES,
    )
    time_sampling: str = redefault(DiffusionOptions, "time_sampling", "logit-normal")
    known_share: float = option(
        0.25,
        "share of the samples that see some classes of the heart (0: none does)",
        minimum=0.0,
        maximum=1.0,
    )
    asked_share: float = option(
        0.5,
        "share of the samples that see class volumes and columns (0: none does)",
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class SetSamplingOptions:
    """Samples of the diffusion of a VecSet's latents."""

    num_samples: int = redefault(SamplingOptions, "num_samples", 16)
    num_inference_steps: int = redefault(SamplingOptions, "num_inference_steps", 30)
    volumes: tuple[str, ...] = option((), "wanted volumes, class=ml", classes=True)
    columns: tuple[str, ...] = option((), "wanted values of columns, x_age=60 say")
    known: tuple[str, ...] = option(
        (), "classes that are taken from the heart of --heart", classes=True
    )
    guidance: float = option(
        1.0, "strength of all conditions; above 1 costs twice the time", minimum=0.0
    )
    corrections: int = option(
        2, "rounds in which wanted volumes are held against those that came out", minimum=0
    )
    voxel_size: int = option(
        0,
        "voxels along each edge of the cube of a sample (0: as of the hearts that figures compare)",
        minimum=0,
        maximum=512,
        memory="lower",
    )
    batch_size: int = redefault(SamplingOptions, "batch_size", 8)
    query_batch: int = redefault(VecsetReconstructOptions, "query_batch", 4096)
    speck_share: float = option(
        0.05,
        "parts of a class beyond the number that the label table expects are left out where they "
        "hold less than this share of it (0: they stay)",
        minimum=0.0,
        maximum=1.0,
        young=True,
    )
    redraw: int = redefault(SamplingOptions, "redraw", 0)
    save_format: str = redefault(SamplingOptions, "save_format", "both")
    num_points: int = redefault(SamplingOptions, "num_points", 10_000)
    seed: int = redefault(SamplingOptions, "seed", 0)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class SetVesselOptions:
    """Vessel trees of the hearts of set-latent diffusion, and label maps with all classes."""

    spacing_mm: float = redefault(VesselDrawingOptions, "spacing_mm", 1.0)
    gap_mm: float = redefault(VesselDrawingOptions, "gap_mm", 15.0)
    branch_mm: float = redefault(VesselDrawingOptions, "branch_mm", 8.0)
    smooth_mm: float = redefault(VesselDrawingOptions, "smooth_mm", 2.0)
    speck_share: float = redefault(SetSamplingOptions, "speck_share", 0.05)
    query_batch: int = redefault(VecsetReconstructOptions, "query_batch", 4096)
    device: str = device_option()
