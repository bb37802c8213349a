"""Options of applying trained models to new cases."""

from __future__ import annotations

from dataclasses import dataclass

from .field import device_option, option

TASKS = ("reconstruct", "encode", "refine", "complete", "fuse")


@dataclass(frozen=True, kw_only=True)
class ApplyOptions:
    """What is done with new cases."""

    tasks: tuple[str, ...] = option(
        (), "tasks to do; empty: all that the models can do", choices=TASKS
    )
    use_refined: str = option(
        "auto",
        "reconstruct, encode and complete the fused label maps; auto: where the models were "
        "trained on such (cohort.use_refined)",
        choices=("auto", "true", "false"),
    )
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class ApplyConfigOptions(ApplyOptions):
    """Trained models on new label maps: no split, no truth and no training."""

    # young: the script has arguments of its own in their place
    table: str = option("", "case table of the new label maps, TSV or CSV; empty: none", young=True)
    models: tuple[str, ...] = option(
        (),
        "results folders or bundles, several: folds; empty: the results of this cohort",
        young=True,
    )
