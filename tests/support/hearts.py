"""Tiny hearts on a coarse grid: boxes in place of chambers."""

from __future__ import annotations

import numpy as np
import torch

from cardiform.labels import LabelTable
from cardiform.ldm.hearts_on_grid import FIELD, INSIDE, LABELS, Grid

TABLE = LabelTable(LabelTable().classes[:3])
GRID = Grid(LABELS, 8, 80.0, TABLE)
FIELD_GRID = Grid(FIELD, 8, 80.0, INSIDE)


def heart(shift: int = 0) -> np.ndarray:
    """(8, 8, 8) uint8: class 1 around class 2, class 3 beside them."""
    data = np.zeros((8, 8, 8), np.uint8)
    data[1:5, 1:5, 1 + shift : 5 + shift] = 1
    data[2:4, 2:4, 2 + shift : 4 + shift] = 2
    data[5:7, 2:4, 2 + shift : 4 + shift] = 3
    return data


def batch(number: int = 2) -> dict:
    """A collated batch of the autoencoder."""
    hearts = [torch.from_numpy(heart(k % 3)) for k in range(number)]
    return {"target": torch.stack(hearts), "case_id": [f"case{k}" for k in range(number)]}
