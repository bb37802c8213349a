"""Options of the search for the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from .field import SEED_MAX, option

# Training that can be searched -> the sections whose keys its trials may set, its own first. A
# stage that starts from trained weights cannot change the network.
SEARCHED: dict[str, tuple[str, ...]] = {
    "vecset": ("vecset",),
    "vqvae_pretrain": ("vqvae_pretrain", "vqvae"),
    "vqvae_codebook": ("vqvae_codebook",),
    "vqvae_joint": ("vqvae_joint",),
    "coronary": ("coronary",),
    "coronary_near": ("coronary_near",),
    "autoencoder": ("autoencoder",),
    "diffusion": ("diffusion",),
    "vessels": ("vessels",),
}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search for the settings of a training by validation figures (see docs/search.md)."""

    training: str = option(
        "", "section of the training that is searched; empty: none", choices=("", *SEARCHED)
    )
    space: tuple[str, ...] = option(
        (), "what is searched: key=low..high, key=low..high/log, or key=one|two|three"
    )
    trials: int = option(
        20, "settings that are tried; the first is the config as it is", minimum=2, maximum=10_000
    )
    rungs: tuple[int, ...] = option(
        (1_000, 3_000, 9_000),
        "steps at the end of each rung; the learning rate follows the schedule of the last one",
        minimum=1,
    )
    reduction: int = option(3, "of so many trials of a rung one is in the next", minimum=2)
    figure: str = option("loss", "validation figure in metrics.json that ranks the trials")
    goal: str = option("lowest", "which value of it is best", choices=("lowest", "highest"))
    sampler: str = option(
        "qmc",
        "where the settings come from: a Sobol sequence, chance, or TPE, which learns from earlier "
        "rounds",
        choices=("qmc", "random", "tpe"),
    )
    rounds: int = option(
        1,
        "tpe: the trials come in so many rounds, each after the first rung of those before",
        minimum=1,
    )
    seed: int = option(0, "seed of the settings", minimum=0, maximum=SEED_MAX)
