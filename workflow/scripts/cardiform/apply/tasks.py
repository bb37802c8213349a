"""What can be done with the models of a folder, and why something cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..artefact.model import Model
from ..errors import InputError, problem
from ..options.apply import TASKS
from .models import Models

NEEDS = {
    "reconstruct": ("vecset", "vqvae"),
    "encode": ("vecset", "vqvae", "coder"),
    "refine": ("refiner",),
    "complete": ("diffusion",),
    "fuse": ("refiner",),
}
# Where each family's file would be; of several the first is trained first.
PLACES = {
    "vecset": "vecset",
    "vqvae": "vqvae/stage2",
    "coder": "ldm/labels/autoencoder",
    "diffusion": "ldm/labels/diffusion",
    "refiner": "coronary/cardiform",
}


def families_of(models: Models) -> dict[str, Path]:
    """Family of ``NEEDS`` -> model file of a folder."""
    own = {
        "vecset": models.vecset,
        "vqvae": models.vqvae,
        "coder": models.coder,
        "diffusion": models.diffusion,
        "refiner": next(iter(models.refiners.values()), None),
    }
    return {name: path for name, path in own.items() if path is not None}


def usable(folders: Sequence[Models]) -> list[str]:
    """The families that every folder has."""
    common = set.intersection(*(set(families_of(models)) for models in folders))
    return [name for name in PLACES if name in common]


def left_out(folders: Sequence[Models], stored: Sequence[Mapping[str, Model]]) -> dict[str, str]:
    """Task -> why the models cannot do it, as a problem line; the others they can.

    stored : the content of the files of each folder.
    """
    reasons = {}
    have = usable(folders)
    for task in TASKS:
        if set(NEEDS[task]) & set(have):
            continue
        lacking = next(m for m in folders if not set(NEEDS[task]) & set(families_of(m)))
        wanted = " or ".join(PLACES[name] for name in NEEDS[task])
        fact = f"has no model for the task {task} (looked in {wanted})"
        reasons[task] = problem(lacking.folder, fact, "train it, or leave the task out")
    for found in stored:
        if "complete" not in reasons and "diffusion" in found:
            options = found["diffusion"].options.get("diffusion", {})
            if not options.get("known_share"):
                remedy = "train it with diffusion.known_share above 0, or leave the task out"
                fact = "was not trained to complete"
                reasons["complete"] = problem(found["diffusion"].path, fact, remedy)
    return reasons


def choose(wanted: Sequence[str], reasons: Mapping[str, str]) -> tuple[str, ...]:
    """The tasks that are asked for, or else all that are possible, in order.

    Raises
    ------
    InputError
        Why a task that is asked for cannot be done, or none can.
    """
    if problems := [reasons[task] for task in dict.fromkeys(wanted) if task in reasons]:
        raise InputError(problems)
    chosen = tuple(t for t in TASKS if (t in wanted if wanted else t not in reasons))
    if not chosen:
        raise InputError(reasons.values())
    return chosen
