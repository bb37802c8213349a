"""Generated hearts without specks."""

from __future__ import annotations

import numpy as np

from ..anatomy.components import small_spares
from ..labels import LabelTable

BELOW = 1e-3  # by how much a class that gives a voxel up stays under the next one, at least


def without_specks(logits: np.ndarray, table: LabelTable, share: float) -> np.ndarray:
    """``logits`` of a heart in which specks belong to what surrounds them.

    A speck is a part of a class that is one too many by the label table and holds less than
    ``share`` of the class; the largest parts are not. Its logit is mirrored at that of the next
    class, so surfaces between voxels are closed there, too.

    logits : (C, X, Y, Z) float, the background first. It is not changed.
    """
    result = logits.copy()
    for channel, usual in enumerate(table.usual_parts, start=1):
        mask = result.argmax(axis=0) == channel
        if (there := small_spares(mask, usual[-1], share)) is None:
            continue
        own = result[channel][there]
        others = np.delete(result, channel, axis=0)[:, there].max(axis=0)
        result[channel][there] = np.minimum(2 * others - own, others - BELOW)
    return result
