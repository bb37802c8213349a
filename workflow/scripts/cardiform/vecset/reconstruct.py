"""Held-out hearts through a trained VecSet: latents, label map, meshes, figures, a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..anatomy.beyond import joined
from ..artefact.model import load_model
from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import save_npz, write_json
from ..formats import Format
from ..geometry.coarse_to_fine import FieldFunction, SampledField, sample_field
from ..geometry.field_of_view import Cut, cut_names, cuts_of, larger_grid, seen_only, unplaced
from ..geometry.frame import UNIT_RADIUS, Frame, apply_affine
from ..geometry.grids import cropped_affine, lattice, planes, whole
from ..geometry.sampling import POINTS
from ..geometry.surface import Mesh
from ..held_out import draw_comparison, truth_mesh, without_figures, write_meshes
from ..labels import LabelTable
from ..metrics.overlap import overlap
from ..metrics.surface import surface_figures
from ..options.vecset import VecsetOptions, VecsetReconstructOptions
from ..volumes import LabelMap, load_label_map, save_label_map
from .data import load_case_points
from .inputs import draw_input
from .model import VECSET, VecSet
from .parts import Usual

LATENTS = Format(
    "VecSet-latents",
    {"latents": "f32 (M, W)", "center": "f64 (3)", "scale": "f64"},
    again("reconstruct_vecset"),
    marked=False,
)
METHODS = ("model", "untrained", "mean_shape")
MEAN_SHAPE_GRID = 128  # points along each axis of the unit cube
MEAN_SHAPE_CASES = 200  # more training cases do not sharpen a mean shape


@dataclass(frozen=True)
class Reconstructor:
    """A VecSet and how to run it.

    training : the options that the network was trained with.
    usual : where it puts hearts of which classes are missing; None: it was not trained to.
    """

    model: VecSet
    table: LabelTable
    training: VecsetOptions
    options: VecsetReconstructOptions
    device: torch.device
    usual: Usual | None = None

    @classmethod
    def load(
        cls, path: str | Path, options: VecsetReconstructOptions, device: torch.device
    ) -> Reconstructor:
        """From the model.pt of train_vecset; InputError where it is damaged or another model's."""
        stored = load_model(path, VECSET)
        table, training = stored.table, stored.section("vecset", VecsetOptions)
        if options.latents:
            training = with_latents(training, options, path)
        model = VecSet.from_options(training, len(table))
        stored.fill(model)
        usual = Usual.of_model(stored, table)
        return cls(model.to(device).eval(), table, training, options, device, usual)

    @cached_property
    def untrained(self) -> Reconstructor:
        """The same network with the weights that its training began with."""
        torch.manual_seed(self.training.seed)
        model = VecSet.from_options(self.training, len(self.table)).to(self.device).eval()
        return Reconstructor(model, self.table, self.training, self.options, self.device)

    def inputs(self, points: Path, case_id: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What is encoded of a points file: (1, N, 3 + C) points, with their normals
        where the network reads these 3 more, and (1, M) start points."""
        normals = self.training.normals
        case = load_case_points(points, case_id, self.table, keep=1, normals=normals)
        drawn, fps = draw_input(
            case.surface,
            len(self.table),
            input_points=self.options.input_points or self.training.input_points,
            latents=self.model.starts,
            balanced=self.training.balanced,
            rng=np.random.default_rng(self.options.seed),
        )
        first, second = (torch.from_numpy(a)[None].to(self.device) for a in (drawn, fps))
        return first, second

    @torch.no_grad()
    def encode(self, points: Path, case_id: str) -> torch.Tensor:
        """(1, M, width) latents."""
        return self.model.encode(*self.inputs(points, case_id))

    @torch.no_grad()
    def field(
        self, latents: torch.Tensor, corners: bool = False
    ) -> Callable[[np.ndarray], np.ndarray]:
        """(N, 3) float32 unit-frame points to (N, C) distances.

        The anatomy lies within the ball of radius 0.95: beyond radius 1, where no surface
        taught the network anything, the distance to that ball is taken.

        corners : ask the network in the whole cube [-1, 1]^3, which it is trained in: what a
            scan cuts off may lie beyond the ball of what it shows.
        """
        tokens = self.model.expand(latents)

        @torch.no_grad()
        def distances(points: np.ndarray) -> np.ndarray:
            radius = np.linalg.norm(points, axis=1)
            values = np.repeat((radius - UNIT_RADIUS)[:, None], len(self.table), axis=1)
            near = np.flatnonzero((np.abs(points).max(axis=1) if corners else radius) <= 1)
            for start in range(0, len(near), self.options.query_batch):
                rows = near[start : start + self.options.query_batch]
                queries = torch.from_numpy(points[rows])[None].to(self.device)
                values[rows] = self.model.query(tokens, queries)[0].float().cpu().numpy()
            return values

        return distances

    def sample(self, latents: torch.Tensor, frame: Frame, grid: LabelMap) -> SampledField:
        """The field on the grid of a label map."""
        return sampled_on(self.field(latents), frame, grid)

    def completed(
        self,
        latents: torch.Tensor,
        frame: Frame,
        seen: LabelMap,
        cuts: Mapping[int, Cut],
        mm: float,
    ) -> LabelMap:
        """The label map ``seen``, its cut classes completed up to ``mm`` past the faces of the
        volume that cut them; what it shows stays as it is."""
        grid = larger_grid(seen, cuts, mm)
        field = self.field(latents, corners=True)
        made = sample_field(field, grid.data.shape, grid.affine, frame.to_unit)
        labels = joined(grid.data, made.labels(self.table.values), grid.affine, cuts)
        return LabelMap(labels, grid.affine)


def with_latents(
    training: VecsetOptions, asked: VecsetReconstructOptions, path: str | Path
) -> VecsetOptions:
    """The options of a network that is asked with another number of latents than it learned with;
    InputError where its latents are weights."""
    if training.queries != "fps":
        fact = f"has learned queries, not {asked.latents} latents at points"
        raise InputError(problem(path, fact, "set vecset_reconstruct.latents to 0"))
    points = asked.input_points or training.input_points
    return replace(training, latents=asked.latents, input_points=points)


@dataclass(frozen=True)
class Made:
    """What one network makes of a case, or several together: the mean of their fields, cut once.

    latents : (M, width) float32 of each network.
    labels : (X, Y, Z) uint8 on the case's grid.
    meshes : class name -> surface, RAS mm.
    single : the label map of each network alone; empty where there is one.
    """

    frame: Frame
    latents: list[np.ndarray]
    labels: np.ndarray
    meshes: dict[str, Mesh]
    single: list[np.ndarray]

    @classmethod
    def of(
        cls, networks: Sequence[Reconstructor], points: Path, case_id: str, grid: LabelMap
    ) -> Made:
        """Of a points file, on the grid of a label map; InputError where it is unfit.

        networks : of one label table; the options of the first one hold.
        """
        first, frame = networks[0], load_frame(points)
        latents = [network.encode(points, case_id) for network in networks]
        fields = [network.field(found) for network, found in zip(networks, latents)]
        field = fields[0] if len(fields) == 1 else mean_field(fields)
        sampled = sampled_on(field, frame, grid)
        surfaces = surfaces_of(field, frame, grid, sampled, first.options.spacing_mm)
        values = first.table.values
        several = fields if len(fields) > 1 else []
        single = [sampled_on(own, frame, grid).labels(values) for own in several]
        return cls(
            frame,
            [found[0].cpu().numpy() for found in latents],
            sampled.labels(values),
            dict(zip(first.table.names, surfaces)),
            single,
        )

    def write(self, folder: Path, affine: np.ndarray) -> list[Path]:
        """latents.npz, of one network, labels.nii.gz and <class>.ply; the written paths."""
        written = [folder / "labels.nii.gz"]
        if len(self.latents) == 1:
            written.insert(0, folder / "latents.npz")
            frame = self.frame
            save_npz(written[0], latents=self.latents[0], center=frame.center, scale=frame.scale)
        save_label_map(folder / "labels.nii.gz", self.labels, affine)
        return written + write_meshes(folder, self.meshes)


def mean_field(fields: Sequence[FieldFunction]) -> FieldFunction:
    """The mean of several fields of one label table."""
    return lambda points: np.mean([field(points) for field in fields], axis=0)


def sampled_on(field: FieldFunction, frame: Frame, grid: LabelMap) -> SampledField:
    """A field on the grid of a label map."""
    return sample_field(field, grid.data.shape, grid.affine, frame.to_unit)


def surfaces_of(
    field: FieldFunction, frame: Frame, grid: LabelMap, sampled: SampledField, spacing_mm: float
) -> list[Mesh]:
    """The surface of every class, on a grid of its own where ``spacing_mm`` asks for one.

    sampled : the field on the grid of the label map.
    """
    if spacing_mm:
        shape, affine = isotropic_grid(grid, spacing_mm)
        sampled = sample_field(field, shape, affine, frame.to_unit)
    return [sampled.surface(channel) for channel in range(sampled.channels)]


@dataclass(frozen=True)
class MajorityLabels:
    """The mean shape, a baseline: what most training cases have at a place of the unit frame.

    labels : (G, G, G) uint8 over the cube [-1, 1]^3.
    unknown : names of the classes that the scans cut in every case that has them.
    """

    labels: np.ndarray
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, cases: Sequence[tuple[Case, Path]], table: LabelTable) -> MajorityLabels:
        """From training cases and their points files; a class is averaged over the cases
        that have it whole."""
        ticks = np.linspace(-1, 1, MEAN_SHAPE_GRID)
        grid = lattice(ticks, ticks, ticks)
        votes = np.zeros((len(table), len(grid)), np.uint16)
        having = np.zeros(len(table))
        cut = np.zeros(len(table))
        for case, points in cases[:MEAN_SHAPE_CASES]:
            truth = load_label_map(case.labels)
            cuts = cuts_of(truth, table, case)
            found = lookup(truth, load_frame(points).to_world(grid))
            for channel, value in enumerate(table.values):
                if value in cuts:
                    cut[channel] += 1
                    continue
                # the first case decides where votes are equal: of two hearts it is not all that
                # either of them has
                weight = 2 if having[channel] else 3
                votes[channel] += np.uint16(weight) * (found == value)
                having[channel] += weight * (truth.data == value).any()
        share = votes / np.maximum(having, 1)[:, None]
        values = np.array(table.values, np.uint8)
        labels = np.where(share.max(axis=0) >= 0.5, values[share.argmax(axis=0)], 0)
        unknown = tuple(n for n, w, c in zip(table.names, having, cut) if c and not w)
        return cls(labels.reshape((MEAN_SHAPE_GRID,) * 3).astype(np.uint8), unknown)

    def place(self, frame: Frame, grid: LabelMap) -> np.ndarray:
        """(X, Y, Z) uint8 labels on the grid of a case, through its frame."""
        step = 2 / (MEAN_SHAPE_GRID - 1)
        affine = np.diag([step, step, step, 1.0])
        affine[:3, 3] = -1
        shape = LabelMap(self.labels, affine)
        result = np.zeros(grid.data.shape, np.uint8)
        for plane, index in zip(result, planes(whole(result.shape))):
            world = apply_affine(grid.affine, index)
            plane[...] = lookup(shape, frame.to_unit(world)).reshape(plane.shape)
        return result


def reconstruct_case(
    case: Case,
    *,
    points: Mapping[str, Path],
    meshes: Path,
    out: Path,
    network: Reconstructor,
    mean_shape: MajorityLabels,
    beyond_mm: float = 0.0,
) -> list[Path]:
    """Write latents.npz, labels.nii.gz, <class>.ply, compare.png and figures.json of a case.

    points : case id -> points file.    meshes : folder of extract_meshes.
    beyond_mm : where the scan cuts a class, write completed.nii.gz, so much larger, too.

    Returns
    -------
    The written paths.
    """
    table, folder = network.table, out / case.case_id
    path = points[case.case_id]
    truth, frame = load_label_map(case.labels), load_frame(path)
    cuts = cuts_of(truth, table, case)
    best = Made.of([network], path, case.case_id, truth)
    surfaces = list(best.meshes.values())
    true_surfaces = [truth_mesh(meshes / case.case_id, label.name) for label in table]

    untrained = network.untrained
    blank = untrained.sample(untrained.encode(path, case.case_id), frame, truth)
    made = {
        "model": best.labels,
        "untrained": blank.labels(table.values),
        "mean_shape": mean_shape.place(frame, truth),
    }
    figures: dict = {
        method: overlap(truth.data, seen_only(labels, truth.affine, cuts), table)
        for method, labels in made.items()
    }
    without_figures(figures["mean_shape"], mean_shape.unknown)
    for label, true, found in zip(table, true_surfaces, surfaces):
        cut = cuts.get(label.value)
        figures["model"][label.name] |= surface_figures(true, found, cut=cut)
    if cuts:
        figures["cut"] = cut_names(cuts, table)
        for method in METHODS:  # it was not encoded
            without_figures(figures[method], unplaced(cuts, table))
    written = []
    if cuts and beyond_mm:
        latents = torch.from_numpy(best.latents[0])[None].to(network.device)
        whole = network.completed(latents, frame, truth, cuts, beyond_mm)
        written.append(folder / "completed.nii.gz")
        save_label_map(written[0], whole.data, whole.affine)

    written += best.write(folder, truth.affine)
    written += [folder / "compare.png", folder / "figures.json"]
    draw_comparison(written[-2], case.case_id, table, true_surfaces, surfaces, figures)
    write_json(written[-1], figures)
    return written


def isotropic_grid(grid: LabelMap, spacing_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a grid over the same box with cubic voxels."""
    extent = (np.array(grid.data.shape) - 1) * grid.spacing
    x, y, z = (int(n) for n in np.ceil(extent / spacing_mm) + 1)
    return (x, y, z), cropped_affine(grid.affine, np.zeros(3), spacing_mm / grid.spacing)


def load_frame(points: Path) -> Frame:
    """The frame that a points file is in."""
    arrays = POINTS.load(points)
    return Frame(arrays["center"], float(arrays["scale"]))


def lookup(grid: LabelMap, world: np.ndarray) -> np.ndarray:
    """(N,) values of the voxels nearest to (N, 3) world points, 0 beyond the grid."""
    index = np.rint(apply_affine(np.linalg.inv(grid.affine), world)).astype(np.int64)
    inside = ((index >= 0) & (index < grid.data.shape)).all(axis=1)
    values = np.zeros(len(world), grid.data.dtype)
    values[inside] = grid.data[tuple(index[inside].T)]
    return values
