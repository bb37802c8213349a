"""Options of meshes, points, sparse voxels and CT windows."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, option


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
        4_000, "fewest surface points of a class that the case has", minimum=1
    )
    near_points: int = option(500_000, "points near the surfaces", minimum=100)
    near_sigma: tuple[float, ...] = option(
        (0.005, 0.015),
        "standard deviations of the near offsets, unit frame; equal shares",
        minimum=1e-4,
        maximum=0.3,
    )
    volume_points: int = option(500_000, "points uniform in the cube [-1, 1]^3", minimum=100)
    volume_radius: float = option(
        0.0,
        "draw them in the ball of this radius, unit frame, instead (0: in the cube); the network "
        "is asked as far as 1",
        minimum=0.0,
        maximum=1.05,
        young=True,
    )
    volume_within: float = option(
        0.0,
        "share of them that is drawn within the classes, evenly over the classes",
        minimum=0.0,
        maximum=1.0,
        young=True,
    )
    seed: int = option(0, "seed of the draws", minimum=0, maximum=SEED_MAX)


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
        filled=True,
    )
    together: bool = option(
        False,
        "one training on all of them, with one codebook, in place of one training each",
        young=True,
    )
    linked: bool = option(
        False,
        "there, encode and decode each with what the other windows of its scan have at a place",
        young=True,
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
    min_points: int = option(100, "bands with fewer voxels are left out of the training", minimum=0)
    max_points: int = option(0, "so are bands with more (0: no limit)", minimum=0)
