"""Latents of hearts as training samples, all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from .latents import SetLatents
from .statistics import Statistics, asked_of


class SetBatch(TypedDict):
    """B items of :class:`SetDataset`."""

    case_id: list[str]
    heart: Tensor  # (B, P) float32, a row of the statistics
    asked: Tensor  # (B, K) float32: logarithms of the volumes, and the columns; NaN: not known


class SetDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: a heart as it is. None is moved: what is moved would be learned."""

    def __init__(self, names: Sequence[str], hearts: Sequence[SetLatents], statistics: Statistics):
        self.names = list(names)
        self.asked = [torch.from_numpy(asked_of(heart)).float() for heart in hearts]
        self.rows = torch.zeros(0)
        if hearts:
            latents = torch.from_numpy(np.stack([heart.latents for heart in hearts]))
            frames = torch.from_numpy(np.stack([heart.frame for heart in hearts]))
            self.rows = statistics.rows(latents, frames.float())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, _ = key
        return {
            "case_id": self.names[index],
            "heart": self.rows[index],
            "asked": self.asked[index],
        }
