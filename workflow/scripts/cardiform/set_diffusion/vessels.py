"""What the field of a VecSet says of thin vessels, and the heart about them.

A network that is not sure of a vessel's place says less than the truth: its distance is above zero
in gaps of the vessel, and hardly below it elsewhere. But it has a valley all along the vessel. The
bottom of the valley is where the vessel runs; how wide it is, the valley does not say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import read_json, sha256_file
from ..geometry.coarse_to_fine import sample_field
from ..geometry.frame import apply_affine
from ..labels import LabelTable
from ..ldm.vessels.draw_case import Canvas
from ..ldm.vessels.field import Votes, save_votes
from ..ldm.vessels.fine import fine_cube
from ..ldm.vessels.surroundings import HeartWalls
from ..options.set_diffusion import SetVesselOptions
from ..volumes import load_label_map, save_label_map
from .generator import SetGenerator
from .latents import SET_LATENTS, frame_of
from .samples import SET_SAMPLE

# Chosen on the 13 validation hearts of benchmarks/generation.yaml.
REACH_MM = 2.0  # places whose distance is below this are looked at
STEP_MM = 1.0  # between them
DEPTH_MM = 0.5  # by so much nearer, a place counts e times as much
WIDTH_MM, ROUNDS = 1.2, 4  # of the mean shift that leads them to the bottom of the valley
SPACING_MM = 4.0  # places within this are neighbours
CELL_MM = 0.5  # places of one cell of this edge are one
MOST_PLACES = 200_000  # of a heart, the nearest; 45,000 are usual


@dataclass(frozen=True)
class Asked:
    """Hearts that are looked at for vessels.

    structure : the class that the vessels are.    generated : names of the hearts that are samples;
    the others are cases of encode_set_latents.
    """

    generator: SetGenerator
    structure: str
    generated: frozenset[str]
    options: SetVesselOptions

    def case(self, case: Case, out: Path) -> list[Path]:
        """Write ``out/votes/<case>.npz``, where the vessels run, and ``out/walls/<case>.nii.gz``,
        the other classes in fine voxels about the middle of the cube.

        case : its ``labels`` are a file of latents.
        """
        name = case.case_id
        latents, frame = self._heart(Path(case.labels), name in self.generated)
        votes, walls = out / "votes" / f"{name}.npz", out / "walls" / f"{name}.nii.gz"
        save_votes(votes, self._votes(latents, frame))
        table = without(self.generator.table, self.structure)
        cube = fine_cube(self.generator.grid.edge_mm, self.options.spacing_mm)
        grid = replace(self.generator.grid, table=table, size=cube.size)
        finer = replace(self.generator, grid=grid)
        heart = finer.decode(latents, frame, self.options.speck_share)
        save_label_map(walls, heart.labels(), grid.cube(np.zeros(3)).affine)
        return [votes, walls]

    def _heart(self, path: Path, generated: bool) -> tuple[torch.Tensor, np.ndarray]:
        """(M, W) latents and the (4,) frame of a file; InputError where they are of another
        model."""
        content = (SET_SAMPLE if generated else SET_LATENTS).load(path)
        latents, shape = content["latents"], self.generator.statistics.shape
        if latents.shape != tuple(shape):
            fact = f"has latents of shape {latents.shape}, the model {tuple(shape)}"
            script = "sample_set_diffusion" if generated else "encode_set_latents"
            raise InputError(problem(path, fact, again(script)))
        return torch.from_numpy(latents), content["frame"]

    def _votes(self, latents: torch.Tensor, frame: np.ndarray) -> Votes:
        """Places at the bottom of the valleys."""
        generator, channel = self.generator, self.generator.table.channel(self.structure)
        to_unit, unit_mm = frame_of(frame).to_unit, float(np.exp(frame[3]))
        field = generator.decoder.field(latents[None].to(generator.decoder.device))
        cube = fine_cube(generator.grid.edge_mm, STEP_MM)

        def reaching(points: np.ndarray) -> np.ndarray:
            return field(points)[:, channel : channel + 1] - REACH_MM / unit_mm

        sampled = sample_field(reaching, (cube.size,) * 3, cube.affine, to_unit)
        index, distance = sampled.places_inside(0)
        if len(index) > MOST_PLACES:
            nearest = np.sort(np.argpartition(distance, MOST_PLACES)[:MOST_PLACES])
            index, distance = index[nearest], distance[nearest]
        return valleys(apply_affine(cube.affine, index), distance * unit_mm + REACH_MM)


def valleys(places: np.ndarray, distance: np.ndarray) -> Votes:
    """(N, 3) mm places of a field and their (N,) mm distances, led to where the field is least
    about them: a mean shift (Fukunaga and Hostetler 1975) that weighs by the distance. Radii are 1.
    """
    weights = np.exp(-distance / DEPTH_MM)
    moved, tree = places, cKDTree(places)
    for _ in range(ROUNDS if len(places) else 0):
        pairs = cKDTree(moved).sparse_distance_matrix(tree, 2 * WIDTH_MM, output_type="coo_matrix")
        weight = np.exp(-0.5 * (pairs.data / WIDTH_MM) ** 2) * weights[pairs.col]
        blend = coo_array((weight, (pairs.row, pairs.col)), shape=(len(places),) * 2).tocsr()
        moved = blend @ places / np.asarray(blend.sum(axis=1)).reshape(-1, 1)
    cells, cell = np.unique(np.floor(moved / CELL_MM), axis=0, return_inverse=True)
    total = np.bincount(cell, weights, len(cells))
    middles = [np.bincount(cell, weights * column, len(cells)) / total for column in moved.T]
    return Votes(np.stack(middles, axis=1), np.ones(len(cells)), total)


def check_samples_of(samples: Path, model: Path) -> None:
    """InputError where a metrics.json of sample_set_diffusion is of another model."""
    record = read_json(samples)
    if isinstance(record, dict) and record.get("model_sha256") not in (None, sha256_file(model)):
        fact = f"lists samples of another model than {model}"
        raise InputError(problem(samples, fact, "give the model that they are of"))


def without(table: LabelTable, structure: str) -> LabelTable:
    """The other classes."""
    return LabelTable(tuple(c for c in table if c.name != structure))


def walls_of(case: Case, table: LabelTable) -> Canvas:
    """The heart of a file of ``walls/``, the ``labels`` of a case.    table : without vessels."""
    found = load_label_map(case.labels)
    walls = HeartWalls(found.data, found.affine, table)
    return Canvas(walls, np.zeros(3), float(found.spacing[0]), found.data.shape[0])
