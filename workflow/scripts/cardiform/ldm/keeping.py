"""An autoencoder whose reconstructions keep the volumes of the classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..options.ldm import AutoencoderOptions
from ..training.distributed import choose_device
from .bonus import bonuses
from .coder import ShapeCoder
from .data import load_shape
from .hearts_on_grid import Grid

log = logging.getLogger(__name__)

HEARTS = 64  # that are looked at, at most
MOST_VOXELS = 1 << 21  # of them all: a random share of the voxels that could change their class
DECIMALS = 2  # of what is added: the same on every device
LIMIT = 1.0  # of what is added to a logit


def keeping_volumes(
    weights: dict[str, Tensor], options: AutoencoderOptions, grid: Grid, hearts: Sequence[Path]
) -> dict[str, Tensor]:
    """``weights`` with other biases of the last convolution: over the hearts together each class
    has the volume that it should have.

    Soft Dice makes thin classes thicker, and a generator makes what the decoder makes. A field
    without classes stays as it is.

    hearts : label maps on the grid, of training cases.
    """
    if not grid.has_classes or not hearts:
        return weights
    coder = ShapeCoder(options, grid, weights).to(choose_device(options.device))
    rng = np.random.default_rng(0)
    chosen = hearts[:: -(-len(hearts) // HEARTS)]
    share = min(1.0, MOST_VOXELS / (len(chosen) * grid.size**3))
    open_rows, wanted = [], np.zeros(grid.classes + 1)
    for path in chosen:
        target = load_shape(path, grid)
        mu, _ = coder.encode(target[None])
        logits = coder.decode(mu)[0].flatten(1).T.numpy()
        best, won = np.partition(logits, -2, axis=1)[:, -2:], logits.argmax(axis=1)
        is_open = best[:, 1] - best[:, 0] < 2 * LIMIT  # others keep their class whatever is added
        wanted += np.bincount(target.flatten().numpy(), minlength=len(wanted))
        wanted -= np.bincount(won[~is_open], minlength=len(wanted))
        open_rows.append(logits[is_open & (rng.random(len(won)) < share)])
    rows = np.concatenate(open_rows)
    del open_rows
    bonus = bonuses(rows, share * wanted, LIMIT).round(DECIMALS)
    texts = (f"{n} {b:+.2f}" for n, b in zip(grid.table.names, bonus[1:]))
    log.info("so that reconstructions keep the volumes, added to the logits: %s", ", ".join(texts))
    coder.model.last_bias.add_(torch.from_numpy(bonus).to(coder.model.last_bias))
    return {name: value.to(weights[name]) for name, value in coder.model.state_dict().items()}
