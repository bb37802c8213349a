"""Missing structures from known ones, by the diffusion that was trained on both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..cohort.table import Case
from ..completion.figures import MadeAgain
from ..errors import InputError, problem
from ..geometry.field_of_view import cut_names, cuts_of
from ..geometry.grids import covered
from ..labels import LabelTable
from ..options.ldm import CompletionOptions, SamplingOptions
from ..volumes import LabelMap
from .cube import Cube, class_centroids, on_cube
from .data import load_shape, to_channels
from .diffusion_model import Condition
from .generator import ShapeGenerator
from .option_checks import chosen_sampler

log = logging.getLogger(__name__)

BETWEEN = 3  # places along the edge of a voxel at which a mean shape is looked at
UNEQUAL = 0.02  # by how much of its weight the first heart of a mean shape exceeds the last


class Completer:
    """Makes missing classes of label maps.

    Raises
    ------
    InputError
        The model was not trained to complete.
    """

    def __init__(self, path: str | Path, options: CompletionOptions, device: torch.device):
        self.generator = ShapeGenerator.load(path, device)
        self.options = options
        if not self.generator.network.completes:
            remedy = "train it with diffusion.known_share above 0, on label maps"
            raise InputError(problem(path, "was not trained to complete", remedy))
        sampling = SamplingOptions(num_inference_steps=options.num_inference_steps)
        self.sampler = chosen_sampler(sampling, self.generator.options, "completion")

    @property
    def table(self) -> LabelTable:
        return self.generator.grid.table

    def place(self, label_map: LabelMap, known: Sequence[str], case: Case | None = None) -> Cube:
        """The cube about a heart of which some classes are known.

        Its middle follows from the classes' own middles and where these lie in the training
        hearts: the box of the whole heart, which places those, is not known. Classes that the
        border of the volume cuts count where there are no others: their middles are elsewhere.

        case : whose table may list more cut classes, or say that none is.
        """
        values = {c.name: c.value for c in self.table if c.name in known}
        found = class_centroids(label_map, values)
        usual = self.generator.statistics.centroids
        shifts = {n: middle - np.array(usual[n]) for n, middle in found.items() if n in usual}
        cut = cut_names(cuts_of(label_map, self.table, case), self.table)
        whole = [shift for n, shift in shifts.items() if n not in cut]
        if not shifts:
            raise InputError("a label map without any known class cannot be completed")
        return self.generator.grid.cube(np.mean(whole or [*shifts.values()], axis=0))

    def complete(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], case: Case | None = None
    ) -> list[np.ndarray]:
        """For each request, a list of class names: the label map with those classes made again.

        They are made from all others and fill background alone.

        case : as of :meth:`place`.
        """
        cubes = self.places(label_map, requests, case)
        shares = self.shares(label_map, requests, cubes)
        return [
            self.filled(label_map, missing, cube, share.mean(dim=0).numpy())
            for missing, cube, share in zip(requests, cubes, shares)
        ]

    def places(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], case: Case | None = None
    ) -> list[Cube]:
        """For each request the cube by all other classes."""
        known = ([n for n in self.table.names if n not in missing] for missing in requests)
        return [self.place(label_map, names, case) for names in known]

    def shares(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], cubes: Sequence[Cube]
    ) -> list[Tensor]:
        """For each request and its cube: (draws, classes + 1, S, S, S) probabilities on it."""
        grid = self.generator.grid
        targets, known = [], []
        for missing, cube in zip(requests, cubes):
            given = [n for n in self.table.names if n not in missing]
            values = [c.value for c in self.table if c.name in given]
            channels = to_channels(on_cube(label_map, cube, values), grid)
            there = [bool((channels == k).any()) for k in range(1, len(self.table) + 1)]
            targets.append(torch.from_numpy(channels))
            known.append([n in given and t for n, t in zip(self.table.names, there)])
        return self._shares(torch.stack(targets), torch.tensor(known))

    def filled(self, label_map: LabelMap, missing, cube: Cube, share: np.ndarray) -> np.ndarray:
        """The label map with the classes ``missing`` of ``share``, in the place of background."""
        emptied = label_map.data.copy()
        wanted = np.array([self.table.channel(n) + 1 for n in missing])
        values = np.array([self.table[k - 1].value for k in wanted], np.uint8)
        emptied[np.isin(emptied, values)] = 0
        likely = np.isin(share.argmax(axis=0), wanted)
        box = _box_on(label_map, cube, likely)
        if box is None:
            return emptied
        at = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"))
        to_cube = np.linalg.inv(cube.affine) @ label_map.affine
        at = np.einsum("ij,jxyz->ixyz", to_cube[:3, :3], at) + to_cube[:3, 3, None, None, None]
        best = np.zeros(at.shape[1:], np.float32)
        chosen = np.zeros(at.shape[1:], np.int64)
        for channel, values_of in enumerate(share):
            found = ndimage.map_coordinates(values_of, at, order=1, mode="nearest")
            better = found > best
            best[better], chosen[better] = found[better], channel
        lookup = np.zeros(len(share), np.uint8)
        lookup[wanted] = values
        new = lookup[chosen]
        part = emptied[box]
        emptied[box] = np.where(part == 0, new, part)
        return emptied

    def _shares(self, targets: Tensor, known: Tensor) -> list[Tensor]:
        """(draws, classes + 1, S, S, S) probabilities of each request."""
        draws, requests = self.options.draws, len(targets)
        volumes = torch.zeros(known.shape)
        condition = Condition(
            targets.repeat_interleave(draws, 0),
            known.repeat_interleave(draws, 0),
            volumes.repeat_interleave(draws, 0),
            torch.zeros_like(known).repeat_interleave(draws, 0),
        )
        latents = self.generator.latents(
            [d for _ in range(requests) for d in range(draws)],
            condition,
            seed=self.options.seed,
            sampler=self.sampler,
            steps=self.options.num_inference_steps,
        )
        return [self.generator.decode(part).softmax(dim=1) for part in latents.split(draws)]


@dataclass(frozen=True)
class ClassFrequencies:
    """The mean shape, a baseline: how often training hearts have a class at a voxel of the cube.

    share : (classes, S, S, S) float32, scaled so that 0.5 encloses the mean volume.
    """

    share: np.ndarray

    @classmethod
    def of(
        cls,
        files: Sequence[Path],
        completer: Completer,
        cut: Sequence[np.ndarray | None] | None = None,
    ) -> ClassFrequencies:
        """cut : per file (classes,) bool, the classes that the scan cuts: they have no part."""
        grid = completer.generator.grid
        hearts = np.stack([load_shape(path, grid).numpy() for path in files])
        parts = []
        for channel in range(1, len(grid.table) + 1):
            mask = hearts == channel
            mask[[c is not None and c[channel - 1] for c in cut or [None] * len(hearts)]] = False
            # hearts weigh a little unequally: of two, not all that either has is at one level
            weights = 1 + UNEQUAL * np.arange(len(mask))[::-1] / len(mask)
            weighted = (np.float32(w) * m for w, m in zip(weights / weights.sum(), mask))
            frequency = sum(weighted, np.zeros(mask.shape[1:], np.float32))
            voxels = mask.sum() / max(mask.any(axis=(1, 2, 3)).sum(), 1)
            parts.append(frequency * 0.5 / max(_level(frequency, float(voxels)), 1e-6))
        return cls(np.stack(parts))

    def complete(
        self, completer: Completer, label_map: LabelMap, name: str, cube: Cube
    ) -> np.ndarray:
        """The label map with the class ``name`` of the mean shape, which lies on a cube."""
        channel = completer.table.channel(name) + 1
        share = np.zeros((len(completer.table) + 1, *self.share.shape[1:]), np.float32)
        # voxels at the very level belong to the shape: frequencies of few hearts are steps
        share[0], share[channel] = 0.4999, self.share[channel - 1]
        return completer.filled(label_map, [name], cube, share)


def _level(field: np.ndarray, voxels: float) -> float:
    """The value that encloses a volume, where :meth:`Completer.filled` draws it: between voxels. By
    the values at their middles a shape of few hearts, whose field has steps, would end there.

    field : (S, S, S), at least 0.    voxels : the volume.
    """
    there = np.argwhere(field)
    if not len(there):
        return 0.0
    ends = zip(np.maximum(there.min(axis=0) - 1, 0), there.max(axis=0) + 2)
    box = field[tuple(slice(low, high) for low, high in ends)]
    fine = ndimage.zoom(box, BETWEEN, order=1, mode="nearest", grid_mode=True).ravel()
    number = min(max(round(voxels * BETWEEN**3), 1), len(fine))
    return float(np.partition(fine, -number)[-number])


def evaluate_case(
    case: Case, *, completer: Completer, mean_shape: ClassFrequencies, out: Path
) -> list[Path]:
    """Drop every class of a case in turn, make it from the others, and measure.

    Writes the files of :meth:`cardiform.completion.figures.MadeAgain.write`; the figures are those
    of the mean of the draws, and of each of several.
    """
    made = MadeAgain(case, completer.table)
    requests = made.requests
    cubes = completer.places(made.label_map, requests, case)
    shares = completer.shares(made.label_map, requests, cubes) if requests else []
    for [name], cube, share in zip(requests, cubes, shares):
        whole, *draws = (
            completer.filled(made.label_map, [name], cube, part.numpy())
            for part in (share.mean(dim=0), *(share if len(share) > 1 else ()))
        )
        made.add(name, whole, mean_shape.complete(completer, made.label_map, name, cube), draws)
    return made.write(out)


def _box_on(label_map: LabelMap, cube: Cube, mask: np.ndarray) -> tuple[slice, ...] | None:
    """The box on the label map's grid that holds the voxels of ``mask`` on the cube."""
    index = np.argwhere(mask)
    if not len(index):
        return None
    to_map = np.linalg.inv(label_map.affine) @ cube.affine
    box = covered(index.min(axis=0) - 1, index.max(axis=0) + 1, to_map, label_map.data.shape)
    return box if all(s.start < s.stop for s in box) else None
