"""Options of the cohort, the demo cohort and the split."""

from __future__ import annotations

from dataclasses import dataclass

from .field import NAME_PATTERN, SEED_MAX, option


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The built-in cohort of procedural hearts, used where cohort.table is empty."""

    cases: int = option(16, "hearts to draw", minimum=3)
    spacing_mm: float = option(1.5, "median voxel edge, mm", minimum=0.2, maximum=5.0)
    coronary_noise: float = option(
        1.0, "strength of the noise in the coronary labels; 0: they are true", minimum=0.0
    )
    seed: int = option(0, "seed of every random draw", minimum=0, maximum=SEED_MAX)
    variety: str = option(
        "usual",
        "hearts that differ as those of a healthy cohort do, or wide: as real label maps do, some "
        "with few classes",
        choices=("usual", "wide"),
        young=True,
    )


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """The case table and what to do with bad cases."""

    name: str = option(
        "demo", "name of the cohort: results go to results/<name>/", pattern=NAME_PATTERN
    )
    table: str = option("", "case table, TSV or CSV; empty: the built-in demo cohort")
    labels: str = option("", "label table, TSV or CSV; empty: STACOM-2025")
    on_bad_case: str = option(
        "stop", "stop at bad cases, or skip and list them", choices=("stop", "skip")
    )
    max_bad_cases: int = option(10, "with skip: more bad cases than this stop the run", minimum=0)
    use_refined: bool = option(
        False, "train on the fused label maps, with refined coronaries, instead of the given ones"
    )
    with_set_diffusion: bool = option(
        False,
        "target vecset, and so all, generates hearts, too (target set_diffusion)",
        young=True,
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
    seed: int = option(0, "seed of the patient hash", minimum=0, maximum=SEED_MAX)
