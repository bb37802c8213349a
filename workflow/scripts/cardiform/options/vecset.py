"""Options of the VecSet autoencoder and its reconstructions."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option
from .training import TrainingOptions

# Preset -> its latents. Those of ANCHORED presets keep their places on the surface.
LATENTS = {
    "demo": 512, "local": 2048, "local_large": 4096,
    "small": 512, "base": 512, "xl": 1024, "vecsetx": 1024,
}  # fmt: skip
ANCHORED = ("demo", "local", "local_large")


@dataclass(frozen=True, kw_only=True)
class VecsetOptions(TrainingOptions):
    """The VecSet autoencoder (see docs/vecset.md)."""

    preset: str = option("base", "network size", choices=tuple(LATENTS))
    queries: str = option(
        "fps", "encoder queries: farthest-point subset or learned", choices=("fps", "learned")
    )
    bottleneck: str = option(
        "normalized", "latent bottleneck", choices=("normalized", "kl", "identity")
    )
    latents: int = option(
        0,
        "latent vectors (0: as the preset has them); more of them for thin vessels",
        minimum=0,
        memory="lower",
        young=True,
    )
    latent_dim: int = option(
        0, "channels of a latent (0: as the preset has them)", minimum=0, young=True
    )
    pretrained: str = option(
        "", "model.pt of a VecSet of the same sizes to start from; empty: none", young=True
    )
    checkpointing: bool = option(
        False,
        "recompute blocks in the backward pass: less memory, a third more time",
        memory="set",
        resumable=True,
        young=True,
    )
    input_points: int = option(8_192, "surface points that are encoded", minimum=16, memory="lower")
    normals: bool = option(
        False,
        "encode the outward normals of the points too, three more channels",
        young=True,
    )
    balanced: float = option(
        0.5,
        "share of the points that is drawn evenly over the classes (input: more of thin ones; "
        "volume: and of the outside)",
        minimum=0.0,
        maximum=1.0,
    )
    cached_points: int = option(
        200_000,
        "near and volume points of a case that are drawn from (0: all)",
        minimum=0,
        memory="lower",
    )
    behind_cuts: bool = option(
        False,
        "encode hearts as if they were cut where others of the cohort are, and ask for the rest",
        young=True,
    )
    hidden_share: float = option(
        0.0,
        "share of the samples with some classes hidden and predicted (0: no completion)",
        minimum=0.0,
        maximum=1.0,
        young=True,
    )
    hidden_classes: int = option(5, "most classes that are hidden at once", minimum=1, young=True)
    slices_share: float = option(
        0.0,
        "share of the samples of which only parallel slices are encoded (0: none are completed)",
        minimum=0.0,
        maximum=1.0,
        young=True,
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
    latents: int = option(
        0,
        "latent vectors that start at points (0: as in training); more of them, and of the points, "
        "for thin vessels",
        minimum=0,
        memory="lower",
        young=True,
    )
    query_batch: int = option(
        4096,
        "query points per network call; more suits GPUs, less suits CPUs",
        minimum=1,
        memory="lower",
    )
    seed: int = option(0, "seed of the encoded points", minimum=0, maximum=SEED_MAX)
    device: str = device_option()
