"""The network that takes noise away from the channels of a vessel tree, given the heart."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...artefact.model import Kind, load_model
from ...cohort.table import Case
from ...errors import InputError, problem
from ...labels import LabelClass, LabelTable
from ...options.ldm import DiffusionOptions
from ...options.vessels import VesselOptions
from ..data import load_shape
from ..diffusion_model import Process, starting_noise, unet_of
from ..hearts_on_grid import Grid
from .field import CHANNELS, Box, Votes, decode, save_votes

VESSELS = Kind("ldm_vessels", "a diffusion of vessel trees", "train_vessels")
PLACE = 3  # channels that say where in the cube a voxel lies


def process_of(options: VesselOptions) -> Process:
    """Rectified flow, as of latents."""
    return Process(DiffusionOptions(objective="flow", time_sampling=options.time_sampling))


class VesselDenoiser(nn.Module):
    """A UNet over the voxels of the heart's own grid; it sees the heart's classes, and where it is.

    Where vessels run follows from the heart for the most part, but there is more than one way:
    side branches come and go. So it is a diffusion, not a regression, which would draw the mean.

    classes : of the grid; the vessels' own, should it be one of them, has no voxels.
    """

    def __init__(self, options: VesselOptions, classes: int):
        super().__init__()
        self.classes = classes
        self.unet = unet_of(options, CHANNELS + classes + PLACE, CHANNELS)

    def forward(self, noisy: Tensor, times: Tensor, heart: Tensor) -> Tensor:
        """(B, CHANNELS, X, Y, Z) prediction of the process's target.

        heart : (B, X, Y, Z) uint8 channels.
        """
        numbers = torch.arange(1, self.classes + 1, device=noisy.device).view(1, -1, 1, 1, 1)
        seen = (heart[:, None] == numbers).to(noisy.dtype)
        along = [
            torch.linspace(-1, 1, n, device=noisy.device, dtype=noisy.dtype)
            for n in noisy.shape[2:]
        ]
        place = torch.stack(torch.meshgrid(*along, indexing="ij"))
        place = place.expand(len(noisy), -1, -1, -1, -1)
        return self.unet(torch.cat([noisy, seen, place], dim=1), timesteps=times)


@dataclass(frozen=True)
class VesselGenerator:
    """Everything that the model.pt of train_vessels holds.

    structure : name of the class that the vessels are.    box : what the network looks at.
    """

    options: VesselOptions
    grid: Grid
    structure: str
    box: Box
    network: VesselDenoiser

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> VesselGenerator:
        """Raises InputError where the file is no model of train_vessels."""
        stored = load_model(path, VESSELS)
        options = stored.section("vessels", VesselOptions)
        grid = Grid.from_dict(stored.extra["grid"], path)
        box = Box.from_lists(stored.extra["box"])
        network = VesselDenoiser(options, grid.classes)
        stored.fill(network)
        network.to(device).eval().requires_grad_(False)
        return cls(options, grid, str(stored.extra["structure"]), box, network)

    def label_in(self, table: LabelTable, path: str | Path) -> LabelClass:
        """The class of the vessels in a label table.

        Raises
        ------
        InputError
            The table has none of this name, or it is not that of the hearts: another class of these
            would be taken for the vessels.
        """
        label = table[table.channel(self.structure)]
        for own in self.grid.table:
            if (own.value == label.value) != (own.name == label.name):
                fact = f"{label.name} has the value {label.value}; in the hearts of the model "
                fact += f"{own.value} is {own.name}"
                where = path or "--labels, by default that of STACOM-2025"
                raise InputError(problem(where, fact, "give the label table of its cohort"))
        return label

    def votes(self, heart: Tensor, name: str, *, seed: int, steps: int) -> Votes:
        """What one draw says of the vessels of a heart.

        heart : (S, S, S) uint8 channels, without the structure.
        name : of the heart; with the seed it decides the noise.
        """
        device = next(self.network.parameters()).device
        number = zlib.crc32(name.encode())
        noise = starting_noise((CHANNELS, *self.box.size), seed, [number]).to(device)
        given = heart[self.box.slices][None].to(device)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return self.network(noisy, times, given).float()

        field = process_of(self.options).sample(predict, noise, [0], "flow", steps)[0].cpu()
        return decode(field.numpy(), self.grid.size, self.grid.spacing, self.box)


def votes_case(
    case: Case, *, generator: VesselGenerator, seed: int, steps: int, out: Path
) -> list[Path]:
    """Write ``out/<case>.npz``: what one draw says of the vessels of the heart ``case.labels``."""
    grid = generator.grid
    heart = without(load_shape(case.labels, grid), grid, generator.structure)
    path = out / f"{case.case_id}.npz"
    save_votes(path, generator.votes(heart, case.case_id, seed=seed, steps=steps))
    return [path]


def without(heart: Tensor, grid: Grid, structure: str) -> Tensor:
    """A heart of the grid, the structure's own voxels taken for background."""
    if structure not in grid.table.names:
        return heart
    return torch.where(heart == grid.table.channel(structure) + 1, 0, heart)
