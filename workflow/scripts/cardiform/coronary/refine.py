"""Refined masks of thin structures: a field per preset, read off where it matters, repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..anatomy.bridging import draw
from ..anatomy.components import without_small
from ..anatomy.repair import bridged, trees_apart, without_fragments
from ..artefact.model import Model, case_hash, load_model
from ..errors import InputError, problem
from ..geometry.distances import distance_to, signed_distance
from ..geometry.interpolation import trilinear
from ..options.coronary import (
    CoronaryOptions,
    CoronaryRefineOptions,
    CoronaryRepairOptions,
    NearOptions,
)
from ..sparse.tensor import SparseTensor, Structure
from .data import Cells, unit_points, wall_band
from .field import REACH_VOX, CaseField, repaired_field
from .level import level_of
from .model import DENOISER, NEAR, CellField, NearAutoDecoder, build_cell_field, even_resolution
from .task import near_loss
from .thin_structure import STRUCTURE, ThinStructure, check_structure, same_spacing

POINTS_AT_A_TIME = 1 << 16
KEPT_REACH_VOX = 1  # around what was taken away: the field's wall lies outside of its voxels
LATENT_POINTS = 4096  # query points per latent step
NEAR_REACH_MM = 4.0
PRIOR = 1e-3  # weight of the latent's squared distance from where it started

Network = TypeVar("Network", bound=torch.nn.Module)


class Refiner(Protocol):
    """A preset of refinement, ready for any case (:func:`load_refiner`).

    cases : hashes of those that its network was trained on, in the order of the training.
    trained_mm : edge of the grid that its network was trained on; None: any grid will do, or an
        early model does not say.
    """

    options: CoronaryRefineOptions
    repair_options: CoronaryRepairOptions
    cases: Sequence[str]
    trained_mm: float | None = None

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        """The structure of a case as the preset sees it, its topology as it is."""

    def refined(self, case_id: str, thin: ThinStructure) -> CaseField:
        """The field without gaps and specks: what is written."""
        return mended(self.field(case_id, thin), self.repair_options)

    def check(self, thin: ThinStructure, path: Path) -> None:
        """InputError where a case's file is of another class than is refined, or lies on another
        grid than the network was trained on.

        path : of the file.
        """
        check_structure(path, thin.structure, self.repair_options.structure)
        if self.trained_mm is not None and not same_spacing(thin.spacing, self.trained_mm):
            fact = f"lies on a grid of {thin.spacing:g} mm, the model was trained on one of"
            remedy = f"repair into a new folder with spacing_mm {self.trained_mm:g}, or train again"
            raise InputError(problem(path, f"{fact} {self.trained_mm:g} mm", remedy))

    def trained_on(self, case_id: str) -> bool:
        return case_hash(case_id) in self.cases


def load_refiner(
    model: Path | None,
    options: CoronaryRefineOptions,
    repair_options: CoronaryRepairOptions,
    device: torch.device,
) -> Refiner:
    """The refiner of a preset.

    model : model.pt of the same preset; None for ``repair``.

    Raises
    ------
    InputError
        The model file is damaged, of another preset, or was trained on another class or grid.
    """
    preset = options.preset
    if preset == "repair":
        return RepairRefiner(options, repair_options)
    assert model is not None, "the other presets have one"
    of_model, kind = {
        "near": (NearRefiner.of_model, NEAR),
        "cardiform": (CellRefiner.of_model, DENOISER),
    }[preset]
    stored = load_model(model, kind)
    if reason := misfit(stored, repair_options):
        raise InputError(problem(stored.path, *reason))
    return of_model(stored, options, repair_options, device)


@dataclass(frozen=True)
class RepairRefiner(Refiner):
    """Preset ``repair``: the repaired label itself, without a network."""

    options: CoronaryRefineOptions
    repair_options: CoronaryRepairOptions
    cases: Sequence[str] = ()

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        return repaired_field(thin)

    def refined(self, case_id: str, thin: ThinStructure) -> CaseField:
        return self.field(case_id, thin)  # the repair has bridged and dropped what it could


@dataclass(frozen=True)
class MeanRefiner(Refiner):
    """Several refiners of one preset as one: the mean of their fields, repaired once."""

    parts: Sequence[Refiner]

    @property
    def options(self) -> CoronaryRefineOptions:  # type: ignore[override]
        return self.parts[0].options

    @property
    def repair_options(self) -> CoronaryRepairOptions:  # type: ignore[override]
        return self.parts[0].repair_options

    @property
    def cases(self) -> Sequence[str]:  # type: ignore[override]
        return [name for part in self.parts for name in part.cases]

    def check(self, thin: ThinStructure, path: Path) -> None:
        for part in self.parts:
            part.check(thin, path)

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        fields = [part.field(case_id, thin) for part in self.parts]

        def distances(points: np.ndarray) -> np.ndarray:
            return np.mean([field.distances(points) for field in fields], axis=0)

        active = np.logical_and.reduce([field.active for field in fields])
        return CaseField(distances, active, thin)


@dataclass(frozen=True)
class CellRefiner(Refiner):
    """Preset ``cardiform``: a :class:`CellField` on the cells about the label."""

    options: CoronaryRefineOptions
    repair_options: CoronaryRepairOptions
    cases: Sequence[str]
    trained: CoronaryOptions
    network: CellField
    device: torch.device
    level: float = 0.0  # mm: where the field is cut
    trained_mm: float | None = None

    @classmethod
    def of_model(cls, stored: Model, options, repair_options, device) -> CellRefiner:
        """From the content of a model.pt."""
        trained, level = stored.section("coronary", CoronaryOptions), level_of(stored)
        repair = trained_repair(stored)
        trained_mm = None if repair is None else repair.spacing_mm
        network = _frozen(build_cell_field(trained), stored, device)
        cases = stored.training_cases
        known = cases, trained, network, device, level, trained_mm
        return cls(options, repair_options, *known)

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        cells = Cells.of(thin.label, thin.repaired, thin.spacing, self.trained)
        active = np.zeros(thin.label.shape, bool)
        active[tuple(cells.coords.T)] = True
        coords = torch.from_numpy(cells.coords).to(self.device)
        structure = Structure.of_samples(
            [coords], even_resolution(torch.nn.functional.pad(coords, (1, 0)))
        )
        with torch.no_grad():
            tensor = SparseTensor(torch.from_numpy(cells.inputs).to(self.device), structure)
            latent = self.network.encode(tensor)
        if self.options.latent_steps:
            latent = self._fitted(latent, thin, cells)

        def distances(points: np.ndarray) -> np.ndarray:
            found = _in_parts(lambda part: self._values(latent, part), points)
            return self.trained.truncation_mm * found - np.float32(self.level)

        return CaseField(distances, active, thin)

    def _values(self, latent: SparseTensor, points: Tensor) -> Tensor:
        """(P,) truncated distances at (P, 3) voxels."""
        places = torch.nn.functional.pad(points.to(self.device), (1, 0))
        return self.network.field(latent, places)

    def _fitted(self, latent: SparseTensor, thin: ThinStructure, cells: Cells) -> SparseTensor:
        """Some gradient steps of the cells' features towards the repaired label."""
        truth = signed_distance(thin.repaired, thin.spacing, self.trained.truncation_mm)
        truth /= self.trained.truncation_mm
        rng = np.random.default_rng(0)

        def loss(feats: Tensor) -> Tensor:
            rows = rng.integers(len(cells.coords), size=LATENT_POINTS)
            points = cells.coords[rows] + rng.uniform(-0.5, 0.5, (LATENT_POINTS, 3))
            points = np.clip(points, 0, np.array(truth.shape) - 1).astype(np.float32)
            wanted = torch.from_numpy(trilinear(truth, points)).to(self.device)
            values = self._values(latent.replace(feats), torch.from_numpy(points))
            return (values - wanted).square().mean()

        return latent.replace(_descended(latent.feats, loss, self.options))


@dataclass(frozen=True)
class NearRefiner(Refiner):
    """Preset ``near``: the vector of a case through the NeAR auto-decoder."""

    options: CoronaryRefineOptions
    repair_options: CoronaryRepairOptions
    cases: Sequence[str]
    trained: NearOptions
    network: NearAutoDecoder
    device: torch.device

    @classmethod
    def of_model(cls, stored: Model, options, repair_options, device) -> NearRefiner:
        """From the content of a model.pt."""
        cases = stored.training_cases
        trained = stored.section("coronary_near", NearOptions)
        network = NearAutoDecoder(trained.latent_dim, len(cases))
        network = _frozen(network, stored, device)
        return cls(options, repair_options, cases, trained, network, device)

    def field(self, case_id: str, thin: ThinStructure) -> CaseField:
        decoder, vector = self.network.decoder, self._vector(case_id, thin)
        with torch.no_grad():
            grids = decoder.grids(vector[None])

        def logits(points: Tensor) -> Tensor:
            return decoder.field(grids, points[None].to(self.device))[0]

        def distances(points: np.ndarray) -> np.ndarray:
            # a logit has no unit; what counts is its sign
            return -_in_parts(logits, unit_points(points, thin.label.shape)) * thin.spacing

        # what it predicts far from the label is left out: that is to its advantage, and faster
        active = distance_to(thin.label, thin.spacing, NEAR_REACH_MM) <= NEAR_REACH_MM
        return CaseField(distances, active, thin)

    def _vector(self, case_id: str, thin: ThinStructure) -> Tensor:
        """(D,) of a training case its own, else the mean one, fitted to the label on request.

        A training case is known by its id alone, which another heart may have, too: so its own
        vector is only where the fit begins.
        """
        start = self.network.latents.weight.mean(dim=0)
        if self.trained_on(case_id):
            start = self.network.latents.weight[self.cases.index(case_hash(case_id))].clone()
        return self._fitted(start, thin) if self.options.latent_steps else start

    def _fitted(self, latent: Tensor, thin: ThinStructure) -> Tensor:
        """Some gradient steps of a case's vector towards its label."""
        band = wall_band(thin.label, self.trained.band_voxels)
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
            places = torch.from_numpy(unit_points(points, shape))[None].to(self.device)
            logits = self.network.decoder.field(self.network.decoder.grids(vector[None]), places)
            occupied = torch.from_numpy(wanted.astype(np.float32))[None].to(self.device)
            return near_loss(logits, occupied, self.trained)

        return _descended(latent, loss, self.options)


def misfit(stored: Model, options: CoronaryRepairOptions) -> tuple[str, str] | None:
    """Why a model does not fit what is asked for, as fact and remedy; None: it does.

    It knows the look of one class. The widths of a network are voxels, so it knows one grid, too.
    """
    trained = trained_repair(stored)
    name = str(stored.extra.get(STRUCTURE, "")) if trained is None else trained.structure
    if name and name != options.structure:
        fact = f"was trained on {name}, and structure is {options.structure}"
        set_it = f"set coronary_repair.structure (--structure) to {name}"
        return fact, f"{set_it}, or give a model of {options.structure}"
    if trained is None or same_spacing(trained.spacing_mm, options.spacing_mm):
        return None
    mm = f"{trained.spacing_mm:g}"
    fact = f"was trained on a grid of {mm} mm, and spacing_mm is {options.spacing_mm:g}"
    return fact, f"set coronary_repair.spacing_mm (--spacing-mm) to {mm}, or train again"


def trained_repair(stored: Model) -> CoronaryRepairOptions | None:
    """How the repaired labels of a training were made; None where the model does not say."""
    if "coronary_repair" not in stored.options:
        return None
    return stored.section("coronary_repair", CoronaryRepairOptions)


def _frozen(network: Network, stored: Model, device: torch.device) -> Network:
    """The network with its trained weights, for use."""
    stored.fill(network)
    return network.to(device).eval().requires_grad_(False)


def _in_parts(values: Callable[[Tensor], Tensor], points: np.ndarray) -> np.ndarray:
    """(P,) float32 values at (P, 3) points, some of them at a time: bounds the memory."""
    parts = [np.zeros(0, np.float32)]
    with torch.no_grad():
        for part in torch.from_numpy(points).split(POINTS_AT_A_TIME):
            parts.append(values(part).cpu().numpy())
    return np.concatenate(parts)


def _descended(
    start: Tensor, loss: Callable[[Tensor], Tensor], options: CoronaryRefineOptions
) -> Tensor:
    """``latent_steps`` of Adam from ``start``; the network stays as it is."""
    moved = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=options.latent_lr)
    for _ in range(options.latent_steps):
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
    apart = trees_apart(raw, thin.repaired, thin.roots)
    dusted = without_small(apart, options.dust_mm3 / thin.spacing**3)
    whole, joints = bridged(dusted, thin.spacing, options, thin.roots)
    final = without_fragments(whole, thin.spacing, options, thin.supported)
    dropped = _grown(raw & ~final, KEPT_REACH_VOX) & ~_grown(final, KEPT_REACH_VOX)
    dropped |= raw & ~apart
    tubes = draw(np.zeros_like(raw), thin.spacing, joints) & final
    limit = REACH_VOX * thin.spacing
    bridges = signed_distance(tubes, thin.spacing, limit)

    def distances(points: np.ndarray) -> np.ndarray:
        found = field.distances(points)
        nearest = np.rint(points).astype(int)
        nearest = np.clip(nearest, 0, np.array(dropped.shape) - 1)
        found = np.where(dropped[tuple(nearest.T)], np.abs(found) + 1e-3, found)
        return np.minimum(found, trilinear(bridges, points)) if joints else found

    return CaseField(distances, field.active | (bridges < limit), thin, decided=final)


def _grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    return signed_distance(mask, 1.0, voxels + 1.0) <= voxels
