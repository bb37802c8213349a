"""Options of the measures of single hearts, and of what is made of them over a cohort."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, option


@dataclass(frozen=True, kw_only=True)
class MeasuresOptions:
    """Measures of every heart; what is measured follows from the classes that it has."""

    vessels: tuple[str, ...] = option(
        ("aorta", "pulmonary_artery", "pulmonary_veins"),
        "wide vessels that get a centreline, with lengths and radii; thin ones have theirs from "
        "trace_coronary",
        classes=True,
    )


@dataclass(frozen=True, kw_only=True)
class NormsOptions:
    """Norms, z-scores and differences between groups over the cohort."""

    reference: str = option(
        "", "norms.csv of another cohort for the z-scores; empty: the norms of this cohort"
    )
    least_cases: int = option(3, "fewest hearts that make a norm", minimum=2)
    groups: tuple[str, ...] = option(
        (),
        "columns of the case table (x_sex, say) by which hearts are compared: groups by their "
        "words, ranks by numbers; empty: none",
    )
    permutations: int = option(
        9999, "random orders of the hearts that a difference is compared with", minimum=99
    )
    correction: str = option(
        "holm",
        "of the p values for many measures: holm (none is wrong) or bh (few of those found are, "
        "Benjamini-Hochberg)",
        choices=("holm", "bh"),
    )
    seed: int = option(0, "seed of the random orders", minimum=0, maximum=SEED_MAX)
