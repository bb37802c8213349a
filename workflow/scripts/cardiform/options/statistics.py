"""Options of the modes of variation of a cohort."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, device_option, option, redefault
from .set_diffusion import SetLatentsOptions


@dataclass(frozen=True, kw_only=True)
class ModesOptions:
    """What modes of variation of every kind have in common."""

    classes: tuple[str, ...] = option(
        (),
        "classes of the model; empty: those that most hearts have and the scan does not cut, "
        "without `leave_out`",
        classes=True,
    )
    leave_out: tuple[str, ...] = option(
        ("coronary",),
        "classes that are never part of it by themselves: thin branches of one heart are not those "
        "of another",
        classes=True,
    )
    remove_size: bool = option(
        False, "hearts are brought to one size first; otherwise size is part of the shape"
    )
    mesh_mm: float = option(
        2.5,
        "edge of the triangles of the template, and of hearts that are made of latents, mm",
        minimum=0.5,
        maximum=20.0,
    )
    variance: float = option(
        0.95, "share of the variance that the modes keep", minimum=0.01, maximum=1.0
    )
    most_modes: int = option(20, "at most so many modes", minimum=1, maximum=500)
    samples: int = option(
        20, "hearts drawn from the model, by which its specificity is measured", minimum=1
    )
    pairs: int = option(
        8, "pairs of hearts, between which the anatomy is looked at", minimum=0, maximum=10_000
    )
    seed: int = option(0, "seed of all that is drawn", minimum=0, maximum=SEED_MAX)


@dataclass(frozen=True, kw_only=True)
class ShapeStatisticsOptions(ModesOptions):
    """Modes of variation, scores of every heart, paths between hearts (target statistics)."""

    grid_mm: float = option(
        3.0,
        "voxel edge of the grid on which hearts are registered, mm; finer takes longer",
        minimum=0.5,
        maximum=20.0,
        memory="raise",
    )
    smoothing_mm: float = option(
        4.5,
        "over so many mm neighbouring points move alike; less follows finer details and folds "
        "sooner",
        minimum=0.5,
        maximum=50.0,
    )
    path: tuple[str, ...] = option(
        (), "two cases: the hearts between them are written as meshes and label maps"
    )
    path_steps: int = option(9, "hearts on that path, both ends among them", minimum=2, maximum=99)
    columns: tuple[str, ...] = option(
        (),
        "numeric columns of the case table (x_age, say) that the shape is held against; empty: "
        "none",
    )
    permutations: int = option(
        999, "random orders of the hearts that such a column is held against", minimum=99
    )


@dataclass(frozen=True, kw_only=True)
class LatentStatisticsOptions(ModesOptions):
    """Modes of a VecSet's latents (target latent_statistics). In a config its keys are those of the
    sections shape_statistics and set_latents."""

    input_points: int = redefault(SetLatentsOptions, "input_points", 0)
    query_batch: int = redefault(SetLatentsOptions, "query_batch", 4096)
    device: str = device_option()
