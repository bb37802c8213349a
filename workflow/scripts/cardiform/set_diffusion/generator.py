"""A trained set-latent diffusion: hearts from noise, with or without conditions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..artefact.model import load_model
from ..errors import InputError, problem
from ..labels import LabelTable
from ..ldm.diffusion_model import sample_seed, starting_noise
from ..ldm.hearts_on_grid import Grid
from ..options.set_diffusion import SetDiffusionOptions
from ..options.vecset import VecsetOptions, VecsetReconstructOptions
from ..vecset.model import VecSet
from ..vecset.reconstruct import Reconstructor
from .decoded import Decoded
from .encode import as_encoded, chosen
from .latents import FRAME, SetLatents, frame_of
from .model import (
    SET_DIFFUSION,
    SLOTS_PREFIX,
    STATISTICS_PREFIX,
    VECSET_PREFIX,
    SetDenoiser,
    parts_of,
    process_of,
    settled,
)
from .slots import Slots, load_slots
from .statistics import Asked, Statistics
from .task import network_of, noise_shape, starts_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What N hearts are to be.

    asked : (N, K) logarithms of class volumes (ml), and columns; NaN: anything.
    heart : (P,) row of the heart that known classes are taken from; None: none are.
    known : (C,) bool.
    """

    asked: Tensor
    heart: Tensor | None
    known: Tensor

    def of(self, rows: slice) -> Wanted:
        return Wanted(self.asked[rows], self.heart, self.known)


@dataclass(frozen=True)
class SetGenerator:
    """Everything that the model.pt of train_set_diffusion holds.

    strength : the share that is taken of what the network adds.
    """

    options: SetDiffusionOptions
    statistics: Statistics
    slots: Slots
    network: SetDenoiser
    decoder: Reconstructor
    grid: Grid
    columns: tuple[str, ...]
    strength: float

    @classmethod
    def load(cls, path: str | Path, device: torch.device, query_batch: int) -> SetGenerator:
        """Raises InputError where the file is no model of train_set_diffusion."""
        stored = load_model(path, SET_DIFFUSION)
        options = stored.section("set_diffusion", SetDiffusionOptions)
        training = stored.section("vecset", VecsetOptions)
        parts, table = parts_of(stored.weights), stored.table
        vecset = VecSet.from_options(training, len(table))
        stored.fill(vecset, parts[VECSET_PREFIX])
        held = parts[SLOTS_PREFIX]
        slots = Slots(held["places"].numpy(), held["channels"].numpy())
        statistics = Statistics.from_tensors(parts[STATISTICS_PREFIX])
        network = network_of(options, slots, statistics, len(table))
        stored.fill(network, parts[""])
        for part in (vecset, network):
            part.to(device).eval().requires_grad_(False)
        how = VecsetReconstructOptions(query_batch=query_batch)
        decoder = Reconstructor(vecset, table, training, how, device)
        grid = Grid.from_dict(stored.extra["grid"], path)
        columns = tuple(stored.extra["columns"])
        strength = float(stored.extra.get("strength", 1.0))
        made = statistics.to(device), slots, network, decoder, grid, columns, strength
        return cls(options, *made)

    def at(self, size: int) -> SetGenerator:
        """The same hearts in the same cube, on a grid of ``size`` voxels; 0: as it is."""
        return replace(self, grid=replace(self.grid, size=size)) if size else self

    @property
    def table(self) -> LabelTable:
        """The label table of the VecSet; that of the grid may lack classes."""
        return self.decoder.table

    def wanted(
        self,
        number: int,
        volumes: Mapping[str, float],
        columns: Mapping[str, float],
        known: Sequence[str] = (),
        heart: Path | None = None,
    ) -> Wanted:
        """``number`` hearts with class volumes in ml, values of columns, and known classes.

        heart : latents file of encode_set_latents, of the heart that these are taken from.

        Raises
        ------
        InputError
            The model was not trained on what is asked for: all that is wrong.
        """
        self._check(volumes, columns, known, heart)
        if known and not self.strength:
            log.warning(
                "the rest does not follow the known classes: of what the network adds 0.00 is taken"
            )
        asked = torch.full((number, len(self.table) + len(self.columns)), torch.nan)
        for name, value in volumes.items():
            asked[:, self.table.channel(name)] = float(np.log(value))
        for name, value in columns.items():
            asked[:, len(self.table) + self.columns.index(name)] = value
        seen = torch.tensor([name in known for name in self.table.names])
        return Wanted(asked, self._row(heart, known) if heart else None, seen)

    def _check(self, volumes, columns, known: Sequence[str], heart: Path | None) -> None:
        problems = []
        grid_lacks = [
            n for n in volumes if n in self.table.names and n not in self.grid.table.names
        ]
        problems += [f"set_sampling.volumes: the grid has no {name}" for name in grid_lacks]
        problems += [
            f"set_sampling.volumes: {name} is no class of the model ({', '.join(self.table.names)})"
            for name in volumes
            if name not in self.table.names
        ]
        if (volumes or columns) and not self.options.asked_share:
            remedy = "set set_diffusion.asked_share"
            problems.append(f"set_sampling: the model was not trained to be asked; {remedy}")
        problems += [
            f"set_sampling.columns: the model knows no column {name} (it knows "
            f"{', '.join(self.columns) or 'none'}); name it in set_latents.columns"
            for name in columns
            if name not in self.columns
        ]
        if known and not self.options.known_share:
            remedy = "set set_diffusion.known_share"
            problems.append(f"set_sampling.known: the model never saw parts of hearts; {remedy}")
        if bool(known) != (heart is not None):
            problems.append("set_sampling.known and --heart belong together; give both, or none")
        problems += [
            f"set_sampling.known: {name} is no class of the model"
            for name in known
            if name not in self.table.names
        ]
        problems += self._never_seen(volumes, columns, known)
        if problems:
            raise InputError(problems)

    def _never_seen(self, volumes, columns, known: Sequence[str]) -> list[str]:
        """Problems of what the model has a name for, but no training heart had."""
        counts = self.statistics.asked_count.tolist()
        classes = dict(zip(self.table.names, counts))
        numbers = dict(zip(self.columns, counts[len(self.table) :]))
        slots = {self.table.names[channel] for channel in self.slots.channels.tolist()}
        return [
            *(
                f"set_sampling.volumes: no training heart has a volume of {name}; leave it out"
                for name in volumes
                if name in self.grid.table.names and not classes.get(name, 1)
            ),
            *(
                f"set_sampling.columns: no training heart has a number in {name}; leave it out"
                for name in columns
                if not numbers.get(name, 1)
            ),
            *(
                f"set_sampling.known: no training heart has {name}; leave it out"
                for name in known
                if name in classes and name not in slots
            ),
        ]

    def _row(self, path: Path, known: Sequence[str]) -> Tensor:
        heart = SetLatents.load(path)
        if heart.latents.shape != self.statistics.shape:
            fact = f"has latents {heart.latents.shape}, the model {self.statistics.shape}"
            raise InputError(problem(path, fact, "give latents of the VecSet of the model"))
        there = {name for name, own in zip(self.table.names, heart.present) if own}
        if lacking := [name for name in known if name not in there]:
            fact = f"is of a heart without {', '.join(lacking)}, which set_sampling.known names"
            raise InputError(problem(path, fact, "name other classes, or another heart"))
        beside = path.parent / "slots.npz"
        if beside.is_file() and not np.array_equal(load_slots(beside)[0].places, self.slots.places):
            fact = f"is in other slots than the model's hearts ({beside.name} beside it)"
            raise InputError(problem(path, fact, "give latents that the model was trained beside"))
        device = self.statistics.mean.device
        latents = torch.from_numpy(heart.latents)[None].to(device)
        frame = torch.from_numpy(heart.frame)[None].float().to(device)
        return self.statistics.rows(latents, frame)[0]

    @torch.no_grad()
    def rows(
        self, numbers: Sequence[int], wanted: Wanted, *, seed: int, steps: int, guidance: float
    ) -> Tensor:
        """(N, P) rows of the hearts ``numbers``, each decided by the seed and its number.

        wanted : of these hearts.
        """
        statistics, device = self.statistics, self.decoder.device
        shape = noise_shape(self.options, statistics, 1)[1:]
        noise = starting_noise(shape, seed, numbers).to(device)
        asked = statistics.scores(wanted.asked.to(device))
        begun, middle = starts_of(self.options, statistics, noise, asked)
        size = len(begun)
        heart = torch.zeros_like(begun) if wanted.heart is None else wanted.heart.expand_as(begun)
        known = wanted.known.to(device).expand(size, -1)
        nothing = Asked.nothing(size, asked.values.shape[1], device)
        conditions = [(asked, known)]
        if guidance != 1 and bool(asked.given.any() or known.any()):
            conditions.append((nothing, torch.zeros_like(known)))
        process = process_of(self.options)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            at, flat = times / process.times, noisy.flatten(1)
            found = [self.network(flat, at, a, heart, k).float() for a, k in conditions]
            more = found[0]
            if len(found) > 1:
                more = found[1] + guidance * (found[0] - found[1])
            return (settled(at, middle, flat) + self.strength * more)[..., None, None, None]

        seeds = [sample_seed(seed, number) for number in numbers]
        made = process.sample(predict, begun[..., None, None, None], seeds, "flow", steps)
        return self._with_known(made.flatten(1), heart, wanted.known.to(device))

    def _with_known(self, rows: Tensor, heart: Tensor, known: Tensor) -> Tensor:
        """Known classes as they are given, in the place and size of their heart."""
        channels = torch.from_numpy(self.slots.channels).long().to(rows.device)
        width = self.statistics.shape[1]
        kept = torch.cat([known[channels].repeat_interleave(width), known.any().expand(FRAME)])
        return torch.where(kept, heart, rows)

    def hearts(self, rows: Tensor) -> tuple[Tensor, np.ndarray]:
        """(N, M, W) latents that the VecSet's bottleneck could have made, and (N, 4) frames."""
        latents, frames = self.statistics.hearts(rows)
        return as_encoded(latents, self.decoder).cpu(), frames.double().cpu().numpy()

    def decode(self, latents: Tensor, frame: np.ndarray, speck_share: float = 0.0) -> Decoded:
        """(M, W) latents and the (4,) frame of a heart to the heart in the cube, of the classes of
        the grid, without specks (see :meth:`Decoded.of`)."""
        field = self.decoder.field(latents[None].to(self.decoder.device))
        own = chosen(field, self.table, self.grid.table)
        cube, to_unit = self.grid.cube(np.zeros(3)), frame_of(frame).to_unit
        return Decoded.of(own, cube, self.grid.table, to_unit, speck_share)
