"""The level at which a trained field is cut, chosen on noise that its training never saw.

Where a network doubts it predicts a mean of distances, and vessels come out too thin. How much it
doubts depends on the noise: the level is chosen on validation patches with other kinds of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..artefact.model import MODEL, Model
from ..cohort.manifest import MadeFile
from ..errors import InputError, problem
from ..options.coronary import CoronaryOptions, CoronaryRepairOptions
from ..sparse.tensor import SparseTensor
from .data import PatchBatch, PatchDataset, collate_patches
from .model import CellField, structure_of

log = logging.getLogger(__name__)
LEVEL = "level_mm"  # key of model.pt, under extra; files without it are cut at 0
LEVELS_MM = (-0.1, 0.0, 0.1, 0.2, 0.3)
# A label that is too wide or too thin everywhere does not show it: no level is learned from that.
UNSEEN = ("missing_ends", "slabs", "coarse")
PATCHES = 8  # of each validation case and kind
# A level other than 0 has to be better by this: it moves the wall of every vessel, and differences
# of Dice below it are chance.
GAIN = 0.005


def chosen_level(
    network: CellField,
    files: Iterable[MadeFile],
    repair: CoronaryRepairOptions,
    options: CoronaryOptions,
) -> dict[str, Any]:
    """What model.pt holds of it: the level with the best mean Dice over the kinds, mm.

    Of several that are as good, within GAIN, that nearest to 0; 0 without validation cases.

    files : the repaired structures of the validation cases.
    """
    files = list(files)
    kinds = [kind for kind in UNSEEN if kind not in options.kinds] or list(options.kinds)
    scores = np.array([_dice_at(network, files, repair, options, kind) for kind in kinds])
    if not files or not np.isfinite(scores).all():
        return {LEVEL: 0.0}
    mean = scores.mean(axis=0)
    as_good = [k for k in range(len(LEVELS_MM)) if mean[k] >= mean.max() - GAIN]
    best = LEVELS_MM[min(as_good, key=lambda k: (abs(LEVELS_MM[k]), -mean[k]))]
    text = ", ".join(f"{level:+.1f} mm {value:.3f}" for level, value in zip(LEVELS_MM, mean))
    log.info("level on noise of other kinds (%s): %s; %+.1f mm", ", ".join(kinds), text, best)
    return {LEVEL: best}


def level_of(stored: Model) -> float:
    """The level of a model.pt, mm.

    Raises
    ------
    InputError
        It is no finite number.
    """
    level = stored.extra.get(LEVEL, 0.0)
    if isinstance(level, bool) or not isinstance(level, int | float) or not math.isfinite(level):
        fact = f"has {LEVEL} {str(level)[:24]!r}, not a number"
        raise InputError(problem(stored.path, fact, MODEL.remedy))
    return float(level)


@torch.no_grad()
def _dice_at(network, files, repair, options, kind: str) -> list[float]:
    """Dice of the query points at each level, of patches with one kind of noise."""
    if not files:
        return [math.nan] * len(LEVELS_MM)
    noisy = replace(options, kinds=(kind,))
    patches = PatchDataset(files, repair, noisy, patches=PATCHES, augment=False)
    hits, sizes = np.zeros(len(LEVELS_MM)), np.zeros(len(LEVELS_MM))
    device = next(network.parameters()).device
    for row in range(len(patches)):
        batch: PatchBatch = collate_patches([patches[row, row]])
        if not len(batch["coords"]) or not len(batch["points"]):
            continue
        latent = network.encode(SparseTensor(batch["inputs"].to(device), structure_of(batch)))
        found = network.field(latent, batch["points"].to(device)).cpu().numpy()
        inside = batch["values"].numpy() < 0
        for number, level in enumerate(LEVELS_MM):
            guess = found * options.truncation_mm < level
            hits[number] += 2 * (guess & inside).sum()
            sizes[number] += guess.sum() + inside.sum()
    return list(np.where(sizes > 0, hits / np.maximum(sizes, 1), np.nan))
