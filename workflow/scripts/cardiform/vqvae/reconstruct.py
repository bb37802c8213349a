"""Held-out structures through the sparse VQ-VAE: codes, free-running decoding, figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cc3d
import numpy as np
import torch

from ..cohort.table import Case
from ..errors import again
from ..files import save_npz, write_json
from ..formats import Format
from ..geometry.closed_band import Solid, mean_solid, voxel_affine
from ..geometry.field_of_view import Cut, cut_names, cuts_of, seen_only, unplaced
from ..geometry.narrowband import NarrowBand, voxel_keys
from ..geometry.surface import Mesh
from ..held_out import draw_comparison, truth_mesh, without_figures, write_meshes
from ..labels import LabelClass, LabelTable
from ..metrics.overlap import overlap
from ..metrics.surface import surface_figures
from ..sparse.tensor import SparseTensor, Structure
from ..volumes import LabelMap, load_label_map, save_label_map
from .data import Instance
from .model import SparseVQVAE
from .task import CROSSED_VOXELS
from .windows import SampleWindows

CODES = Format(
    "codes",
    {"*_coords": "u16 (M, 3)", "*_indices": "i32 (M)"},
    again("reconstruct_vqvae"),
    marked=False,
)
# The quantised model, the same before its joint training, and the continuous autoencoder.
METHODS = ("model", "stage1", "continuous")


class DecodedBand(NamedTuple):
    """What a network makes of one structure.

    coords, sdf : (V, 3) voxels, (V,) float32 distances in half-bands.
    codes : arrays ``coords`` (M, 3) uint16 and ``indices`` (M,) int32; empty for a continuous
        network.
    """

    coords: np.ndarray
    sdf: np.ndarray
    codes: dict[str, np.ndarray]


@dataclass(frozen=True)
class BandNetwork:
    """A SparseVQVAE, quantised or continuous, and where it runs."""

    model: SparseVQVAE
    device: torch.device

    def reconstruct(self, bands: Mapping[str, NarrowBand]) -> dict[str, DecodedBand]:
        """Encode the bands of a case and decode them without their structure.

        bands : name of a class, or of a CT window, -> its band. Linked windows are decoded from
            the codes of all of them, else each from its own.
        """
        if self.model.windows.linked:
            return self._reconstruct(bands)
        alone = [self._reconstruct({name: band}) for name, band in bands.items()]
        return {name: made for one in alone for name, made in one.items()}

    @torch.no_grad()
    def _reconstruct(self, bands: Mapping[str, NarrowBand]) -> dict[str, DecodedBand]:
        coords = [torch.from_numpy(b.coords.astype(np.int32)) for b in bands.values()]
        resolution = next(iter(bands.values())).resolution
        structure = Structure.of_samples([c.to(self.device) for c in coords], resolution)
        sdf = np.concatenate([b.sdf for b in bands.values()]).astype(np.float32)
        tensor = SparseTensor(torch.from_numpy(sdf)[:, None].to(self.device), structure)
        samples = SampleWindows.of_names(self.model.windows, list(bands), self.device)
        codes: tuple[np.ndarray, ...] | None = None
        if self.model.quantizer is None:
            latents = self.model.encode(tensor, samples)
            decoded = self.model.decode(latents, samples=samples)
        else:
            coarse, indices = self.model.encode_indices(tensor, samples)
            decoded = self.model.decode_indices(coarse, indices, samples)
            codes = (
                coarse.coords.cpu().numpy().astype(np.uint16),
                indices.cpu().numpy().astype(np.int32),
            )
        found = decoded.field.structure.coords.cpu().numpy()
        values = decoded.field.feats[:, 0].float().cpu().numpy()
        made = {}
        for sample, name in enumerate(bands):
            rows, own = found[:, 0] == sample, {}
            if codes is not None:
                here = codes[0][:, 0] == sample
                own = {"coords": codes[0][here, 1:], "indices": codes[1][here]}
            made[name] = DecodedBand(found[rows, 1:], values[rows], own)
        return made


@dataclass(frozen=True)
class Truth:
    """What a reconstruction is held against.

    labels : label map, on the grid that reconstructions are written on.
    meshes : class name -> surface in RAS mm.
    table : its classes.
    cuts : class value -> how the scan cuts it.
    """

    labels: LabelMap
    meshes: Mapping[str, Mesh]
    table: LabelTable
    cuts: Mapping[int, Cut] = field(default_factory=dict)

    @classmethod
    def of_labels(cls, case: Case, table: LabelTable, meshes: Path) -> Truth:
        """The label map and the surfaces that were extracted from it."""
        folder = meshes / case.case_id
        surfaces = {label.name: truth_mesh(folder, label.name) for label in table}
        label_map = load_label_map(case.labels)
        return cls(label_map, surfaces, table, cuts_of(label_map, table, case))

    @classmethod
    def of_bands(cls, bands: Mapping[str, NarrowBand]) -> Truth:
        """The given bands themselves, where no label map is behind them."""
        first = next(iter(bands.values()))
        table = table_of_bands(bands)
        solids = {n: solid_of(b.coords, b.sdf, b) for n, b in bands.items()}
        grid = np.zeros((first.resolution,) * 3, np.uint8)
        affine = voxel_affine(first.resolution, first.frame)
        labels = fused(solids, table, LabelMap(grid, affine))
        return cls(LabelMap(labels, affine), {n: s.surface() for n, s in solids.items()}, table)


def table_of_bands(names: Iterable[str]) -> LabelTable:
    """A label table of structures that no label map is behind."""
    return LabelTable(
        tuple(
            LabelClass(value=i, name=name, title=name, color="#c8a882")
            for i, name in enumerate(names, start=1)
        )
    )


def reconstruct_case(
    case: Case,
    *,
    instances: Mapping[str, Sequence[Instance]],
    networks: Mapping[str, BandNetwork],
    table: LabelTable,
    meshes: Path | None,
    out: Path,
) -> list[Path]:
    """Write codes.npz, labels.nii.gz, <class>.ply, compare.png and figures.json of a case.

    CT windows that are trained together overlap, so each is measured by itself, and the first
    three are in a folder of its name.

    instances : case id -> its structures.    networks : method -> network.
    meshes : folder of extract_meshes; None: the given voxels themselves are the truth.

    Returns
    -------
    The written paths.
    """
    folder = out / case.case_id
    bands = {i.name: NarrowBand.load(i.path) for i in instances[case.case_id]}
    if networks["model"].model.windows:
        return _reconstruct_windows(case.case_id, bands, networks, folder)
    truth = Truth.of_bands(bands) if meshes is None else Truth.of_labels(case, table, meshes)
    made = {
        # stage 1 is there to see what the joint training brings: its surfaces are not measured
        method: put_through(network.reconstruct(bands), bands, truth, surfaces=method != "stage1")
        for method, network in networks.items()
    }
    best = made["model"][0]
    figures: dict = {method: measured for method, (_, measured) in made.items()}
    if truth.cuts:
        figures["cut"] = cut_names(truth.cuts, truth.table)
        for method in made:  # it has no band
            without_figures(figures[method], unplaced(truth.cuts, truth.table))
    written = best.write(folder, truth.labels.affine)
    shown = LabelTable(tuple(label for label in truth.table if label.name in bands))
    sides = truth.meshes, best.meshes
    return written + _write_figures(case.case_id, shown, sides, figures, folder)


def _reconstruct_windows(
    case_id: str,
    bands: Mapping[str, NarrowBand],
    networks: Mapping[str, BandNetwork],
    folder: Path,
) -> list[Path]:
    """The same of the windows of a CT."""
    made = {method: network.reconstruct(bands) for method, network in networks.items()}
    figures: dict[str, dict] = {method: {} for method in made}
    meshes: tuple[dict, dict] = {}, {}
    written: list[Path] = []
    for name, band in bands.items():
        alone = {name: band}
        truth = Truth.of_bands(alone)
        for method, found in made.items():
            decoded, measured = put_through(found, alone, truth, surfaces=method != "stage1")
            figures[method] |= measured
            if method == "model":
                written += decoded.write(folder / name, truth.labels.affine)
                for side, surfaces in zip(meshes, (truth.meshes, decoded.meshes)):
                    side |= surfaces
    shown = table_of_bands(bands)
    return written + _write_figures(case_id, shown, meshes, figures, folder)


def _write_figures(
    case_id: str,
    shown: LabelTable,
    sides: Sequence[Mapping[str, Mesh]],
    figures: Mapping,
    folder: Path,
) -> list[Path]:
    """compare.png and figures.json; ``sides`` are the meshes of the truth and of the model."""
    written = [folder / "compare.png", folder / "figures.json"]
    true, decoded = ([side[name] for name in shown.names] for side in sides)
    draw_comparison(written[0], case_id, shown, true, decoded, figures)
    write_json(written[1], figures)
    return written


@dataclass(frozen=True)
class Decoded:
    """The structures of a case as one network makes them, or several together.

    labels : (X, Y, Z) uint8 on the case's grid.
    meshes : structure -> surface, RAS mm, of the mean of the networks' distances.
    solids : the same as distances.
    voxels : structure -> (V, 3) voxels of the first network.
    codes : arrays of codes.npz, of each network.
    single : the label map of each network alone; empty where there is one.
    """

    labels: np.ndarray
    meshes: dict[str, Mesh]
    solids: dict[str, Solid]
    voxels: dict[str, np.ndarray]
    codes: list[dict[str, np.ndarray]]
    single: list[np.ndarray]

    @classmethod
    def of(
        cls,
        made: Sequence[Mapping[str, DecodedBand]],
        bands: Mapping[str, NarrowBand],
        table: LabelTable,
        grid: LabelMap,
    ) -> Decoded:
        """What each network made of every structure, on the grid of a label map."""
        codes: list[dict[str, np.ndarray]] = []
        solids: list[dict[str, Solid]] = []
        voxels: dict[str, np.ndarray] = {}
        for found_by_one in made:
            codes.append({})
            solids.append({})
            for name, band in bands.items():
                coords, sdf, found = found_by_one[name]
                voxels.setdefault(name, coords)
                solids[-1][name] = solid_of(coords, sdf, band)
                codes[-1] |= {f"{name}_{key}": array for key, array in found.items()}
        several = len(made) > 1
        mean = {n: mean_solid([s[n] for s in solids]) for n in bands} if several else solids[0]
        single = [fused(own, table, grid) for own in solids] if several else []
        meshes = {name: solid.surface() for name, solid in mean.items()}
        return cls(fused(mean, table, grid), meshes, mean, voxels, codes, single)

    def write(self, folder: Path, affine: np.ndarray) -> list[Path]:
        """codes.npz, of one network, labels.nii.gz and <class>.ply; the written paths."""
        written = [folder / "labels.nii.gz"]
        if len(self.codes) == 1:
            written.insert(0, folder / "codes.npz")
            save_npz(written[0], compressed=False, **self.codes[0])
        save_label_map(folder / "labels.nii.gz", self.labels, affine)
        return written + write_meshes(folder, self.meshes)


def put_through(
    found: Mapping[str, DecodedBand],
    bands: Mapping[str, NarrowBand],
    truth: Truth,
    *,
    surfaces: bool,
) -> tuple[Decoded, dict[str, dict]]:
    """Solids, surfaces and labels of what a network made of each structure; figures by class.

    surfaces : measure the distances between the surfaces too.

    Only labels, meshes and codes are kept: several methods would fill the memory.
    """
    made = Decoded.of([found], bands, truth.table, truth.labels)
    seen = seen_only(made.labels, truth.labels.affine, truth.cuts)
    figures: dict[str, dict] = overlap(truth.labels.data, seen, truth.table)
    values = dict(zip(truth.table.names, truth.table.values))
    for name, band in bands.items():
        figures[name] |= band_figures(band, made.voxels[name], made.solids[name])
        if surfaces:
            cut = truth.cuts.get(values[name])
            figures[name] |= surface_figures(truth.meshes[name], made.meshes[name], cut=cut)
    return replace(made, solids={}, voxels={}), figures


def solid_of(coords: np.ndarray, sdf: np.ndarray, band: NarrowBand) -> Solid:
    """The solid of some voxels on the grid of ``band``."""
    return Solid.of_band(coords, sdf.astype(np.float32), band.resolution, band.frame)


def fused(solids: Mapping[str, Solid], table: LabelTable, grid: LabelMap) -> np.ndarray:
    """(X, Y, Z) uint8: at each voxel the structure that it lies deepest in, 0 outside of all."""
    values = dict(zip(table.names, table.values))
    deepest = np.zeros(grid.data.shape, np.float32)
    labels = np.zeros(grid.data.shape, np.uint8)
    for name, solid in solids.items():
        where, distances = solid.on_grid(grid.data.shape, grid.affine)
        deeper = distances < deepest[where]
        deepest[where][deeper] = distances[deeper]
        labels[where][deeper] = values[name]
    return labels


def band_figures(truth: NarrowBand, coords: np.ndarray, solid: Solid) -> dict[str, float | int]:
    """Agreement on the voxels of the true band, the predicted voxels, and connected parts.

    Of a true band that the scan cuts only what is known counts.

    l1_voxels, l1_mm : mean absolute error of the distance; a voxel that was not predicted has
        the value of its side.
    sign_iou : of the inside, among voxels within 1.5 of the true surface.
    structure_recall, structure_precision : of the predicted voxels.
    components : connected parts of the reconstruction (26 neighbours).
    """
    known = slice(None) if truth.known is None else truth.known
    wanted, places = truth.sdf[known].astype(np.float32), truth.coords[known]
    found = solid.lookup(places, truth.resolution, truth.frame)
    if truth.known is not None and not len(wanted):
        return {}
    l1 = float(np.abs(found - wanted).mean()) * truth.band_voxels
    near = np.abs(wanted) * truth.band_voxels < CROSSED_VOXELS
    inside, should = found[near] < 0, wanted[near] < 0
    keys, made = (voxel_keys(c, truth.resolution) for c in (places, coords))
    if truth.known is not None:  # what lies on a cap is neither right nor wrong
        made = np.setdiff1d(made, voxel_keys(truth.coords[~truth.known], truth.resolution))
    both = np.isin(made, keys).sum()
    return {
        "l1_voxels": l1,
        "l1_mm": l1 * truth.voxel_mm,
        "sign_iou": float((inside & should).sum() / max((inside | should).sum(), 1)),
        "structure_recall": float(both / max(len(places), 1)),
        "structure_precision": float(both / max(len(made), 1)),
        "components": int(cc3d.connected_components(solid.values < 0, connectivity=26).max()),
    }
