"""Refined masks of thin structures: a trained field, read off where it matters, and mended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .anatomy.bridging import draw
from .anatomy.components import count_components, without_small
from .anatomy.repair import bridged, distance_to, without_fragments
from .anatomy.thin import ThinStructure
from .cohort import Case
from .data.coronary import Cells, near_band, unit_points
from .errors import InputError, problem
from .files import read_json, write_json
from .geometry.frame import apply_affine
from .geometry.isotropic import mask_of, signed_distance, voxels_near
from .geometry.lookup import trilinear
from .geometry.surface import Mesh, extract_surface
from .labels import LabelClass, LabelTable
from .metrics.overlap import overlap
from .metrics.summary import mean_over_cases
from .metrics.surface import surface_figures
from .metrics.topology import topology_figures
from .models.coronary import CellField
from .nifti import load_label_map, save_image, save_like
from .options import (
    CoronaryOptions,
    CoronaryRefineOptions,
    CoronaryRepairOptions,
    NearOptions,
)
from .render import compare_picture
from .sparse.tensor import SparseTensor, Structure
from .tasks.coronary import NearAutoDecoder, build_cell_field, even_resolution, near_loss
from .training.checkpoint import load_model

log = logging.getLogger(__name__)

POINTS_AT_A_TIME = 1 << 16
KEPT_REACH_VOX = 1  # around what was taken away: the field's wall lies outside of its voxels
LATENT_POINTS = 4096  # query points per latent step
NEAR_REACH_MM = 8.0
PRIOR = 1e-3  # weight of the latent's squared distance from where it started
TRUTH_COLUMNS = ("label_against_truth", "repair_against_truth", "against_truth")
FULL_MEASURES = ("dice", "cl_dice", "component_error", "centreline_overlap", "hd95_mm", "assd_mm")


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
        if options.preset == "repair":
            return
        stored = load_model(model)
        if options.preset not in stored["options"]:
            remedy = f"name a model of preset {options.preset}, or change coronary_refine.preset"
            raise InputError(problem(model, f"is no model of preset {options.preset}", remedy))
        cls = {"cardiform": CoronaryOptions, "near": NearOptions}[options.preset]
        self.trained = _restored(cls, stored["options"][options.preset])
        self.cases = list(stored["options"]["cases"])
        if options.preset == "cardiform":
            self.network: torch.nn.Module = build_cell_field(self.trained)
        else:
            self.network = NearAutoDecoder(self.trained.latent_dim, len(self.cases))
        self.network.load_state_dict(stored["weights"])
        self.network.to(device).eval().requires_grad_(False)

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
            latent = self._fitted_cells(latent, thin, cells)
        truncation = self.trained.truncation_mm

        @torch.no_grad()
        def distances(points: np.ndarray) -> np.ndarray:
            parts = [np.zeros(0, np.float32)]
            for part in torch.from_numpy(points).split(POINTS_AT_A_TIME):
                places = torch.nn.functional.pad(part.to(self.device), (1, 0))
                parts.append(truncation * self.network.field(latent, places).cpu().numpy())
            return np.concatenate(parts)

        return CaseField(distances, active, thin)

    def _fitted_cells(self, latent: SparseTensor, thin: ThinStructure, cells: Cells):
        """Some gradient steps of the cells' features towards the repaired label."""
        network: CellField = self.network
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
        if case_id in self.cases:
            latent = self.network.latents.weight[self.cases.index(case_id)].clone()
        else:
            latent = self.network.latents.weight.mean(dim=0)
            if self.options.latent_steps:
                latent = self._fitted_vector(latent, thin)
        with torch.no_grad():
            grids = self.network.decoder.grids(latent[None])

        @torch.no_grad()
        def distances(points: np.ndarray) -> np.ndarray:
            parts = [np.zeros(0, np.float32)]
            for part in torch.from_numpy(unit_points(points, thin.label.shape)).split(
                POINTS_AT_A_TIME
            ):
                logits = self.network.decoder.field(grids, part[None].to(self.device))
                # a logit has no unit; what counts is its sign
                parts.append(-logits[0].cpu().numpy() * thin.spacing)
            return np.concatenate(parts)

        # what it says far from the label is left out, in its favour and for the time it takes
        active = distance_to(thin.label, thin.spacing) <= NEAR_REACH_MM
        return CaseField(distances, active, thin)

    def _fitted_vector(self, latent: Tensor, thin: ThinStructure) -> Tensor:
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
            places = torch.from_numpy(unit_points(points, shape))[None].to(self.device)
            logits = self.network.decoder.field(self.network.decoder.grids(vector[None]), places)
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
    raw = field.mask()
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

    return replace(field, distances=distances, active=field.active | (bridges < limit))


def _grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    return signed_distance(mask, 1.0, voxels + 1.0) <= voxels


def refine_case(
    case: Case,
    *,
    files: Mapping[str, Path],
    refiner: Refiner,
    table: LabelTable,
    out: Path,
) -> list[Path]:
    """Write the refined masks, figures and a picture of one case.

    ``out/<case>.nii.gz`` (grid and header of the label map, value 1), ``fine/<case>.nii.gz``
    (isotropic, ``resolution`` voxels), ``probability/<case>.nii.gz`` on request,
    ``<case>.json`` and ``<case>.png``.
    """
    label_map = load_label_map(case.labels)
    structure = table[table.channel(refiner.repair_options.structure)]
    thin = ThinStructure.load(files[case.case_id])
    field = refiner.refined(case.case_id, thin)
    voxels, distances = field.on_grid(label_map.data.shape, label_map.affine)
    mask = np.zeros(label_map.data.shape, np.uint8)
    mask[tuple(voxels[distances < 0].T)] = 1
    paths = [out / f"{case.case_id}{ending}" for ending in (".nii.gz", ".json", ".png")]
    save_like(paths[0], mask, case.labels)
    options = refiner.options
    if options.resolution:
        paths.append(out / "fine" / f"{case.case_id}.nii.gz")
        shape, affine = fine_grid(thin, options.resolution)
        save_image(paths[-1], field.mask_on_grid(shape, affine), affine)
    if options.probabilities:
        paths.append(out / "probability" / f"{case.case_id}.nii.gz")
        chance = np.zeros(mask.shape, np.float32)
        chance[tuple(voxels.T)] = 1 / (1 + np.exp(np.clip(distances / thin.spacing, -50, 50)))
        save_image(paths[-1], chance, label_map.affine)
    final = field.mask()
    truth = truth_mask(case, structure, thin)
    given = (label_map.data == structure.value).astype(np.uint8)
    one = LabelTable((LabelClass(value=1, name="mask", title="", color="#000000"),))
    figures = {
        "preset": options.preset,
        "in_training": options.preset != "repair" and case.case_id in refiner.cases,
        "against_label": {
            **overlap(given, mask, one)["mask"],
            "components_before": count_components(given),
            "components_after": count_components(mask),
        },
        "against_truth": None if truth is None else figures_against(truth, final, thin),
        "label_against_truth": None if truth is None else figures_against(truth, thin.label, thin),
        "repair_against_truth": (
            None if truth is None else figures_against(truth, thin.repaired, thin)
        ),
    }
    write_json(paths[1], figures)
    _draw(paths[2], case.case_id, structure, thin, final, truth)
    return paths


def summarise(parts: Mapping[str, Sequence[str]], out: Path, trained: Mapping) -> dict:
    """Means over the cases of every part of the split, from their JSON files.

    trained : the figures of the model file; its Dice on query points stands beside the others.
    """
    points = trained.get("validation", {}).get("dice_points")
    result: dict = {"dice_training_points": points}
    for part, names in parts.items():
        cases = {name: read_json(out / f"{name}.json") for name in names}
        known = [figures for figures in cases.values() if figures["against_truth"]]
        result[part] = {
            "cases": len(cases),
            "cases_with_truth": len(known),
            "against_label": mean_over_cases(
                [{"all": f["against_label"]} for f in cases.values()]
            ).get("all", {}),
            **{
                column: mean_over_cases([{"all": f[column]} for f in known]).get("all", {})
                for column in TRUTH_COLUMNS
            },
        }
    return result


def table_of_figures(figures: Mapping) -> Iterator[str]:
    """The means as lines of text."""
    points = figures["dice_training_points"]
    yield f"Dice on query points while training: {'-' if points is None else f'{points:.3f}'}"
    yield f"{'':34}{'Dice':>8}{'clDice':>8}{'parts off':>11}{'overlap':>9}{'HD95':>7}{'ASSD':>7}"
    for part, found in figures.items():
        if part == "dice_training_points" or not found["cases"]:
            continue
        change = found["against_label"]["dice"]
        yield f"{part}, {found['cases']} cases: Dice against the given label {change:.3f}"
        for column in TRUTH_COLUMNS if found["cases_with_truth"] else ():
            row = [found[column].get(name) for name in FULL_MEASURES]
            text = ["-" if v is None else f"{v:.3f}" for v in row]
            name = column.replace("_", " ")
            yield (
                f"    {name:30}{text[0]:>8}{text[1]:>8}{text[2]:>11}{text[3]:>9}"
                f"{text[4]:>7}{text[5]:>7}"
            )


def fine_grid(thin: ThinStructure, resolution: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the isotropic grid with so many voxels along the structure's box."""
    extent = np.array(thin.label.shape) * thin.spacing
    step = float(extent.max()) / resolution
    shape = tuple(int(n) for n in np.maximum(np.ceil(extent / step - 1e-6), 1))
    affine = thin.affine.copy()
    affine[:3, :3] *= step / thin.spacing
    affine[:3, 3] = apply_affine(thin.affine, np.full(3, (step / thin.spacing - 1) / 2))
    return shape, affine


def truth_mask(case: Case, structure: LabelClass, thin: ThinStructure) -> np.ndarray | None:
    """(X, Y, Z) bool on the isotropic grid, from the case's ``truth``; None where it has none."""
    if not case.truth:
        return None
    label_map = load_label_map(case.truth)
    return mask_of(label_map, structure.value, thin.label.shape, thin.affine)


def figures_against(truth: np.ndarray, mask: np.ndarray, thin: ThinStructure) -> dict:
    """Voxel, centreline, component and surface figures on the isotropic grid."""
    surfaces = [_surface(m, thin) for m in (truth, mask)]
    return topology_figures(truth, mask, thin.spacing) | surface_figures(*surfaces)


def _surface(mask: np.ndarray, thin: ThinStructure) -> Mesh:
    padded = np.pad(mask, 2)
    affine = thin.affine.copy()
    affine[:3, 3] = apply_affine(thin.affine, np.full(3, -2.0))
    return extract_surface(signed_distance(padded, thin.spacing, 3 * thin.spacing), affine)


def _draw(path: Path, case_id: str, structure: LabelClass, thin, final, truth) -> None:
    """Given beside refined; where truth is known, the caption has its figures."""
    sides = [_surface(mask, thin) for mask in (thin.label, final)]
    caption = f"{case_id}: {count_components(thin.label)} parts to {count_components(final)}"
    if truth is not None:
        before, after = (topology_figures(truth, m, thin.spacing) for m in (thin.label, final))
        caption += (
            f"; against truth: Dice {before['dice']:.3f} to {after['dice']:.3f}, "
            f"clDice {before['cl_dice']:.3f} to {after['cl_dice']:.3f}"
        )
    compare_picture(
        path,
        *([(mesh.vertices, mesh.faces, structure.color, 1.0)] for mesh in sides),
        titles=("Given label", "Refined"),
        caption=caption,
    )


def _restored(cls: type, values: Mapping):
    """Options as they were stored; lists were tuples."""
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
