"""Hearts with their vessel trees as training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ...cohort.manifest import MadeFile
from ...options.vessels import VesselOptions
from ...training.shared import each_of_all
from ..data import kept_of, labelled, load_shape, move_matrix, moved_by, random_move
from ..hearts_on_grid import Grid
from .field import Box, encode
from .model import without
from .tree import VesselTree, load_tree


class VesselBatch(TypedDict):
    """B items of :class:`VesselDataset`."""

    case_id: list[str]
    heart: Tensor  # (B, X, Y, Z) uint8 channels
    field: Tensor  # (B, CHANNELS, X, Y, Z) float32


class VesselDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: a heart and the channels of its tree, moved together.

    trees : of encode_vessels.    hearts : case id -> its label map on the grid.
    made : case id -> what the autoencoder makes of the heart; every second draw has that in place
        of the heart, as generated hearts look like it.
    box : the part of the cube that a sample shows.    varied : False: hearts as they are.
    """

    def __init__(
        self,
        trees: Sequence[MadeFile],
        hearts: Mapping[str, Path],
        grid: Grid,
        options: VesselOptions,
        *,
        structure: str,
        box: Box,
        varied: bool,
        made: Mapping[str, Path] | None = None,
    ):
        self.files, self.hearts, self.made = list(trees), hearts, made or {}
        self.grid, self.options, self.structure = grid, options, structure
        self.box, self.varied = box, varied
        self.cases = each_of_all(self._load, kept_of(self.files, options.cache_rate))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        cached = index < len(self.cases)
        tree, shapes = self.cases[index] if cached else self._load(self.files[index])
        heart = shapes[0]
        if self.varied:
            rng = np.random.default_rng((self.options.seed, draw))
            heart = shapes[int(rng.integers(len(shapes)))]
            move = random_move(self.options, rng)
            # every second heart is as sharp as it was
            blur = float(rng.uniform(-1, 1)) * self.options.blur_vox
            heart = smoother(moved_by(heart, move), blur)
            tree = moved_tree(tree, move, self.grid.edge_mm)
        field = torch.from_numpy(encode(tree, self.grid.size, self.grid.spacing, self.box))
        heart = heart[self.box.slices].contiguous()
        return {"case_id": self.files[index].case_id, "heart": heart, "field": field}

    def _load(self, file: MadeFile) -> tuple[VesselTree, list[Tensor]]:
        paths = [self.hearts[file.case_id]]
        if self.varied and file.case_id in self.made:
            paths.append(self.made[file.case_id])
        shapes = [without(load_shape(p, self.grid), self.grid, self.structure) for p in paths]
        return load_tree(file.path).tree, shapes


def moved_tree(tree: VesselTree, move: np.ndarray, edge_mm: float) -> VesselTree:
    """A tree under the move of a heart (see :func:`cardiform.ldm.data.moved_by`)."""
    matrix = move_matrix(move)
    # torch's coordinates lead from the moved heart to where it was, the last axis first, in halves
    # of the edge
    back = np.linalg.inv(matrix[:, :3])[::-1, ::-1]
    shift = matrix[::-1, 3] * edge_mm / 2
    return tree.moved(back, -back @ shift)


def smoother(heart: Tensor, sigma: float) -> Tensor:
    """A heart blurred as networks do, each class with the volume that it had.

    heart : (S, S, S) uint8 channels.    sigma : of the Gaussian, voxels.
    """
    number = int(heart.max())
    if sigma < 0.1 or not number:
        return heart
    shares = F.one_hot(heart.long(), number + 1).movedim(-1, 0)[1:].float().numpy()
    for share in shares:
        gaussian_filter(share, sigma, output=share, truncate=3.0)
    return labelled(torch.from_numpy(shares))
