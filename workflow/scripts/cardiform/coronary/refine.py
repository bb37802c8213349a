"""Refined masks of thin structures: a trained field, read off where it matters, and mended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..anatomy.bridging import draw
from ..anatomy.components import without_small
from ..anatomy.repair import bridged, distance_to, without_fragments
from ..artefact.model import case_hash, load_model
from ..geometry.interpolation import trilinear
from ..geometry.isotropic import signed_distance, voxels_near
from ..options.coronary import (
    CoronaryOptions,
    CoronaryRefineOptions,
    CoronaryRepairOptions,
    NearOptions,
)
from ..sparse.tensor import SparseTensor, Structure
from .data import Cells, near_band, unit_points
from .model import (
    DENOISER,
    NEAR,
    CellField,
    NearAutoDecoder,
    NearDecoder,
    build_cell_field,
    even_resolution,
)
from .task import near_loss
from .thin_structure import ThinStructure

log = logging.getLogger(__name__)

POINTS_AT_A_TIME = 1 << 16
KEPT_REACH_VOX = 1  # around what was taken away: the field's wall lies outside of its voxels
LATENT_POINTS = 4096  # query points per latent step
NEAR_REACH_MM = 4.0
PRIOR = 1e-3  # weight of the latent's squared distance from where it started


@dataclass(frozen=True)
class CaseField:
    """A structure of one case as a function of place.

    distances : (P, 3) float32 voxels of the isotropic grid to (P,) float32 mm, negative inside.
    active : (X, Y, Z) bool: outside of these voxels there is nothing.
    thin : the label and its repair on that grid.
    """

    distances: Callable[[np.ndarray], np.ndarray]
    active: np.ndarray
    thin: ThinStructure

    @cached_property
    def mask(self) -> np.ndarray:
        """(X, Y, Z) bool on the isotropic grid itself."""
        voxels = np.argwhere(self.active)
        result = np.zeros(self.active.shape, bool)
        result[tuple(voxels.T)] = self.distances(voxels.astype(np.float32)) < 0
        return result

    def on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) voxels of another grid within the active region, and their distances in mm."""
        voxels, places = voxels_near(self.active, self.thin.affine, shape, affine)
        return voxels, self.distances(places)

    def mask_on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """(X, Y, Z) uint8, 1 inside."""
        voxels, distances = self.on_grid(shape, affine)
        result = np.zeros(shape, np.uint8)
        result[tuple(voxels[distances < 0].T)] = 1
        return result


class Refiner:
    """A preset of refinement with its trained network, ready for any case.

    Raises
    ------
    InputError
        The model file is of another preset.
    """

    def __init__(
        self,
        model: Path | None,
        options: CoronaryRefineOptions,
        repair_options: CoronaryRepairOptions,
        device: torch.device,
    ):
        self.options, self.repair_options, self.device = options, repair_options, device
        self.cases: list[str] = []  # hashes of those of the training
        if options.preset == "repair":
            return
        kind, section, cls = {
            "cardiform": (DENOISER, "coronary", CoronaryOptions),
            "near": (NEAR, "coronary_near", NearOptions),
        }[options.preset]
        stored = load_model(model, kind)
        self.trained = stored.section(section, cls)
        self.cases = stored.training_cases
        if options.preset == "cardiform":
            self.network: CellField | NearAutoDecoder = build_cell_field(self.trained)
        else:
            self.network = NearAutoDecoder(self.trained.latent_dim, len(self.cases))
        self.network.load_state_dict(stored.weights)
        self.network.to(device).eval().requires_grad_(False)

    def trained_on(self, case_id: str) -> bool:
        return case_hash(case_id) in self.cases

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        """The structure of a case as the preset sees it, before its topology is mended."""
        make = {"cardiform": self._cells, "near": self._near, "repair": self._repaired}
        return make[self.options.preset](case_id, thin)

    def refined(self, case_id: str, thin: ThinStructure) -> CaseField:
        """The field with its gaps bridged and its specks gone."""
        found = self.field(case_id, thin)
        if self.options.preset == "repair":
            return found
        return mended(found, self.repair_options)

    def _repaired(self, case_id: str, thin: ThinStructure) -> CaseField:
        limit = 4 * thin.spacing
        distance = signed_distance(thin.repaired, thin.spacing, limit)
        return CaseField(lambda points: trilinear(distance, points), distance < limit, thin)

    def _cells(self, case_id: str, thin: ThinStructure) -> CaseField:
        network = self.network
        assert isinstance(network, CellField)
        cells = Cells.of(thin.label, thin.repaired, thin.spacing, self.trained)
        active = np.zeros(thin.label.shape, bool)
        active[tuple(cells.coords.T)] = True
        coords = torch.from_numpy(cells.coords).to(self.device)
        structure = Structure.of_samples(
            [coords], even_resolution(torch.nn.functional.pad(coords, (1, 0)))
        )
        with torch.no_grad():
            tensor = SparseTensor(torch.from_numpy(cells.inputs).to(self.device), structure)
            latent = network.encode(tensor)
        if self.options.latent_steps:
            latent = self._fitted_cells(network, latent, thin, cells)
        truncation = self.trained.truncation_mm

        @torch.no_grad()
        def distances(points: np.ndarray) -> np.ndarray:
            parts = [np.zeros(0, np.float32)]
            for part in torch.from_numpy(points).split(POINTS_AT_A_TIME):
                places = torch.nn.functional.pad(part.to(self.device), (1, 0))
                parts.append(truncation * network.field(latent, places).cpu().numpy())
            return np.concatenate(parts)

        return CaseField(distances, active, thin)

    def _fitted_cells(
        self, network: CellField, latent: SparseTensor, thin: ThinStructure, cells: Cells
    ) -> SparseTensor:
        """Some gradient steps of the cells' features towards the repaired label."""
        truth = signed_distance(thin.repaired, thin.spacing, self.trained.truncation_mm)
        truth /= self.trained.truncation_mm
        rng = np.random.default_rng(0)

        def loss(feats: Tensor) -> Tensor:
            rows = rng.integers(len(cells.coords), size=LATENT_POINTS)
            points = cells.coords[rows] + rng.uniform(-0.5, 0.5, (LATENT_POINTS, 3))
            points = np.clip(points, 0, np.array(truth.shape) - 1).astype(np.float32)
            wanted = torch.from_numpy(trilinear(truth, points)).to(self.device)
            places = torch.nn.functional.pad(torch.from_numpy(points).to(self.device), (1, 0))
            return (network.field(latent.replace(feats), places) - wanted).square().mean()

        return latent.replace(self._descended(latent.feats, loss))

    def _near(self, case_id: str, thin: ThinStructure) -> CaseField:
        network = self.network
        assert isinstance(network, NearAutoDecoder)
        if self.trained_on(case_id):
            latent = network.latents.weight[self.cases.index(case_hash(case_id))].clone()
        else:
            latent = network.latents.weight.mean(dim=0)
            if self.options.latent_steps:
                latent = self._fitted_vector(network.decoder, latent, thin)
        with torch.no_grad():
            grids = network.decoder.grids(latent[None])

        @torch.no_grad()
        def distances(points: np.ndarray) -> np.ndarray:
            parts: list[np.ndarray] = [np.zeros(0, np.float32)]
            for part in torch.from_numpy(unit_points(points, thin.label.shape)).split(
                POINTS_AT_A_TIME
            ):
                logits = network.decoder.field(grids, part[None].to(self.device))
                # a logit has no unit; what counts is its sign
                parts.append(-logits[0].cpu().numpy() * thin.spacing)
            return np.concatenate(parts)

        # what it says far from the label is left out, in its favour and for the time it takes
        active = distance_to(thin.label, thin.spacing) <= NEAR_REACH_MM
        return CaseField(distances, active, thin)

    def _fitted_vector(self, decoder: NearDecoder, latent: Tensor, thin: ThinStructure) -> Tensor:
        """Some gradient steps of a new case's vector towards its label."""
        band = near_band(thin.label, self.trained.band_voxels)
        shape = np.array(thin.label.shape)
        rng = np.random.default_rng(0)

        def loss(vector: Tensor) -> Tensor:
            rows = band[rng.integers(len(band), size=LATENT_POINTS // 2)]
            points = np.concatenate(
                [
                    rows + rng.uniform(-0.5, 0.5, rows.shape),
                    rng.uniform(0, shape - 1, (LATENT_POINTS // 2, 3)),
                ]
            )
            points = np.clip(points, 0, shape - 1).astype(np.float32)
            wanted = trilinear(thin.label.astype(np.float32), points) > 0.5
            unit = unit_points(points, thin.label.shape)
            places = torch.from_numpy(unit)[None].to(self.device)
            logits = decoder.field(decoder.grids(vector[None]), places)
            occupied = torch.from_numpy(wanted.astype(np.float32))[None].to(self.device)
            return near_loss(logits, occupied, self.trained)

        return self._descended(latent, loss)

    def _descended(self, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """``latent_steps`` of Adam from ``start``; the network stays as it is."""
        moved = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=self.options.latent_lr)
        for _ in range(self.options.latent_steps):
            optimizer.zero_grad()
            (loss(moved) + PRIOR * (moved - start).square().mean()).backward()
            optimizer.step()
        return moved.detach()


def mended(field: CaseField, options: CoronaryRepairOptions) -> CaseField:
    """The field without specks and loose fragments, and with its gaps bridged.

    What is decided on the isotropic grid holds at every place and for every other grid.
    """
    thin = field.thin
    raw = field.mask
    dusted = without_small(raw, options.dust_mm3 / thin.spacing**3)
    whole, joints = bridged(dusted, thin.spacing, options)
    final = without_fragments(whole, thin.spacing, options, thin.supported)
    dropped = _grown(raw & ~final, KEPT_REACH_VOX) & ~_grown(final, KEPT_REACH_VOX)
    tubes = draw(np.zeros_like(raw), thin.spacing, joints) & final
    limit = 4 * thin.spacing
    bridges = signed_distance(tubes, thin.spacing, limit)

    def distances(points: np.ndarray) -> np.ndarray:
        found = field.distances(points)
        nearest = np.rint(points).astype(int)
        nearest = np.clip(nearest, 0, np.array(dropped.shape) - 1)
        found = np.where(dropped[tuple(nearest.T)], np.abs(found) + 1e-3, found)
        return np.minimum(found, trilinear(bridges, points)) if joints else found

    made = CaseField(distances, field.active | (bridges < limit), thin)
    made.__dict__["mask"] = final  # decided here: it need not be asked for voxel by voxel
    return made


def _grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    return signed_distance(mask, 1.0, voxels + 1.0) <= voxels
